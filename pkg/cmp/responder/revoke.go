package responder

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// crlLifetime is how long a CRL says it is good for.
const crlLifetime = 24 * time.Hour

// reasons of revocation (RFC 5280 §5.3.1); 7 is unused, and 8 takes one back.
var reasons = map[asn1.Enumerated]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: onHold, 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}

const (
	onHold        = "certificateHold"
	removeFromCRL = 8
)

// revocation handles rr for one certificate, named by issuer and serialNumber,
// or by the publicKey and subject it was requested with (RFC 9810 §5.3.9). It may
// be asked for by who holds the certificate, by who requested it, or with a
// shared secret.
func (s *Server) revocation(x *exchange) (answer, error) {
	body, ok := x.req.Body.(cmp.RevReq)
	if !ok || len(body) != 1 {
		return answer{}, malformed(cmp.FailBadRequest, "rr must name one certificate")
	}
	t := &body[0].CertDetails
	if named := t.SerialNumber != nil && t.Issuer != nil; !named && (t.SerialNumber != nil || t.PublicKeyInfo == nil) {
		return answer{}, malformed(cmp.FailBadRequest, "rr must name one certificate, by issuer and serialNumber or by publicKey and subject")
	}
	status := cmp.StatusInfo{Status: cmp.StatusAccepted}
	if err := s.revoke(x, &body[0]); err != nil {
		r := refusalOf(err)
		if r.body {
			return answer{}, err
		}
		status = r.status()
	}
	rep := &cmp.RevRep{Status: []cmp.StatusInfo{status}}
	if t.SerialNumber != nil { // openssl cmp accepts no revCerts that differ from what it has sent
		rep.RevCerts = []cmp.CertID{{Issuer: cmp.DirectoryName(t.Issuer), SerialNumber: t.SerialNumber}}
	}
	return answer{kind: cmp.TypeRP, body: rep}, nil
}

// revoke carries out one RevDetails.
func (s *Server) revoke(x *exchange, details *cmp.RevDetails) error {
	code, err := reasonCode(details.CRLEntryDetails)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	r, err := s.named(&details.CertDetails)
	if err != nil {
		return err
	}
	defer x.sees(r)
	if x.peer.Reference == "" && !r.Peer.same(x.peer) && string(x.peer.Certificate) != string(r.Issued.Certificate) {
		return refuse(cmp.FailNotAuthorized, "rr is for who holds or requested the certificate")
	}
	return s.mark(r, code, x.now)
}

// mark revokes a certificate, or takes it off hold.
func (s *Server) mark(r *record, code asn1.Enumerated, now time.Time) error {
	held := r.Issued.Revoked && r.Issued.Reason == onHold
	switch {
	case code == removeFromCRL && !held:
		return refuse(cmp.FailBadRequest, "removeFromCRL is for certificates on hold (RFC 5280 §5.3.1)")
	case code == removeFromCRL:
		return s.ledger.update(r, r.revive)
	case r.Issued.Revoked && !held:
		return refuse(cmp.FailCertRevoked, "the certificate is revoked already: %s", r.Issued.Reason)
	}
	return s.ledger.update(r, func() {
		r.revive()
		r.revoke(reasons[code], now)
	})
}

// named finds the certificate of a template.
func (s *Server) named(t *cmp.CertTemplate) (*record, error) {
	if t.SerialNumber == nil {
		return s.requestedFor(t)
	}
	r := s.ledger.bySerial[t.SerialNumber.Text(16)]
	if r == nil || !t.Issuer.Equal(cmp.Name(s.ca.issuing.RawSubject)) {
		return nil, refuse(cmp.FailBadCertID, "rr names no certificate of this CA")
	}
	return r, nil
}

// requestedFor finds the certificate for a key and, if there is one, a subject.
// It must be the only one that is not revoked, or the only one at all.
func (s *Server) requestedFor(t *cmp.CertTemplate) (*record, error) {
	sum := sha256.Sum256(t.PublicKeyInfo)
	hash := hex.EncodeToString(sum[:])
	var good, all []*record
	for _, r := range s.ledger.issued {
		if r.Issued.PublicKeyHash != hash || !r.Issued.hasSubject(t.Subject) {
			continue
		}
		all = append(all, r)
		if !r.Issued.Revoked {
			good = append(good, r)
		}
	}
	switch {
	case len(good) == 1:
		return good[0], nil
	case len(all) == 1:
		return all[0], nil
	case len(all) == 0:
		return nil, refuse(cmp.FailBadCertID, "rr names no certificate of this CA")
	}
	return nil, refuse(cmp.FailBadCertID, "there are %d certificates for this key: name one by issuer and serialNumber", len(all))
}

