package responder

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/certloop/certloop/pkg/cmp"
)

// seal makes the message of an answer: header, protection, DER; and spoils it as told.
func (s *Server) seal(x *exchange, a *answer) ([]byte, error) {
	faults := x.behaviour.faults(a.kind)
	if faults.Garbage {
		return []byte("this is no PKIMessage"), nil
	}
	m := &cmp.Message{Type: a.kind, Body: a.body, Header: s.header(x, a)}
	faults.spoil(m)
	if faults.Alter != nil {
		faults.Alter(m)
	}
	if err := s.protect(x, m, &faults); err != nil {
		return nil, err
	}
	der, err := m.Marshal()
	if err == nil && faults.AlterDER != nil {
		der = faults.AlterDER(der)
	}
	return der, err
}

func (s *Server) header(x *exchange, a *answer) cmp.Header {
	request := &x.req.Header
	h := cmp.Header{
		PVNO:          cmp.PVNO2,
		Sender:        cmp.DirectoryName(s.ca.issuing.RawSubject),
		Recipient:     request.Sender,
		MessageTime:   x.now,
		TransactionID: request.TransactionID,
		SenderNonce:   x.nonce,
		RecipNonce:    request.SenderNonce,
		GeneralInfo:   a.info,
	}
	if request.PVNO == cmp.PVNO3 {
		h.PVNO = cmp.PVNO3
	}
	return h
}

// spoil puts the wrong values into a header.
func (b *Behaviour) spoil(m *cmp.Message) {
	if b.BadNonce {
		m.Header.RecipNonce = inverted(m.Header.RecipNonce)
	}
	if b.WrongTransactionID {
		m.Header.TransactionID = inverted(m.Header.TransactionID)
	}
}

func inverted(octets []byte) []byte {
	out := bytes.Clone(octets)
	for i := range out {
		out[i] = ^out[i]
	}
	return out
}

// protect answers in kind: by MAC who used a MAC, everybody else by signature.
func (s *Server) protect(x *exchange, m *cmp.Message, b *Behaviour) error {
	if b.Unprotected || b.UnprotectedErrors && refuses(m) {
		return nil
	}
	if x.known && x.peer.Reference != "" && !b.SignMAC {
		return s.protectByMAC(x, m, b)
	}
	ca := s.ca
	if b.WrongSignature {
		var err error
		if ca, err = s.foreign(); err != nil {
			return err
		}
	}
	return m.Protect(s.cfg.Rand, ca.signer())
}

// protectByMAC keeps the parameters the client chose (RFC 9810 §5.1.3.1), and
// adds the issuing CA, which nobody else would tell.
func (s *Server) protectByMAC(x *exchange, m *cmp.Message, b *Behaviour) error {
	secret := s.secretFor(x.peer.Reference)
	if b.WrongSignature {
		secret.Secret = append(secret.Secret, "wrong"...)
	}
	m.Header.ProtectionAlg = x.req.Header.ProtectionAlg
	if m.ExtraCerts == nil && carriesCertificate(m) {
		for _, c := range s.ca.chain() {
			m.ExtraCerts = append(m.ExtraCerts, c.Raw)
		}
	}
	return m.Protect(s.cfg.Rand, secret)
}

func carriesCertificate(m *cmp.Message) bool {
	b, ok := m.Body.(*cmp.CertRepMessage)
	return ok && slices.ContainsFunc(b.Response, func(r cmp.CertResponse) bool { return r.Certified != nil })
}

func refuses(m *cmp.Message) bool {
	switch b := m.Body.(type) {
	case *cmp.ErrorMsg:
		return true
	case *cmp.CertRepMessage:
		return b.Response[0].Status.Status == cmp.StatusRejection
	case *cmp.RevRep:
		return b.Status[0].Status == cmp.StatusRejection
	}
	return false
}

// foreign is a CA of the same name with another key.
func (s *Server) foreign() (*authority, error) {
	s.foreignOnce.Do(func() { s.foreignCA, s.foreignErr = s.newForeign() })
	return s.foreignCA, s.foreignErr
}

func (s *Server) newForeign() (*authority, error) {
	cfg := s.cfg
	cfg.Name, cfg.Intermediate, cfg.Successor = s.ca.issuing.Subject.CommonName, false, false
	ca, err := newAuthority(&cfg)
	if err != nil {
		return nil, fmt.Errorf("making a foreign CA: %w", err)
	}
	return ca, nil
}
