package cmp

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// String is n in the notation of RFC 4514. Types are written by the names
// [ParseName] knows, or as OIDs; the NULL-DN is a slash.
func (n Name) String() string {
	if n == nil {
		return ""
	}
	rdns, ok := n.rdns()
	if !ok {
		return "#" + hex.EncodeToString(n[:min(len(n), MaxTextBytes)])
	}
	if len(rdns) == 0 {
		return "/"
	}
	slices.Reverse(rdns)
	texts := make([]string, len(rdns))
	for i, rdn := range rdns {
		texts[i] = rdnText(rdn)
	}
	return strings.Join(texts, ",")
}

func rdnText(rdn []ava) string {
	texts := make([]string, len(rdn))
	for i, a := range rdn {
		texts[i] = a.kind() + "=" + a.value4514()
	}
	return strings.Join(texts, "+")
}

func (a ava) kind() string {
	p := newParser([]byte(a.oid), inName)
	oid := p.oid("type")
	for _, known := range attributes {
		if known.oid.Equal(oid) {
			return known.short
		}
	}
	return oid.String()
}

// value4514 is the value of a as RFC 4514 §2.4 writes it.
func (a ava) value4514() string {
	text, ok := a.text()
	if !ok || text == "" {
		var w writer
		w.primitive(a.tag, a.content)
		return "#" + hex.EncodeToString(w.b)
	}
	var b strings.Builder
	for i, r := range text {
		last := i+utf8.RuneLen(r) == len(text)
		switch {
		case visible(r) != r:
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, `\%02x`, c)
			}
		case strings.ContainsRune(`"+,;<>\`, r), r == '#' && i == 0, r == ' ' && (i == 0 || last):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
