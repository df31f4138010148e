package ledger

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"

	"github.com/certloop/certloop/pkg/model"
)

// PrivateKey is a private key that prints as redacted, in every way fmt, slog and
// encoding/json print things. The zero value holds no key.
type PrivateKey struct {
	// A function, because fmt asks no methods of an unexported field of somebody's
	// struct but looks into it, and an Ed25519 key is a slice of octets.
	signer func() crypto.Signer
}

func hold(key crypto.Signer) PrivateKey {
	return PrivateKey{func() crypto.Signer { return key }}
}

const redacted = "[private key redacted]"

// String implements fmt.Stringer.
func (PrivateKey) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (PrivateKey) GoString() string { return redacted }

// Format implements fmt.Formatter, for verbs such as %x that would look inside.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON implements json.Marshaler.
func (PrivateKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue implements slog.LogValuer.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// Signer gives the key to whoever signs with it; nil when there is none.
func (k PrivateKey) Signer() crypto.Signer {
	if k.signer == nil {
		return nil
	}
	return k.signer()
}

// GenerateKey makes a new key.
func GenerateKey(want model.PrivateKey) (PrivateKey, error) {
	switch want.Algorithm {
	case model.RSA:
		key, err := rsa.GenerateKey(rand.Reader, max(want.Size, 2048))
		return hold(key), err
	case model.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return hold(key), err
	default:
		key, err := ecdsa.GenerateKey(curve(want.Size), rand.Reader)
		return hold(key), err
	}
}

func curve(size int) elliptic.Curve {
	switch size {
	case 384:
		return elliptic.P384()
	case 521:
		return elliptic.P521()
	default:
		return elliptic.P256()
	}
}

// MaxPEMBytes bounds what is read as PEM: keys, certificates, bundles.
const MaxPEMBytes = 64 << 10

// ParseKey reads a private key in PEM or DER: PKCS #8, SEC 1 or PKCS #1, unencrypted.
// The error never repeats what was read.
func ParseKey(data []byte) (PrivateKey, error) {
	if len(data) > MaxPEMBytes {
		return PrivateKey{}, fmt.Errorf("longer than %d bytes", MaxPEMBytes)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if parse, known := keyBlocks()[block.Type]; known {
			if key, ok := parse(block.Bytes); ok {
				return key, nil
			}
		}
	}
	if isDER(data) {
		for _, parse := range keyBlocks() {
			if key, ok := parse(data); ok {
				return key, nil
			}
		}
	}
	return PrivateKey{}, errors.New("no private key in PEM or DER (PKCS #8, EC or RSA, unencrypted)")
}

// isDER tells whether data begin as every key and certificate in DER does: with a SEQUENCE.
func isDER(data []byte) bool { return len(data) > 0 && data[0] == 0x30 }

// keyBlocks are the encodings of private keys, by their label in PEM (RFC 7468 §10, RFC 5915 §4).
func keyBlocks() map[string]func([]byte) (PrivateKey, bool) {
	return map[string]func([]byte) (PrivateKey, bool){
		"PRIVATE KEY":     func(der []byte) (PrivateKey, bool) { return signer(x509.ParsePKCS8PrivateKey(der)) },
		"EC PRIVATE KEY":  func(der []byte) (PrivateKey, bool) { return signer(x509.ParseECPrivateKey(der)) },
		"RSA PRIVATE KEY": func(der []byte) (PrivateKey, bool) { return signer(x509.ParsePKCS1PrivateKey(der)) },
	}
}

// signer holds what was parsed, when it is a key that signs.
func signer[K any](key K, err error) (PrivateKey, bool) {
	if err != nil {
		return PrivateKey{}, false
	}
	s, ok := any(key).(crypto.Signer)
	return hold(s), ok
}

// DER is the key as PKCS #8, for a Secret.
func (k PrivateKey) DER() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(k.Signer()) }

// PEM is the key as PKCS #8, for a Secret.
func (k PrivateKey) PEM() ([]byte, error) {
	der, err := k.DER()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Fits tells whether the key is the one a certificate was issued for.
func (k PrivateKey) Fits(cert *x509.Certificate) bool {
	signer := k.Signer()
	if signer == nil || cert == nil {
		return false
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// ParseCertificates reads certificates, the first one first, in PEM, or in DER following
// each other. In PEM anything that is not a certificate block is passed over; no
// certificate at all is an error.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > MaxPEMBytes {
		return nil, fmt.Errorf("longer than %d bytes", MaxPEMBytes)
	}
	if isDER(data) {
		return x509.ParseCertificates(data)
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in PEM or DER")
	}
	return out, nil
}

// EncodeCertificates writes certificates in PEM, in the order given.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// concatenate writes certificates in DER, following each other.
func concatenate(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}
