package cmp

import (
	"encoding/asn1"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Values of pvno (RFC 9810 §7).
const (
	PVNO2 = 2 // cmp2000, RFC 4210
	PVNO3 = 3 // cmp2021, RFC 9480: needed for hashAlg in certConf and for EnvelopedData
)

const (
	sectionHeader    = "RFC 9810 §5.1.1"
	sectionAlgorithm = "RFC 5280 §4.1.1.2"
)

// Header is a PKIHeader (RFC 9810 §5.1.1). A nil slice, like a zero time, is an absent field.
type Header struct {
	PVNO          int64
	Sender        GeneralName
	Recipient     GeneralName
	MessageTime   time.Time
	ProtectionAlg AlgorithmIdentifier // absent where its Algorithm is nil
	SenderKID     []byte
	RecipKID      []byte
	TransactionID []byte
	SenderNonce   []byte
	RecipNonce    []byte
	FreeText      []string
	GeneralInfo   []InfoTypeAndValue
}

// AlgorithmIdentifier names an algorithm (RFC 5280 §4.1.1.2). Parameters is the
// DER of the parameters, nil where they are absent.
type AlgorithmIdentifier struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters []byte
}

// InfoTypeAndValue is an element of generalInfo, genm and genp (RFC 9810
// §5.1.1, §5.3.19). Value is DER, nil where it is absent.
type InfoTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value []byte
}

// Info finds the first element of generalInfo of a type.
func (h *Header) Info(infoType asn1.ObjectIdentifier) (value []byte, ok bool) {
	for i := range h.GeneralInfo {
		if h.GeneralInfo[i].Type.Equal(infoType) {
			return h.GeneralInfo[i].Value, true
		}
	}
	return nil, false
}

// parse reads the fields of a PKIHeader.
func (h *Header) parse(p parser) {
	h.PVNO = p.integer("header.pvno")
	h.Sender = p.generalName("header.sender")
	h.Recipient = p.generalName("header.recipient")
	if q, ok := p.optional(explicit(0), "header.messageTime"); ok {
		h.MessageTime = q.generalizedTime("header.messageTime")
		q.end("header.messageTime")
	}
	if q, ok := p.optional(explicit(1), "header.protectionAlg"); ok {
		h.ProtectionAlg = q.algorithm("header.protectionAlg")
		q.end("header.protectionAlg")
	}
	h.SenderKID = p.taggedOctets(2, "header.senderKID")
	h.RecipKID = p.taggedOctets(3, "header.recipKID")
	h.TransactionID = p.taggedOctets(4, "header.transactionID")
	h.SenderNonce = p.taggedOctets(5, "header.senderNonce")
	h.RecipNonce = p.taggedOctets(6, "header.recipNonce")
	if q, ok := p.optional(explicit(7), "header.freeText"); ok {
		h.FreeText = q.utf8Strings("header.freeText")
		q.end("header.freeText")
	}
	if q, ok := p.optional(explicit(8), "header.generalInfo"); ok {
		h.GeneralInfo = q.infos("header.generalInfo", 1)
		q.end("header.generalInfo")
	}
	p.end("header")
}

func (w *writer) header(h *Header) {
	m := w.open(tag.SEQUENCE)
	w.integer(h.PVNO)
	w.generalName(h.Sender)
	w.generalName(h.Recipient)
	if !h.MessageTime.IsZero() {
		e := w.open(explicit(0))
		w.generalizedTime(h.MessageTime)
		w.close(e)
	}
	if h.ProtectionAlg.Algorithm != nil {
		e := w.open(explicit(1))
		w.algorithm(h.ProtectionAlg)
		w.close(e)
	}
	w.taggedOctets(2, h.SenderKID)
	w.taggedOctets(3, h.RecipKID)
	w.taggedOctets(4, h.TransactionID)
	w.taggedOctets(5, h.SenderNonce)
	w.taggedOctets(6, h.RecipNonce)
	if h.FreeText != nil {
		e := w.open(explicit(7))
		w.utf8Strings(h.FreeText)
		w.close(e)
	}
	if h.GeneralInfo != nil {
		e := w.open(explicit(8))
		w.infos(h.GeneralInfo)
		w.close(e)
	}
	w.close(m)
}

