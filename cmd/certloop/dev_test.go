package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/model"
)

func TestSamplesAreValid(t *testing.T) {
	d := &demo{options: devOptions{namespace: "demo"}}
	for _, c := range []*model.CMPCertificate{identitySample(), webSample(), shortSample()} {
		c.Namespace = "demo"
		e := model.NewEvent(model.ConfigCreated, d.key(c.Name), c)
		if err := model.CheckCertificateEvent(e); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// script writes a program for the shell that stands in for kubeapi.
func script(tb testing.TB, text string) string {
	tb.Helper()
	if runtime.GOOS == "windows" {
		tb.Skip("needs a shell")
	}
	path := filepath.Join(tb.TempDir(), "kubeapi")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		tb.Fatal(err)
	}
	return path
}

func TestAPIServerEndsWithItsPipe(t *testing.T) {
	// The arguments are: -dir DIR -stop-on-stdin-eof.
	program := script(t, `echo "READY 0.01 kubeconfig=$2/kubeconfig"; cat >/dev/null; echo over > "$2/over"`)
	dir := filepath.Join(t.TempDir(), "state")
	a, err := startAPIServer(t.Context(), program, dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "kubeconfig"); a.kubeconfig != want {
		t.Errorf("kubeconfig %q, want %q", a.kubeconfig, want)
	}
	a.stop()
	if _, err := os.Stat(filepath.Join(dir, "over")); err != nil {
		t.Errorf("it was not asked to end: %v", err)
	}
}

func TestAPIServerThatDoesNotStart(t *testing.T) {
	tests := []struct {
		name, program string
		says          []string
	}{
		{"with a reason", script(t, `echo "noise" >&2; echo "kubeapi: the port is taken" >&2; exit 1`), []string{"the port is taken", "kubeapi.log"}},
		{"by a panic", script(t, `echo "panic: nothing to read" >&2; echo "goroutine 1" >&2; exit 2`), []string{"nothing to read", "kubeapi.log"}},
		{"without one", script(t, `exit 1`), []string{"ended without a reason", "kubeapi.log"}},
		{"no such program", "/absent/kubeapi", []string{"starting /absent/kubeapi"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := startAPIServer(t.Context(), tt.program, t.TempDir())
			for _, says := range tt.says {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("error %v does not say %q", err, says)
				}
			}
		})
	}
}

func TestAPIServerThatIsNotReadyInTime(t *testing.T) {
	program := script(t, `cat >/dev/null`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a, err := startAPIServer(ctx, program, t.TempDir())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	select {
	case <-a.ended:
	default:
		t.Error("it still runs")
	}
}

func TestStateBelongsToOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	st, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openState(dir)
	if want := "--state-dir"; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), holder(dir)) {
		t.Errorf("a second one: %v, want the process %s and %q in it", err, holder(dir), want)
	}
	st.close()
	again, err := openState(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.close()
}

func TestStateDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	code, _, stderr := run(t, "all", "--state-dir", filepath.Join(file, "dir"), "--kubeconfig", file)
	if code != exitUsage || !strings.Contains(stderr, "give another one with --state-dir") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestBuildCountsPackages(t *testing.T) {
	b := &build{began: time.Now()}
	if got := b.progress(); !strings.HasPrefix(got, "fetching modules") {
		t.Errorf("before the count: %q", got)
	}
	b.total.Store(8)
	last := b.follow(strings.NewReader("go: downloading k8s.io/api v0.36.3\nunsafe\nk8s.io/api/core/v1\n# k8s.io/kubernetes\npkg/x.go:1:2: broken\n"))
	if got, want := b.progress(), "compiled 2 of at most 8 packages (25 %)"; !strings.HasPrefix(got, want) {
		t.Errorf("progress %q, want %q…", got, want)
	}
	if want := "pkg/x.go:1:2: broken"; last != want {
		t.Errorf("the reason is %q, want %q", last, want)
	}
}

func TestSourceRoot(t *testing.T) {
	root := sourceRoot()
	if _, err := os.Stat(filepath.Join(root, "cmd", "certloop", "dev_test.go")); root == "" || err != nil {
		t.Errorf("the source was found at %q: %v", root, err)
	}
	t.Chdir(t.TempDir())
	if got := sourceRoot(); got != "" {
		t.Errorf("found at %q, where it is not", got)
	}
}

