package cmpcmd

import (
	"io"
	"slices"

	"github.com/certloop/certloop/pkg/cmp"
)

// shape is what options change in our messages once the transaction has made them.
type shape struct {
	credential  cmp.Credential
	unprotected bool     // -unprotected_requests
	reference   []byte   // senderKID of unprotected requests
	noProof     bool     // -popo -1
	extraCerts  [][]byte // -extracerts
}

func (b *builder) shape(credential cmp.Credential) (shape, error) {
	s := shape{credential: credential, unprotected: b.has("unprotected_requests"), noProof: b.number("popo", 1) == -1}
	if b.has("ref") {
		s.reference = []byte(b.values["ref"])
	}
	extra, err := b.certificatesOf("extracerts")
	for _, c := range extra {
		s.extraCerts = append(s.extraCerts, c.Raw)
	}
	return s, err
}

// apply gives the message that is sent in place of der.
func (s *shape) apply(der []byte, random io.Reader) ([]byte, error) {
	if !s.unprotected && !s.noProof && len(s.extraCerts) == 0 {
		return der, nil
	}
	parsed, err := cmp.ParseMessage(der)
	if err != nil {
		return nil, err
	}
	m := &cmp.Message{Header: parsed.Header, Type: parsed.Type, Body: parsed.Body, Protection: parsed.Protection}
	m.ExtraCerts = s.withExtra(parsed.ExtraCerts)
	stripped := s.noProof && removeProof(m)
	switch {
	case s.unprotected:
		m.Header.ProtectionAlg, m.Header.SenderKID = cmp.AlgorithmIdentifier{}, s.reference
		m.Protection, m.ExtraCerts = nil, s.withExtra(nil)
	case stripped:
		if err := m.Protect(random, s.credential); err != nil {
			return nil, err
		}
	}
	return m.Marshal()
}

// removeProof takes the proof of possession out of a request.
func removeProof(m *cmp.Message) bool {
	body, ok := m.Body.(cmp.CertReqMessages)
	if !ok {
		return false
	}
	body = slices.Clone(body)
	for i := range body {
		body[i].POPO = cmp.ProofOfPossession{}
	}
	m.Body = body
	return true
}

// withExtra appends -extracerts, which protection does not cover.
func (s *shape) withExtra(certs [][]byte) [][]byte {
	certs = slices.Clip(certs)
	for _, der := range s.extraCerts {
		known := slices.ContainsFunc(certs, func(c []byte) bool { return string(c) == string(der) })
		if !known && len(certs) < cmp.MaxExtraCerts {
			certs = append(certs, der)
		}
	}
	return certs
}
