package cmp

import (
	"encoding/asn1"
	"math/big"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

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
	if len(content) < 0x80 {
		w.b = append(append(w.b, byte(t), byte(len(content))), content...)
		return
	}
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

func (w *writer) integer(n int64) { w.integerAs(tag.INTEGER, n) }

func (w *writer) integerAs(t tag.Tag, n int64) {
	size := 1
	for v := n; v > 0x7f || v < -0x80; v >>= 8 {
		size++
	}
	m := w.open(t)
	for size--; size >= 0; size-- {
		w.b = append(w.b, byte(n>>(8*size)))
	}
	w.close(m)
}

func (w *writer) bigInteger(t tag.Tag, n *big.Int) {
	bits, negative := n.BitLen(), n.Sign() < 0
	if negative && int(n.TrailingZeroBits()) == bits-1 {
		bits-- // -128 has eight bits, 128 has nine
	}
	m := w.open(t)
	w.b = append(w.b, make([]byte, bits/8+1)...)
	octets := n.FillBytes(w.b[m:])
	if negative {
		complement(octets)
	}
	w.close(m)
}

// complement makes a number that is not zero its negative, in two's complement.
func complement(b []byte) {
	i := len(b) - 1
	for b[i] == 0 {
		i--
	}
	b[i] = -b[i]
	for i--; i >= 0; i-- {
		b[i] = ^b[i]
	}
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
			if arc < 0x80 {
				w.b = append(w.b, byte(arc))
				continue
			}
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
	t = t.UTC()
	if year, month, day := t.Date(); t.Nanosecond() == 0 && year >= 0 && year <= 9999 {
		hour, minute, second := t.Clock()
		w.digits(year/100, year%100, int(month), day, hour, minute, second)
		w.b = append(w.b, 'Z')
	} else {
		w.b = t.AppendFormat(w.b, fractionalTime)
	}
	w.close(m)
}

// digits writes numbers of two decimal digits each.
func (w *writer) digits(pairs ...int) {
	for _, n := range pairs {
		w.b = append(w.b, '0'+byte(n/10), '0'+byte(n%10))
	}
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
