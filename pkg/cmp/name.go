package cmp

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const sectionName = "RFC 5280 §4.1.2.4"

// Name is the DER of a distinguished name (RFC 5280 §4.1.2.4). Nil means no
// name; [NullDN] is the name without any RDN.
type Name []byte

// NullDN returns the distinguished name without RDNs.
func NullDN() Name { return Name{0x30, 0x00} }

// NameOf encodes a name of crypto/x509/pkix.
func NameOf(name pkix.Name) (Name, error) {
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		return nil, fmt.Errorf("encoding a distinguished name: %w", err)
	}
	return der, nil
}

// Empty tells whether n has no RDN.
func (n Name) Empty() bool { return len(n) <= 2 }

// name reads a Name and checks its structure.
func (p *parser) name(field string) Name {
	start := p.at
	name := p.enter(tag.SEQUENCE, field)
	p.section = inName
	for n := 0; p.more(); n++ {
		p.check(n < MaxNameRDNs, field)
		if size := plainRDN(p.left()); size > 0 {
			p.at += size
		} else {
			p.rdn(field)
		}
	}
	p.leave(name, field)
	return Name(p.der[start:p.at:p.at])
}

// rdn checks a RelativeDistinguishedName.
func (p *parser) rdn(field string) {
	set := p.enter(tag.SET, field)
	p.check(p.more(), field)
	for p.more() {
		ava := p.enter(tag.SEQUENCE, field)
		p.tagged(tag.OBJECT_IDENTIFIER, field)
		p.element(field)
		p.leave(ava, field)
	}
	p.leave(set, field)
}

// plainRDN is the size of the RDN that b begins with, if it is like most: one
// attribute, and no length of more than one octet. 0 says nothing.
func plainRDN(b []byte) int {
	if len(b) < 8 || b[0] != byte(tag.SET) || b[2] != byte(tag.SEQUENCE) || b[4] != byte(tag.OBJECT_IDENTIFIER) {
		return 0
	}
	size, value := int(b[1])+2, int(b[5])+6
	if b[1] >= 0x80 || size > len(b) || int(b[3])+4 != size || value+2 > size || b[value]&0x1f == 0x1f || int(b[value+1])+value+2 != size {
		return 0
	}
	return size
}

// GeneralName is the DER of a GeneralName, tag included (RFC 5280 §4.2.1.6).
type GeneralName []byte

// DirectoryName is the GeneralName of a distinguished name, the only kind CMP
// headers are to have here (RFC 9483 §3.1); without a name it is the NULL-DN.
func DirectoryName(n Name) GeneralName {
	if n == nil {
		n = NullDN()
	}
	var w writer
	m := w.open(explicit(4))
	w.raw(n)
	w.close(m)
	return w.b
}

// Name is the distinguished name in g, if g is a directoryName.
func (g GeneralName) Name() (Name, bool) {
	p := newParser(g, inName)
	name := p.content(explicit(4), "directoryName")
	return name, p.ok()
}

// generalName reads a GeneralName; the content of kinds other than directoryName is not looked at.
func (p *parser) generalName(field string) GeneralName {
	start := p.at
	if e, ok := p.optional(explicit(4), field); ok {
		p.name(field)
		p.leave(e, field)
		return GeneralName(p.der[start:p.at:p.at])
	}
	p.check(p.more() && p.der[p.at]&0xc0 == 0x80 && p.der[p.at]&0x1f <= 8, field)
	return GeneralName(p.element(field))
}

func (w *writer) generalName(g GeneralName) {
	if g == nil {
		g = GeneralName{0xa4, 0x02, 0x30, 0x00}
	}
	w.raw(g)
}

// ava is one attribute of a Name: the DER of its type, and its value.
type ava struct {
	oid     string
	tag     tag.Tag
	content []byte
}

// rdns takes a Name apart; ok is false if it is not one.
func (n Name) rdns() (rdns [][]ava, ok bool) {
	p := newParser(n, inName)
	name := p.enter(tag.SEQUENCE, "name")
	for p.more() {
		set := p.enter(tag.SET, "rdn")
		var rdn []ava
		for p.more() {
			rdn = append(rdn, p.ava())
		}
		p.leave(set, "rdn")
		rdns = append(rdns, rdn)
	}
	p.leave(name, "name")
	p.done("name")
	return rdns, p.ok()
}

func (p *parser) ava() ava {
	outer := p.enter(tag.SEQUENCE, "ava")
	a := ava{oid: string(p.tagged(tag.OBJECT_IDENTIFIER, "type"))}
	a.tag = p.anyTag("value")
	a.content = p.content(a.tag, "value")
	p.leave(outer, "ava")
	return a
}

// Equal compares distinguished names as RFC 5280 §7.1 wants it: attributes in
// any order within an RDN, text regardless of its string type, of case and of
// the amount of white space.
func (n Name) Equal(other Name) bool {
	if bytes.Equal(n, other) {
		return true
	}
	a, aOK := n.rdns()
	b, bOK := other.rdns()
	return aOK && bOK && slices.EqualFunc(a, b, equalRDN)
}

func equalRDN(a, b []ava) bool {
	return slices.Equal(normalRDN(a), normalRDN(b))
}

// normalRDN gives the attributes of an RDN in a form and an order fit for comparison.
func normalRDN(rdn []ava) []string {
	out := make([]string, len(rdn))
	for i, a := range rdn {
		out[i] = a.oid + a.normal()
	}
	slices.Sort(out)
	return out
}

// normal is the value of a, text folded, anything else with its tag.
func (a ava) normal() string {
	text, ok := a.text()
	if !ok {
		return "\x00" + string([]byte{byte(a.tag)}) + string(a.content)
	}
	return "\x01" + strings.Join(strings.Fields(strings.ToLower(text)), " ")
}

const (
	tagNumericString   = tag.Tag(18)
	tagVisibleString   = tag.Tag(26)
	tagUniversalString = tag.Tag(28)
	tagBMPString       = tag.Tag(30)
)

// text is the value of a as UTF-8, if it is of a string type.
func (a ava) text() (string, bool) {
	switch a.tag {
	case tag.UTF8String, tag.PrintableString, tag.IA5String, tagNumericString, tagVisibleString:
		return string(a.content), utf8.Valid(a.content)
	case tag.T61String: // as everybody reads it: Latin-1
		runes := make([]rune, len(a.content))
		for i, b := range a.content {
			runes[i] = rune(b)
		}
		return string(runes), true
	case tagBMPString:
		units := make([]uint16, len(a.content)/2)
		for i := range units {
			units[i] = uint16(a.content[2*i])<<8 | uint16(a.content[2*i+1])
		}
		return string(utf16.Decode(units)), len(a.content)%2 == 0
	case tagUniversalString:
		runes := make([]rune, len(a.content)/4)
		for i := range runes {
			b := a.content[4*i:]
			runes[i] = rune(b[0])<<24 | rune(b[1])<<16 | rune(b[2])<<8 | rune(b[3])
		}
		return string(runes), len(a.content)%4 == 0
	}
	return "", false
}
