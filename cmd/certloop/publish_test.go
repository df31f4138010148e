package main

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certloop/certloop/pkg/model"
)

const twoDocuments = `
apiVersion: certloop.io/v1alpha1
kind: CMPIssuer
metadata: {name: ca}
spec:
  server: http://127.0.0.1:8829/pkix/
  trust: {secretName: ca-trust}
---
# nothing
---
apiVersion: certloop.io/v1alpha1
kind: CMPCertificate
metadata: {name: web, namespace: shop}
spec:
  issuerRef: {name: ca}
  subject: {commonName: web}
  output: {secretName: web-tls}
`

func TestPublishToNATS(t *testing.T) {
	b := openBroker(t, filepath.Join(t.TempDir(), "nats"))
	defer b.stop()
	file := filepath.Join(t.TempDir(), "two.yaml")
	writeFile(t, file, twoDocuments)

	if code, _, stderr := run(t, "publish", "-f", file, "--nats-url", b.url()); code != exitFailed {
		t.Errorf("without streams: exit code %d, want %d; %s", code, exitFailed, stderr)
	}
	for range 2 { // applying twice changes nothing
		code, stdout, stderr := run(t, "bus", "apply", "--nats-url", b.url())
		if code != exitDone || strings.Count(stdout, "applied, replicas 1\n") != 3 {
			t.Fatalf("bus apply: exit code %d: %s%s", code, stdout, stderr)
		}
	}
	busAppliedAs(t, b.url())
	code, stdout, stderr := run(t, "publish", "-f", file, "-n", "core", "--nats-url", b.url())
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"stored io.certloop.issuer.created.v1 id=", "stored io.certloop.config.created.v1 id="} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr %q does not say %q", stderr, want)
		}
	}
	if want := "OUTCOME   OBJECT     SECRET   EXPIRES   REASON\nstored    core/ca    -        -         -\nstored    shop/web   -        -         -\n"; stdout != want {
		t.Errorf("stdout is\n%swant\n%s", stdout, want)
	}
	stream, err := streamsOf(t, b.url()).Stream(t.Context(), model.WorkStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 2 {
		t.Errorf("%d messages of work are stored, want 2", n)
	}
}

func TestPublishRefusesBeforeItSends(t *testing.T) {
	valid, _, _ := strings.Cut(twoDocuments, "---")
	tests := []struct {
		name string
		file string
		says string
	}{
		{"not YAML", "a: [", "document 1: "},
		{"nothing", "# nothing", "no documents"},
		{"another resource", "apiVersion: v1\nkind: Secret", "neither a CloudEvent nor a resource of certloop.io/v1alpha1"},
		{"another kind", "apiVersion: certloop.io/v1alpha1\nkind: Thing\nmetadata: {name: x}", `kind "Thing" is none of`},
		{"an unknown field", valid + "  colour: red", `document 1: CMPIssuer is invalid: data: json: unknown field "colour"`},
		{"the second of two", valid + "---\nspecversion: '1.0'", "document 2: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "in.yaml")
			writeFile(t, file, tt.file)
			code, _, stderr := run(t, "publish", "-f", file, "--nats-url", "nats://127.0.0.1:1")
			if code != exitUsage || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q in it", code, exitUsage, stderr, tt.says)
			}
		})
	}
}

