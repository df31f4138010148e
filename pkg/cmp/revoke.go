package cmp

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	sectionRevReq = "RFC 9810 §5.3.9"
	sectionRevRep = "RFC 9810 §5.3.10"
)

// RevReq is the body of rr (RFC 9810 §5.3.9).
type RevReq []RevDetails

// RevDetails names a certificate to revoke and says why.
type RevDetails struct {
	CertDetails     CertTemplate
	CRLEntryDetails []pkix.Extension
}

func (RevReq) fits(t BodyType) bool { return t == TypeRR }

func (b RevReq) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	for i := range b {
		e := w.open(tag.SEQUENCE)
		w.certTemplate(&b[i].CertDetails)
		if b[i].CRLEntryDetails != nil {
			x := w.open(tag.SEQUENCE)
			w.extensionFields(b[i].CRLEntryDetails)
			w.close(x)
		}
		w.close(e)
	}
	w.close(m)
}

func (p *parser) revReq() Body {
	list := p.enterAt(inRevReq, "rr")
	b := RevReq{}
	for p.more() {
		outer := p.enter(tag.SEQUENCE, "rr")
		b = longer(b)
		d := &b[len(b)-1]
		p.certTemplate(&d.CertDetails, "rr.certDetails")
		if e, ok := p.optional(tag.SEQUENCE, "rr.crlEntryDetails"); ok {
			d.CRLEntryDetails = p.extensionFields("rr.crlEntryDetails")
			p.leave(e, "rr.crlEntryDetails")
		}
		p.leave(outer, "rr")
		p.check(len(b) <= MaxEntries, "rr")
	}
	p.leave(list, "rr")
	return b
}

// RevRep is the body of rp (RFC 9810 §5.3.10).
type RevRep struct {
	Status   []StatusInfo
	RevCerts []CertID // nil if absent
	CRLs     [][]byte // DER of each; nil if absent
}

func (*RevRep) fits(t BodyType) bool { return t == TypeRP }

func (b *RevRep) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	list := w.open(tag.SEQUENCE)
	for i := range b.Status {
		w.statusInfo(&b.Status[i])
	}
	w.close(list)
	if b.RevCerts != nil {
		e := w.open(explicit(0))
		ids := w.open(tag.SEQUENCE)
		for _, id := range b.RevCerts {
			w.certID(id)
		}
		w.close(ids)
		w.close(e)
	}
	if b.CRLs != nil {
		e := w.open(explicit(1))
		w.certificates(b.CRLs)
		w.close(e)
	}
	w.close(m)
}

func (p *parser) revRep() Body {
	outer := p.enterAt(inRevRep, "rp")
	b := new(RevRep)
	list := p.enter(tag.SEQUENCE, "rp.status")
	p.check(p.more(), "rp.status")
	for p.more() {
		b.Status = longer(b.Status)
		p.statusInfo(&b.Status[len(b.Status)-1], "rp.status")
		p.check(len(b.Status) <= MaxEntries, "rp.status")
	}
	p.leave(list, "rp.status")
	if e, ok := p.optional(explicit(0), "rp.revCerts"); ok {
		b.RevCerts = p.certIDs("rp.revCerts")
		p.leave(e, "rp.revCerts")
	}
	if e, ok := p.optional(explicit(1), "rp.crls"); ok {
		b.CRLs = p.certificates("rp.crls")
		p.leave(e, "rp.crls")
	}
	p.leave(outer, "rp")
	return b
}

func (p *parser) certIDs(field string) []CertID {
	list := p.enter(tag.SEQUENCE, field)
	p.check(p.more(), field)
	var out []CertID
	for p.more() {
		out = append(out, p.certID(field))
		p.check(len(out) <= MaxEntries, field)
	}
	p.leave(list, field)
	return out
}

// Reason is a CRLReason (RFC 5280 §5.3.1).
type Reason int

// The reasons. 7 is not one.
const (
	ReasonUnspecified          Reason = 0
	ReasonKeyCompromise        Reason = 1
	ReasonCACompromise         Reason = 2
	ReasonAffiliationChanged   Reason = 3
	ReasonSuperseded           Reason = 4
	ReasonCessationOfOperation Reason = 5
	ReasonCertificateHold      Reason = 6
	ReasonRemoveFromCRL        Reason = 8 // revives a certificate on hold
	ReasonPrivilegeWithdrawn   Reason = 9
	ReasonAACompromise         Reason = 10
)