// taggedOctets reads an optional [n] EXPLICIT OCTET STRING.
func (p *parser) taggedOctets(n uint8, field string) []byte {
	if !p.peek(explicit(n)) {
		return nil
	}
	// nearly always both lengths have one octet: one look is enough then
	if in := p.in; len(in) >= 4 && in[1] < 0x80 && in[2] == byte(tag.OCTET_STRING) && in[3]+2 == in[1] {
		if end := int(in[1]) + 2; end <= len(in) {
			p.in = in[end:]
			return in[4:end:end]
		}
	}
	q, ok := p.optional(explicit(n), field)
	if !ok {
		return nil
	}
	b := q.octets(field, MaxNonceBytes)
	q.end(field)
	return b
}

func (w *writer) taggedOctets(n uint8, b []byte) {
	if b == nil {
		return
	}
	if len(b) < 0x7e {
		w.b = append(append(w.b, byte(explicit(n)), byte(len(b)+2), byte(tag.OCTET_STRING), byte(len(b))), b...)
		return
	}
	m := w.open(explicit(n))
	w.octets(b)
	w.close(m)
}

func (p *parser) algorithm(field string) AlgorithmIdentifier {
	if a, ok := p.knownAlgorithm(); ok {
		return a
	}
	q := p.sequence(field)
	return q.algorithmFields(field)
}

// knownAlgorithm reads an AlgorithmIdentifier of an OID that is in the table
// with short or no parameters; it reads nothing if this is not one.
func (p *parser) knownAlgorithm() (a AlgorithmIdentifier, ok bool) {
	start, end := next(p.in, 0, tag.SEQUENCE)
	_, oidEnd := next(p.in[:end], start, tag.OBJECT_IDENTIFIER)
	if oidEnd == 0 {
		return a, false
	}
	if a.Algorithm = knownOIDs.find(p.in[start:oidEnd]); a.Algorithm == nil {
		return a, false
	}
	if oidEnd < end {
		_, element, ok := split(p.in[oidEnd:end])
		if !ok || oidEnd+len(element) != end {
			return a, false
		}
		a.Parameters = element
	}
	p.in = p.in[end:]
	return a, true
}

func (p *parser) algorithmFields(field string) AlgorithmIdentifier {
	p.section = sectionAlgorithm
	a := AlgorithmIdentifier{Algorithm: p.oid(field)}
	if p.more() {
		a.Parameters = p.element(field)
	}
	p.end(field)
	return a
}

func (w *writer) algorithm(a AlgorithmIdentifier) {
	m := w.open(tag.SEQUENCE)
	w.algorithmFields(a)
	w.close(m)
}

func (w *writer) algorithmFields(a AlgorithmIdentifier) {
	w.oid(a.Algorithm)
	w.raw(a.Parameters)
}

// infos reads SEQUENCE OF InfoTypeAndValue with at least least elements.
func (p *parser) infos(field string, least int) []InfoTypeAndValue {
	list := p.sequence(field)
	out := p.fault.room.infoList()
	for list.more() {
		q := list.sequence(field)
		itv := InfoTypeAndValue{Type: q.oid(field)}
		if q.more() {
			itv.Value = q.element(field)
		}
		q.end(field)
		out = append(out, itv)
		list.check(len(out) <= MaxEntries, field)
	}
	list.check(len(out) >= least, field)
	return out
}

func (w *writer) infos(list []InfoTypeAndValue) {
	m := w.open(tag.SEQUENCE)
	for i := range list {
		e := w.open(tag.SEQUENCE)
		w.oid(list[i].Type)
		w.raw(list[i].Value)
		w.close(e)
	}
	w.close(m)
}
