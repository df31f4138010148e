package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes named by signature algorithms
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const sectionSignature = "RFC 9481 §3"

// keyKind is the family of keys a signature algorithm is for.
type keyKind uint8

const (
	keyRSA keyKind = iota + 1
	keyECDSA
	keyEd25519
)

// scheme is a signature algorithm.
type scheme struct {
	kind       keyKind
	hash       crypto.Hash // 0 for Ed25519, which takes the message itself
	pss        bool
	saltLength int
	identifier AlgorithmIdentifier
}

var derNULL = []byte{5, 0}

// schemes are the signature algorithms without parameters of their own (RFC
// 9481 §3): RSA has NULL parameters (RFC 4055 §5), the others have none.
var schemes = [...]scheme{
	{kind: keyRSA, hash: crypto.SHA256, identifier: AlgorithmIdentifier{oidSHA256WithRSA, derNULL}},
	{kind: keyRSA, hash: crypto.SHA384, identifier: AlgorithmIdentifier{oidSHA384WithRSA, derNULL}},
	{kind: keyRSA, hash: crypto.SHA512, identifier: AlgorithmIdentifier{oidSHA512WithRSA, derNULL}},
	{kind: keyECDSA, hash: crypto.SHA256, identifier: AlgorithmIdentifier{Algorithm: oidECDSAWithSHA256}},
	{kind: keyECDSA, hash: crypto.SHA384, identifier: AlgorithmIdentifier{Algorithm: oidECDSAWithSHA384}},
	{kind: keyECDSA, hash: crypto.SHA512, identifier: AlgorithmIdentifier{Algorithm: oidECDSAWithSHA512}},
	{kind: keyEd25519, identifier: AlgorithmIdentifier{Algorithm: oidEd25519}},
}

// signatureScheme chooses the algorithm to sign with; hash 0 leaves the choice of the hash to us.
func signatureScheme(key crypto.PublicKey, hash crypto.Hash, pss bool) (*scheme, error) {
	kind, own, err := kindOf(key)
	if err != nil {
		return nil, err
	}
	switch {
	case kind == keyEd25519:
		hash = 0
	case hash == 0:
		hash = own
	}
	if pss && kind == keyRSA {
		return pssScheme(hash)
	}
	for i := range schemes {
		if schemes[i].kind == kind && schemes[i].hash == hash {
			return &schemes[i], nil
		}
	}
	return nil, fmt.Errorf("signing with %s: not among SHA-256, SHA-384 and SHA-512 (RFC 9481 §2.1)", hash)
}

// kindOf tells the family of a key and the hash that suits it.
func kindOf(key crypto.PublicKey) (keyKind, crypto.Hash, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if oversized(key) {
			return 0, 0, fmt.Errorf("RSA key of more than %d bits", MaxRSABits)
		}
		return keyRSA, crypto.SHA256, nil
	case ed25519.PublicKey:
		return keyEd25519, 0, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return keyECDSA, crypto.SHA256, nil
		case elliptic.P384():
			return keyECDSA, crypto.SHA384, nil
		case elliptic.P521():
			return keyECDSA, crypto.SHA512, nil
		}
		return 0, 0, unknownCurve(key)
	}
	return 0, 0, fmt.Errorf("unsupported public key of Go type %T: use RSA, ECDSA or Ed25519", key)
}

// unknownCurve says which curve it is that cannot be used, and which can.
func unknownCurve(key *ecdsa.PublicKey) error {
	if key.Curve == nil || key.Params() == nil {
		return errors.New("key without an elliptic curve: use P-256, P-384 or P-521")
	}
	p := key.Params()
	if p.Name == "secp256k1" {
		return errSecp256k1
	}
	return fmt.Errorf("unsupported elliptic curve %q of %d bits: use P-256, P-384 or P-521", p.Name, p.BitSize)
}

// oversized tells whether verifying with a key would take a peer's choice of time.
func oversized(key crypto.PublicKey) bool {
	rsaKey, ok := key.(*rsa.PublicKey)
	return ok && rsaKey.N.BitLen() > MaxRSABits
}

