package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Whoever does what docs/install.md says of the first certificate gets it. Only the address of the
// CA is another one.
func TestFirstCertificate(t *testing.T) {
	d := newDemo(t)
	d.cluster.Kubectl(t, "create", "namespace", "core")
	ca, err := responder.Start(responder.Config{SharedSecrets: map[string]string{"ref": "secret"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	rig.StartAll(t, &rig.World{Cluster: d.cluster, Namespace: "core"})
	dir := t.TempDir()
	keep(t, dir, "ca.crt", string(ledger.EncodeCertificates(ca.CACertificate())))
	for _, name := range []string{"issuer.yaml", "certificate.yaml"} {
		keep(t, dir, "docs/install/"+name, strings.ReplaceAll(read(t, "docs/install/"+name), "http://192.0.2.10:829/pkix/", ca.URL))
	}
	ran := 0
	var last string
	for _, command := range commands(t, of(t, blocks(t, "console"), "docs/install.md")) {
		if strings.HasPrefix(command, "kubectl -n core ") {
			last = d.sh(t, dir, command)
			ran++
		}
	}
	if ran != 4 || !strings.Contains(last, "cmpissuer.certloop.io/ca") || !strings.Contains(last, "web-tls") {
		t.Errorf("%d commands were run, and the last shows\n%s", ran, last)
	}
	d.cluster.Kubectl(t, "-n", "core", "wait", "--for=condition=Ready", "--timeout="+rig.Patience.String(), "cmpc/identity", "cmpc/web")
	if got := d.cluster.Kubectl(t, "-n", "core", "get", "secret", "web-tls", "-o", "jsonpath={.data}"); !strings.Contains(got, "tls.key") {
		t.Errorf("the Secret holds %s", got)
	}
}

func keep(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
