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
	sectionHeader      = "RFC 9810 §5.1.1"
	sectionConfirmWait = "RFC 9810 §5.1.1.2"
	sectionAlgorithm   = "RFC 5280 §4.1.1.2"
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
func (h *Header) parse(p *parser) {
	header := p.enterAt(inHeader, "header")
	h.PVNO = p.integer("header.pvno")
	h.Sender = p.generalName("header.sender")
	h.Recipient = p.generalName("header.recipient")
	if e, ok := p.optional(explicit(0), "header.messageTime"); ok {
		h.MessageTime = p.generalizedTime("header.messageTime")
		p.leave(e, "header.messageTime")
	}
	if e, ok := p.optional(explicit(1), "header.protectionAlg"); ok {
		h.ProtectionAlg = p.algorithm("header.protectionAlg")
		p.leave(e, "header.protectionAlg")
	}
	p.taggedOctets(2, &h.SenderKID, "header.senderKID")
	p.taggedOctets(3, &h.RecipKID, "header.recipKID")
	p.taggedOctets(4, &h.TransactionID, "header.transactionID")
	p.taggedOctets(5, &h.SenderNonce, "header.senderNonce")
	p.taggedOctets(6, &h.RecipNonce, "header.recipNonce")
	if e, ok := p.optional(explicit(7), "header.freeText"); ok {
		h.FreeText = p.utf8Strings("header.freeText")
		p.leave(e, "header.freeText")
	}
	if e, ok := p.optional(explicit(8), "header.generalInfo"); ok {
		h.GeneralInfo = p.infos("header.generalInfo", 1)
		p.leave(e, "header.generalInfo")
	}
	p.leave(header, "header")
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

// taggedOctets reads an [n] EXPLICIT OCTET STRING, if it is there.
func (p *parser) taggedOctets(n uint8, out *[]byte, field string) {
	if e, ok := p.optional(explicit(n), field); ok {
		*out = p.octets(field, MaxNonceBytes)
		p.leave(e, field)
	}
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
	outer := p.enter(tag.SEQUENCE, field)
	a := p.algorithmFields(field)
	p.leave(outer, field)
	return a
}

func (p *parser) algorithmFields(field string) AlgorithmIdentifier {
	p.section = inAlgorithm
	a := AlgorithmIdentifier{Algorithm: p.oid(field)}
	if p.more() {
		a.Parameters = p.element(field)
	}
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
	list := p.enter(tag.SEQUENCE, field)
	out := take(&p.room.infos)
	for p.more() {
		entry := p.enter(tag.SEQUENCE, field)
		out = longer(out)
		info := &out[len(out)-1]
		info.Type = p.oid(field)
		if p.more() {
			info.Value = p.element(field)
		}
		p.leave(entry, field)
		p.check(len(out) <= MaxEntries, field)
	}
	p.check(len(out) >= least, field)
	p.leave(list, field)
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
