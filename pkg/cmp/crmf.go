package cmp

import (
	"encoding/asn1"
	"fmt"
	"math/big"
	"unicode/utf8"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	sectionCertReq  = "RFC 4211 §3"
	sectionControls = "RFC 4211 §6"
	sectionCertRep  = "RFC 9810 §5.3.4"
)

// CertReqMessages is the body of ir, cr, kur, krr and ccr (RFC 9810 §5.3.1,
// RFC 4211 §3). This package sends exactly one CertReqMsg.
type CertReqMessages []CertReqMsg

// CertReqMsg is a request for one certificate (RFC 4211 §3).
type CertReqMsg struct {
	CertReq CertRequest
	POPO    ProofOfPossession
	RegInfo []AttributeTypeAndValue
}

// CertRequest is what proof of possession is computed over (RFC 4211 §5).
type CertRequest struct {
	CertReqID    int64
	CertTemplate CertTemplate
	Controls     []AttributeTypeAndValue

	received []byte // DER as it came: proof of possession is verified over this
}

// AttributeTypeAndValue is a control or a piece of registration information
// (RFC 4211 §6, §7). Value is DER.
type AttributeTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value []byte
}

// Control finds the first control of a type.
func (r *CertRequest) Control(controlType asn1.ObjectIdentifier) (value []byte, ok bool) {
	for i := range r.Controls {
		if r.Controls[i].Type.Equal(controlType) {
			return r.Controls[i].Value, true
		}
	}
	return nil, false
}

// OldCertID is the certificate a kur is to update (RFC 4211 §6.5); ok is false
// if there is no such control, or none that can be read.
func (r *CertRequest) OldCertID() (id CertID, ok bool) {
	value, ok := r.Control(oidOldCertID)
	if !ok {
		return CertID{}, false
	}
	var f fault
	p := parser{in: value, section: sectionControls, fault: &f}
	id = p.certID("controls.oldCertID")
	p.end("controls.oldCertID")
	return id, p.ok()
}

// CertID names a certificate by its issuer and serial number (RFC 4211 §6.5).
type CertID struct {
	Issuer       GeneralName
	SerialNumber *big.Int
}

// OldCertIDControl is the control that names the certificate to update (RFC 4211 §6.5).
func OldCertIDControl(id CertID) AttributeTypeAndValue {
	var w writer
	w.certID(id)
	return AttributeTypeAndValue{Type: oidOldCertID, Value: w.b}
}

// RegTokenControl is the control with a one-time token that the CA has handed
// out to the requester, for an initial request (RFC 4211 §6.1). The token is secret.
func RegTokenControl(token string) AttributeTypeAndValue { return textControl(oidRegToken, token) }

// AuthenticatorControl is the control with a lasting secret about the requester
// that the CA can check, as a password (RFC 4211 §6.2).
func AuthenticatorControl(secret string) AttributeTypeAndValue {
	return textControl(oidAuthenticator, secret)
}

func textControl(controlType asn1.ObjectIdentifier, text string) AttributeTypeAndValue {
	var w writer
	w.primitive(tag.UTF8String, []byte(text))
	return AttributeTypeAndValue{Type: controlType, Value: w.b}
}

// RegToken is the text of the regToken control (RFC 4211 §6.1); ok is false if
// there is none, or none that can be read.
func (r *CertRequest) RegToken() (token string, ok bool) { return r.text(oidRegToken) }

// Authenticator is the text of the authenticator control (RFC 4211 §6.2); ok is
// false if there is none, or none that can be read.
func (r *CertRequest) Authenticator() (secret string, ok bool) { return r.text(oidAuthenticator) }

func (r *CertRequest) text(controlType asn1.ObjectIdentifier) (string, bool) {
	value, ok := r.Control(controlType)
	if !ok {
		return "", false
	}
	var f fault
	p := parser{in: value, section: sectionControls, fault: &f}
	text := p.enter(tag.UTF8String, "controls")
	p.end("controls")
	return string(text.in), p.ok() && utf8.Valid(text.in)
}

func (p *parser) certID(field string) CertID {
	q := p.sequenceAt(sectionControls, field)
	id := CertID{Issuer: q.generalName(field)}
	id.SerialNumber = q.bigInteger(tag.INTEGER, field)
	q.end(field)
	return id
}

