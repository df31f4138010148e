package ledger_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// authority signs certificates for the tests.
type authority struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// lifetime is that of every certificate of the tests.
const lifetime = 90 * 24 * time.Hour

// newAuthority makes a root, or an issuing CA under one.
func newAuthority(t testing.TB, name string, under *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a := &authority{key: key}
	if under == nil {
		under = &authority{key: key, cert: &x509.Certificate{Subject: pkix.Name{CommonName: name}}}
	}
	a.cert = under.sign(t, name, key.Public(), template)
	return a
}

func (a *authority) sign(t testing.TB, name string, public crypto.PublicKey, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.Subject = serial, pkix.Name{CommonName: name}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// generate makes a key as a configuration asks for it.
func generate(t testing.TB, want model.PrivateKey) ledger.PrivateKey {
	t.Helper()
	key, err := ledger.GenerateKey(want)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// parse reads a private key that the standard library made.
func parse(t testing.TB, key crypto.Signer) ledger.PrivateKey {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ledger.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encode(t testing.TB, key ledger.PrivateKey) []byte {
	t.Helper()
	text, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
