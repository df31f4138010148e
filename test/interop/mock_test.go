package interop

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/test/freeport"
)

// mock is an openssl cmp -port. It gives one certificate to everybody, so that
// there is one mock for each type of key, and serves one connection at a time.
// Its own key is of that type too.
type mock struct {
	ca
	wish   *wish
	device *x509.Certificate // what it gives
	issue  func(template *x509.Certificate, key crypto.PublicKey) *x509.Certificate
}

// authorityKey is the mock's own key. Large ones add nothing but time, and
// OpenSSL 3.0 cannot protect messages with Ed25519.
func authorityKey(t testing.TB, kind string, protects bool) crypto.Signer {
	t.Helper()
	switch {
	case kind == keyRSA4096:
		kind = keyRSA
	case kind == keyEd25519 && protects:
		kind = keyP256
	}
	return mustGenerate(t, kind)
}

func newMock(t testing.TB, w *wish, kind string, options ...string) *mock {
	t.Helper()
	m := &mock{wish: w}
	rootKey, serverKey := authorityKey(t, kind, false), authorityKey(t, kind, true)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "mock root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if kind == keyRSA4096 {
		template.SignatureAlgorithm = x509.SHA384WithRSAPSS
	}
	serial := int64(0)
	var root *x509.Certificate
	m.issue = func(leaf *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
		t.Helper()
		serial++
		leaf.SerialNumber, leaf.SignatureAlgorithm = big.NewInt(serial), template.SignatureAlgorithm
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		parent := root
		if parent == nil {
			parent = leaf
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, parent, key, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	root = m.issue(template, rootKey.Public())
	m.device = m.issue(&x509.Certificate{
		Subject: wishSubject, DNSNames: wishDNS, IPAddresses: wishIPs, URIs: wishURIs, KeyUsage: wishUsage, ExtKeyUsage: wishFor,
	}, w.key.Public())
	server := m.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "mock server"}, KeyUsage: x509.KeyUsageDigitalSignature, SubjectKeyId: []byte{1}}, serverKey.Public())
	m.ca = ca{client: &cmp.Client{URL: m.listen(t, root, server, serverKey, options), Timeout: limit}, root: root, sha1: true, identities: map[string]*cmp.Signer{}}
	return m
}

// listen starts the server and returns its address.
func (m *mock) listen(t testing.TB, root, server *x509.Certificate, key crypto.Signer, options []string) string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, cert *x509.Certificate) string {
		path := filepath.Join(dir, name)
		if err := writePEM(path, "CERTIFICATE", cert.Raw); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile := filepath.Join(dir, "key")
	if err := writeKey(keyFile, key); err != nil {
		t.Fatal(err)
	}
	address := freeport.Address(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	start(t, io.Discard, "openssl", append([]string{
		"cmp", "-config", "", "-port", port, "-srv_ref", reference, "-srv_secret", "pass:" + secretValue,
		"-srv_cert", file("server", server), "-srv_key", keyFile, "-srv_trusted", file("root", root), "-rsp_cert", file("device", m.device),
	}, options...)...)
	await(t, address)
	return "http://" + address + "/pkix/"
}

// await waits until somebody listens. The mock takes one connection at a time,
// so that this one must go away at once.
func await(t testing.TB, address string) {
	t.Helper()
	dialer := net.Dialer{}
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err == nil {
			_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("openssl cmp does not listen: %v", err)
		}
	}
}

// certify makes an identity for each type of key; the mock knows its root and nothing else of it.
func (m *mock) certify(t testing.TB) {
	t.Helper()
	for i := range protections {
		kind := protections[i].key
		if kind == "" || m.identities[kind] != nil {
			continue
		}
		key, err := generateShared(kind)
		if err != nil {
			t.Fatal(err)
		}
		cert := m.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "identity " + kind}, KeyUsage: x509.KeyUsageDigitalSignature}, key.Public())
		m.identities[kind] = &cmp.Signer{Key: key, Certificate: cert}
	}
}