func (w *writer) certID(id CertID) {
	m := w.open(tag.SEQUENCE)
	w.generalName(id.Issuer)
	w.bigInteger(tag.INTEGER, id.SerialNumber)
	w.close(m)
}

func (CertReqMessages) fits(t BodyType) bool {
	switch t {
	case TypeIR, TypeCR, TypeKUR, TypeKRR, TypeCCR:
		return true
	default:
		return false
	}
}

func (b CertReqMessages) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	for i := range b {
		w.certReqMsg(&b[i])
	}
	w.close(m)
}

func (p *parser) certReqMessages() Body {
	list := p.sequenceAt(sectionCertReq, "certReqMessages")
	list.check(len(list.in) > 0, "certReqMessages")
	b := p.fault.room.requests()
	for list.more() {
		b = append(b, CertReqMsg{})
		list.certReqMsg(&b[len(b)-1])
		list.check(len(b) <= MaxEntries, "certReqMessages")
	}
	return b
}

func (p *parser) certReqMsg(r *CertReqMsg) {
	q := p.sequence("certReqMsg")
	q.certRequest(&r.CertReq)
	if q.more() && !q.peek(tag.SEQUENCE) {
		q.popo(&r.POPO)
	}
	if q.more() {
		r.RegInfo = q.attributes("regInfo")
	}
	q.end("certReqMsg")
}

func (w *writer) certReqMsg(r *CertReqMsg) {
	m := w.open(tag.SEQUENCE)
	w.certRequest(&r.CertReq)
	w.popo(&r.POPO)
	if r.RegInfo != nil {
		w.attributes(r.RegInfo)
	}
	w.close(m)
}

func (p *parser) certRequest(r *CertRequest) {
	q, raw := p.open(tag.SEQUENCE, "certReq")
	r.CertReqID, r.received = q.integer("certReq.certReqId"), raw
	q.certTemplate(&r.CertTemplate, "certReq.certTemplate")
	if q.more() {
		r.Controls = q.attributes("certReq.controls")
	}
	q.end("certReq")
}

func (w *writer) certRequest(r *CertRequest) {
	if r.received != nil {
		w.raw(r.received)
		return
	}
	m := w.open(tag.SEQUENCE)
	w.integer(r.CertReqID)
	w.certTemplate(&r.CertTemplate)
	if r.Controls != nil {
		w.attributes(r.Controls)
	}
	w.close(m)
}

// attributes reads SEQUENCE SIZE (1..MAX) OF AttributeTypeAndValue.
func (p *parser) attributes(field string) []AttributeTypeAndValue {
	list := p.sequence(field)
	list.check(len(list.in) > 0, field)
	var out []AttributeTypeAndValue
	for list.more() {
		q := list.sequence(field)
		out = append(out, AttributeTypeAndValue{Type: q.oid(field), Value: q.element(field)})
		q.end(field)
		list.check(len(out) <= MaxEntries, field)
	}
	return out
}

func (w *writer) attributes(list []AttributeTypeAndValue) {
	m := w.open(tag.SEQUENCE)
	for i := range list {
		e := w.open(tag.SEQUENCE)
		w.oid(list[i].Type)
		w.raw(list[i].Value)
		w.close(e)
	}
	w.close(m)
}

// CertRepMessage is the body of ip, cp, kup and ccp (RFC 9810 §5.3.4).
type CertRepMessage struct {
	CAPubs   [][]byte // DER of certificates; nil if absent
	Response []CertResponse
}

// CertResponse answers one CertReqMsg (RFC 9810 §5.3.4).
type CertResponse struct {
	CertReqID int64
	Status    StatusInfo
	Certified *CertifiedKeyPair
	RspInfo   []byte // content of the OCTET STRING; nil if absent
}

// CertifiedKeyPair holds what was issued (RFC 9810 §5.3.4): Certificate, or
// Encrypted, which this package does not look into.
type CertifiedKeyPair struct {
	Certificate     []byte // DER of a Certificate
	Encrypted       []byte // DER of the EncryptedKey in encryptedCert
	PrivateKey      []byte // DER of the EncryptedKey; nil if absent
	PublicationInfo []byte // DER; nil if absent
}

