package cmp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Trust says who may protect the peer's messages by signature, and what new
// certificates must chain to. Roots and ServerCertificate exclude each other.
// With neither, only protection by MAC is accepted.
type Trust struct {
	Roots             []*x509.Certificate // trust anchors for the signers of messages, and for new certificates
	Intermediates     []*x509.Certificate // untrusted, used to build paths; what a verified message brings comes on top
	ServerCertificate *x509.Certificate   // the one certificate messages may be signed with, trusted as it is while valid
	IssuedRoots       []*x509.Certificate // anchors for new certificates, in place of Roots

	// AnchorInIP lets a device that knows no root yet learn one: a self-signed
	// certificate in the extraCerts of a signed ip, to which both the signer of
	// the ip and the new certificate must lead (3GPP TS 33.310). It
	// believes whoever answers first, so that it is off unless asked for.
	AnchorInIP bool

	Paths *PathCache // of signers and issuers that were verified before; nil: each transaction begins with none

	ExpectedSender  Name // sender of every message of the peer; nil: anybody who is trusted
	ExpectedSigner  Name // subject of who signs the peer's messages, whatever the sender of those by MAC; nil: anybody who is trusted
	IgnoreKeyUsage  bool // accept a signer whose keyUsage lacks digitalSignature
	IgnoreSenderKID bool // accept a signer whose key identifier is not the senderKID
	RequireCMCUsage bool // the signer's extendedKeyUsage must have cmcCA or cmcRA (RFC 9810 §4.5)
}

func (t *Trust) validate() error {
	if t.ServerCertificate != nil && len(t.Roots) > 0 {
		return errors.New("trust: roots and a server certificate exclude each other")
	}
	if t.ServerCertificate != nil && t.AnchorInIP {
		return errors.New("trust: a server certificate and an anchor from the ip exclude each other")
	}
	return nil
}

// signatures tells whether any signature can be trusted.
func (t *Trust) signatures() bool {
	return t.ServerCertificate != nil || len(t.Roots) > 0 || t.AnchorInIP
}

// issuedRoots are the anchors of new certificates; none means that any issuer is accepted.
func (t *Trust) issuedRoots() []*x509.Certificate {
	if len(t.IssuedRoots) > 0 {
		return t.IssuedRoots
	}
	return t.Roots
}

// Verify finds the certificate whose key signed m and checks that it may: it is
// the pinned one, or its path leads to Roots. The certificates tried are known
// (which are taken to be trusted already), extraCerts, Intermediates and Roots,
// in this order (RFC 9483 §3.5). The errors are of type [ProtectionError].
func (t *Trust) Verify(m *Message, at time.Time, known ...*x509.Certificate) (*x509.Certificate, error) {
	return t.verify(search{trust: t, message: m, at: at, parse: parseAll}, known...)
}

func (t *Trust) verify(s search, known ...*x509.Certificate) (*x509.Certificate, error) {
	if sender, _ := s.message.Header.Sender.Name(); t.ExpectedSigner != nil && !t.ExpectedSigner.Equal(sender) {
		return nil, &ProtectionError{Check: CheckSigner, Section: sectionChecks, Detail: fmt.Sprintf("%q is not the expected %q", sender, t.ExpectedSigner)}
	}
	if t.ServerCertificate != nil {
		if s.signedBy(t.ServerCertificate) {
			return t.ServerCertificate, nil
		}
		return nil, s.failure()
	}
	for _, c := range known {
		if s.signedBy(c) {
			return c, nil
		}
	}
	return s.candidates()
}

// verifyAgain is verify for who has signed messages of a transaction before, and
// for nobody else: it was that certificate, or one that renews it for the same
// subject and key, which must lead to the roots like any other.
func (t *Trust) verifyAgain(s search, signer *x509.Certificate) (*x509.Certificate, error) {
	s.signer = signer
	return t.verify(s, signer)
}

// search looks for the signer of one message.
type search struct {
	trust   *Trust
	signer  *x509.Certificate // nobody else will do, except with a renewed certificate; nil: anybody who is trusted
	message *Message
	at      time.Time
	parse   func([][]byte) []*x509.Certificate
	extra   []*x509.Certificate
	paths   *pathfinder
	tried   int   // signatures verified
	err     error // why the most promising candidate was not it
	rank    int   // how promising that was
}

// signedBy tells whether c fits and its key made the signature.
func (s *search) signedBy(c *x509.Certificate) bool {
	if err := s.fits(c); err != nil {
		s.note(1, &ProtectionError{Check: CheckSigner, Section: sectionChecks, Detail: err.Error()})
		return false
	}
	if s.tried++; s.tried > maxCandidates {
		return false
	}
	if err := s.message.VerifySignature(c); err != nil {
		s.note(2, err)
		return false
	}
	return true
}

// note keeps the error of the candidate that came furthest.
func (s *search) note(rank int, err error) {
	if rank > s.rank {
		s.rank, s.err = rank, err
	}
}

