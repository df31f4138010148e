package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/kubetest"
)

// Beginnings of the commands that make an issuer's Secrets.
const (
	bootstrap = "kubectl -n demo create secret generic ca-bootstrap"
	trust     = "kubectl -n demo create secret generic ca-trust"
	roots     = "kubectl -n demo create secret generic roots"
)

// demo is a cluster of its own whose namespace demo is that of the documents, with
// all of certloop at work in it.
type demo struct {
	cluster *kubetest.Cluster
	path    string // PATH with our programs first
	home    string
	ran     map[string]bool // the commands that were tried
}

func newDemo(t *testing.T) *demo {
	t.Helper()
	d := &demo{cluster: kubetest.StartOwn(t), home: t.TempDir(), ran: map[string]bool{}}
	d.cluster.ApplyCRDs(t, filepath.Join(root, "deploy", "knative", "crds"))
	d.cluster.Kubectl(t, "create", "namespace", "demo")
	d.path = filepath.Dir(rig.Binary(t, "certloop")) + string(filepath.ListSeparator) + os.Getenv("PATH")
	return d
}

// sh runs a command of a document as its reader would, in a directory, and returns
// what it printed.
func (d *demo) sh(t *testing.T, dir, command string) string {
	t.Helper()
	out, stderr, err := d.try(t, dir, command, "")
	if err != nil {
		t.Fatalf("%s\n%v\n%s%s", command, err, out, stderr)
	}
	return out
}

// try is sh with a standard input, for commands that may fail.
func (d *demo) try(t *testing.T, dir, command, stdin string) (stdout, stderr string, err error) {
	t.Helper()
	d.ran[command] = true
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", command) // #nosec G204 -- what the documents show
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+d.path, "KUBECONFIG="+d.cluster.Kubeconfig(), "HOME="+d.home, "CURL_HOME="+d.home)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	return out.String(), complaint.String(), err
}

// The YAML of every document is accepted by the API server, no field unknown.
func TestYAML(t *testing.T) {
	d := newDemo(t)
	const check = "kubectl apply --dry-run=server --validate=strict -f -"
	for _, b := range blocks(t, "yaml") {
		if _, stderr, err := d.try(t, root, check, b.text); err != nil {
			t.Errorf("%s: %v\n%s\n%s", b.document, err, stderr, b.text)
		}
	}
	misspelt := strings.Replace(of(t, blocks(t, "yaml"), "README.md")[0].text, "validity:", "validty:", 1)
	if _, stderr, err := d.try(t, root, check, misspelt); err == nil || !strings.Contains(stderr, "validty") {
		t.Errorf("a field that is misspelt is accepted, so that this proves nothing: %v %s", err, stderr)
	}
}

