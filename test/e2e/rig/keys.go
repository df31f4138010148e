package rig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Keys remembers every private key that was ever in a Secret it was shown. The zero
// value has seen none.
type Keys struct {
	mu  sync.Mutex
	pem map[string]string // the key in PEM, to where it was seen first
}

// WatchKeys follows the Secrets of the namespace from now on until the test ends.
func (w *World) WatchKeys(tb testing.TB) *Keys {
	tb.Helper()
	k := &Keys{}
	w.followSecrets(tb, "", func(_ watch.EventType, s *corev1.Secret) { k.Note(s) })
	return k
}

// Note remembers the keys of a Secret.
func (k *Keys) Note(s *corev1.Secret) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pem == nil {
		k.pem = map[string]string{}
	}
	for name, value := range s.Data {
		if _, known := k.pem[string(value)]; !known && bytes.Contains(value, []byte("PRIVATE KEY")) {
			k.pem[string(value)] = fmt.Sprintf("%s of Secret %s, version %s", name, s.Name, s.ResourceVersion)
		}
	}
}

// Len is the number of keys seen.
func (k *Keys) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.pem)
}

// Needle is a private key in one of the ways in which it could have leaked.
type Needle struct {
	Key  string // where it was seen; never the key itself
	Form string
	text []byte
}

// In tells whether the needle is in a haystack.
func (n Needle) In(hay []byte) bool { return bytes.Contains(hay, n.text) }

// Example is a haystack in which the needle is.
func (n Needle) Example() []byte {
	return slices.Concat([]byte(`{"level":"INFO","key":"`), n.text, []byte(`"}`))
}

// Needles are all keys in all forms.
func (k *Keys) Needles(tb testing.TB) (all []Needle) {
	tb.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, text := range slices.Sorted(maps.Keys(k.pem)) {
		all = append(all, needles(tb, k.pem[text], []byte(text))...)
	}
	return all
}

// needles are the forms of one key: its DER and its secret numbers, each raw, in
// hexadecimal and in base64, which looks different in each of three positions.
func needles(tb testing.TB, where string, text []byte) (all []Needle) {
	tb.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		tb.Fatalf("%s is no PEM", where)
	}
	body := strings.Split(strings.TrimSpace(string(text)), "\n")
	forms := secrets(tb, where, block.Bytes)
	forms["line of PEM"] = []byte(body[1])
	for _, form := range slices.Sorted(maps.Keys(forms)) {
		raw := forms[form]
		add := func(how, text string) { all = append(all, Needle{where, form + ", " + how, []byte(text)}) }
		add("raw", string(raw))
		for how, text := range map[string]string{"hex": hex.EncodeToString(raw), "hex with colons": colons(raw)} {
			add(how, text)
			add(how+" in capitals", strings.ToUpper(text))
		}
		for shift := range 3 {
			padded := append(make([]byte, shift), raw...)
			// Whole groups of three octets that hold nothing but the key.
			inner := padded[3*((shift+2)/3) : len(padded)/3*3]
			add(fmt.Sprintf("base64 at %d", shift), base64.StdEncoding.EncodeToString(inner))
			add(fmt.Sprintf("base64url at %d", shift), base64.URLEncoding.EncodeToString(inner))
		}
	}
	return all
}

func secrets(tb testing.TB, where string, der []byte) map[string][]byte {
	tb.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		tb.Fatalf("%s: %v", where, err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		scalar, err := key.Bytes()
		if err != nil {
			tb.Fatal(err)
		}
		return map[string][]byte{"DER": der, "scalar": scalar}
	case *rsa.PrivateKey:
		return map[string][]byte{"DER": der, "private exponent": key.D.Bytes(), "prime": key.Primes[0].Bytes(), "other prime": key.Primes[1].Bytes()}
	default:
		tb.Fatalf("%s is a key of type %T", where, key)
		return nil
	}
}

func colons(raw []byte) string {
	parts := make([]string, len(raw))
	for i, b := range raw {
		parts[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(parts, ":")
}
