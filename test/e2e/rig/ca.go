package rig

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/test/freeport"
)

// The reference value and the shared secret of every CA of the rig.
const (
	Reference = "certloop-e2e"
	Secret    = "an insecure secret of the end-to-end tests"
)

// CA is how a certification authority is reached and what it is trusted by.
type CA struct {
	URL   string
	Roots []byte // PEM
}

// Responder is our own CA in the test's process, with a port that can be closed and opened.
type Responder struct {
	CA
	*responder.Server

	addr   string
	served *http.Server
	mu     sync.Mutex
	events []responder.Event
}

// StartResponder starts a CA for this test alone. What cfg leaves open about secrets is the rig's.
func StartResponder(tb testing.TB, cfg responder.Config) *Responder {
	tb.Helper()
	r := &Responder{}
	cfg.SharedSecrets = map[string]string{Reference: Secret}
	cfg.OnMessage = func(e responder.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	var err error
	if r.Server, err = responder.New(cfg); err != nil {
		tb.Fatal(err)
	}
	r.Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.CACertificate().Raw})
	r.addr = freeport.Address(tb)
	r.Up(tb)
	tb.Cleanup(r.Down)
	r.URL = "http://" + r.addr + "/pkix/"
	return r
}

// Up makes the CA reachable, at the port it had before.
func (r *Responder) Up(tb testing.TB) {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", r.addr)
	if err != nil {
		tb.Fatal(err)
	}
	s := &http.Server{Handler: r.Server, ReadHeaderTimeout: Patience}
	r.served = s
	go func() { _ = s.Serve(l) }() // until Down, which closes l
}

// Down makes connections to the CA be refused and ends those it has.
func (r *Responder) Down() { _ = r.served.Close() }

// Messages are those answered so far, in the order of their coming.
func (r *Responder) Messages() []responder.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]responder.Event(nil), r.events...)
}

// OpenSSL is the CA on libcrypto's CMP server code, in a process of its own.
type OpenSSL struct {
	CA
	*Process
	dir string
}

// StartOpenSSL starts the CA with an empty ledger and more of its options.
func StartOpenSSL(tb testing.TB, options ...string) *OpenSSL {
	tb.Helper()
	dir := tb.TempDir()
	path := present(tb, filepath.Join(Root(tb), "test/peers/openssl-ca/openssl-ca"), "make -C test/peers/openssl-ca")
	args := append([]string{"-dir", dir, "-ref", Reference, "-secret", "pass:" + Secret}, options...)
	o := &OpenSSL{Process: Start(tb, Command{Name: "openssl-ca", Path: path, Args: args, Logs: dir}), dir: dir}
	o.URL = o.Ready["url"]
	var err error
	if o.Roots, err = os.ReadFile(o.Ready["ca"]); err != nil {
		tb.Fatal(err)
	}
	return o
}

// Lines are the messages in its log, in the order of processing, each as its words.
func (o *OpenSSL) Lines(tb testing.TB) (lines []map[string]string) {
	tb.Helper()
	text, err := os.ReadFile(o.Log)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "time=") {
			lines = append(lines, attributes(line))
		}
	}
	return lines
}

// attributes reads key=value and key="value with spaces".
func attributes(line string) map[string]string {
	out := map[string]string{}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		key, rest, _ := strings.Cut(line, "=")
		value, after, _ := strings.Cut(rest, " ")
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			value, after, _ = strings.Cut(quoted, `"`)
		}
		out[key], line = value, after
	}
	return out
}

// Issued are the certificates of its ledger, those since revoked among them.
func (o *OpenSSL) Issued(tb testing.TB) (certs []*x509.Certificate) {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(o.dir, "issued", "*"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f) //nolint:gosec // the CA's directory is the test's own
		if err != nil {
			tb.Fatal(err)
		}
		certs = append(certs, Certificates(tb, text)...)
	}
	return certs
}

// Certificates reads certificates in PEM.
func Certificates(tb testing.TB, text []byte) (certs []*x509.Certificate) {
	tb.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

// Slow is a CA whose answers are held back once it has processed a request: the
// moments in which a crash of its client costs most are long.
func Slow(tb testing.TB, ca CA, delay time.Duration) CA {
	tb.Helper()
	target, err := url.Parse(ca.URL)
	if err != nil {
		tb.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host },
		ModifyResponse: func(*http.Response) error {
			time.Sleep(delay)
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0), // clients that were killed
	}
	s := httptest.NewServer(proxy)
	tb.Cleanup(s.Close)
	return CA{URL: s.URL + target.Path, Roots: ca.Roots}
}
