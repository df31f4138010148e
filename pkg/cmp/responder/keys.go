package responder

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"io"
	"slices"
)

// KeyType says what keys a CA has, which sign certificates, CRLs and messages.
type KeyType string

// The types of keys of a CA.
const (
	P256    KeyType = "P-256"
	P384    KeyType = "P-384"
	P521    KeyType = "P-521"
	RSA2048 KeyType = "RSA-2048"
	RSA3072 KeyType = "RSA-3072"
	RSA4096 KeyType = "RSA-4096"
	Ed25519 KeyType = "Ed25519"
)

// KeyTypes are all types of keys a CA can have.
func KeyTypes() []KeyType {
	return []KeyType{P256, P384, P521, RSA2048, RSA3072, RSA4096, Ed25519}
}

func (t KeyType) check() error {
	switch {
	case t == "" || slices.Contains(KeyTypes(), t):
		return nil
	case t == "secp256k1":
		return fmt.Errorf("key type %s: crypto/x509 has neither keys nor certificates of it: use P-256", t)
	}
	return fmt.Errorf("key type %.20q: use one of %v", string(t), KeyTypes())
}

func (t KeyType) generate(random io.Reader) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch t {
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), random)
	case P521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), random)
	case RSA2048:
		key, err = rsa.GenerateKey(random, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(random, 3072)
	case RSA4096:
		key, err = rsa.GenerateKey(random, 4096)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(random)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), random)
	}
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	return key, nil
}
