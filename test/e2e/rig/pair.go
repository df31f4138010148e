package rig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Pair checks that a Secret holds a key, the certificate of that key and a chain
// that leads to the trust anchor beside them, and returns the certificate.
func Pair(tb testing.TB, s *corev1.Secret) *x509.Certificate {
	tb.Helper()
	if s == nil {
		tb.Fatal("there is no Secret")
	}
	if s.Type != corev1.SecretTypeTLS {
		tb.Errorf("Secret %s has type %s, want %s", s.Name, s.Type, corev1.SecretTypeTLS)
	}
	pair, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"]) // compares the public keys
	if err != nil {
		tb.Fatalf("Secret %s: %v", s.Name, err)
	}
	roots, chain := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Data["ca.crt"])
	chain.AppendCertsFromPEM(s.Data["tls.crt"])
	opts := x509.VerifyOptions{Roots: roots, Intermediates: chain, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := pair.Leaf.Verify(opts); err != nil {
		tb.Errorf("Secret %s: %v", s.Name, err)
	}
	return pair.Leaf
}

// OpenSSLVerify has the openssl tool, which shares no code with us, judge a Secret:
// the chain against a CA's roots, and the key against the certificate.
func OpenSSLVerify(tb testing.TB, s *corev1.Secret, roots []byte) {
	tb.Helper()
	dir := tb.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			tb.Fatal(err)
		}
		return path
	}
	leaf, above := pem.Decode(s.Data["tls.crt"])
	if leaf == nil {
		tb.Fatalf("Secret %s: tls.crt holds no PEM", s.Name)
	}
	crt, anchors := file("tls.crt", pem.EncodeToMemory(leaf)), file("roots.crt", roots)
	args := []string{"verify", "-x509_strict", "-CAfile", anchors}
	if len(bytes.TrimSpace(above)) > 0 {
		args = append(args, "-untrusted", file("chain.crt", above))
	}
	openssl(tb, append(args, crt)...)
	ofCertificate := openssl(tb, "x509", "-in", crt, "-noout", "-pubkey")
	ofKey := openssl(tb, "pkey", "-in", file("tls.key", s.Data["tls.key"]), "-pubout")
	if !bytes.Equal(ofCertificate, ofKey) {
		tb.Errorf("Secret %s: the public key of tls.crt is\n%sof tls.key\n%s", s.Name, ofCertificate, ofKey)
	}
}

func openssl(tb testing.TB, args ...string) []byte {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Tool(tb, "openssl"), args...) //nolint:gosec // arguments of ours
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("openssl %s: %v\n%s%s", args[0], err, out, complaint.Bytes())
	}
	return out
}

// Fingerprint is the SHA-256 of a certificate as status and facts write it.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
