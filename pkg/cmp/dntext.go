package cmp

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// String is n in the notation of RFC 4514, such that [ParseName] reads an equal name.
// Types are written by the names it knows, or as OIDs, and values that it would refuse as
// text, such as a C of one character, as # and hexadecimal DER; the NULL-DN is a slash.
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
		kind := a.kind()
		texts[i] = kind.short + "=" + a.value4514(kind)
	}
	return strings.Join(texts, "+")
}

// kind is the type of a.
func (a ava) kind() attribute {
	p := newParser([]byte(a.oid), inName)
	oid := p.oid("type")
	for _, known := range attributes {
		if known.oid.Equal(oid) {
			return known
		}
	}
	return attribute{short: oid.String(), oid: oid}
}

// value4514 is the value of a, which is of that kind, as RFC 4514 §2.4 writes it.
func (a ava) value4514(kind attribute) string {
	text, ok := a.text()
	if !ok || kind.check(text) != nil {
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
