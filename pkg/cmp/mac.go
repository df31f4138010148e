package cmp

import (
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	_ "crypto/sha1" //nolint:gosec // for peers that cannot do better, where allowed
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"unicode/utf8"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	sectionPBM    = "RFC 9810 §5.1.3.1"
	sectionPBMAC1 = "RFC 9481 §6.1.2"
)

// SharedSecret protects messages with a MAC keyed by a secret shared with the
// CA (RFC 9810 §5.1.3.1): PasswordBasedMac, or PBMAC1 if asked for. It prints
// as redacted. The zero value of the optional fields is a safe default.
type SharedSecret struct {
	Reference []byte // reference value: the senderKID
	Secret    []byte

	Iterations int         // iterationCount to send; 0 means DefaultIterations
	OWF        crypto.Hash // one-way function, for PBMAC1 the hash of the PRF; 0 means SHA-256
	MAC        crypto.Hash // hash of the HMAC; 0 means SHA-256
	PBMAC1     bool        // use PBMAC1 (RFC 9481 §6.1.2)
	AllowSHA1  bool        // use and accept SHA-1 where a peer knows nothing better
}

const redacted = "[redacted]"

// String does not show the secret.
func (s SharedSecret) String() string {
	return fmt.Sprintf("SharedSecret{Reference: %q, Secret: %s}", printable([]string{string(s.Reference)}), redacted)
}

