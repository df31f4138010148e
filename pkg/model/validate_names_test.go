package model

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"
)

// A URI that may be asked for can be read from a certificate: otherwise the CA would issue
// one that nobody can use.
func FuzzURIsCanBeIssued(f *testing.F) {
	for _, uri := range []string{
		"https://amf.example.com:8443/a%20b", "https://[2001:db8::1]/", "https://[1:2]:70000", "urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6",
		"sip:amf@example.com", "spiffe://trust.example/a", "a:b", "http://a..b/", "http://a_b/", "x:%41", "http://1.2.3.4:99999",
	} {
		f.Add(uri)
	}
	seed := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	f.Fuzz(func(t *testing.T, uri string) {
		if checkURI(uri) != "" {
			return
		}
		if _, err := url.Parse(uri); err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
		der, err := x509.CreateCertificate(nil, template, template, seed.Public(), seed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x509.ParseCertificate(der); err != nil {
			t.Errorf("%q: %v", uri, err)
		}
	})
}