func (r *rig) testMock(t *testing.T) {
	t.Parallel()
	requireTools(t, "openssl", "openssl")
	for _, kind := range newKeys {
		m := newMock(t, r.wishes[kind], kind)
		m.certify(t)
		for i := range protections {
			p := &protections[i]
			for operation, body := range requests {
				r.mockCell(t, m, cell{pairMock, operation, p.name, kind}, p, func(ctx context.Context, a *attempt) error {
					return a.request(ctx, body)
				})
			}
			if kind == keyP256 {
				r.mockCell(t, m, cell{pairMock, opRR, p.name, ""}, p, func(ctx context.Context, a *attempt) error {
					return a.revoke(ctx, cmp.Revocation{Certificate: m.device, Reason: cmp.ReasonSuperseded})
				})
				r.mockCell(t, m, cell{pairMock, opRRSerial, p.name, ""}, p, func(ctx context.Context, a *attempt) error {
					return a.revoke(ctx, cmp.Revocation{Issuer: m.device.RawIssuer, SerialNumber: m.device.SerialNumber})
				})
				r.mockCell(t, m, cell{pairMock, opRRRequest, p.name, ""}, p, func(ctx context.Context, a *attempt) error {
					return a.revoke(ctx, cmp.Revocation{Request: m.wish.csr})
				})
				r.mockCell(t, m, cell{pairMock, opCACerts, p.name, ""}, p, echo)
			}
		}
	}
	r.testMockBehaviour(t)
}

// echo asks for what the mock does not have: it sends back what it got.
func echo(ctx context.Context, a *attempt) error {
	answer, err := a.ca.client.Ask(ctx, a.config(), cmp.InfoTypeAndValue{Type: cmp.InfoCACerts})
	if err != nil {
		return err
	}
	if certs, err := answer.CACerts(); err != nil || len(certs) != 0 {
		return fmt.Errorf("got %d certificates, %w, want none", len(certs), err)
	}
	return nil
}

// mockCell runs a cell. To the mock the certificate to update or revoke is the one it gives.
func (r *rig) mockCell(t *testing.T, m *mock, c cell, p *protection, try func(ctx context.Context, a *attempt) error) {
	t.Helper()
	r.matrix.try(t, c, func(t *testing.T) error {
		a, err := m.attempt(t.Context(), p, m.wish)
		if err != nil {
			return err
		}
		a.old = m.device
		return try(t.Context(), a)
	})
}

// testMockBehaviour runs what needs a mock of its own. Waiting takes a second each time, and not two at a time.
func (r *rig) testMockBehaviour(t *testing.T) {
	grants := newMock(t, r.wishes[keyP256], keyP256, "-grant_implicitconf")
	refuses := newMock(t, r.wishes[keyP256], keyP256)
	waits := newMock(t, r.wishes[keyP256], keyP256, "-poll_count", polls, "-check_after", "1")
	for _, m := range []*mock{grants, refuses, waits} {
		m.certify(t)
	}
	implicit := func(want ...cmp.BodyType) func(context.Context, *attempt) error {
		return func(ctx context.Context, a *attempt) error {
			cfg := a.config()
			cfg.ImplicitConfirm = true
			return a.inSteps(ctx, cfg, want...)
		}
	}
	for i := range protections {
		p := &protections[i]
		r.mockCell(t, grants, cell{pair: pairMock, operation: opImplicit, protection: p.name}, p, implicit(cmp.TypeCR))
		r.mockCell(t, refuses, cell{pair: pairMock, operation: opNotGranted, protection: p.name}, p, implicit(cmp.TypeCR, cmp.TypeCertConf))
		if p.name == "PBM HMAC-SHA256" || p.name == "ECDSA P-256" {
			r.mockCell(t, waits, cell{pair: pairMock, operation: opPolling, protection: p.name}, p, func(ctx context.Context, a *attempt) error {
				return a.inSteps(ctx, a.config(), cmp.TypeCR, cmp.TypePollReq, cmp.TypePollReq, cmp.TypeCertConf)
			})
		}
	}
}