func (s *search) failure() error {
	if s.rank > 1 {
		return s.err
	}
	for _, der := range s.message.ExtraCerts {
		if _, err := parseCertificate(der); errors.Is(err, errSecp256k1) {
			return &ProtectionError{Check: CheckSigner, Section: sectionChecks, Err: err}
		}
	}
	if s.err != nil {
		return s.err
	}
	return &ProtectionError{Check: CheckSigner, Section: sectionChecks, Detail: "no certificate of the sender is at hand"}
}

// fits checks a candidate before its signature is looked at.
func (s *search) fits(c *x509.Certificate) error {
	header := &s.message.Header
	sender, ok := header.Sender.Name()
	switch {
	case s.signer != nil && (!ok || !Name(s.signer.RawSubject).Equal(sender)):
		return errors.New("the sender is not who signed the answers before: a transaction has one signer")
	case s.signer != nil && !samePerson(c, s.signer):
		return errors.New("the sender has another key than before: a transaction has one signer")
	case !ok || !Name(c.RawSubject).Equal(sender):
		return errors.New("no certificate at hand has the sender as its subject")
	case !s.trust.IgnoreSenderKID && !fitsKID(c, header.SenderKID):
		return errors.New("no certificate of the sender has the senderKID")
	case s.at.Before(c.NotBefore) || s.at.After(c.NotAfter):
		return errors.New("the sender's certificate is not valid now")
	case !s.trust.IgnoreKeyUsage && !maySign(c):
		return errors.New("the sender's certificate lacks keyUsage digitalSignature")
	case s.trust.RequireCMCUsage && !hasCMCUsage(c):
		return errors.New("the sender's certificate lacks extendedKeyUsage cmcCA or cmcRA")
	}
	return nil
}

// samePerson tells whether two certificates are of one subject and one key.
func samePerson(a, b *x509.Certificate) bool {
	return Name(a.RawSubject).Equal(b.RawSubject) && sameKey(a, b)
}

// sameKey tells whether two certificates have one public key.
func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// fitsKID compares key identifiers; either may be absent, since it selects and proves nothing.
func fitsKID(c *x509.Certificate, kid []byte) bool {
	return len(kid) == 0 || len(c.SubjectKeyId) == 0 || slices.Equal(c.SubjectKeyId, kid)
}

// maySign wants digitalSignature where there is a keyUsage at all (RFC 9483 §3.5).
func maySign(c *x509.Certificate) bool {
	return c.KeyUsage&x509.KeyUsageDigitalSignature != 0 || !hasExtension(c, ExtensionKeyUsage)
}

func hasExtension(c *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for i := range c.Extensions {
		if c.Extensions[i].Id.Equal(id) {
			return true
		}
	}
	return false
}

func hasCMCUsage(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.UnknownExtKeyUsage, func(id asn1.ObjectIdentifier) bool {
		return id.Equal(oidCMCCA) || id.Equal(oidCMCRA)
	})
}

// candidates tries everything at hand; the first full success wins.
func (s *search) candidates() (*x509.Certificate, error) {
	s.extra = s.parse(s.message.ExtraCerts)
	for _, list := range [][]*x509.Certificate{s.extra, s.trust.Intermediates, s.trust.Roots} {
		for _, c := range list {
			if s.signedBy(c) && s.trusted(c) {
				return c, nil
			}
		}
	}
	return nil, s.failure()
}

func (s *search) trusted(c *x509.Certificate) bool {
	if s.paths == nil {
		s.paths = newPathfinder(s.trust.Paths, s.trust.Roots, s.trust.Intermediates, s.extra)
	}
	path, err := s.paths.verify(c, s.at)
	if err == nil {
		s.trust.Paths.add(path)
	} else {
		s.note(3, &ProtectionError{Check: CheckSigner, Section: sectionChecks, Err: fmt.Errorf("path of the sender's certificate: %w", err)})
	}
	return err == nil
}

// selfSigned are the certificates that can be anchors by themselves.
func selfSigned(certs []*x509.Certificate) []*x509.Certificate {
	var anchors []*x509.Certificate
	for _, c := range certs {
		if len(anchors) < maxCandidates && selfIssued(c) && c.IsCA && c.CheckSignatureFrom(c) == nil {
			anchors = append(anchors, c)
		}
	}
	return anchors
}

// leadsTo keeps the anchors to which a path from c leads.
func leadsTo(c *x509.Certificate, anchors, others []*x509.Certificate, at time.Time) []*x509.Certificate {
	var out []*x509.Certificate
	for _, anchor := range anchors {
		if _, err := newPathfinder(nil, []*x509.Certificate{anchor}, others).verifyIssued(c, at); err == nil {
			out = append(out, anchor)
		}
	}
	return out
}

func poolOf(lists ...[]*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, list := range lists {
		for _, c := range list {
			pool.AddCert(c)
		}
	}
	return pool
}

// parseAll decodes certificates and leaves out what crypto/x509 does not
// understand, and keys so large that to verify with them would be a burden.
func parseAll(ders [][]byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, der := range ders {
		if c, err := x509.ParseCertificate(der); err == nil && !oversized(c.PublicKey) {
			certs = append(certs, c)
		}
	}
	return certs
}