// hasSubject tells whether a certificate is for a subject; any is, if that is absent.
func (i *Issuance) hasSubject(subject cmp.Name) bool {
	cert, err := x509.ParseCertificate(i.Certificate)
	return err == nil && (subject == nil || subject.Equal(cmp.Name(cert.RawSubject)))
}

func reasonCode(details []pkix.Extension) (asn1.Enumerated, error) {
	for _, e := range details {
		if !e.Id.Equal(cmp.ExtensionCRLReason) {
			continue
		}
		var code asn1.Enumerated
		rest, err := asn1.Unmarshal(e.Value, &code)
		if _, ok := reasons[code]; err != nil || len(rest) != 0 || !ok {
			return 0, refuse(cmp.FailBadDataFormat, "reasonCode is not supported")
		}
		return code, nil
	}
	return 0, nil
}

// general answers genm: caCerts, rootCaCert, currentCRL, crlStatusList and what
// Config.Infos has; the rest with "nothing available", an absent value (RFC 9810 §5.3.19).
func (s *Server) general(x *exchange) (answer, error) {
	body, ok := x.req.Body.(cmp.GenMsg)
	if !ok || len(body) == 0 {
		return answer{}, malformed(cmp.FailBadRequest, "genm without a question")
	}
	out := make(cmp.GenMsg, len(body))
	for i := range body {
		itv, err := s.info(&body[i], x.now)
		if err != nil {
			return answer{}, err
		}
		out[i] = itv
	}
	return answer{kind: cmp.TypeGenP, body: out}, nil
}

func (s *Server) info(question *cmp.InfoTypeAndValue, now time.Time) (itv cmp.InfoTypeAndValue, err error) {
	itv.Type = question.Type
	switch asked := question.Type; {
	case asked.Equal(cmp.InfoCACerts):
		certs := []asn1.RawValue{{FullBytes: s.ca.root.Raw}}
		for _, c := range s.ca.chain() {
			certs = append(certs, asn1.RawValue{FullBytes: c.Raw})
		}
		itv.Value, err = asn1.Marshal(certs)
	case asked.Equal(cmp.InfoRootCACert):
		itv.Type = cmp.InfoRootCAKeyUpdate
		itv.Value, err = s.ca.update(question.Value)
	case asked.Equal(cmp.InfoCurrentCRL):
		itv.Value, err = s.crl(now)
	case asked.Equal(cmp.InfoCRLStatusList):
		itv.Type = cmp.InfoCRLs
		if s.isOurs(question.Value) {
			itv.Value, err = s.crls(now)
		}
	default:
		itv.Value, _ = cmp.GenMsg(s.cfg.Infos).Info(asked)
	}
	return itv, err
}

// isOurs tells whether a CRLStatusList names us or one of our distribution
// points. Its times do not matter: our list is always a new one.
func (s *Server) isOurs(list []byte) bool {
	if list == nil || bytes.Contains(list, s.ca.issuing.RawSubject) {
		return true
	}
	return slices.ContainsFunc(s.cfg.CRLDistributionPoints, func(url string) bool { return bytes.Contains(list, []byte(url)) })
}

// crls is our CRL as the only one of a SEQUENCE.
func (s *Server) crls(now time.Time) ([]byte, error) {
	crl, err := s.crl(now)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal([]asn1.RawValue{{FullBytes: crl}})
}

// crl lists what is revoked and has not expired.
func (s *Server) crl(now time.Time) ([]byte, error) {
	list := &x509.RevocationList{
		Number: big.NewInt(now.Unix()), ThisUpdate: now, NextUpdate: now.Add(crlLifetime), SignatureAlgorithm: s.ca.algorithm(),
	}
	for _, i := range s.Issued() {
		serial, ok := new(big.Int).SetString(i.Serial, 16)
		if ok && i.Revoked && now.Before(i.NotAfter) {
			entry := x509.RevocationListEntry{SerialNumber: serial, RevocationTime: i.RevokedAt, ReasonCode: codeOf(i.Reason)}
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
		}
	}
	der, err := x509.CreateRevocationList(s.cfg.Rand, list, s.ca.issuing, s.ca.key)
	if err != nil {
		return nil, fmt.Errorf("making a CRL: %w", err)
	}
	return der, nil
}

// codeOf is the reason code of a reason; unspecified, which CRLs leave out, for
// those that are the CA's own (RFC 5280 §5.3.1).
func codeOf(reason string) int {
	for code, name := range reasons {
		if name == reason {
			return int(code)
		}
	}
	return 0
}
