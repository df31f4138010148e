package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/test/freeport"
)

// certloopCA runs the command until the test ends, or stop is called, and returns its URL.
func certloopCA(t *testing.T, args ...string) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var errs bytes.Buffer
	ca := newCommandLine(append([]string{"ca"}, args...), in, &errs)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if code := ca.execute(ctx); code != exitDone {
			t.Errorf("certloop ca ended with %d: %s", code, &errs)
		}
		_ = in.Close()
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("certloop ca is not ready: %v", err)
	}
	url, _, _ = strings.Cut(strings.TrimPrefix(line, "READY url="), " ")
	return url, stop
}

// writeKey writes a new key.
func writeKey(t *testing.T, path string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func readCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is no PEM: %q", path, text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// What a client meets at a CA that misbehaves, and what certloop cmp makes of it.
func TestCAMisbehaves(t *testing.T) {
	tests := []struct {
		flags  string
		client string
		code   int
		says   string // on the client's stderr
	}{
		{"", "", exitDone, ""},
		{"--misbehave reject=badPOP,badAlg", "", exitFailed, "badAlg,badPOP"},
		{"--misbehave reject-by-error=systemUnavail", "", exitFailed, "systemUnavail"},
		{"--wait 1 --check-after 1s", "", exitDone, ""},
		{"--wait -1 --check-after 1s", "-total_timeout 2", exitFailed, "the total time of the transaction is over"},
		{"--misbehave wait-confirm=1 --check-after 1s", "", exitDone, ""},
		{"--misbehave refuse-confirm", "", exitFailed, "certConf"},
		{"--misbehave modify-subject", "", exitDone, `granted "CN=modified"`},
		{"--misbehave wrong-key", "", exitFailed, "key"},
		{"--misbehave foreign-issuer", "-out_trusted ca.crt", exitFailed, "path"},
		{"--misbehave bad-nonce", "", exitFailed, "recipNonce"},
		{"--misbehave bad-nonce --only genp", "", exitDone, ""},
		{"--misbehave bad-nonce --only genp --only pkiconf", "", exitFailed, "recipNonce"},
		{"--misbehave wrong-transaction-id", "", exitFailed, "transactionID"},
		{"--misbehave wrong-signature", "", exitFailed, "MAC"},
		{"--misbehave sign-mac", "-trusted ca.crt", exitDone, ""},
		{"--misbehave sign-mac", "", exitFailed, "another kind"},
		{"--misbehave unprotected", "", exitFailed, "protect"},
		{"--misbehave unprotected-errors --misbehave reject=badAlg", "", exitFailed, "unverified"},
		{"--misbehave garbage", "", exitFailed, "malformed PKIMessage"},
		{"--misbehave http-status=503", "", exitFailed, "503"},
		{"--misbehave cmp-status=400", "", exitDone, ""},
		{"--misbehave drop=9", "", exitFailed, "EOF"},
		{"--misbehave delay=30s", "-msg_timeout 1", exitFailed, "exceeded"},
		{"--misbehave only-http-1.0", "", exitDone, ""},
		{"--misbehave only-http-1.1", "", exitDone, ""},
	}
	for _, tt := range tests {
		t.Run(tt.flags+" "+tt.client, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			writeKey(t, "key.pem")
			url, _ := certloopCA(t, append(strings.Fields("--dir . --listen 127.0.0.1:0 --log-level error --secret ref=secret"), strings.Fields(tt.flags)...)...)
			line := "cmp -cmd ir -ref ref -secret pass:secret -mac hmacWithSHA256 -newkey key.pem -subject /CN=web -certout web.crt -server " + url + " " + tt.client
			code, _, stderr := run(t, strings.Fields(line)...)
			if code != tt.code || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit code %d, want %d, and %q in\n%s", code, tt.code, tt.says, stderr)
			}
		})
	}
}

// Each field of Behaviour that a command line can hold is set by exactly one misbehaviour, but for
// those that have flags of their own.
func TestMisbehavioursAreThoseOfTheResponder(t *testing.T) {
	set := map[string]string{"Wait": "--wait", "CheckAfter": "--check-after", "Only": "--only", "Alter": "a function", "AlterDER": "a function"}
	values := map[string]string{valueBits: "=badAlg", valueNumber: "=2", valueCode: "=503", valueTime: "=1s"}
	for _, m := range misbehaviours() {
		b, err := behaviour([]string{m.name + values[m.value]}, nil)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		before := len(set)
		for _, field := range reflect.VisibleFields(reflect.TypeFor[responder.Behaviour]()) {
			if !reflect.ValueOf(b).FieldByIndex(field.Index).IsZero() && set[field.Name] == "" {
				set[field.Name] = m.name
			}
		}
		if len(set) != before+1 {
			t.Errorf("%s sets %d fields that nothing else sets, want one: %v", m.name, len(set)-before, set)
		}
	}
	if want := reflect.TypeFor[responder.Behaviour]().NumField(); len(set) != want {
		t.Errorf("%d of %d fields can be set: %v", len(set), want, slices.Sorted(maps.Keys(set)))
	}
}

func TestCAFlagsThatCannotBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	for args, says := range map[string]string{
		"":                                           "--secret REF=SECRET is needed",
		"--secret a=b --misbehave frobnicate":        "--misbehave frobnicate is not one of",
		"--secret a=b --misbehave garbage=1":         "write garbage",
		"--secret a=b --misbehave reject":            "write reject=BITS",
		"--secret a=b --misbehave reject=bad":        `"bad" is not one of badAlg, `,
		"--secret a=b --misbehave drop=0":            `"0" is not a number from 1`,
		"--secret a=b --misbehave http-status=100":   `"100" is not a number from 200`,
		"--secret a=b --misbehave delay=5":           "missing unit",
		"--secret a=b --only ip":                     "--only restricts a --misbehave",
		"--secret a=b --misbehave garbage --only ir": "--only ir is not one of",
		"--secret a=b --key-type P-224":              "--key-type P-224 is not one of P-256, ",
		"--secret a=b --key-type P-384 --pss":        "--pss is for RSA keys",
		"--secret a=b --crl-distribution-point crl":  "crl is not a URL",
		"--secret a=b --key-type x --only ip":        "--key-type x is not one of",
	} {
		code, _, stderr := run(t, append([]string{"ca", "--dir", dir}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d, want %d, and %q in\n%s", args, code, exitUsage, says, stderr)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a CA was made in spite of a wrong command line")
	}
}

// The keys of a CA, their signatures, and where its CRL is.
func TestCAKeys(t *testing.T) {
	tests := map[string]struct {
		want    x509.SignatureAlgorithm
		another string // what a second start is refused with
		says    string
	}{
		"":                          {x509.ECDSAWithSHA256, "--pss", "has a key of P-256"},
		"--key-type P-384":          {x509.ECDSAWithSHA384, "--key-type P-256", "has a key of P-384"},
		"--key-type Ed25519":        {x509.PureEd25519, "--key-type RSA-2048", "has a key of Ed25519"},
		"--key-type RSA-2048 --pss": {x509.SHA256WithRSAPSS, "--key-type RSA-3072", "has a key of RSA-2048"},
	}
	for flags, tt := range tests {
		t.Run(flags, func(t *testing.T) {
			t.Chdir(t.TempDir())
			writeKey(t, "key.pem")
			address := freeport.Address(t)
			crl := "http://" + address + "/crl"
			always := strings.Fields("--dir . --log-level error --secret ref=secret --crl-distribution-point " + crl + " --listen " + address)
			url, stop := certloopCA(t, append(always, strings.Fields(flags)...)...)
			code, _, stderr := run(t, strings.Fields("cmp -cmd ir -ref ref -secret pass:secret -mac hmacWithSHA256 -newkey key.pem -subject /CN=web -certout web.crt -server "+url)...)
			if code != exitDone {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			ca, cert := readCertificate(t, "ca.crt"), readCertificate(t, "web.crt")
			if cert.SignatureAlgorithm != tt.want || !slices.Equal(cert.CRLDistributionPoints, []string{crl}) {
				t.Errorf("signed with %s, want %s; CRL at %v, want %s", cert.SignatureAlgorithm, tt.want, cert.CRLDistributionPoints, crl)
			}
			if list := fetchCRL(t, crl); list.CheckSignatureFrom(ca) != nil || list.SignatureAlgorithm != tt.want {
				t.Errorf("the CRL is signed with %s: %v", list.SignatureAlgorithm, list.CheckSignatureFrom(ca))
			}
			stop()
			code, _, stderr = run(t, append(append([]string{"ca"}, always...), strings.Fields(tt.another)...)...)
			if code != exitUsage || !strings.Contains(stderr, tt.says) {
				t.Errorf("%s: exit code %d, want %d, and %q in\n%s", tt.another, code, exitUsage, tt.says, stderr)
			}
		})
	}
}

func fetchCRL(t *testing.T, url string) *x509.RevocationList {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The commands of docs/ca-command.md do what it says, and its table has every misbehaviour.
func TestCADocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/ca-command.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range misbehaviours() {
		if row := "| `" + m.usage() + "` | " + m.help + " |\n"; !strings.Contains(string(text), row) {
			t.Errorf("docs/ca-command.md does not have the row %s", row)
		}
	}
	const documented = "127.0.0.1:8829"
	address := freeport.Address(t)
	stop := func() {}
	t.Chdir(t.TempDir())
	writeKey(t, "key.pem")
	tried := 0
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", "")) {
		command, ok := strings.CutPrefix(line, "    certloop ")
		if !ok {
			continue
		}
		command, says, refused := strings.Cut(strings.ReplaceAll(command, documented, address), " # fails: ")
		if args := strings.Fields(command); args[0] == "ca" {
			stop()
			_, stop = certloopCA(t, append(args[1:], "--log-level", "error")...)
		} else if code, _, stderr := run(t, args...); (code != exitDone) != refused || !strings.Contains(stderr, strings.TrimSpace(says)) {
			t.Errorf("%s: exit code %d: %s", command, code, stderr)
		}
		tried++
	}
	if tried < 4 {
		t.Errorf("%d commands, want 4 at least", tried)
	}
}

// What a shell proposes is what the flags take.
func TestCACompletion(t *testing.T) {
	for args, want := range map[string]string{
		"ca --key-type ":                    "P-256\nP-384\nP-521\nRSA-2048\nRSA-3072\nRSA-4096\nEd25519\n:4\n",
		"ca --only ":                        "ip\ncp\nkup\nrp\ngenp\npkiconf\npollRep\nerror\n:4\n",
		"ca --misbehave reject=badPOP,badA": "reject=badPOP,badAlg\n",
		"ca --misbehave ":                   "drop=\tprocess N requests",
	} {
		if _, stdout, _ := run(t, append([]string{"__complete"}, strings.Split(args, " ")...)...); !strings.Contains(stdout, want) {
			t.Errorf("%s: %q, want %q in it", args, stdout, want)
		}
	}
}
