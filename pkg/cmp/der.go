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

// fault is the first thing found wrong with an input.
type fault struct{ field, section string }

func (f *fault) error() error {
	if f.field == "" {
		return nil
	}
	return &SyntaxError{Field: f.field, Section: f.section}
}

// parser reads strict DER from front to back. After the first fault, which it
// shares with the parsers of enclosed elements, it reads nothing more.
type parser struct {
	in      []byte
	section string
	path    string // of the enclosing field
	fault   *fault
}

func (p *parser) ok() bool { return p.fault.field == "" }

func (p *parser) more() bool { return p.ok() && len(p.in) > 0 }

// fail notes a fault in a field. One that begins with a dot lies in p.path;
// paths are only put together here, since few messages are wrong.
func (p *parser) fail(field string) {
	if p.ok() {
		if field[0] == '.' {
			field = p.path + field
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
func (p *parser) end(field string) { p.check(len(p.in) == 0, field) }

// child is a parser of p's enclosed element.
func (p *parser) child(content []byte) parser {
	return parser{in: content, section: p.section, path: p.path, fault: p.fault}
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

// peek tells whether the next element has a tag.
func (p *parser) peek(t tag.Tag) bool { return len(p.in) > 0 && p.in[0] == byte(t) }

// read takes off one element with the tag given.
func (p *parser) read(t tag.Tag, field string) (content, element []byte) {
	if p.ok() && p.peek(t) {
		if content, element, ok := split(p.in); ok {
			p.in = p.in[len(element):]
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
	if !p.ok() || !p.peek(t) {
		return parser{fault: p.fault}, false
	}
	return p.enter(t, field), true
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
	b := []byte(content.in)
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
	if known, ok := knownOIDs[string(raw)]; ok {
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
	t := time.Date(year, time.Month(v[0]), v[1], v[2], v[3], v[4], fraction, time.UTC)
	month, day := t.Month(), t.Day()
	valid := year >= 0 && int(month) == v[0] && day == v[1] && t.Hour() == v[2] && t.Minute() == v[3] && t.Second() == v[4]
	p.check(valid && fraction >= 0 && string(rest) == "Z", field)
	return t
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

// writer appends DER to a buffer. Lengths are patched in when an element is
// closed, so that nothing is measured twice.
type writer struct{ b []byte }

// open begins an element and returns the mark that close wants.
func (w *writer) open(t tag.Tag) int {
	w.b = append(w.b, byte(t), 0)
	return len(w.b)
}

func (w *writer) close(mark int) {
	n := len(w.b) - mark
	if n < 0x80 {
		w.b[mark-1] = byte(n)
		return
	}
	var length [5]byte
	i := len(length)
	for v := n; v > 0; v >>= 8 {
		i--
		length[i] = byte(v)
	}
	extra := len(length) - i
	w.b[mark-1] = 0x80 | byte(extra)
	w.b = append(w.b, length[i:]...)
	copy(w.b[mark+extra:], w.b[mark:mark+n])
	copy(w.b[mark:], length[i:])
}

func (w *writer) raw(der []byte) { w.b = append(w.b, der...) }

func (w *writer) primitive(t tag.Tag, content []byte) {
	m := w.open(t)
	w.raw(content)
	w.close(m)
}

func (w *writer) octets(content []byte) { w.primitive(tag.OCTET_STRING, content) }

func (w *writer) null() { w.b = append(w.b, byte(tag.NULL), 0) }

func (w *writer) bits(t tag.Tag, octets []byte) {
	m := w.open(t)
	w.b = append(w.b, 0)
	w.raw(octets)
	w.close(m)
}

func (w *writer) integer(n int64) {
	size := 1
	for v := n; v > 0x7f || v < -0x80; v >>= 8 {
		size++
	}
	m := w.open(tag.INTEGER)
	for size--; size >= 0; size-- {
		w.b = append(w.b, byte(n>>(8*size)))
	}
	w.close(m)
}

func (w *writer) bigInteger(t tag.Tag, n *big.Int) {
	m := w.open(t)
	switch {
	case n.Sign() >= 0:
		if n.BitLen()%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b = append(w.b, n.Bytes()...)
	default:
		size := new(big.Int).Not(n).BitLen()/8 + 1
		two := new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(size)*8))
		w.b = append(w.b, two.FillBytes(make([]byte, size))...)
	}
	w.close(m)
}

func (w *writer) boolean(v bool) {
	b := byte(0)
	if v {
		b = 0xff
	}
	w.b = append(w.b, byte(tag.BOOLEAN), 1, b)
}

func (w *writer) oid(oid asn1.ObjectIdentifier) {
	m := w.open(tag.OBJECT_IDENTIFIER)
	if len(oid) >= 2 {
		w.base128(oid[0]*40 + oid[1])
		for _, arc := range oid[2:] {
			w.base128(arc)
		}
	}
	w.close(m)
}

func (w *writer) base128(n int) {
	shift := 0
	for v := n >> 7; v > 0; v >>= 7 {
		shift += 7
	}
	for ; shift > 0; shift -= 7 {
		w.b = append(w.b, byte(n>>shift)&0x7f|0x80)
	}
	w.b = append(w.b, byte(n)&0x7f)
}

func (w *writer) utf8Strings(texts []string) {
	m := w.open(tag.SEQUENCE)
	for _, s := range texts {
		e := w.open(tag.UTF8String)
		w.b = append(w.b, s...)
		w.close(e)
	}
	w.close(m)
}

func (w *writer) generalizedTime(t time.Time) {
	m := w.open(tag.GeneralizedTime)
	w.b = t.UTC().AppendFormat(w.b, fractionalTime)
	w.close(m)
}

// time writes UTCTime through 2049 and GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5).
func (w *writer) time(t time.Time) {
	t = t.UTC()
	if !inUTCTime(t) {
		m := w.open(tag.GeneralizedTime)
		w.b = t.AppendFormat(w.b, generalizedTime)
		w.close(m)
		return
	}
	m := w.open(tag.UTCTime)
	w.b = t.AppendFormat(w.b, utcTime)
	w.close(m)
}
