package cmp_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// caVariable makes the test program a CA in place of running tests, so that the
// CPU time of a client can be told from that of the CA.
const caVariable = "CERTLOOP_TEST_CA"

func TestMain(m *testing.M) {
	if os.Getenv(caVariable) == "" {
		os.Exit(m.Run())
	}
	if err := serveCA(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveCA runs a CA until there is no more input, after it has said where it is and what its root is.
func serveCA(out io.Writer, in io.Reader) error {
	ca, err := responder.New(responder.Config{SharedSecrets: map[string]string{"ref": "secret"}, Intermediate: true})
	if err != nil {
		return err
	}
	server := httptest.NewServer(ca)
	defer server.Close()
	if _, err := fmt.Fprintf(out, "%s %x\n", server.URL, ca.CACertificate().Raw); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// authority is a CA in a process of its own, and a client it knows.
type authority struct {
	url  string
	root *x509.Certificate
	cfg  cmp.Config
	key  *ecdsa.PrivateKey // of the client
	cert *x509.Certificate
}

func startCA(b *testing.B) *authority {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), caVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stdin.Close(); cancel(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	var der []byte
	a := new(authority)
	if _, err := fmt.Sscanf(line, "%s %x", &a.url, &der); err != nil {
		b.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		b.Fatal(err)
	}
	a.enrolClient(b)
	return a
}

// enrolClient gets the client the certificate it signs its requests with.
func (a *authority) enrolClient(b *testing.B) {
	b.Helper()
	a.key = p256(b)
	a.cfg = cmp.Config{
		Credential: &cmp.SharedSecret{Reference: []byte("ref"), Secret: []byte("secret")},
		Trust:      cmp.Trust{Roots: []*x509.Certificate{a.root}, Paths: new(cmp.PathCache)},
	}
	issued := a.enrol(b, &cmp.Client{URL: a.url}, a.key)
	a.cert = issued.Certificate
	a.cfg.Credential = &cmp.Signer{Key: a.key, Certificate: issued.Certificate, Chain: issued.Chain}
	a.cfg.ImplicitConfirm = true
}

// enrol gets a certificate for a key, and encodes the key as it is to be kept.
func (a *authority) enrol(b *testing.B, client *cmp.Client, key *ecdsa.PrivateKey) *cmp.Issued {
	b.Helper()
	if _, err := x509.MarshalPKCS8PrivateKey(key); err != nil {
		b.Fatal(err)
	}
	name, err := cmp.ParseName("/O=certloop/CN=web")
	if err != nil {
		b.Fatal(err)
	}
	issued, err := client.Do(b.Context(), a.cfg, cmp.Request{Type: cmp.TypeIR, Key: key, Template: cmp.CertTemplate{Subject: name}})
	if err != nil {
		b.Fatal(err)
	}
	return issued
}

func p256(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

// cpu is the CPU time of this process, or of the children it has waited for, in nanoseconds.
func cpu(b *testing.B, who int) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// spent is the CPU time of one of n runs.
func spent(b *testing.B, who, n int, run func()) float64 {
	b.Helper()
	start := cpu(b, who)
	for range n {
		run()
	}
	return (cpu(b, who) - start) / float64(n)
}

// floor is the cryptography of an enrolment, with what surrounds a key and a
// certificate: a new key and its PKCS#8, proof of possession and protection of
// the ir, the new certificate decoded, protection of the ip, and the two
// signatures on the path of the new certificate, whose issuer signs the ip.
func (a *authority) floor(b *testing.B, digest []byte) {
	key := p256(b)
	if _, err := x509.MarshalPKCS8PrivateKey(key); err != nil {
		b.Fatal(err)
	}
	var signature []byte
	var err error
	for range 2 {
		if signature, err = ecdsa.SignASN1(rand.Reader, key, digest); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := x509.ParseCertificate(a.cert.Raw); err != nil {
		b.Fatal(err)
	}
	for range 3 {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest, signature) {
			b.Fatal("does not verify")
		}
	}
}

// openssl is a function that enrols with a process of openssl cmp.
func (a *authority) openssl(b *testing.B) func() {
	b.Helper()
	dir := b.TempDir()
	file := func(name, kind string, ders ...[]byte) string {
		var text []byte
		for _, der := range ders {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			b.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		b.Fatal(err)
	}
	var chain [][]byte
	for _, c := range a.cfg.Credential.(*cmp.Signer).Chain {
		chain = append(chain, c.Raw)
	}
	key := file("key", "PRIVATE KEY", der)
	args := []string{
		"cmp", "-config", "", "-cmd", "ir", "-server", strings.TrimPrefix(a.url, "http://"), "-path", "/", "-verbosity", "3",
		"-trusted", file("root", "CERTIFICATE", a.root.Raw), "-cert", file("cert", "CERTIFICATE", a.cert.Raw), "-key", key,
		"-untrusted", file("chain", "CERTIFICATE", chain...), "-newkey", key, "-subject", "/O=certloop/CN=web",
		"-implicit_confirm", "-certout", filepath.Join(dir, "new"),
	}
	return func() {
		if out, err := exec.CommandContext(b.Context(), "openssl", args...).CombinedOutput(); err != nil {
			b.Fatalf("%v:\n%s", err, out)
		}
	}
}

// rounds is how often the things compared take turns.
const rounds = 9

// BenchmarkEnrolmentRatio compares the CPU time of one complete enrolment over
// HTTP, key included, with that of the cryptography in it, and with that of a
// process of openssl cmp that does the same with the same CA but for making a key.
// The CA is another process. It needs -benchtime 1x: its rounds are its own.
func BenchmarkEnrolmentRatio(b *testing.B) {
	a := startCA(b)
	client := &cmp.Client{URL: a.url, KeepAlive: true}
	var process func()
	if _, err := exec.LookPath("openssl"); err == nil {
		process = a.openssl(b)
	}
	digest := sha256.Sum256([]byte("x"))
	var toFloor, toProcess, null []float64
	for range rounds {
		first := spent(b, syscall.RUSAGE_SELF, 200, func() { a.floor(b, digest[:]) })
		own := spent(b, syscall.RUSAGE_SELF, 100, func() { a.enrol(b, client, p256(b)) })
		second := spent(b, syscall.RUSAGE_SELF, 200, func() { a.floor(b, digest[:]) })
		toFloor, null = append(toFloor, 2*own/(first+second)), append(null, first/second)
		if process != nil {
			toProcess = append(toProcess, spent(b, syscall.RUSAGE_CHILDREN, 3, process)/own)
		}
	}
	b.ReportMetric(median(toFloor), "÷crypto")
	b.ReportMetric(median(null), "null")
	if process != nil {
		b.ReportMetric(median(toProcess), "openssl÷own")
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
