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
	list := p.sequenceAt(sectionRevReq, "rr")
	b := RevReq{}
	for list.more() {
		q := list.sequence("rr")
		var d RevDetails
		q.certTemplate(&d.CertDetails, "rr.certDetails")
		if e, ok := q.optional(tag.SEQUENCE, "rr.crlEntryDetails"); ok {
			d.CRLEntryDetails = e.extensionFields("rr.crlEntryDetails")
		}
		q.end("rr")
		b = append(b, d)
		list.check(len(b) <= MaxEntries, "rr")
	}
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
	q := p.sequenceAt(sectionRevRep, "rp")
	b := new(RevRep)
	list := q.sequence("rp.status")
	list.check(len(list.in) > 0, "rp.status")
	for list.more() {
		b.Status = append(b.Status, list.statusInfo("rp.status"))
		list.check(len(b.Status) <= MaxEntries, "rp.status")
	}
	if e, ok := q.optional(explicit(0), "rp.revCerts"); ok {
		b.RevCerts = e.certIDs("rp.revCerts")
		e.end("rp.revCerts")
	}
	if e, ok := q.optional(explicit(1), "rp.crls"); ok {
		b.CRLs = e.certificates("rp.crls")
		e.end("rp.crls")
	}
	q.end("rp")
	return b
}

func (p *parser) certIDs(field string) []CertID {
	list := p.sequence(field)
	list.check(len(list.in) > 0, field)
	var out []CertID
	for list.more() {
		out = append(out, list.certID(field))
		list.check(len(out) <= MaxEntries, field)
	}
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
	reason := pkix.Extension{Id: oidCRLReason, Value: []byte{10, 1, byte(r.Reason)}}
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
