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

// fault is the first thing found wrong with an input: a field, and the section
// that says what it should be.
type fault struct {
	field   string
	section section
}

// parser reads strict DER from front to back. It is one cursor for all of an
// input: enter narrows what is left to the content of an element, and leave
// widens it again. After the first fault nothing is left.
type parser struct {
	der     []byte
	at, end int // der[at:end] is left of the element entered last
	section section

	fault fault
	path  string // of the enclosing field, for fields that begin with a dot
	room  room
}

func newParser(der []byte, section section) parser {
	return parser{der: der, end: len(der), section: section}
}

// err is the fault as a [SyntaxError].
func (p *parser) err() error {
	if p.ok() {
		return nil
	}
	return &SyntaxError{Field: p.fault.field, Section: p.fault.section.String()}
}

func (p *parser) ok() bool { return p.fault.field == "" }

func (p *parser) more() bool { return p.at < p.end }

// fail notes a fault in a field. Paths are only put together here, since few
// messages are wrong.
func (p *parser) fail(field string) {
	if p.ok() {
		if field[0] == '.' {
			field = p.path + field
		}
		p.fault = fault{field, p.section}
	}
	p.at, p.end = len(p.der), len(p.der)
}

func (p *parser) check(valid bool, field string) {
	if !valid {
		p.fail(field)
	}
}

// done complains about anything left over.
func (p *parser) done(field string) {
	if p.at != p.end {
		p.fail(field)
	}
}

// header reads the tag, which must be t, and the length of an element, and gives
// the place where its content ends. Most elements are short.
func (p *parser) header(t tag.Tag, field string) (end int) {
	if in := p.der[p.at:max(p.at, p.end)]; len(in) >= 2 && in[0] == byte(t) {
		if n := int(in[1]) + 2; n < 0x82 && n <= len(in) {
			p.at += 2
			return p.at + n - 2
		}
		if size, n := longLength(in[1:]); size > 0 {
			p.at += 1 + size
			return p.at + n
		}
	}
	p.fail(field)
	return p.end
}

// longLength reads a length of several octets: definite and in its shortest form
// (X.690 §10.1), with as many octets after it. Its size is 0 if it is not that.
func longLength(in []byte) (size, n int) {
	size = int(in[0]) - 0x80 + 1
	if size < 2 || size > 5 || len(in) < size || in[1] == 0 {
		return 0, 0
	}
	for _, c := range in[1:size] {
		n = n<<8 | int(c)
	}
	if n < 0x80 || n > len(in)-size {
		return 0, 0
	}
	return size, n
}

// around is what encloses an element that has been entered.
type around struct {
	end     int
	section section
}

// enter begins to read the content of an element with the tag given.
func (p *parser) enter(t tag.Tag, field string) around {
	outer := around{p.end, p.section}
	p.end = p.header(t, field)
	return outer
}

// leave goes back to what is around an element, which must have been read to its end.
func (p *parser) leave(outer around, field string) {
	p.done(field)
	p.end, p.section = outer.end, outer.section
}

// enterAt enters a SEQUENCE that another section defines.
func (p *parser) enterAt(section section, field string) around {
	outer := p.enter(tag.SEQUENCE, field)
	p.section = section
	return outer
}

// optional enters an element if it is there.
func (p *parser) optional(t tag.Tag, field string) (outer around, ok bool) {
	if !p.peek(t) {
		return outer, false
	}
	return p.enter(t, field), true
}

// peek tells whether the next element has a tag.
func (p *parser) peek(t tag.Tag) bool { return p.at < p.end && p.der[p.at] == byte(t) }

// left is what is left of the element entered last.
func (p *parser) left() []byte { return p.der[p.at:max(p.at, p.end)] }

// content reads one element with the tag given, without its header.
func (p *parser) content(t tag.Tag, field string) []byte {
	end := p.header(t, field)
	b := p.der[p.at:end:end]
	p.at = end
	return b
}

// tagged reads one element with the tag given, header included.
func (p *parser) tagged(t tag.Tag, field string) []byte {
	start := p.at
	p.at = p.header(t, field)
	return p.der[start:p.at:p.at]
}

// element reads one element of any tag, header included. It does not look inside.
func (p *parser) element(field string) []byte {
	return p.tagged(p.anyTag(field), field)
}

// anyTag is the tag of the next element, which must be there. It has one octet:
// nothing in CMP has a longer one.
func (p *parser) anyTag(field string) tag.Tag {
	if !p.more() || p.der[p.at]&0x1f == 0x1f {
		p.fail(field)
		return 0
	}
	return tag.Tag(p.der[p.at])
}

func (p *parser) integer(field string) int64 {
	b := p.content(tag.INTEGER, field)
	if len(b) == 1 {
		return int64(int8(b[0]))
	}
	if len(b) == 0 || len(b) > 8 || !minimalInteger(b) {
		p.fail(field)
		return 0
	}
	n := int64(int8(b[0]))
	for _, c := range b[1:] {
		n = n<<8 | int64(c)
	}
	return n
}

func (p *parser) bigInteger(t tag.Tag, field string) *big.Int {
	b := p.content(t, field)
	if len(b) == 0 || len(b) > MaxNonceBytes || !minimalInteger(b) {
		p.fail(field)
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

// octets is not nil, so that an empty string can be told from none.
func (p *parser) octets(field string, limit int) []byte {
	b := p.content(tag.OCTET_STRING, field)
	p.check(len(b) <= limit, field)
	return b
}

// bits reads a BIT STRING of whole octets.
func (p *parser) bits(t tag.Tag, field string) []byte {
	b := p.content(t, field)
	if len(b) == 0 || b[0] != 0 {
		p.fail(field)
		return nil
	}
	return b[1:]
}

func (p *parser) null(field string) {
	p.check(len(p.content(tag.NULL, field)) == 0, field)
}

func (p *parser) boolean(field string) bool {
	b := p.content(tag.BOOLEAN, field)
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
	list := p.enter(tag.SEQUENCE, field)
	p.check(p.more(), field)
	var out []string
	for p.more() {
		out = append(out, string(p.content(tag.UTF8String, field)))
		p.check(len(out) <= MaxEntries, field)
	}
	p.leave(list, field)
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
	year, rest := digits(p.content(tag.GeneralizedTime, field), 4)
	return p.timeFrom(year, rest, field)
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
	if p.peek(tag.UTCTime) {
		text := p.content(tag.UTCTime, field)
		year, rest := digits(text, 2)
		if year >= 0 && year < 50 {
			year += 100
		}
		p.check(year >= 0 && len(text) == len(utcTime), field)
		return p.timeFrom(1900+year, rest, field)
	}
	t := p.generalizedTime(field)
	p.check(!inUTCTime(t) && t.Nanosecond() == 0, field)
	return t
}

// inUTCTime tells whether RFC 5280 wants t as a UTCTime.
func inUTCTime(t time.Time) bool { return t.Year() >= 1950 && t.Year() < 2050 }
