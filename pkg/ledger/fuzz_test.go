package ledger_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/ledger"
)

// The seeds are the same in every run: each worker process makes its own.

func seedKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func sec1(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func seedCertificate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example.com"},
		NotBefore: began, NotAfter: began.AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(nil, template, template, seedKey().Public(), seedKey())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// FuzzParseKey: whatever is in a Secret, it is refused without repeating it, or it is
// a key that survives being written and read.
func FuzzParseKey(f *testing.F) {
	text := encode(f, parse(f, seedKey()))
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add(block("EC PRIVATE KEY", sec1(f)))
	f.Add(block("EC PRIVATE KEY", []byte("rubbish")))
	f.Add(block("RSA PRIVATE KEY", nil))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ledger.ParseKey(text)
		if err != nil {
			if key.Signer() != nil || holds(err.Error(), bytes.ReplaceAll(text, []byte("private key"), nil)) {
				t.Fatalf("got key %v with error %q", key, err)
			}
			return
		}
		written := encode(t, key)
		again, err := ledger.ParseKey(written)
		if err != nil {
			t.Fatalf("written and read again: %v", err)
		}
		if !bytes.Equal(encode(t, again), written) {
			t.Fatal("the key changes when it is written and read")
		}
	})
}

// FuzzParseCertificates: rubbish is refused; certificates keep their octets and order.
func FuzzParseCertificates(f *testing.F) {
	leaf := seedCertificate(f, "leaf")
	chain := ledger.EncodeCertificates(leaf, seedCertificate(f, "root"))
	f.Add(chain)
	f.Add(chain[:len(chain)*2/3])
	f.Add(append([]byte("# a comment\n"), chain...))
	f.Add(block("CERTIFICATE", leaf.Raw[:50]))
	f.Add(block("CERTIFICATE", nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := ledger.ParseCertificates(text)
		if err != nil {
			if certs != nil {
				t.Fatalf("got %d certificates with error %v", len(certs), err)
			}
			return
		}
		written := ledger.EncodeCertificates(certs...)
		if len(written) > ledger.MaxPEMBytes {
			return // PEM without line ends is shorter than what is written
		}
		again, err := ledger.ParseCertificates(written)
		if err != nil || len(again) != len(certs) {
			t.Fatalf("written and read again: %d certificates, %v; want %d", len(again), err, len(certs))
		}
		for i := range certs {
			if !bytes.Equal(again[i].Raw, certs[i].Raw) {
				t.Fatalf("certificate %d changes when it is written and read", i)
			}
		}
	})
}
