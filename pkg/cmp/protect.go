package cmp

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const (
	sectionProtection = "RFC 9810 §5.1.3"
	sectionChecks     = "RFC 9483 §3.5"
)

// Credential protects messages: a [*SharedSecret] or a [*Signer].
type Credential interface {
	// protection prepares the protection of a message. previous is the
	// protectionAlg of the transaction's first message, or empty: the
	// parameters of a MAC stay the same throughout (RFC 9810 §5.1.3.1).
	protection(rand io.Reader, previous AlgorithmIdentifier) (*protection, error)
}

// protection is how one message is protected, and what its header says about it.
type protection struct {
	algorithm  AlgorithmIdentifier
	sender     Name
	senderKID  []byte
	extraCerts [][]byte
	seal       func(rand io.Reader, part []byte) ([]byte, error)
}

// Signer protects messages by signature (RFC 9810 §5.1.3.3). It prints without the key.
type Signer struct {
	Key         crypto.Signer
	Certificate *x509.Certificate   // of Key
	Chain       []*x509.Certificate // its issuers, from the bottom up; a self-signed root at the end is not sent

	Hash crypto.Hash // 0 chooses what suits the key: SHA-256, or SHA-384 and SHA-512 for P-384 and P-521
	PSS  bool        // RSASSA-PSS in place of PKCS #1 v1.5, for RSA keys
}

// String does not show the key.
func (s Signer) String() string {
	if s.Certificate == nil {
		return "Signer{Key: " + redacted + "}"
	}
	return fmt.Sprintf("Signer{Certificate: %q, Key: %s}", s.Certificate.Subject, redacted)
}

// Format does not show the key, whatever the verb.
func (s Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer] without the key.
func (s Signer) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON does not show the key.
func (s Signer) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

func (s *Signer) validate() error {
	if s.Key == nil || s.Certificate == nil {
		return errors.New("signer: needs a key and its certificate")
	}
	own, ok := s.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(s.Certificate.PublicKey) {
		return errors.New("signer: the key is not that of the certificate")
	}
	return nil
}

// protection implements [Credential].
func (s *Signer) protection(_ io.Reader, _ AlgorithmIdentifier) (*protection, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	scheme, err := signatureScheme(s.Key.Public(), s.Hash, s.PSS)
	if err != nil {
		return nil, err
	}
	return &protection{
		algorithm: scheme.identifier,
		sender:    s.Certificate.RawSubject,
		// senderKID is the SubjectKeyIdentifier, or absent (RFC 9810 §5.1.1)
		senderKID:  s.Certificate.SubjectKeyId,
		extraCerts: s.extraCerts(),
		seal: func(rand io.Reader, part []byte) ([]byte, error) {
			return scheme.sign(rand, s.Key, part)
		},
	}, nil
}

// extraCerts are the protection certificate first, then its chain without the root (RFC 9483 §3.3).
func (s *Signer) extraCerts() [][]byte {
	certs := [][]byte{s.Certificate.Raw}
	for _, c := range s.Chain {
		if len(certs) < MaxExtraCerts && !selfIssued(c) && !containsDER(certs, c.Raw) {
			certs = append(certs, c.Raw)
		}
	}
	return certs
}

func selfIssued(c *x509.Certificate) bool { return Name(c.RawIssuer).Equal(c.RawSubject) }

func containsDER(list [][]byte, der []byte) bool {
	for _, d := range list {
		if string(d) == string(der) {
			return true
		}
	}
	return false
}

// Protect protects m with a credential: it sets protectionAlg, senderKID,
// protection, and, where they are nil, sender and extraCerts. If protectionAlg
// is set already and a MAC, its parameters are kept, so that they can be the
// same throughout a transaction (RFC 9810 §5.1.3.1). random nil means
// crypto/rand.Reader.
func (m *Message) Protect(random io.Reader, c Credential) error {
	previous := m.Header.ProtectionAlg
	if !isMAC(previous) {
		previous = AlgorithmIdentifier{}
	}
	if random == nil {
		random = rand.Reader
	}
	p, err := c.protection(random, previous)
	if err != nil {
		return fmt.Errorf("protecting a message: %w", err)
	}
	return m.protectWith(random, p)
}

func (m *Message) protectWith(random io.Reader, p *protection) error {
	m.received = nil
	m.Header.ProtectionAlg = p.algorithm
	m.Header.SenderKID = p.senderKID
	if m.Header.Sender == nil {
		m.Header.Sender = DirectoryName(p.sender)
	}
	if m.ExtraCerts == nil {
		m.ExtraCerts = p.extraCerts
	}
	if err := m.valid(); err != nil {
		return err
	}
	protection, err := p.seal(random, m.protectedPart())
	if err != nil {
		return fmt.Errorf("protecting a message: %w", err)
	}
	m.Protection = protection
	return nil
}

// ProtectedByMAC tells whether m claims to be protected by a MAC.
func (m *Message) ProtectedByMAC() bool { return isMAC(m.Header.ProtectionAlg) }

// VerifySignature verifies protection by signature with the key of a
// certificate, and nothing else about that certificate: see [Trust.Verify].
func (m *Message) VerifySignature(cert *x509.Certificate) error {
	if m.Protection == nil || m.Header.ProtectionAlg.Algorithm == nil {
		return &ProtectionError{Check: CheckProtected, Section: sectionProtection, Detail: "absent"}
	}
	if err := verifySignature(cert.PublicKey, m.Header.ProtectionAlg, m.protectedPart(), m.Protection); err != nil {
		return &ProtectionError{Check: CheckSignature, Section: sectionSignature, Err: err}
	}
	return nil
}