func (s *scheme) digest(message []byte) []byte {
	if s.hash == 0 {
		return message
	}
	h := s.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

func (s *scheme) sign(rand io.Reader, key crypto.Signer, message []byte) ([]byte, error) {
	var opts crypto.SignerOpts = s.hash
	if s.pss {
		opts = &rsa.PSSOptions{SaltLength: s.saltLength, Hash: s.hash}
	}
	signature, err := key.Sign(rand, s.digest(message), opts)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return signature, nil
}

// schemeOf finds the algorithm a peer names.
func schemeOf(id AlgorithmIdentifier) (*scheme, error) {
	if id.Algorithm.Equal(oidRSASSAPSS) {
		return parsePSS(id)
	}
	for i := range schemes {
		if schemes[i].identifier.Algorithm.Equal(id.Algorithm) {
			return &schemes[i], nil
		}
	}
	if id.Algorithm.Equal(oidSHA1WithRSA) || id.Algorithm.Equal(oidECDSAWithSHA1) {
		return nil, errors.New("signature with SHA-1, which is refused (RFC 9481 §3)")
	}
	return nil, fmt.Errorf("unknown signature algorithm %s", id.Algorithm)
}

var errSignature = errors.New("the signature does not verify")

// verifySignature verifies a signature of a peer.
func verifySignature(key crypto.PublicKey, id AlgorithmIdentifier, message, signature []byte) error {
	s, err := schemeOf(id)
	if err != nil {
		return err
	}
	kind, _, err := kindOf(key)
	if err != nil {
		return err
	}
	if kind != s.kind {
		return errors.New("the signature algorithm does not fit the key")
	}
	if !s.verify(key, message, signature) {
		return errSignature
	}
	return nil
}

func (s *scheme) verify(key crypto.PublicKey, message, signature []byte) bool {
	digest := s.digest(message)
	switch key := key.(type) {
	case *rsa.PublicKey:
		if s.pss {
			return rsa.VerifyPSS(key, s.hash, digest, signature, &rsa.PSSOptions{SaltLength: s.saltLength}) == nil
		}
		return rsa.VerifyPKCS1v15(key, s.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	}
	return false
}

// hashOIDs are the hashes that occur in parameters.
var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA1: oidSHA1, crypto.SHA256: oidSHA256, crypto.SHA384: oidSHA384, crypto.SHA512: oidSHA512,
}

func hashByOID(oid asn1.ObjectIdentifier) (crypto.Hash, bool) {
	for h, known := range hashOIDs {
		if known.Equal(oid) {
			return h, true
		}
	}
	return 0, false
}

// pssScheme is RSASSA-PSS with MGF1 over the same hash and a salt as long as the hash (RFC 9481 §3.1).
func pssScheme(hash crypto.Hash) (*scheme, error) {
	oid, ok := hashOIDs[hash]
	if !ok || hash == crypto.SHA1 {
		return nil, fmt.Errorf("signing with %s: not among SHA-256, SHA-384 and SHA-512 (RFC 9481 §2.1)", hash)
	}
	s := &scheme{kind: keyRSA, hash: hash, pss: true, saltLength: hash.Size()}
	s.identifier = AlgorithmIdentifier{Algorithm: oidRSASSAPSS, Parameters: pssParameters(oid, s.saltLength)}
	return s, nil
}

// pssParameters encodes RSASSA-PSS-params (RFC 4055 §3.1).
func pssParameters(hash asn1.ObjectIdentifier, saltLength int) []byte {
	var h writer
	h.algorithm(AlgorithmIdentifier{hash, derNULL})
	var w writer
	m := w.open(tag.SEQUENCE)
	w.taggedElement(0, h.b)
	mgf := w.open(explicit(1))
	w.algorithm(AlgorithmIdentifier{oidMGF1, h.b})
	w.close(mgf)
	salt := w.open(explicit(2))
	w.integer(int64(saltLength))
	w.close(salt)
	w.close(m)
	return w.b
}

// parsePSS reads RSASSA-PSS-params. The defaults, SHA-1 all of them, are refused.
func parsePSS(id AlgorithmIdentifier) (*scheme, error) {
	hash, mgf, salt, err := pssFields(id.Parameters)
	if err != nil {
		return nil, err
	}
	// a salt of no bytes would mean "any" to crypto/rsa
	if hash == crypto.SHA1 || mgf != hash || salt < 1 || salt > MaxSaltBytes {
		return nil, errors.New("parameters of RSASSA-PSS outside of RFC 9481 §3.1")
	}
	return &scheme{kind: keyRSA, hash: hash, pss: true, saltLength: int(salt), identifier: id}, nil
}

func pssFields(der []byte) (hash, mgf crypto.Hash, salt int64, err error) {
	const field = "RSASSA-PSS-params"
	hash, mgf, salt = crypto.SHA1, crypto.SHA1, 20
	p := newParser(der, inPSS)
	parameters := p.enter(tag.SEQUENCE, field)
	if e, ok := p.optional(explicit(0), field); ok {
		hash = p.hash(field)
		p.leave(e, field)
	}
	if e, ok := p.optional(explicit(1), field); ok {
		m := p.enter(tag.SEQUENCE, field)
		p.check(p.oid(field).Equal(oidMGF1), field)
		mgf = p.hash(field)
		p.leave(m, field)
		p.leave(e, field)
	}
	if e, ok := p.optional(explicit(2), field); ok {
		salt = p.integer(field)
		p.leave(e, field)
	}
	if e, ok := p.optional(explicit(3), field); ok {
		p.check(p.integer(field) == 1, field)
		p.leave(e, field)
	}
	p.leave(parameters, field)
	p.done(field)
	return hash, mgf, salt, p.err()
}

// hash reads the AlgorithmIdentifier of a hash.
func (p *parser) hash(field string) crypto.Hash {
	a := p.algorithm(field)
	h, ok := hashByOID(a.Algorithm)
	p.check(ok, field)
	return h
}