func TestAPIServerProgram(t *testing.T) {
	root := t.TempDir()
	if got, err := apiServerProgram("", root); err != nil || got != filepath.Join(root, "bin", "kubeapi") {
		t.Errorf("in the source: %q, %v", got, err)
	}
	for name, args := range map[string][2]string{"named and absent": {"/absent", root}, "nowhere": {"", ""}} {
		_, err := apiServerProgram(args[0], args[1])
		var usage *usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--kubeapi") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStepsSayWhatEndedThem(t *testing.T) {
	var out strings.Builder
	d := &demo{show: testDisplay(&out, false)}
	wait := func(ctx context.Context) (string, error) {
		return "", because(until(ctx, func() (bool, error) { return false, nil }), "Pending: nobody answers")
	}
	tests := []struct {
		name string
		ctx  func(*testing.T) context.Context
		run  func(context.Context) (string, error)
		want string
	}{
		{"time is up", (*testing.T).Context, wait, "not within 50ms: Pending: nobody answers"},
		{"a part has ended", func(t *testing.T) context.Context {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errors.New("the API server has ended"))
			return ctx
		}, wait, "the API server has ended: Pending: nobody answers"},
		{"an error of its own", (*testing.T).Context, func(context.Context) (string, error) { return "", errors.New("keys differ") }, "keys differ"},
		{"time is up in a call", (*testing.T).Context, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}, "not within 50ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := d.take(tt.ctx(t), step{"step", "waiting", 50 * time.Millisecond, tt.run})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// authority issues for a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{key: newKey(tb)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	a.cert = template
	a.cert = a.issue(tb, template, a.key.Public())
	return a
}

func (a *authority) issue(tb testing.TB, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// output is what a workload finds, for web.
func (a *authority) output(tb testing.TB, keyText string, change func(*x509.Certificate)) *delivered {
	tb.Helper()
	urn, err := url.Parse("urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6")
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "web.demo.svc"},
		DNSNames:    []string{"web.demo.svc", "web.demo.svc.cluster.local"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.10"), net.ParseIP("2001:db8::10")}, URIs: []*url.URL{urn},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute),
	}
	change(template)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"}, Data: map[string][]byte{corev1.TLSPrivateKeyKey: []byte(keyText)}}
	return &delivered{cert: webSample(), secret: secret, chain: []*x509.Certificate{a.issue(tb, template, newKey(tb).Public())}}
}

func asIs(*x509.Certificate) {}

func TestSatisfies(t *testing.T) {
	a := newAuthority(t)
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		want   string
	}{
		{"as configured", asIs, ""},
		{"another name", func(c *x509.Certificate) { c.Subject.CommonName = "other" }, "common name"},
		{"a name is missing", func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] }, "alternative names"},
		{"another address", func(c *x509.Certificate) { c.IPAddresses[0] = net.IPv4(192, 0, 2, 11) }, "alternative names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkError(t, a.output(t, "key", tt.change).satisfies(webSample()), tt.want)
		})
	}
}

func TestVerifyWantsTheCA(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	checkError(t, verify(a.output(t, "key", asIs).chain, a.cert), "")
	checkError(t, verify(a.output(t, "key", asIs).chain, other.cert), "unknown authority")
}

func TestCompareWantsARenewal(t *testing.T) {
	a := newAuthority(t)
	before := a.output(t, "former key", asIs)
	ended := a.output(t, "former key", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	after := a.output(t, "new key", asIs)
	sameSecret := a.output(t, "former key", asIs)
	update := []string{"kur → kup", "certConf → pkiconf"}
	tests := []struct {
		name          string
		before, after *delivered
		asked         []string
		want          string
	}{
		{"renewed", before, after, update, ""},
		{"enrolled anew", before, after, []string{"ir → ip"}, "not renewed by a key update"},
		{"the same certificate", before, before, update, "the key is the same"},
		{"the same private key", before, sameSecret, update, "private key in the Secret is the same"},
		{"too late", ended, after, update, "had ended"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compare(tt.before, tt.after, tt.asked)
			checkError(t, err, tt.want)
		})
	}
}

// checkError wants an error that says want, or none where that is empty.
func checkError(tb testing.TB, err error, want string) {
	tb.Helper()
	switch {
	case want == "" && err != nil:
		tb.Errorf("got %v, want no error", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		tb.Errorf("got %v, want an error that says %q", err, want)
	}
}

func TestQuote(t *testing.T) {
	for path, want := range map[string]string{"/a/b": "/a/b", "/a b": "'/a b'", "/it's": `'/it'\''s'`} {
		if got := quote(path); got != want {
			t.Errorf("quote(%q) is %s, want %s", path, got, want)
		}
	}
}
