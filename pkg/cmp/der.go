package cmp

import (
	"encoding/asn1"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// explicit is the context-specific constructed tag [n].
func explicit(n uint8) tag.Tag { return tag.Tag(n).ContextSpecific().Constructed() }

// implicit is the context-specific primitive tag [n].
func implicit(n uint8) tag.Tag { return tag.Tag(n).ContextSpecific() }

// fault is the first thing found wrong with an input. All parsers of the input share it.
type fault struct {
	field, section string
	path           string // of the enclosing field, for fields that begin with a dot
	room           *room  // for what is found; nil: there is none
}

func (f *fault) error() error {
	if f.field == "" {
		return nil
	}
	return &SyntaxError{Field: f.field, Section: f.section}
}

// parser reads strict DER from front to back. After the first fault it reads
// nothing more.
type parser struct {
	in      []byte
	section string
	fault   *fault
}

func (p *parser) ok() bool { return p.fault.field == "" }

func (p *parser) more() bool { return len(p.in) > 0 && p.ok() }

// fail notes a fault in a field. Paths are only put together here, since few
// messages are wrong.
func (p *parser) fail(field string) {
	if p.ok() {
		if field[0] == '.' {
			field = p.fault.path + field
		}
		p.fault.field, p.fault.section = field, p.section
	}
	p.in = nil
}

func (p *parser) check(valid bool, field string) {
	if !valid {
		p.fail(field)
	}
}

// end complains about anything left over.
func (p *parser) end(field string) {
	if len(p.in) != 0 {
		p.fail(field)
	}
}

// child is a parser of p's enclosed element.
func (p *parser) child(content []byte) parser {
	return parser{in: content, section: p.section, fault: p.fault}
}

// split takes the first element off b: low tag numbers only, and a definite
// length in its shortest form (X.690 §10.1).
func split(b []byte) (content, element []byte, ok bool) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return nil, nil, false
	}
	length, header := int(b[1]), 2
	if length >= 0x80 {
		size := length - 0x80
		if size == 0 || size > 4 || len(b) < header+size || b[header] == 0 {
			return nil, nil, false
		}
		length = 0
		for _, c := range b[header : header+size] {
			length = length<<8 | int(c)
		}
		if length < 0x80 {
			return nil, nil, false
		}
		header += size
	}
	if length > len(b)-header {
		return nil, nil, false
	}
	end := header + length
	return b[header:end:end], b[:end:end], true
}

// next finds an element with the tag given at a place in b, if it is short: where
// its content begins, and where it ends. The end is 0 if it is anything else.
func next(b []byte, at int, t tag.Tag) (content, end int) {
	if at+2 > len(b) || b[at] != byte(t) || b[at+1] >= 0x80 {
		return 0, 0
	}
	content = at + 2
	end = content + int(b[at+1])
	if end > len(b) {
		return 0, 0
	}
	return content, end
}

// peek tells whether the next element has a tag.
func (p *parser) peek(t tag.Tag) bool { return len(p.in) > 0 && p.in[0] == byte(t) }

// read takes off one element with the tag given. Most are short, so that they
// are read here; split reads the others.
func (p *parser) read(t tag.Tag, field string) (content, element []byte) {
	if in := p.in; len(in) >= 2 && in[0] == byte(t) {
		if n := int(in[1]) + 2; n < 0x82 && n <= len(in) {
			p.in = in[n:]
			return in[2:n:n], in[:n:n]
		}
		if content, element, ok := split(in); ok {
			p.in = in[len(element):]
			return content, element
		}
	}
	p.fail(field)
	return nil, nil
}

// enter reads one element and returns a parser of its content.
func (p *parser) enter(t tag.Tag, field string) parser {
	content, _ := p.read(t, field)
	return p.child(content)
}

func (p *parser) sequence(field string) parser { return p.enter(tag.SEQUENCE, field) }

// sequenceAt enters a SEQUENCE that another section defines.
func (p *parser) sequenceAt(section, field string) parser {
	q := p.sequence(field)
	q.section = section
	return q
}

// optional enters an element if it is there.
func (p *parser) optional(t tag.Tag, field string) (parser, bool) {
	if !p.peek(t) {
		return parser{fault: p.fault}, false
	}
	return p.enter(t, field), true
}

// open enters one element and gives it as a whole, too.
func (p *parser) open(t tag.Tag, field string) (inner parser, element []byte) {
	content, element := p.read(t, field)
	return p.child(content), element
}

// element reads one element of any tag, header included. It does not look inside.
func (p *parser) element(field string) []byte {
	if len(p.in) == 0 {
		p.fail(field)
		return nil
	}
	return p.tagged(tag.Tag(p.in[0]), field)
}

// tagged reads one element with the tag given, header included.
func (p *parser) tagged(t tag.Tag, field string) []byte {
	_, element := p.read(t, field)
	return element
}

func (p *parser) integer(field string) int64 {
	b, _ := p.read(tag.INTEGER, field)
	p.check(len(b) > 0 && len(b) <= 8 && minimalInteger(b), field)
	if !p.ok() {
		return 0
	}
	n := int64(int8(b[0]))
	for _, c := range b[1:] {
		n = n<<8 | int64(c)
	}
	return n
}

