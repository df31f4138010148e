package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

// The types of keys. Of the last three only the openssl client has any.
const (
	keyP256      = "P-256"
	keyP384      = "P-384"
	keyP521      = "P-521"
	keyRSA       = "RSA-2048"
	keyRSA4096   = "RSA-4096"
	keyEd25519   = "Ed25519"
	keySecp256k1 = "secp256k1"
	keyRSAPSS    = "RSA-PSS"
	keyEd448     = "Ed448"
)

var (
	newKeys = []string{keyP256, keyP384, keyP521, keyRSA, keyRSA4096, keyEd25519}
	// fewKeys have one of each family, for where time is short
	fewKeys = []string{keyP256, keyRSA, keyEd25519}
	allKeys = slices.Concat(newKeys, []string{keySecp256k1, keyRSAPSS, keyEd448})
)

func generate(kind string) (crypto.Signer, error) {
	switch kind {
	case keyP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keyP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case keyP521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case keyRSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	case keyRSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case keyEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("no generator for %s", kind)
}

// largeKeys are keys that take long to make, one of each type, for certificates
// that may share one.
var largeKeys = struct {
	sync.Mutex
	byKind map[string]crypto.Signer
}{byKind: map[string]crypto.Signer{}}

// generateShared is generate, where a key may have been used before.
func generateShared(kind string) (crypto.Signer, error) {
	if kind != keyRSA && kind != keyRSA4096 {
		return generate(kind)
	}
	largeKeys.Lock()
	defer largeKeys.Unlock()
	if key := largeKeys.byKind[kind]; key != nil {
		return key, nil
	}
	key, err := generate(kind)
	if err == nil {
		largeKeys.byKind[kind] = key
	}
	return key, err
}

func mustGenerate(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	key, err := generate(kind)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// protection is a way to protect requests: by a MAC, or by the signature of a key of type key.
type protection struct {
	name string
	mac  *cmp.SharedSecret // reference and secret are filled in
	key  string
	pss  bool
	hash crypto.Hash

	openssl []string // options of the openssl client; nil: it cannot
}

func (p *protection) credential(identity func(key string) (*cmp.Signer, error)) (cmp.Credential, error) {
	if p.mac != nil {
		secret := *p.mac
		secret.Reference, secret.Secret = []byte(reference), []byte(secretValue)
		return &secret, nil
	}
	id, err := identity(p.key)
	if err != nil {
		return nil, fmt.Errorf("identity for %s: %w", p.name, err)
	}
	return &cmp.Signer{Key: id.Key, Certificate: id.Certificate, PSS: p.pss, Hash: p.hash}, nil
}

// identityKey is the type of the key of the certificate that goes with p: to
// sign with, and to update or revoke.
func (p *protection) identityKey() string {
	if p.key == "" {
		return keyP256
	}
	return p.key
}

// The shared secret of all peers.
const (
	reference   = "3078"
	secretValue = "correct horse"
)

var protections = []protection{
	{name: "PBM HMAC-SHA1", mac: &cmp.SharedSecret{OWF: crypto.SHA1, MAC: crypto.SHA1, AllowSHA1: true}, openssl: []string{"-mac", "hmac-sha1"}},
	{name: "PBM HMAC-SHA256", mac: &cmp.SharedSecret{}, openssl: []string{"-mac", "hmacWithSHA256"}},
	{name: "PBM HMAC-SHA384", mac: &cmp.SharedSecret{OWF: crypto.SHA256, MAC: crypto.SHA384}, openssl: []string{"-mac", "hmacWithSHA384", "-digest", "sha256"}},
	{name: "PBM HMAC-SHA512", mac: &cmp.SharedSecret{OWF: crypto.SHA512, MAC: crypto.SHA512}, openssl: []string{"-mac", "hmacWithSHA512", "-digest", "sha512"}},
	{name: "PBMAC1 HMAC-SHA256", mac: &cmp.SharedSecret{PBMAC1: true}},
	{name: "PBMAC1 HMAC-SHA512", mac: &cmp.SharedSecret{PBMAC1: true, OWF: crypto.SHA512, MAC: crypto.SHA512}},
	{name: "ECDSA P-256", key: keyP256, openssl: []string{"-digest", "sha256"}},
	{name: "ECDSA P-384", key: keyP384, openssl: []string{"-digest", "sha384"}},
	{name: "ECDSA P-521", key: keyP521, openssl: []string{"-digest", "sha512"}},
	{name: "RSA PKCS #1 SHA-256", key: keyRSA, openssl: []string{"-digest", "sha256"}},
	{name: "RSA PKCS #1 SHA-512", key: keyRSA, hash: crypto.SHA512, openssl: []string{"-digest", "sha512"}},
	{name: "RSA-4096 PKCS #1 SHA-384", key: keyRSA4096, hash: crypto.SHA384, openssl: []string{"-digest", "sha384"}},
	{name: "RSA-4096 PSS SHA-384", key: keyRSA4096, pss: true, hash: crypto.SHA384},
	{name: "RSA-PSS SHA-256", key: keyRSA, pss: true},
	{name: "RSA-PSS SHA-512", key: keyRSA, pss: true, hash: crypto.SHA512},
	{name: "ECDSA P-256 SHA-1", key: keyP256, hash: crypto.SHA1, openssl: []string{"-digest", "sha1"}},
	{name: "Ed25519", key: keyEd25519, openssl: []string{"-digest", "sha512"}},
}

func protectionNames() []string {
	names := make([]string, len(protections))
	for i := range protections {
		names[i] = protections[i].name
	}
	return names
}

func writePEM(path, label string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}), 0o600)
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM", path)
	}
	return x509.ParseCertificate(block.Bytes)
}
