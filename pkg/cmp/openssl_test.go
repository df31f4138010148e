package cmp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certloop/certloop/test/freeport"
)

// skipOrFail leaves a test out for want of something, unless CERTLOOP_REQUIRE=all forbids that.
func skipOrFail(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		t.Fatalf("%s, but CERTLOOP_REQUIRE=all", reason)
	}
	t.Skip(reason)
}

// mock is the mock server of the openssl cmp tool. It knows one certificate,
// which it gives to everybody who asks: that of device.
type mock struct {
	ca     *authority
	device *Signer
	url    string
}

// mockServer starts openssl cmp -port with more options. There are no test
// times here: OpenSSL goes by the clock on the wall.
func mockServer(t *testing.T, deviceKey crypto.Signer, options ...string) *mock {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		skipOrFail(t, "no openssl in PATH")
	}
	m := &mock{ca: &authority{rootKey: newKey(t), signerKey: newKey(t)}}
	m.ca.root = m.current(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Mock Root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, SubjectKeyId: []byte{1, 2, 3},
	}, m.ca.rootKey.Public())
	m.ca.signer = m.current(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Mock Server"}, KeyUsage: x509.KeyUsageDigitalSignature}, m.ca.signerKey.Public())
	device := m.current(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "device"}, DNSNames: []string{"device.example"}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, deviceKey.Public())
	m.device = &Signer{Key: deviceKey, Certificate: device}
	m.start(t, options)
	return m
}

// current issues a certificate that is valid now.
func (m *mock) current(t *testing.T, template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := m.ca.root
	if parent == nil {
		parent = template
	}
	return m.ca.issue(t, template, key, parent)
}

func (m *mock) start(t *testing.T, options []string) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(m.ca.signerKey)
	if err != nil {
		t.Fatal(err)
	}
	root := file("root", "CERTIFICATE", m.ca.root.Raw)
	address := freeport.Address(t)
	_, port, _ := strings.Cut(address, ":")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "openssl", append([]string{
		"cmp", "-config", "", "-port", port, "-srv_ref", "ref", "-srv_secret", "pass:secret",
		"-srv_cert", file("server", "CERTIFICATE", m.ca.signer.Raw), "-srv_key", file("key", "PRIVATE KEY", key),
		"-srv_trusted", root, "-rsp_cert", file("device", "CERTIFICATE", m.device.Certificate.Raw), "-rsp_capubs", root,
	}, options...)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("openssl cmp:\n%s", log.String())
		}
	})
	m.url = "http://" + address + "/pkix/"
	await(t, address)
}

