package responder

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// maxSignerCandidates bounds the certificates tried as the one that protects a request.
const maxSignerCandidates = 5

// peer is who protected a message: a reference value or a certificate.
type peer struct {
	Reference   string `json:"reference,omitempty"`
	Certificate []byte `json:"certificate,omitempty"` // DER
	Name        string `json:"name"`                  // for people and the ledger
}

func (p peer) same(other peer) bool {
	return p.Reference == other.Reference && string(p.Certificate) == string(other.Certificate)
}

// authenticate finds out who protected a message. It looks at no transaction
// but to learn a signer's certificate, which later messages may leave out.
func (s *Server) authenticate(m *cmp.Message, now time.Time) (peer, error) {
	switch {
	case m.Header.ProtectionAlg.Algorithm == nil || m.Protection == nil:
		return peer{}, malformed(cmp.FailBadMessageCheck, "the message is not protected")
	case m.ProtectedByMAC():
		return s.byMAC(m)
	default:
		return s.bySignature(m, now)
	}
}

// byMAC says the same of a wrong secret and of an unknown reference.
func (s *Server) byMAC(m *cmp.Message) (peer, error) {
	secret := s.secretFor(string(m.Header.SenderKID))
	if secret == nil || m.VerifyMAC(secret, 0) != nil {
		return peer{}, malformed(cmp.FailBadMessageCheck, "the MAC cannot be verified: unknown reference, wrong secret or an algorithm or parameter that is not supported")
	}
	reference := string(m.Header.SenderKID)
	return peer{Reference: reference, Name: "mac:" + reference}, nil
}

func (s *Server) secretFor(reference string) *cmp.SharedSecret {
	secret, ok := s.cfg.SharedSecrets[reference]
	if !ok {
		return nil
	}
	return &cmp.SharedSecret{Reference: []byte(reference), Secret: []byte(secret), AllowSHA1: s.cfg.AllowSHA1}
}

// bySignature looks for the signer in extraCerts, the first of which it should
// be (RFC 9483 §3.3), and for one that signed before in the same transaction.
func (s *Server) bySignature(m *cmp.Message, now time.Time) (peer, error) {
	certs := parseCertificates(m.ExtraCerts)
	candidates := certs[:min(len(certs), maxSignerCandidates)]
	if known := s.signerOf(m.Header.TransactionID); known != nil {
		candidates = append([]*x509.Certificate{known}, candidates...)
	}
	for _, cert := range candidates {
		if !namesSender(m, cert) || m.VerifySignature(cert) != nil {
			continue
		}
		if err := s.trusted(cert, certs, now); err != nil {
			return peer{}, err
		}
		name := fmt.Sprintf("signature:%s %s", cert.SerialNumber.Text(16), cert.Subject)
		return peer{Certificate: cert.Raw, Name: name}, nil
	}
	for _, der := range m.ExtraCerts {
		if _, err := x509.ParseCertificate(der); err != nil {
			return peer{}, malformed(cmp.FailBadMessageCheck, "no certificate in extraCerts that fits sender, senderKID and signature; one cannot be read: %s", cmp.ExplainKey(der, err).Error())
		}
	}
	return peer{}, malformed(cmp.FailBadMessageCheck, "no certificate in extraCerts that fits sender, senderKID and signature")
}

func parseCertificates(ders [][]byte) []*x509.Certificate {
	certs := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		if cert, err := x509.ParseCertificate(der); err == nil {
			certs = append(certs, cert)
		}
	}
	return certs
}

// namesSender tells whether a certificate is the one the header speaks of (RFC 9810 §5.1.1).
func namesSender(m *cmp.Message, cert *x509.Certificate) bool {
	sender, ok := m.Header.Sender.Name()
	if !ok || !sender.Equal(cmp.Name(cert.RawSubject)) {
		return false
	}
	kid := m.Header.SenderKID
	return kid == nil || cert.SubjectKeyId == nil || string(kid) == string(cert.SubjectKeyId)
}

func (s *Server) signerOf(transactionID []byte) *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.ledger.records[string(transactionID)]
	if r == nil || r.Peer.Certificate == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(r.Peer.Certificate)
	if err != nil {
		return nil
	}
	return cert
}

// trusted tells whether a certificate may sign requests now.
func (s *Server) trusted(cert *x509.Certificate, others []*x509.Certificate, now time.Time) error {
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return malformed(cmp.FailSignerNotTrusted, "keyUsage of the protecting certificate lacks digitalSignature")
	}
	if cert.CheckSignatureFrom(s.ca.issuing) == nil {
		return s.trustedOwn(cert, now)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range s.cfg.ClientCAs {
		roots.AddCert(root)
	}
	for _, c := range others {
		intermediates.AddCert(c)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := cert.Verify(options); err != nil {
		return malformed(cmp.FailSignerNotTrusted, "the protecting certificate is not trusted")
	}
	return nil
}

func (s *Server) trustedOwn(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return malformed(cmp.FailSignerNotTrusted, "the protecting certificate is not valid now")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.ledger.valid(cert); !ok {
		return malformed(cmp.FailSignerNotTrusted|cmp.FailCertRevoked, "the protecting certificate is revoked or not known")
	}
	return nil
}
