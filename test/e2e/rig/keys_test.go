package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A planted key is found in every disguise, and nothing is found where there is none.
func TestNeedlesFindPlantedKey(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := ec.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ecPEM, ecDER := encoded(t, ec)
	rsaPEM, rsaDER := encoded(t, big)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		hay  []byte
	}{
		{"PEM", slices.Concat([]byte("log: "), ecPEM)},
		{"PEM in JSON", fmt.Appendf(nil, "%q", rsaPEM)},
		{"DER", slices.Concat([]byte{1, 2, 3}, ecDER, []byte{4})},
		{"SEC 1 holds the scalar", sec1},
		{"SEC 1 in PEM", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})},
		{"PKCS #1 holds the primes", x509.MarshalPKCS1PrivateKey(big)},
		{"scalar in upper-case hex", []byte(strings.ToUpper(hex.EncodeToString(scalar)))},
		{"scalar in base64 behind others", []byte(base64.StdEncoding.EncodeToString(append([]byte("ab"), scalar...)))},
		{"scalar in base64url", []byte(base64.RawURLEncoding.EncodeToString(scalar))},
		{"DER in base64 behind one octet", []byte(base64.StdEncoding.EncodeToString(append([]byte("a"), rsaDER...)))},
		{"a Secret in JSON", []byte(base64.StdEncoding.EncodeToString(ecPEM))},
	}
	all := append(needles(t, "ec", ecPEM), needles(t, "rsa", rsaPEM)...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if !slices.ContainsFunc(all, func(n Needle) bool { return n.In(test.hay) }) {
				t.Error("the key is not found")
			}
		})
	}
	other, _ := encoded(t, mustKey(t))
	for _, n := range all {
		if n.In(other) {
			t.Errorf("%s is found in another key", n.Form)
		}
	}
}

func mustKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encoded(t *testing.T, key any) (text, der []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), der
}