// Revocation names a certificate to revoke, by itself, by issuer and serial
// number, or by what was asked for, and says why.
type Revocation struct {
	Certificate  *x509.Certificate
	Issuer       Name // where Certificate is nil
	SerialNumber *big.Int
	// Request stands for the certificate of its key and subject where there is
	// nothing better. RFC 9810 §5.3.9 allows that, RFC 9483 §4.2 and many CAs want
	// issuer and serial number; and what is revoked cannot be verified in the answer.
	Request *x509.CertificateRequest
	Reason  Reason
}

// template names the certificate: by issuer and serial number and nothing else
// where they are known (RFC 9483 §4.2).
func (r *Revocation) template() (CertTemplate, error) {
	switch {
	case r.Certificate != nil:
		return CertTemplate{Issuer: r.Certificate.RawIssuer, SerialNumber: r.Certificate.SerialNumber}, nil
	case !r.Issuer.Empty() && r.SerialNumber != nil:
		return CertTemplate{Issuer: r.Issuer, SerialNumber: r.SerialNumber}, nil
	case r.Request != nil:
		return CertTemplate{Subject: r.Request.RawSubject, PublicKeyInfo: r.Request.RawSubjectPublicKeyInfo}, nil
	}
	return CertTemplate{}, errors.New("nothing to revoke: neither a certificate, nor issuer and serial number, nor a request")
}

// body is one RevDetails, always with a reason, which some registration
// authorities insist on (RFC 9483 §4.2).
func (r *Revocation) body() (Body, error) {
	template, err := r.template()
	switch {
	case err != nil:
		return nil, err
	case r.Reason < 0 || r.Reason == 7 || r.Reason > ReasonAACompromise:
		return nil, fmt.Errorf("%d is not a reason to revoke", r.Reason)
	}
	reason := pkix.Extension{Id: ExtensionCRLReason, Value: []byte{10, 1, byte(r.Reason)}}
	return RevReq{{CertDetails: template, CRLEntryDetails: []pkix.Extension{reason}}}, nil
}

// handleRevRep takes the answer to our one RevDetails (RFC 9810 §5.3.10). If it
// names the certificate, that must be ours.
func (t *Transaction) handleRevRep(m *Message, body *RevRep) error {
	if len(body.Status) != 1 || len(body.RevCerts) > 1 {
		return &ReplyError{Field: "rp.status", Section: sectionRevRep, Detail: fmt.Sprintf("%d entries", len(body.Status)), Failure: FailBadDataFormat}
	}
	if len(body.RevCerts) == 1 && !t.revokes(body.RevCerts[0]) {
		return &ReplyError{Field: "rp.revCerts", Section: sectionRevRep, Detail: "another certificate than asked for", Failure: FailBadCertID}
	}
	switch status := &body.Status[0]; status.Status {
	case StatusAccepted, StatusGrantedWithMods, StatusRevocationWarning, StatusRevocationNotification:
		return t.answered(m)
	case StatusRejection:
		return errorFrom(m.Type, status, true)
	case StatusWaiting:
		return t.startPolling(0)
	default:
		return &ReplyError{Field: "rp.status", Section: sectionStatus, Detail: status.Status.String(), Failure: FailBadRequest}
	}
}

// revokes compares what was revoked with what was asked for. A request for a
// certificate does not tell its serial number.
func (t *Transaction) revokes(id CertID) bool {
	issuer, ok := id.Issuer.Name()
	asked := &t.asked.template
	if asked.SerialNumber == nil {
		return asked.PublicKeyInfo != nil
	}
	return ok && asked.Issuer.Equal(issuer) && asked.SerialNumber.Cmp(id.SerialNumber) == 0
}

// Revoke asks for a revocation. The status is accepted, or grantedWithMods or
// a warning with what the CA says about it.
func (c *Client) Revoke(ctx context.Context, cfg Config, what Revocation) (StatusInfo, error) {
	reply, err := c.ask(ctx, cfg, Request{Type: TypeRR, Revocation: &what})
	if err != nil {
		return StatusInfo{}, err
	}
	status := reply.(*RevRep).Status[0]
	status.Text = printable(status.Text)
	return status, nil
}