// Whoever does what the documents show, in their order, gets what they promise. Only
// the address of the CA is another one than in the documents.
func TestExamples(t *testing.T) {
	rig.Tool(t, "curl")
	d := newDemo(t)
	ca, err := responder.Start(responder.Config{SharedSecrets: map[string]string{"ref": "secret"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	all := rig.StartAll(t, &rig.World{Cluster: d.cluster, Namespace: "demo"})
	d.connect(t, all.Ready["enroll"])

	// docs/issuers.md: two Secrets, an issuer, its identity.
	secrets := t.TempDir()
	if err := os.WriteFile(filepath.Join(secrets, "ca.crt"), ledger.EncodeCertificates(ca.CACertificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.sh(t, secrets, one(t, "docs/issuers.md", bootstrap))
	d.sh(t, secrets, one(t, "docs/issuers.md", trust))
	d.apply(t, "docs/issuers.md", "http://ca.example.com:8829/pkix/", ca.URL)
	d.wait(t, "identity")

	// docs/certificates.md: what is not the default.
	d.sh(t, secrets, one(t, "docs/certificates.md", roots))
	d.apply(t, "docs/certificates.md")
	d.wait(t, "amf-sbi")
	d.wait(t, "smf-n4")
	if got := d.cluster.Kubectl(t, "-n", "demo", "get", "secret", "smf-n4", "smf-n4-chain", "-o", "jsonpath={.items[*].data}"); !strings.Contains(got, "smf.key") || !strings.Contains(got, "roots.pem") {
		t.Errorf("the output of smf-n4 is %s", got)
	}

	// docs/events.md: the same event by HTTP and by JetStream.
	if got := d.sh(t, root, one(t, "docs/events.md", "curl")); !strings.HasPrefix(got, "HTTP/1.1 202 ") {
		t.Errorf("curl printed %q, want 202", got)
	}
	d.wait(t, "web")
	d.cluster.Kubectl(t, "-n", "demo", "delete", "cmpc", "web")
	d.publish(t, all.Ready["nats"], one(t, "docs/events.md", "nats pub"))
	d.wait(t, "web")

	// README.md: the same by kubectl.
	d.cluster.Kubectl(t, "-n", "demo", "delete", "cmpc", "web")
	d.apply(t, "README.md")
	d.wait(t, "web")
	for _, command := range []string{one(t, "README.md", "kubectl get"), one(t, "README.md", "certloop get")} {
		got := d.sh(t, root, command)
		for _, want := range []string{"demo", "identity", "web-tls", "True"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not show %q:\n%s", command, want, got)
			}
		}
	}
	d.operate(t, all.Ready["nats"])
}

// operations is the document of what people do with a certloop that runs.
const operations = "docs/operations.md"

// operate does what docs/operations.md shows with the certificate web.
func (d *demo) operate(t *testing.T, server string) {
	t.Helper()
	t.Setenv("NATS_URL", server)
	for command, want := range map[string]string{
		"certloop get":                   "web-tls",
		"certloop history web":           "certificate.issued        Secret web-tls",
		"certloop history -A --since 1h": "identity",
	} {
		if got := d.sh(t, root, one(t, operations, command)); !strings.Contains(got, want) {
			t.Errorf("%s shows\n%swithout %q", command, got, want)
		}
	}
	for _, beginning := range []string{
		`kubectl -n demo annotate --overwrite cmpc web certloop.io/renew=`,
		`kubectl -n demo annotate --overwrite cmpc web certloop.io/recreate=`,
		`kubectl -n demo get cmpc -o name`,
	} {
		before := d.serial(t)
		time.Sleep(time.Second) // the commands write a time in seconds
		d.sh(t, root, one(t, operations, beginning))
		rig.Eventually(t, rig.Patience, "another certificate", func() error {
			if d.serial(t) == before {
				return errors.New("it is the same")
			}
			return nil
		})
	}
	for _, tt := range []struct{ paused, stalled string }{{"true", model.ReasonPaused}, {"false", ""}} {
		d.sh(t, root, one(t, operations, `kubectl -n demo patch cmpc web --type=merge --patch '{"spec": {"paused": `+tt.paused))
		rig.Eventually(t, rig.Patience, "paused: "+tt.paused, func() error {
			if got := d.cluster.Kubectl(t, "-n", "demo", "get", "cmpc", "web", "-o", `jsonpath={.status.conditions[?(@.type=="Stalled")].reason}`); got != tt.stalled {
				return fmt.Errorf("it is stalled for the reason %q, want %q", got, tt.stalled)
			}
			return nil
		})
	}
	d.deadLetters(t, server)
	for _, command := range commands(t, of(t, blocks(t, "sh"), operations)) {
		if !d.ran[command] {
			t.Errorf("nobody tries %s", command)
		}
	}
}

// serial number of the certificate web.
func (d *demo) serial(t *testing.T) string {
	t.Helper()
	return d.cluster.Kubectl(t, "-n", "demo", "get", "cmpc", "web", "-o", "jsonpath={.status.serial}")
}

// deadLetters makes two dead letters and does with them what docs/operations.md shows.
func (d *demo) deadLetters(t *testing.T, server string) {
	t.Helper()
	bus := rig.OpenBus(t, server)
	header := nats.Header{"Content-Type": {"application/cloudevents+json"}}
	for range 2 {
		bus.PublishRaw(t, model.WorkSubject(model.Enroll, (&rig.World{Namespace: "demo"}).Key("web")), header,
			[]byte(`{"specversion": "1.0", "id": "1", "source": "/test", "type": "io.certloop.config.created.v1", "subject": "demo/web", "data": {"spec": {"color": "red"}}}`))
	}
	rig.Eventually(t, rig.Patience, "two dead letters", func() error {
		if got := d.sh(t, root, one(t, operations, "certloop dead-letters list")); strings.Count(got, "invalid-event") != 2 {
			return errors.New(got)
		}
		return nil
	})
	for _, tt := range []struct{ command, want string }{
		{"certloop dead-letters show", `unknown field "color"`},
		{"certloop dead-letters replay", "replayed 1: config.created demo/web"},
		{"certloop dead-letters drop", "dropped 2: config.created demo/web"},
	} {
		if got := d.sh(t, root, one(t, operations, tt.command)); !strings.Contains(got, tt.want) {
			t.Errorf("%s shows\n%swithout %q", tt.command, got, tt.want)
		}
	}
}

// connect makes curl find the function of the documents at the address it really has.
func (d *demo) connect(t *testing.T, enroll string) {
	t.Helper()
	u, err := url.Parse(enroll)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("connect-to = \"127.0.0.1:8081:%s:%s\"\nsilent\nshow-error\n", u.Hostname(), u.Port())
	if err := os.WriteFile(filepath.Join(d.home, ".curlrc"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

// apply applies the YAML of a document by kubectl, with some text replaced.
func (d *demo) apply(t *testing.T, document string, replace ...string) {
	t.Helper()
	for _, b := range of(t, blocks(t, "yaml"), document) {
		d.cluster.KubectlInput(t, strings.NewReplacer(replace...).Replace(b.text), "apply", "-f", "-")
	}
}

// wait waits until a certificate is ready, as a script would.
func (d *demo) wait(t *testing.T, name string) {
	t.Helper()
	rig.Eventually(t, rig.Patience, "cmpc/"+name+" is there", func() error {
		if d.cluster.Kubectl(t, "-n", "demo", "get", "--ignore-not-found", "-o", "name", "cmpc/"+name) == "" {
			return errors.New("it is not")
		}
		return nil
	})
	d.cluster.Kubectl(t, "-n", "demo", "wait", "--for=condition=Ready", "--timeout="+rig.Patience.String(), "cmpc/"+name)
}

// publish runs a command of the nats program. Where that is not installed it does what
// the command says: nats pub SUBJECT -H NAME:VALUE < FILE.
func (d *demo) publish(t *testing.T, server, command string) {
	t.Helper()
	if _, err := exec.LookPath("nats"); err == nil {
		d.sh(t, root, "export NATS_URL="+server+"; "+command)
		return
	}
	t.Log("nats is not installed: its command is read and not run")
	words := strings.Fields(command)
	if len(words) != 7 || words[3] != "-H" || words[5] != "<" {
		t.Fatalf("%q is not understood", command)
	}
	name, value, _ := strings.Cut(words[4], ":")
	bus := rig.OpenBus(t, server)
	bus.PublishRaw(t, words[2], nats.Header{name: {value}}, []byte(read(t, words[6])))
	if want := model.WorkSubject(model.Enroll, (&rig.World{Namespace: "demo"}).Key("web")); words[2] != want {
		t.Errorf("the subject is %s, want %s", words[2], want)
	}
}

// output is what a program prints.
func output(t *testing.T, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).Output() // #nosec G204 -- a program of ours
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
