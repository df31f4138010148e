package cmp

import tag "golang.org/x/crypto/cryptobyte/asn1"

const sectionCertConf = "RFC 9810 §5.3.18"

// CertConf is the body of certConf (RFC 9810 §5.3.18). Without any CertStatus
// it rejects everything that was issued.
type CertConf []CertStatus

// CertStatus accepts or rejects one certificate.
type CertStatus struct {
	CertHash   []byte
	CertReqID  int64
	StatusInfo *StatusInfo          // nil means accepted
	HashAlg    *AlgorithmIdentifier // needs pvno 3
}

func (CertConf) fits(t BodyType) bool { return t == TypeCertConf }

func (b CertConf) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	for i := range b {
		w.certStatus(&b[i])
	}
	w.close(m)
}

func (w *writer) certStatus(s *CertStatus) {
	m := w.open(tag.SEQUENCE)
	w.octets(s.CertHash)
	w.integer(s.CertReqID)
	if s.StatusInfo != nil {
		w.statusInfo(s.StatusInfo)
	}
	if s.HashAlg != nil {
		e := w.open(explicit(0))
		w.algorithm(*s.HashAlg)
		w.close(e)
	}
	w.close(m)
}

func (p *parser) certConf() Body {
	list := p.enterAt(inCertConf, "certConf")
	b := CertConf{}
	for p.more() {
		b = append(b, p.certStatus())
		p.check(len(b) <= MaxEntries, "certConf")
	}
	p.leave(list, "certConf")
	return b
}

func (p *parser) certStatus() CertStatus {
	outer := p.enter(tag.SEQUENCE, "certConf")
	s := CertStatus{CertHash: p.octets("certConf.certHash", MaxNonceBytes), CertReqID: p.integer("certConf.certReqId")}
	if p.peek(tag.SEQUENCE) {
		s.StatusInfo = new(StatusInfo)
		p.statusInfo(s.StatusInfo, "certConf.statusInfo")
	}
	if e, ok := p.optional(explicit(0), "certConf.hashAlg"); ok {
		alg := p.algorithm("certConf.hashAlg")
		s.HashAlg = &alg
		p.leave(e, "certConf.hashAlg")
	}
	p.leave(outer, "certConf")
	return s
}