func (*CertRepMessage) fits(t BodyType) bool {
	switch t {
	case TypeIP, TypeCP, TypeKUP, TypeCCP:
		return true
	default:
		return false
	}
}

func (b *CertRepMessage) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	if b.CAPubs != nil {
		e := w.open(explicit(1))
		w.certificates(b.CAPubs)
		w.close(e)
	}
	list := w.open(tag.SEQUENCE)
	for i := range b.Response {
		w.certResponse(&b.Response[i])
	}
	w.close(list)
	w.close(m)
}

func (p *parser) certRepMessage() Body {
	q := p.sequenceAt(sectionCertRep, "certRepMessage")
	b := p.fault.room.response()
	if e, ok := q.optional(explicit(1), "caPubs"); ok {
		b.CAPubs = e.certificates("caPubs")
		e.end("caPubs")
	}
	list := q.sequence("response")
	for list.more() {
		b.Response = append(b.Response, CertResponse{})
		list.certResponse(&b.Response[len(b.Response)-1])
		list.check(len(b.Response) <= MaxEntries, "response")
	}
	q.end("certRepMessage")
	return b
}

func (p *parser) certResponse(r *CertResponse) {
	q := p.sequence("response")
	r.CertReqID, r.Status = q.integer("response.certReqId"), q.statusInfo("response.status")
	if q.peek(tag.SEQUENCE) {
		r.Certified = q.certifiedKeyPair()
	}
	if q.more() {
		r.RspInfo = q.octets("response.rspInfo", MaxMessageBytes)
	}
	q.end("response")
}

func (w *writer) certResponse(r *CertResponse) {
	m := w.open(tag.SEQUENCE)
	w.integer(r.CertReqID)
	w.statusInfo(&r.Status)
	if r.Certified != nil {
		w.certifiedKeyPair(r.Certified)
	}
	if r.RspInfo != nil {
		w.octets(r.RspInfo)
	}
	w.close(m)
}

func (p *parser) certifiedKeyPair() *CertifiedKeyPair {
	q := p.sequence("response.certifiedKeyPair")
	k := new(CertifiedKeyPair)
	if e, ok := q.optional(explicit(0), "response.certifiedKeyPair.certificate"); ok {
		k.Certificate = e.tagged(tag.SEQUENCE, "response.certifiedKeyPair.certificate")
		e.end("response.certifiedKeyPair.certificate")
	} else {
		e := q.enter(explicit(1), "response.certifiedKeyPair.certOrEncCert")
		k.Encrypted = e.element("response.certifiedKeyPair.encryptedCert")
		e.end("response.certifiedKeyPair.encryptedCert")
	}
	k.PrivateKey = q.taggedElement(0, "response.certifiedKeyPair.privateKey")
	k.PublicationInfo = q.taggedElement(1, "response.certifiedKeyPair.publicationInfo")
	q.end("response.certifiedKeyPair")
	return k
}

func (w *writer) certifiedKeyPair(k *CertifiedKeyPair) {
	m := w.open(tag.SEQUENCE)
	if k.Certificate != nil {
		w.taggedElement(0, k.Certificate)
	} else {
		w.taggedElement(1, k.Encrypted)
	}
	w.taggedElement(0, k.PrivateKey)
	w.taggedElement(1, k.PublicationInfo)
	w.close(m)
}

// taggedElement reads an optional [n] EXPLICIT element of any type.
func (p *parser) taggedElement(n uint8, field string) []byte {
	q, ok := p.optional(explicit(n), field)
	if !ok {
		return nil
	}
	raw := q.element(field)
	q.end(field)
	return raw
}

func (w *writer) taggedElement(n uint8, der []byte) {
	if der == nil {
		return
	}
	m := w.open(explicit(n))
	w.raw(der)
	w.close(m)
}

// certReqMsg is the only CertReqMsg of a message that may have just one (RFC 9483 §4.1.1).
func (m *Message) certReqMsg() (*CertReqMsg, error) {
	b, ok := m.Body.(CertReqMessages)
	if !ok || len(b) != 1 {
		return nil, fmt.Errorf("%s has no single CertReqMsg", m.Type)
	}
	return &b[0], nil
}
