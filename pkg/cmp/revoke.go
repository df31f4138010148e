package cmp

import (
	"crypto/x509/pkix"

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
		d := RevDetails{CertDetails: q.certTemplate("rr.certDetails")}
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
	list.check(!list.in.Empty(), "rp.status")
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
	list.check(!list.in.Empty(), field)
	var out []CertID
	for list.more() {
		out = append(out, list.certID(field))
		list.check(len(out) <= MaxEntries, field)
	}
	return out
}