func (p *parser) bigInteger(t tag.Tag, field string) *big.Int {
	content := p.enter(t, field)
	b := content.in
	p.check(len(b) > 0 && len(b) <= MaxNonceBytes && minimalInteger(b), field)
	if !p.ok() {
		return nil
	}
	n := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8))
	}
	return n
}

func minimalInteger(b []byte) bool {
	return len(b) < 2 || (b[0] != 0 || b[1]&0x80 != 0) && (b[0] != 0xff || b[1]&0x80 == 0)
}

func (p *parser) octets(field string, limit int) []byte {
	content := p.enter(tag.OCTET_STRING, field)
	p.check(len(content.in) <= limit, field)
	if len(content.in) == 0 {
		return []byte{} // present, and empty
	}
	return content.in
}

// bits reads a BIT STRING of whole octets.
func (p *parser) bits(field string) []byte {
	content := p.enter(tag.BIT_STRING, field)
	return content.wholeOctets(field)
}

func (p *parser) wholeOctets(field string) []byte {
	p.check(len(p.in) > 0 && p.in[0] == 0, field)
	if !p.ok() {
		return nil
	}
	return p.in[1:]
}

func (p *parser) null(field string) {
	content := p.enter(tag.NULL, field)
	content.end(field)
}

func (p *parser) boolean(field string) bool {
	b, _ := p.read(tag.BOOLEAN, field)
	p.check(len(b) == 1 && (b[0] == 0 || b[0] == 0xff), field)
	return p.ok() && b[0] == 0xff
}

func (p *parser) oid(field string) asn1.ObjectIdentifier {
	raw := p.tagged(tag.OBJECT_IDENTIFIER, field)
	if known := knownOIDs.find(raw); known != nil {
		return known
	}
	var oid asn1.ObjectIdentifier
	in := cryptobyte.String(raw)
	p.check(p.ok() && in.ReadASN1ObjectIdentifier(&oid), field)
	return oid
}

// utf8Strings reads SEQUENCE SIZE (1..MAX) OF UTF8String (PKIFreeText).
func (p *parser) utf8Strings(field string) []string {
	list := p.sequence(field)
	list.check(len(list.in) > 0, field)
	var out []string
	for list.more() {
		s := list.enter(tag.UTF8String, field)
		out = append(out, string(s.in))
		list.check(len(out) <= MaxEntries, field)
	}
	return out
}

// DER has one form for a GeneralizedTime: seconds always, a fraction only where
// it is not zero and then without trailing zeros, and Z (X.690 §11.7).
const (
	generalizedTime = "20060102150405Z"
	fractionalTime  = "20060102150405.999999999Z"
	utcTime         = "060102150405Z"
)

func (p *parser) generalizedTime(field string) time.Time {
	content := p.enter(tag.GeneralizedTime, field)
	year, rest := digits(content.in, 4)
	return content.timeFrom(year, rest, field)
}

// digits reads n decimal digits; -1 stands for anything else.
func digits(b []byte, n int) (value int, rest []byte) {
	if len(b) < n {
		return -1, nil
	}
	for _, c := range b[:n] {
		if c < '0' || c > '9' {
			return -1, nil
		}
		value = value*10 + int(c-'0')
	}
	return value, b[n:]
}

// timeFrom reads what follows the year: MMDDhhmmss, a fraction, Z.
func (p *parser) timeFrom(year int, rest []byte, field string) time.Time {
	var v [5]int
	for i := range v {
		v[i], rest = digits(rest, 2)
	}
	fraction, rest := fraction(rest)
	month, day, hour, minute, second := v[0], v[1], v[2], v[3], v[4]
	valid := year >= 0 && month >= 1 && month <= 12 && day >= 1 && day <= daysIn(month, year) &&
		hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 60
	if !valid || fraction < 0 || len(rest) != 1 || rest[0] != 'Z' {
		p.fail(field)
		return time.Time{}
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, fraction, time.UTC)
}

// daysIn is the number of days in a month of a year.
func daysIn(month, year int) int {
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		return 29
	}
	return int("\x1f\x1c\x1f\x1e\x1f\x1e\x1f\x1f\x1e\x1f\x1e\x1f"[month-1])
}

// fraction reads a fraction of a second, to the nanosecond, without trailing
// zeros; -1 stands for a wrong one.
func fraction(b []byte) (nanoseconds int, rest []byte) {
	if len(b) == 0 || b[0] != '.' {
		return 0, b
	}
	n := 1
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	if n == 1 || n > 10 || b[n-1] == '0' {
		return -1, nil
	}
	nanoseconds, _ = digits(b[1:], n-1)
	for range 10 - n {
		nanoseconds *= 10
	}
	return nanoseconds, b[n:]
}

// time reads the CHOICE of UTCTime and GeneralizedTime (RFC 5280 §4.1.2.5).
func (p *parser) time(field string) time.Time {
	if content, ok := p.optional(tag.UTCTime, field); ok {
		year, rest := digits(content.in, 2)
		if year >= 0 && year < 50 {
			year += 100
		}
		content.check(year >= 0 && len(content.in) == len(utcTime), field)
		return content.timeFrom(1900+year, rest, field)
	}
	t := p.generalizedTime(field)
	p.check(!inUTCTime(t) && t.Nanosecond() == 0, field)
	return t
}

// inUTCTime tells whether RFC 5280 wants t as a UTCTime.
func inUTCTime(t time.Time) bool { return t.Year() >= 1950 && t.Year() < 2050 }