func TestPublishOverHTTP(t *testing.T) {
	var got []string
	function := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Ce-Type")+" "+r.Header.Get("Ce-Subject"))
		switch len(got) {
		case 1:
			w.WriteHeader(http.StatusAccepted)
		case 2:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"title":"Invalid event","detail":"two","errors":[{"detail":"spec.server is missing"},{"detail":"spec.trust is missing"}]}`)
		default:
			http.NotFound(w, r) // a gateway
		}
	}))
	defer function.Close()
	path := "../../functions/enroll/testdata/config-created.json"
	if code, stdout, stderr := run(t, "publish", "-f", path, "--http", function.URL, "-o", "name"); code != exitDone || stdout != "cmpcertificate.certloop.io/web\n" || !strings.Contains(stderr, "accepted io.certloop.config.created.v1 id=") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if len(got) != 1 || got[0] != "io.certloop.config.created.v1 demo/web" {
		t.Errorf("sent %q", got)
	}
	code, stdout, stderr := run(t, "publish", "-f", path, "--http", function.URL, "-o", "json")
	if code != exitRejected || !strings.Contains(stderr, "answered 422 Unprocessable Entity: Invalid event: spec.server is missing; spec.trust is missing") {
		t.Errorf("refused: exit code %d: %s", code, stderr)
	}
	var results []result
	if err := json.Unmarshal([]byte(stdout), &results); err != nil || len(results) != 1 || results[0].Outcome != isRejected || len(results[0].Fields) != 2 {
		t.Errorf("refused: got %+v, %v", results, err)
	}
	if code, _, stderr := run(t, "publish", "-f", path, "--http", function.URL); code != exitFailed || !strings.Contains(stderr, "404 Not Found") {
		t.Errorf("no function there: exit code %d: %s", code, stderr)
	}
}

// A broker that knows its senders by a token gets it, over TLS, and nobody else does.
func TestPublishWithToken(t *testing.T) {
	var leaked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("Authorization") != "")
	}))
	defer elsewhere.Close()
	broker := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		case r.Header.Get("Authorization") != "Bearer shibboleth":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	defer broker.Close()
	dir := t.TempDir()
	token, ca, empty := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt"), filepath.Join(dir, "empty")
	writeFile(t, token, "shibboleth\n")
	writeFile(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: broker.Certificate().Raw})))
	writeFile(t, empty, "")
	for _, tc := range []struct {
		name, url string
		args      []string
		code      int
		says      string
	}{
		{"good", broker.URL, []string{"--http-ca", ca, "--http-token-file", token}, exitDone, "accepted"},
		{"no token", broker.URL, []string{"--http-ca", ca}, exitFailed, "401 Unauthorized"},
		{"unknown roots", broker.URL, []string{"--http-token-file", token}, exitFailed, "certificate signed by unknown authority"},
		{"redirected", broker.URL + "/moved", []string{"--http-ca", ca, "--http-token-file", token}, exitFailed, "307 Temporary Redirect"},
		{"no such file", broker.URL, []string{"--http-token-file", filepath.Join(dir, "absent")}, exitUsage, "--http-token-file"},
		{"empty token", broker.URL, []string{"--http-ca", ca, "--http-token-file", empty}, exitUsage, "--http-token-file"},
		{"no roots in it", broker.URL, []string{"--http-ca", token}, exitUsage, "--http-ca"},
	} {
		args := append([]string{"publish", "-f", "../../functions/enroll/testdata/config-created.json", "--http", tc.url}, tc.args...)
		code, stdout, stderr := run(t, args...)
		if code != tc.code || !strings.Contains(stderr, tc.says) || strings.Contains(stdout+stderr, "shibboleth") {
			t.Errorf("%s: exit code %d, want %d: %s%s", tc.name, code, tc.code, stdout, stderr)
		}
	}
	if leaked.Load() {
		t.Error("the token went where the answer pointed")
	}
	if code, _, stderr := run(t, "publish", "-f", "../../functions/enroll/testdata/config-created.json", "--http-token-file", token); code != exitUsage || !strings.Contains(stderr, "need --http") {
		t.Errorf("over NATS: exit code %d: %s", code, stderr)
	}
}

func TestSharedSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, "from a file\n")
	t.Setenv("CA_SECRET", "from the environment")
	got, err := sharedSecrets([]string{"a=plain=text", "b=file:" + file, "c=env:CA_SECRET"})
	if err != nil || got["a"] != "plain=text" || got["b"] != "from a file" || got["c"] != "from the environment" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, pairs := range map[string][]string{
		"none": nil, "no reference": {"=hush-hush"}, "no secret": {"hush-hush"}, "empty": {"a="}, "absent file": {"a=file:/absent"}, "absent variable": {"a=env:ABSENT"},
	} {
		if _, err := sharedSecrets(pairs); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogger(t *testing.T) {
	for _, l := range []logging{{"loud", "text"}, {"info", "xml"}} {
		if _, err := l.logger(io.Discard); err == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
	var out strings.Builder
	log, err := newLogger(&out, "json", slog.LevelWarn)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("unheard")
	log.Warn("heard")
	if got := out.String(); strings.Contains(got, "unheard") || !strings.Contains(got, `"msg":"heard"`) {
		t.Errorf("logged %q", got)
	}
}
