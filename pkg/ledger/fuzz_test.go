package ledger_test

import (
	"bytes"
	"crypto/x509"
	"testing"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// FuzzParseKey: whatever is in a Secret, it is refused without repeating it, or it is
// a key that survives being written and read.
func FuzzParseKey(f *testing.F) {
	for _, signer := range keys(f) {
		text := encode(f, parse(f, signer))
		f.Add(text)
		f.Add(text[:len(text)/2])
	}
	f.Add(x25519(f))
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
	root := newAuthority(f, "root", nil)
	leaf := root.sign(f, "leaf", generate(f, model.PrivateKey{}).Signer().Public(), &x509.Certificate{DNSNames: []string{"leaf.example.com"}})
	chain := ledger.EncodeCertificates(leaf, root.cert)
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