// await waits until somebody listens. The mock takes one connection at a time,
// so that this one must go away at once.
func await(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
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

// secret is the credential of the mock's one customer without a certificate.
func secret(mac crypto.Hash) *SharedSecret {
	return &SharedSecret{Reference: []byte("ref"), Secret: []byte("secret"), MAC: mac, AllowSHA1: true}
}

func (m *mock) config(c Credential) Config {
	return Config{Credential: c, Trust: Trust{Roots: []*x509.Certificate{m.ca.root}}}
}

func (m *mock) request(kind BodyType) Request {
	return Request{Type: kind, Key: m.device.Key, OldCert: m.device.Certificate, Template: CertTemplate{Subject: m.device.Certificate.RawSubject}}
}

// must makes a request that has to succeed.
func (m *mock) must(t *testing.T, cfg Config, req Request) *Issued {
	t.Helper()
	client := &Client{URL: m.url}
	issued, err := client.Do(t.Context(), cfg, req)
	if err != nil {
		t.Fatal(err)
	}
	if !issued.Certificate.Equal(m.device.Certificate) {
		t.Errorf("issued %s, want %s", issued.Certificate.Subject, m.device.Certificate.Subject)
	}
	return issued
}

func TestOpenSSLMock(t *testing.T) {
	t.Parallel()
	m := mockServer(t, newKey(t))
	for _, kind := range []BodyType{TypeIR, TypeCR, TypeKUR} {
		for _, hash := range []crypto.Hash{0, crypto.SHA1, crypto.SHA384, crypto.SHA512} {
			t.Run(fmt.Sprintf("%s by HMAC %d", kind, hash), func(t *testing.T) { m.must(t, m.config(secret(hash)), m.request(kind)) })
		}
		t.Run(kind.String()+" signed", func(t *testing.T) { m.must(t, m.config(m.device), m.request(kind)) })
	}
	t.Run("implicit confirmation not granted", func(t *testing.T) {
		cfg := m.config(m.device)
		cfg.ImplicitConfirm = true
		m.must(t, cfg, m.request(TypeCR))
	})
	t.Run("caPubs only by MAC", func(t *testing.T) {
		if issued := m.must(t, m.config(secret(0)), m.request(TypeIR)); len(issued.CAPubs) != 1 {
			t.Errorf("%d caPubs by MAC, want 1", len(issued.CAPubs))
		}
		if issued := m.must(t, m.config(m.device), m.request(TypeIR)); len(issued.CAPubs) != 0 {
			t.Errorf("%d caPubs by signature, want 0", len(issued.CAPubs))
		}
	})
	t.Run("pinned server certificate", func(t *testing.T) {
		m.must(t, Config{Credential: m.device, Trust: Trust{ServerCertificate: m.ca.signer}}, m.request(TypeCR))
	})
	t.Run("SHA-1 only where allowed", func(t *testing.T) {
		client := &Client{URL: m.url}
		c := secret(0)
		c.AllowSHA1 = false // the mock's own MAC is HMAC-SHA1 regardless of ours
		_, err := client.Do(t.Context(), m.config(c), m.request(TypeIR))
		if outcome(err) != string(CheckMAC) {
			t.Errorf("error %v, want one about the MAC", err)
		}
	})
	t.Run("wrong secret", func(t *testing.T) {
		client := &Client{URL: m.url}
		c := secret(0)
		c.Secret = []byte("Secret")
		if issued, err := client.Do(t.Context(), m.config(c), m.request(TypeIR)); !errors.Is(err, ErrProtection) || issued != nil {
			t.Errorf("%+v, %v, want ErrProtection", issued, err)
		}
	})
	t.Run("another key", func(t *testing.T) {
		client := &Client{URL: m.url}
		req := m.request(TypeCR)
		req.Key = newKey(t)
		issued, err := client.Do(t.Context(), m.config(m.device), req)
		if outcome(err) != "certificate.subjectPublicKeyInfo" || issued != nil {
			t.Errorf("%+v, %v", issued, err)
		}
	})
}

func TestOpenSSLMockKeys(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"RSA": rsaKey, "Ed25519": edKey}
	for name, curve := range map[string]elliptic.Curve{"P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		if keys[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			m := mockServer(t, key)
			m.must(t, m.config(m.device), m.request(TypeCR))
			if name == "RSA" {
				m.device.PSS = true
				m.must(t, m.config(m.device), m.request(TypeKUR))
				m.device.Hash = crypto.SHA384
				m.must(t, m.config(m.device), m.request(TypeKUR))
			}
		})
	}
}

func TestOpenSSLMockBehaviour(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []string
		change  func(*Config)
		want    string // see outcome
		text    string // part of the error
	}{
		"implicit confirmation": {[]string{"-grant_implicitconf"}, func(c *Config) { c.ImplicitConfirm = true }, "ok", ""},
		"polling":               {[]string{"-poll_count", "2", "-check_after", "1"}, nil, "ok", ""},
		"grantedWithMods":       {[]string{"-pkistatus", "1"}, nil, "ok", ""},
		"rejection": {[]string{"-pkistatus", "2", "-failure", "19", "-statusstring", "no such profile"}, nil,
			"peer", `status rejection (badCertTemplate): "no such profile"`},
		"error":                     {[]string{"-send_error"}, nil, "peer", "badRequest"},
		"unprotected error":         {[]string{"-send_error", "-send_unprot_err"}, nil, "protection", "[unverified]"},
		"unprotected error allowed": {[]string{"-send_error", "-send_unprot_err"}, func(c *Config) { c.UnprotectedErrors = true }, "peer", "[unverified]"},
		"unprotected certificate":   {[]string{"-send_unprotected"}, func(c *Config) { c.UnprotectedErrors = true }, "protection", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mockServer(t, newKey(t), test.options...)
			cfg := m.config(m.device)
			if test.change != nil {
				test.change(&cfg)
			}
			client := &Client{URL: m.url}
			issued, err := client.Do(t.Context(), cfg, m.request(TypeCR))
			if got := outcome(err); got != test.want || (err == nil) != (issued != nil) {
				t.Fatalf("%+v, %v, want %q", issued, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %q lacks %q", err, test.text)
			}
		})
	}
}

func TestOpenSSLMockP10CR(t *testing.T) {
	t.Parallel()
	m := mockServer(t, newKey(t))
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: m.device.Certificate.RawSubject}, m.device.Key)
	if err != nil {
		t.Fatal(err)
	}
	issued := m.must(t, m.config(m.device), Request{Type: TypeP10CR, CSR: csr})
	if got := issued.Differences; !slices.EqualFunc(got, []string{"subjectAltName"}, func(d Difference, field string) bool { return d.Field == field }) {
		t.Errorf("differences %v, want the subjectAltName nobody asked for", got)
	}
	csr[len(csr)-1] ^= 1
	if _, err := Begin(m.config(m.device), Request{Type: TypeP10CR, CSR: csr}); err == nil {
		t.Error("a request with a wrong signature is sent")
	}
}
