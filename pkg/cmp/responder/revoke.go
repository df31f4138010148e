package responder

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// crlLifetime is how long a CRL says it is good for.
const crlLifetime = 24 * time.Hour

var oidCRLReason = asn1.ObjectIdentifier{2, 5, 29, 21}

// reasons of revocation (RFC 5280 §5.3.1); 7 is unused.
var reasons = map[asn1.Enumerated]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: "certificateHold", 9: "privilegeWithdrawn", 10: "aACompromise",
}

// revocation handles rr for one certificate, named by issuer and serialNumber
// (RFC 9810 §5.3.9). It may be asked for by who holds the certificate, by who
// requested it, or with a shared secret.
func (s *Server) revocation(x *exchange) (answer, error) {
	body, ok := x.req.Body.(cmp.RevReq)
	if !ok || len(body) != 1 || body[0].CertDetails.SerialNumber == nil || body[0].CertDetails.Issuer == nil {
		return answer{}, malformed(cmp.FailBadRequest, "rr must name one certificate by issuer and serialNumber")
	}
	id := cmp.CertID{Issuer: cmp.DirectoryName(body[0].CertDetails.Issuer), SerialNumber: body[0].CertDetails.SerialNumber}
	status := cmp.StatusInfo{Status: cmp.StatusAccepted}
	if err := s.revoke(x, id, body[0].CRLEntryDetails); err != nil {
		r := refusalOf(err)
		if r.body {
			return answer{}, err
		}
		status = r.status()
	}
	return answer{kind: cmp.TypeRP, body: &cmp.RevRep{Status: []cmp.StatusInfo{status}, RevCerts: []cmp.CertID{id}}}, nil
}

func (s *Server) revoke(x *exchange, id cmp.CertID, details []pkix.Extension) error {
	reason, err := reasonCode(details)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	issuer, _ := id.Issuer.Name()
	r := s.ledger.bySerial[id.SerialNumber.Text(16)]
	switch {
	case r == nil || !issuer.Equal(cmp.Name(s.ca.issuing.RawSubject)):
		return refuse(cmp.FailBadCertID, "rr names no certificate of this CA")
	case x.peer.Reference == "" && !r.Peer.same(x.peer) && string(x.peer.Certificate) != string(r.Issued.Certificate):
		return refuse(cmp.FailNotAuthorized, "rr is for who holds or requested the certificate")
	case r.Issued.Revoked:
		x.sees(r)
		return refuse(cmp.FailCertRevoked, "the certificate is revoked already: %s", r.Issued.Reason)
	}
	err = s.ledger.update(r, func() { r.revoke(reason, x.now) })
	x.sees(r)
	return err
}

func reasonCode(details []pkix.Extension) (string, error) {
	for _, e := range details {
		if !e.Id.Equal(oidCRLReason) {
			continue
		}
		var code asn1.Enumerated
		rest, err := asn1.Unmarshal(e.Value, &code)
		reason, ok := reasons[code]
		if err != nil || len(rest) != 0 || !ok {
			return "", refuse(cmp.FailBadDataFormat, "reasonCode is not supported")
		}
		return reason, nil
	}
	return reasons[0], nil
}

// general answers genm: caCerts, currentCRL and crlStatusList; the rest with
// "nothing available", an absent value (RFC 9810 §5.3.19).
func (s *Server) general(x *exchange) (answer, error) {
	body, ok := x.req.Body.(cmp.GenMsg)
	if !ok || len(body) == 0 {
		return answer{}, malformed(cmp.FailBadRequest, "genm without a question")
	}
	out := make(cmp.GenMsg, len(body))
	for i := range body {
		itv, err := s.info(body[i].Type, x.now)
		if err != nil {
			return answer{}, err
		}
		out[i] = itv
	}
	return answer{kind: cmp.TypeGenP, body: out}, nil
}

func (s *Server) info(question asn1.ObjectIdentifier, now time.Time) (itv cmp.InfoTypeAndValue, err error) {
	itv.Type = question
	switch {
	case question.Equal(cmp.InfoCACerts):
		certs := []asn1.RawValue{{FullBytes: s.ca.root.Raw}}
		for _, c := range s.ca.chain() {
			certs = append(certs, asn1.RawValue{FullBytes: c.Raw})
		}
		itv.Value, err = asn1.Marshal(certs)
	case question.Equal(cmp.InfoRootCACert):
		itv.Type = cmp.InfoRootCAKeyUpdate
	case question.Equal(cmp.InfoCurrentCRL):
		itv.Value, err = s.crl(now)
	case question.Equal(cmp.InfoCRLStatusList):
		itv.Type = cmp.InfoCRLs
		var crl []byte
		if crl, err = s.crl(now); err == nil {
			itv.Value, err = asn1.Marshal([]asn1.RawValue{{FullBytes: crl}})
		}
	}
	return itv, err
}

// crl lists what is revoked and has not expired.
func (s *Server) crl(now time.Time) ([]byte, error) {
	list := &x509.RevocationList{
		Number: big.NewInt(now.Unix()), ThisUpdate: now, NextUpdate: now.Add(crlLifetime),
	}
	for _, i := range s.Issued() {
		serial, ok := new(big.Int).SetString(i.Serial, 16)
		if ok && i.Revoked && now.Before(i.NotAfter) {
			entry := x509.RevocationListEntry{SerialNumber: serial, RevocationTime: i.RevokedAt}
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
		}
	}
	der, err := x509.CreateRevocationList(s.cfg.Rand, list, s.ca.issuing, s.ca.key)
	if err != nil {
		return nil, fmt.Errorf("making a CRL: %w", err)
	}
	return der, nil
}