// Format does not show the secret, whatever the verb.
func (s SharedSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer] without the secret.
func (s SharedSecret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON does not show the secret.
func (s SharedSecret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

func (s *SharedSecret) validate() error {
	if len(s.Secret) == 0 {
		return errors.New("shared secret: empty")
	}
	if len(s.Reference) == 0 || len(s.Reference) > MaxNonceBytes {
		return fmt.Errorf("shared secret: the reference value must have 1 to %d bytes", MaxNonceBytes)
	}
	if n := s.Iterations; n != 0 && (n < MinIterations || n > DefaultMaxIterations) {
		return fmt.Errorf("shared secret: the iterationCount must be between %d and %d", MinIterations, DefaultMaxIterations)
	}
	return nil
}

// name is the sender a shared secret stands for: CN=reference (RFC 9483 §3.1),
// or none if that is not text.
func (s *SharedSecret) name() Name {
	if !utf8.Valid(s.Reference) || len(s.Reference) > maxCommonName {
		return NullDN()
	}
	return commonName(s.Reference)
}

// protect implements [Credential].
func (s *SharedSecret) protection(rand io.Reader, previous AlgorithmIdentifier) (*protection, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	if previous.Algorithm == nil {
		var err error
		if previous, err = s.newParameters(rand); err != nil {
			return nil, err
		}
	}
	key, err := s.derive(previous, DefaultMaxIterations)
	if err != nil {
		return nil, err
	}
	return &protection{
		algorithm: previous, sender: s.name(), senderKID: s.Reference,
		seal: func(_ io.Reader, part []byte) ([]byte, error) { return key.mac(part), nil },
	}, nil
}

// newParameters chooses a fresh salt (RFC 9810 §5.1.3.1).
func (s *SharedSecret) newParameters(rand io.Reader) (AlgorithmIdentifier, error) {
	salt := make([]byte, nonceBytes)
	if _, err := io.ReadFull(rand, salt); err != nil {
		return AlgorithmIdentifier{}, fmt.Errorf("reading random bytes: %w", err)
	}
	p := macParameters{salt: salt, iterations: int64(s.Iterations), owf: s.OWF, mac: s.MAC}
	if p.iterations == 0 {
		p.iterations = DefaultIterations
	}
	if p.owf == 0 {
		p.owf = crypto.SHA256
	}
	if p.mac == 0 {
		p.mac = crypto.SHA256
	}
	if s.PBMAC1 {
		return p.pbmac1()
	}
	return p.passwordBasedMac()
}

// isMAC tells whether an algorithm is one of protection by MAC.
func isMAC(a AlgorithmIdentifier) bool {
	return a.Algorithm.Equal(oidPasswordBasedMac) || a.Algorithm.Equal(oidPBMAC1)
}

// VerifyMAC verifies protection by MAC, in constant time. Parameters outside
// of the bounds are refused before any work is done for them; maxIterations 0
// means DefaultMaxIterations. The errors are of type [ProtectionError].
func (m *Message) VerifyMAC(secret *SharedSecret, maxIterations int) error {
	key, err := secret.derive(m.Header.ProtectionAlg, maxIterations)
	if err != nil {
		return &ProtectionError{Check: CheckMAC, Section: sectionPBM, Err: err}
	}
	return m.verifyMAC(key)
}

func (m *Message) verifyMAC(key *macKey) error {
	if !hmac.Equal(key.mac(m.protectedPart()), m.Protection) {
		return &ProtectionError{Check: CheckMAC, Section: sectionPBM, Detail: "wrong secret, or altered on the way"}
	}
	return nil
}

// macKey is the key derived from a secret for one set of parameters.
type macKey struct {
	key []byte
	new func() hash.Hash
}

func (k *macKey) mac(part []byte) []byte {
	h := hmac.New(k.new, k.key)
	h.Write(part)
	return h.Sum(nil)
}

// macParameters are the parameters of PasswordBasedMac and of PBMAC1.
type macParameters struct {
	salt       []byte
	iterations int64
	owf        crypto.Hash // of PBKDF2's PRF in PBMAC1
	mac        crypto.Hash
	keyLength  int64 // PBMAC1 only
}

// derive computes the key for an algorithm within bounds.
func (s *SharedSecret) derive(a AlgorithmIdentifier, maxIterations int) (*macKey, error) {
	p, err := parseMAC(a)
	if err != nil {
		return nil, err
	}
	if err := p.check(maxIterations, s.AllowSHA1); err != nil {
		return nil, err
	}
	if a.Algorithm.Equal(oidPBMAC1) {
		key, err := pbkdf2.Key(p.owf.New, string(s.Secret), p.salt, int(p.iterations), int(p.keyLength))
		return &macKey{key: key, new: p.mac.New}, err
	}
	return &macKey{key: p.baseKey(s.Secret), new: p.mac.New}, nil
}

// check bounds what a peer can make us compute.
func (p *macParameters) check(maxIterations int, allowSHA1 bool) error {
	if maxIterations == 0 {
		maxIterations = DefaultMaxIterations
		if p.keyLength > 0 { // PBKDF2: two hashes in each
			maxIterations /= 2
		}
	}
	switch {
	case p.iterations < MinIterations || p.iterations > int64(maxIterations):
		return fmt.Errorf("iterationCount %d is not between %d and %d", p.iterations, MinIterations, maxIterations)
	case len(p.salt) == 0:
		return errors.New("empty salt")
	case p.keyLength > MaxSaltBytes:
		return fmt.Errorf("keyLength %d is above %d", p.keyLength, MaxSaltBytes)
	case p.keyLength > int64(p.owf.Size()) && p.iterations > int64(maxIterations/4): // each further block costs all iterations again
		return fmt.Errorf("iterationCount %d with keyLength %d is above %d", p.iterations, p.keyLength, maxIterations/4)
	case !allowSHA1 && (p.owf == crypto.SHA1 || p.mac == crypto.SHA1):
		return errors.New("SHA-1, which is not allowed (RFC 9481 §6.2)")
	}
	return nil
}

// baseKey applies the one-way function to secret and salt (RFC 4211 §4.4). HMAC
// takes a key of any length, so none is expanded (RFC 9810 §5.1.3.1).
func (p *macParameters) baseKey(secret []byte) []byte {
	h := p.owf.New()
	h.Write(secret)
	h.Write(p.salt)
	key := h.Sum(nil)
	for range p.iterations - 1 {
		h.Reset()
		h.Write(key)
		key = h.Sum(key[:0])
	}
	return key
}

// parseMAC reads the parameters of either algorithm.
func parseMAC(a AlgorithmIdentifier) (*macParameters, error) {
	p := newParser(a.Parameters, inPBM)
	out := new(macParameters)
	switch {
	case a.Algorithm.Equal(oidPasswordBasedMac):
		p.passwordBasedMac(out)
	case a.Algorithm.Equal(oidPBMAC1):
		p.section = inPBMAC1
		p.pbmac1(out)
	default:
		return nil, fmt.Errorf("unknown MAC algorithm %s", a.Algorithm)
	}
	p.done("protectionAlg.parameters")
	return out, p.err()
}

// passwordBasedMac reads a PBMParameter (RFC 9810 §5.1.3.1).
func (p *parser) passwordBasedMac(out *macParameters) {
	outer := p.enter(tag.SEQUENCE, "PBMParameter")
	out.salt = p.octets("PBMParameter.salt", MaxSaltBytes)
	owf := p.algorithm("PBMParameter.owf")
	out.iterations = p.integer("PBMParameter.iterationCount")
	mac := p.algorithm("PBMParameter.mac")
	p.leave(outer, "PBMParameter")
	var ok bool
	out.owf, ok = hashByOID(owf.Algorithm)
	p.check(ok, "PBMParameter.owf")
	out.mac, ok = hmacByOID(mac.Algorithm)
	p.check(ok, "PBMParameter.mac")
}

// passwordBasedMac encodes a PBMParameter; hashes have no parameters (RFC 5754 §2).
func (p *macParameters) passwordBasedMac() (AlgorithmIdentifier, error) {
	owf, mac, err := p.oids()
	if err != nil {
		return AlgorithmIdentifier{}, err
	}
	var w writer
	m := w.open(tag.SEQUENCE)
	w.octets(p.salt)
	w.algorithm(AlgorithmIdentifier{Algorithm: owf})
	w.integer(p.iterations)
	w.algorithm(AlgorithmIdentifier{Algorithm: mac})
	w.close(m)
	return AlgorithmIdentifier{oidPasswordBasedMac, w.b}, nil
}

func (p *macParameters) oids() (owf, mac asn1.ObjectIdentifier, err error) {
	owf, owfOK := hashOIDs[p.owf]
	mac, macOK := hmacOIDs[p.mac]
	if !owfOK || !macOK {
		return nil, nil, fmt.Errorf("shared secret: %s and HMAC with %s are not both known", p.owf, p.mac)
	}
	return owf, mac, nil
}

// hmacOIDs are the keyed hashes as we name them; of the two names of HMAC with
// SHA-1, the one old CAs understand.
var hmacOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA1: oidHMACSHA1, crypto.SHA256: oidHMACWithSHA256, crypto.SHA384: oidHMACWithSHA384, crypto.SHA512: oidHMACWithSHA512,
}

func hmacByOID(oid asn1.ObjectIdentifier) (crypto.Hash, bool) {
	if oid.Equal(oidHMACWithSHA1) {
		return crypto.SHA1, true
	}
	for h, known := range hmacOIDs {
		if known.Equal(oid) {
			return h, true
		}
	}
	return 0, false
}

// pbmac1 reads PBMAC1-params (RFC 8018 appendix A.5). Bouncy Castle names PBES2
// as the function although what follows are the parameters of PBKDF2.
func (p *parser) pbmac1(out *macParameters) {
	outer := p.enter(tag.SEQUENCE, "PBMAC1-params")
	function := p.enter(tag.SEQUENCE, "PBMAC1-params.keyDerivationFunc")
	kdf := p.oid("PBMAC1-params.keyDerivationFunc")
	p.check(kdf.Equal(oidPBKDF2) || kdf.Equal(oidPBES2), "PBMAC1-params.keyDerivationFunc")
	p.pbkdf2(out)
	p.leave(function, "PBMAC1-params.keyDerivationFunc")
	mac := p.algorithm("PBMAC1-params.messageAuthScheme")
	p.leave(outer, "PBMAC1-params")
	var ok bool
	out.mac, ok = hmacByOID(mac.Algorithm)
	p.check(ok, "PBMAC1-params.messageAuthScheme")
	if out.keyLength == 0 && p.ok() {
		out.keyLength = int64(out.mac.Size())
	}
}

// pbkdf2 reads PBKDF2-params (RFC 8018 appendix A.2). keyLength is optional and
// then that of the MAC's hash; prf defaults to HMAC with SHA-1, and some encode
// the default.
func (p *parser) pbkdf2(out *macParameters) {
	outer := p.enter(tag.SEQUENCE, "PBKDF2-params")
	out.salt = p.octets("PBKDF2-params.salt", MaxSaltBytes)
	out.iterations = p.integer("PBKDF2-params.iterationCount")
	out.keyLength, out.owf = 0, crypto.SHA1
	if p.peek(tag.INTEGER) {
		out.keyLength = p.integer("PBKDF2-params.keyLength")
		p.check(out.keyLength > 0, "PBKDF2-params.keyLength")
	}
	if p.more() {
		prf := p.algorithm("PBKDF2-params.prf")
		var ok bool
		out.owf, ok = hmacByOID(prf.Algorithm)
		p.check(ok, "PBKDF2-params.prf")
	}
	p.leave(outer, "PBKDF2-params")
}

// pbmac1 encodes PBMAC1-params.
func (p *macParameters) pbmac1() (AlgorithmIdentifier, error) {
	_, mac, err := p.oids()
	if err != nil {
		return AlgorithmIdentifier{}, err
	}
	var kdf writer
	k := kdf.open(tag.SEQUENCE)
	kdf.octets(p.salt)
	kdf.integer(p.iterations)
	kdf.integer(int64(p.mac.Size()))
	if p.owf != crypto.SHA1 { // DER leaves the default out
		kdf.algorithm(AlgorithmIdentifier{hmacOIDs[p.owf], derNULL})
	}
	kdf.close(k)
	var w writer
	m := w.open(tag.SEQUENCE)
	w.algorithm(AlgorithmIdentifier{oidPBKDF2, kdf.b})
	w.algorithm(AlgorithmIdentifier{mac, derNULL})
	w.close(m)
	return AlgorithmIdentifier{oidPBMAC1, w.b}, nil
}
