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
	p := newParser(value, inControls)
	id = p.certID("controls.oldCertID")
	p.done("controls.oldCertID")
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
	p := newParser(value, inControls)
	text := p.content(tag.UTF8String, "controls")
	p.done("controls")
	return string(text), p.ok() && utf8.Valid(text)
}

func (p *parser) certID(field string) CertID {
	certID := p.enterAt(inControls, field)
	id := CertID{Issuer: p.generalName(field)}
	id.SerialNumber = p.bigInteger(tag.INTEGER, field)
	p.leave(certID, field)
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
	list := p.enterAt(inCertReq, "certReqMessages")
	p.check(p.more(), "certReqMessages")
	b := take(&p.room.requests)
	for p.more() {
		b = longer(b)
		p.certReqMsg(&b[len(b)-1])
		p.check(len(b) <= MaxEntries, "certReqMessages")
	}
	p.leave(list, "certReqMessages")
	return CertReqMessages(b)
}

func (p *parser) certReqMsg(r *CertReqMsg) {
	outer := p.enter(tag.SEQUENCE, "certReqMsg")
	p.certRequest(&r.CertReq)
	if p.more() && !p.peek(tag.SEQUENCE) {
		p.popo(&r.POPO)
	}
	if p.more() {
		r.RegInfo = p.attributes("regInfo")
	}
	p.leave(outer, "certReqMsg")
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
	start := p.at
	outer := p.enter(tag.SEQUENCE, "certReq")
	r.CertReqID = p.integer("certReq.certReqId")
	p.certTemplate(&r.CertTemplate, "certReq.certTemplate")
	if p.more() {
		r.Controls = p.attributes("certReq.controls")
	}
	p.leave(outer, "certReq")
	r.received = p.der[start:p.at:p.at]
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
	list := p.enter(tag.SEQUENCE, field)
	p.check(p.more(), field)
	var out []AttributeTypeAndValue
	for p.more() {
		entry := p.enter(tag.SEQUENCE, field)
		out = append(out, AttributeTypeAndValue{Type: p.oid(field), Value: p.element(field)})
		p.leave(entry, field)
		p.check(len(out) <= MaxEntries, field)
	}
	p.leave(list, field)
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
	outer := p.enterAt(inCertRep, "certRepMessage")
	b := p.newResponse()
	if e, ok := p.optional(explicit(1), "caPubs"); ok {
		b.CAPubs = p.certificates("caPubs")
		p.leave(e, "caPubs")
	}
	list := p.enter(tag.SEQUENCE, "response")
	for p.more() {
		b.Response = longer(b.Response)
		p.certResponse(&b.Response[len(b.Response)-1])
		p.check(len(b.Response) <= MaxEntries, "response")
	}
	p.leave(list, "response")
	p.leave(outer, "certRepMessage")
	return b
}

func (p *parser) certResponse(r *CertResponse) {
	outer := p.enter(tag.SEQUENCE, "response")
	r.CertReqID = p.integer("response.certReqId")
	p.statusInfo(&r.Status, "response.status")
	if p.peek(tag.SEQUENCE) {
		r.Certified = p.certifiedKeyPair()
	}
	if p.more() {
		r.RspInfo = p.octets("response.rspInfo", MaxMessageBytes)
	}
	p.leave(outer, "response")
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
	outer := p.enter(tag.SEQUENCE, "response.certifiedKeyPair")
	k := new(CertifiedKeyPair)
	if e, ok := p.optional(explicit(0), "response.certifiedKeyPair.certificate"); ok {
		k.Certificate = p.tagged(tag.SEQUENCE, "response.certifiedKeyPair.certificate")
		p.leave(e, "response.certifiedKeyPair.certificate")
	} else {
		e := p.enter(explicit(1), "response.certifiedKeyPair.certOrEncCert")
		k.Encrypted = p.element("response.certifiedKeyPair.encryptedCert")
		p.leave(e, "response.certifiedKeyPair.encryptedCert")
	}
	k.PrivateKey = p.taggedElement(0, "response.certifiedKeyPair.privateKey")
	k.PublicationInfo = p.taggedElement(1, "response.certifiedKeyPair.publicationInfo")
	p.leave(outer, "response.certifiedKeyPair")
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
	e, ok := p.optional(explicit(n), field)
	if !ok {
		return nil
	}
	raw := p.element(field)
	p.leave(e, field)
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
