package responder

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// requireOpenSSL skips without the openssl client, aloud, and fails where nothing may be skipped.
func requireOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err == nil {
		return
	}
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		t.Fatal("the openssl client is not installed, and CERTLOOP_REQUIRE=all forbids to skip")
	}
	t.Skip("skipped: the openssl client is not installed")
}

// shell runs openssl in a directory that holds the CA's certificate, a secret and a key.
type shell struct {
	t   *testing.T
	ca  *Running
	dir string
}

func newShell(t *testing.T, cfg Config) *shell {
	t.Helper()
	requireOpenSSL(t)
	sh := &shell{t: t, ca: start(t, cfg), dir: t.TempDir()}
	sh.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sh.ca.CACertificate().Raw}))
	sh.write("secret", []byte("s3cret\n"))
	for _, name := range []string{"id.key", "a.key", "b.key"} {
		sh.writeKey(name)
	}
	return sh
}

func (sh *shell) path(name string) string { return filepath.Join(sh.dir, name) }

func (sh *shell) write(name string, content []byte) {
	sh.t.Helper()
	if err := os.WriteFile(sh.path(name), content, 0o600); err != nil {
		sh.t.Fatal(err)
	}
}

func (sh *shell) writeKey(name string) {
	sh.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		sh.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		sh.t.Fatal(err)
	}
	sh.write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (sh *shell) run(args ...string) (string, error) {
	sh.t.Helper()
	ctx, cancel := context.WithTimeout(sh.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Dir = sh.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// cmp runs the CMP client; secrets and trust are added.
func (sh *shell) cmp(args ...string) (string, error) {
	sh.t.Helper()
	all := []string{"cmp", "-config", "", "-server", strings.TrimPrefix(sh.ca.URL, "http://"), "-trusted", "ca.pem"}
	return sh.run(append(all, args...)...)
}

func (sh *shell) must(args ...string) {
	sh.t.Helper()
	if out, err := sh.cmp(args...); err != nil {
		sh.t.Fatalf("openssl cmp %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// certificate reads a certificate the client wrote and lets openssl verify it.
func (sh *shell) certificate(name string) *x509.Certificate {
	sh.t.Helper()
	text, err := os.ReadFile(sh.path(name))
	if err != nil {
		sh.t.Fatal(err)
	}
	args := []string{"verify", "-CAfile", "ca.pem"}
	if sh.ca.IssuingCertificate() != sh.ca.CACertificate() {
		sh.write("issuing.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sh.ca.IssuingCertificate().Raw}))
		args = append(args, "-untrusted", "issuing.pem")
	}
	if out, err := sh.run(append(args, name)...); err != nil {
		sh.t.Fatalf("openssl verify: %v\n%s", err, out)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		sh.t.Fatal(err)
	}
	return cert
}

// identity enrols id.crt by MAC.
func (sh *shell) identity() {
	sh.t.Helper()
	sh.must("-cmd", "ir", "-ref", "1234", "-secret", "file:secret", "-newkey", "id.key", "-subject", "/O=shop/CN=identity", "-certout", "id.crt")
}

func (sh *shell) confirmed(n int) {
	sh.t.Helper()
	issued := sh.ca.Issued()
	if got := countConfirmed(issued); got != n || len(issued) != n {
		sh.t.Errorf("ledger: got %d certificates, %d of them confirmed, want %d", len(issued), got, n)
	}
}

func countConfirmed(issued []Issuance) (n int) {
	for _, i := range issued {
		if i.Confirmed && !i.Revoked {
			n++
		}
	}
	return n
}

// opensslConfig serves the client's default MAC, HMAC-SHA1, too.
func opensslConfig() Config {
	return Config{SharedSecrets: map[string]string{"1234": "s3cret"}, AllowSHA1: true}
}

func TestOpenSSLEnrols(t *testing.T) {
	signed := []string{"-cert", "id.crt", "-key", "id.key"}
	mac := []string{"-ref", "1234", "-secret", "file:secret"}
	wanted := []string{"-newkey", "a.key", "-subject", "/C=DE/O=shop/CN=web", "-certout", "out.crt"}
	names := []string{"-sans", "web.shop.svc 10.0.0.1 spiffe://shop/web"}
	cases := []struct {
		name      string
		args      []string
		behaviour Behaviour
		peer      string
	}{
		{"ir by MAC", slices.Concat([]string{"-cmd", "ir"}, mac, wanted, names), Behaviour{}, "mac:1234"},
		{"ir by HMAC-SHA256", slices.Concat([]string{"-cmd", "ir", "-mac", "hmacWithSHA256"}, mac, wanted, names), Behaviour{}, "mac:1234"},
		{"ir by signature", slices.Concat([]string{"-cmd", "ir"}, signed, wanted, names), Behaviour{}, "signature:"},
		{"cr by MAC", slices.Concat([]string{"-cmd", "cr"}, mac, wanted, names), Behaviour{}, "mac:1234"},
		{"cr by signature", slices.Concat([]string{"-cmd", "cr"}, signed, wanted, names), Behaviour{}, "signature:"},
		{"implicit confirmation", slices.Concat([]string{"-cmd", "cr", "-implicit_confirm"}, signed, wanted, names), Behaviour{}, "signature:"},
		{"implicit confirmation not granted", slices.Concat([]string{"-cmd", "cr", "-implicit_confirm"}, signed, wanted, names), Behaviour{NoImplicitConfirm: true}, "signature:"},
		{"polling", slices.Concat([]string{"-cmd", "cr"}, signed, wanted, names), Behaviour{Wait: 3}, "signature:"},
		{"polling by MAC with implicit confirmation", slices.Concat([]string{"-cmd", "ir", "-implicit_confirm"}, mac, wanted, names), Behaviour{Wait: 2}, "mac:1234"},
		{"MAC answered by signature", slices.Concat([]string{"-cmd", "ir"}, mac, wanted, names), Behaviour{SignMAC: true}, "mac:1234"},
	}
	for _, intermediate := range []bool{false, true} {
		cfg := opensslConfig()
		cfg.Intermediate = intermediate
		sh := newShell(t, cfg)
		sh.identity()
		for _, c := range cases {
			name := c.name
			if intermediate {
				name += ", intermediate"
			}
			t.Run(name, func(t *testing.T) {
				before := len(sh.ca.Issued())
				sh.t = t
				sh.ca.Behave(func(b *Behaviour) { *b = c.behaviour })
				sh.must(c.args...)
				cert := sh.certificate("out.crt")
				if got, want := cert.Subject.String(), "CN=web,O=shop,C=DE"; got != want {
					t.Errorf("subject: got %s, want %s", got, want)
				}
				if len(cert.DNSNames) != 1 || len(cert.IPAddresses) != 1 || len(cert.URIs) != 1 {
					t.Errorf("subjectAltName: got %v %v %v, want one of each kind", cert.DNSNames, cert.IPAddresses, cert.URIs)
				}
				issued := sh.ca.Issued()
				last := issued[len(issued)-1]
				if len(issued) != before+1 || !last.Confirmed || !strings.HasPrefix(last.Authenticated, c.peer) {
					t.Errorf("ledger: got %d new, confirmed %t, by %q; want 1, true, %s", len(issued)-before, last.Confirmed, last.Authenticated, c.peer)
				}
			})
		}
	}
}

func TestOpenSSLPKCS10(t *testing.T) {
	sh := newShell(t, opensslConfig())
	sh.identity()
	out, err := sh.run("req", "-new", "-key", "a.key", "-subj", "/CN=csr", "-addext", "subjectAltName=DNS:csr.example", "-out", "csr.pem")
	if err != nil {
		t.Fatalf("openssl req: %v\n%s", err, out)
	}
	sh.must("-cmd", "p10cr", "-cert", "id.crt", "-key", "id.key", "-csr", "csr.pem", "-certout", "csr.crt")
	cert := sh.certificate("csr.crt")
	if cert.Subject.CommonName != "csr" || !slices.Equal(cert.DNSNames, []string{"csr.example"}) {
		t.Errorf("got %s %v, want csr [csr.example]", cert.Subject, cert.DNSNames)
	}
	sh.confirmed(2)
}

// Keys that crypto/x509 makes no certificates for are refused for that reason, not for a wrong signature.
func TestOpenSSLPKCS10WithForeignKey(t *testing.T) {
	sh := newShell(t, opensslConfig())
	sh.identity()
	for name, options := range map[string][]string{
		"Ed448":     {"-algorithm", "ED448"},
		"secp256k1": {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
	} {
		t.Run(name, func(t *testing.T) {
			sh.t = t
			for _, args := range [][]string{
				append([]string{"genpkey", "-out", "foreign.key"}, options...), {"req", "-new", "-key", "foreign.key", "-subj", "/CN=csr", "-out", "foreign.csr"},
			} {
				if out, err := sh.run(args...); err != nil {
					t.Fatalf("openssl: %v\n%s", err, out)
				}
			}
			out, err := sh.cmp("-cmd", "p10cr", "-cert", "id.crt", "-key", "id.key", "-csr", "foreign.csr", "-certout", "foreign.crt")
			if err == nil || strings.Contains(out, "badPOP") || !strings.Contains(out, "public key") && !strings.Contains(out, "curve") {
				t.Errorf("got %v\n%s\nwant a refusal that speaks of the key", err, out)
			}
		})
	}
	sh.t = t
	sh.confirmed(1)
}

func TestOpenSSLUpdates(t *testing.T) {
	sh := newShell(t, opensslConfig())
	sh.identity()
	sh.must("-cmd", "cr", "-cert", "id.crt", "-key", "id.key", "-newkey", "a.key", "-subject", "/CN=web", "-sans", "web.example", "-certout", "a.crt")
	old := sh.certificate("a.crt")
	sh.must("-cmd", "kur", "-cert", "a.crt", "-key", "a.key", "-newkey", "b.key", "-certout", "b.crt")
	cert := sh.certificate("b.crt")
	if !bytes.Equal(cert.RawSubject, old.RawSubject) || !slices.Equal(cert.DNSNames, old.DNSNames) {
		t.Errorf("got %s %v, want %s %v", cert.Subject, cert.DNSNames, old.Subject, old.DNSNames)
	}
	issued := sh.ca.Issued()
	if got, want := issued[len(issued)-1].Replaces, old.SerialNumber.Text(16); got != want {
		t.Errorf("replaces: got %q, want %q", got, want)
	}
	out, err := sh.cmp("-cmd", "kur", "-cert", "b.crt", "-key", "b.key", "-newkey", "b.key", "-certout", "c.crt")
	if err == nil || !strings.Contains(out, "badCertTemplate") {
		t.Errorf("kur with the same key: got %v\n%s\nwant badCertTemplate", err, out)
	}
	sh.confirmed(3)
}

func TestOpenSSLRevokes(t *testing.T) {
	sh := newShell(t, opensslConfig())
	sh.identity()
	sh.must("-cmd", "cr", "-cert", "id.crt", "-key", "id.key", "-newkey", "a.key", "-subject", "/CN=web", "-certout", "a.crt")
	sh.must("-cmd", "rr", "-cert", "a.crt", "-key", "a.key", "-oldcert", "a.crt", "-revreason", "1")
	issued := sh.ca.Issued()
	if last := issued[len(issued)-1]; !last.Revoked || last.Reason != "keyCompromise" {
		t.Errorf("got revoked %t, %q; want true, keyCompromise", last.Revoked, last.Reason)
	}
	out, err := sh.cmp("-cmd", "cr", "-cert", "a.crt", "-key", "a.key", "-newkey", "b.key", "-subject", "/CN=x", "-certout", "b.crt")
	if err == nil || !strings.Contains(out, "signerNotTrusted") {
		t.Errorf("signed by a revoked certificate: got %v\n%s\nwant signerNotTrusted", err, out)
	}
}

func TestOpenSSLAsks(t *testing.T) {
	sh := newShell(t, opensslConfig())
	sh.identity()
	for _, infotype := range []string{"caCerts", "currentCRL"} {
		sh.must("-cmd", "genm", "-cert", "id.crt", "-key", "id.key", "-infotype", infotype)
	}
}

func TestOpenSSLIsRefused(t *testing.T) {
	sh := newShell(t, opensslConfig())
	sh.identity()
	signed := []string{"-cert", "id.crt", "-key", "id.key", "-newkey", "a.key", "-subject", "/CN=x", "-certout", "x.crt"}
	cases := []struct {
		name      string
		args      []string
		behaviour Behaviour
		want      string
	}{
		{"wrong secret", []string{"-cmd", "ir", "-ref", "1234", "-secret", "pass:no", "-newkey", "a.key", "-subject", "/CN=x", "-certout", "x.crt"}, Behaviour{}, "badMessageCheck"},
		{"unknown reference", []string{"-cmd", "ir", "-ref", "5", "-secret", "pass:no", "-newkey", "a.key", "-subject", "/CN=x", "-certout", "x.crt"}, Behaviour{}, "badMessageCheck"},
		{"unprotected", append([]string{"-cmd", "ir", "-unprotected_requests"}, signed...), Behaviour{}, "badMessageCheck"},
		{"raVerified", append([]string{"-cmd", "cr", "-popo", "0"}, signed...), Behaviour{}, "badPOP"},
		{"no proof", append([]string{"-cmd", "cr", "-popo", "-1"}, signed...), Behaviour{}, "badPOP"},
		{"rejected", append([]string{"-cmd", "cr"}, signed...), Behaviour{Reject: &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailNotAuthorized, Text: []string{"ask the operator"}}}, "ask the operator"},
		{"rejected by an error message", append([]string{"-cmd", "cr"}, signed...), Behaviour{RejectAsError: true, Reject: &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailSystemUnavail}}, "systemUnavail"},
		{"rejected after polling", append([]string{"-cmd", "cr"}, signed...), Behaviour{Wait: 2, Reject: &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailNotAuthorized}}, "notAuthorized"},
		{"certConf refused", append([]string{"-cmd", "cr"}, signed...), Behaviour{RefuseCertConf: true}, "certConf is refused"},
		{"wrong key", append([]string{"-cmd", "cr"}, signed...), Behaviour{WrongKey: true}, "does not match"},
		{"bad nonce", append([]string{"-cmd", "cr"}, signed...), Behaviour{BadNonce: true}, "nonce"},
		{"wrong transactionID", append([]string{"-cmd", "cr"}, signed...), Behaviour{WrongTransactionID: true}, "transactionid"},
		{"wrong signature", append([]string{"-cmd", "cr"}, signed...), Behaviour{WrongSignature: true}, "validating protection"},
		{"unprotected answer", append([]string{"-cmd", "cr"}, signed...), Behaviour{Unprotected: true}, "protection"},
		{"foreign issuer", append([]string{"-cmd", "cr", "-out_trusted", "ca.pem"}, signed...), Behaviour{ForeignIssuer: true}, "unable to get local issuer"},
		{"garbage", append([]string{"-cmd", "cr"}, signed...), Behaviour{Garbage: true}, "transfer error"},
		{"503", append([]string{"-cmd", "cr"}, signed...), Behaviour{HTTPStatus: 503}, "503"},
		{"no reply", append([]string{"-cmd", "cr"}, signed...), Behaviour{DropReply: 1}, "transfer error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sh.t = t
			_ = os.Remove(sh.path("x.crt"))
			sh.ca.Behave(func(b *Behaviour) { *b = c.behaviour })
			out, err := sh.cmp(c.args...)
			if err == nil || !strings.Contains(strings.ToLower(out), strings.ToLower(c.want)) {
				t.Errorf("got %v\n%s\nwant a failure that says %q", err, out, c.want)
			}
			if _, err := os.Stat(sh.path("x.crt")); err == nil {
				t.Error("a certificate was written")
			}
		})
	}
}
