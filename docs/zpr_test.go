package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/test/e2e/rig"
)

// prompt begins a command that is shown with what it prints.
const prompt = "$ "

// session is a command and its output.
type session struct{ command, output string }

// sessions are those that a document shows, in their order.
func sessions(t *testing.T, document string) (all []session) {
	t.Helper()
	for _, b := range of(t, blocks(t, "console"), document) {
		for line := range strings.Lines(b.text) {
			command, ok := strings.CutPrefix(line, prompt)
			switch {
			case ok:
				all = append(all, session{command: strings.TrimSpace(command)})
			case len(all) == 0:
				t.Fatalf("%s shows output without a command: %s", document, line)
			default:
				all[len(all)-1].output += line
			}
		}
	}
	return all
}

// Every command of docs/zpr.md prints what the document shows. Helm's are tried where the
// chart is.
func TestZPRSessions(t *testing.T) {
	d := newDemo(t)
	d.cluster.Kubectl(t, "create", "namespace", "knative-serving")
	d.cluster.Kubectl(t, "-n", "knative-serving", "create", "configmap", "config-features")
	dir, tried := t.TempDir(), map[string]int{}
	for _, s := range sessions(t, "docs/zpr.md") {
		program, _, _ := strings.Cut(s.command, " ")
		tried[program]++
		switch program {
		case "certloop", "sed", "kubectl":
			// It may fail, where the document shows a failure.
			stdout, stderr, _ := d.try(t, dir, s.command, "")
			if got := stdout + stderr; got != s.output {
				t.Errorf("%s\nprints\n%s\nand the document shows\n%s", s.command, got, s.output)
			}
		case "helm":
			if s.output != "" {
				t.Errorf("nothing tries what %s prints", s.command)
			}
		default:
			t.Errorf("no test tries %q", s.command)
		}
	}
	if tried["certloop"] < 5 || tried["kubectl"] != 1 || tried["helm"] < 3 {
		t.Errorf("the commands are of %v", tried)
	}
	terraform, err := os.ReadFile(filepath.Join(dir, "zpr.tf")) // #nosec G304 -- what the document wrote
	if err != nil || !strings.Contains(string(terraform), `resource "oci_zpr_zpr_policy"`) {
		t.Errorf("zpr.tf holds %s, %v", terraform, err)
	}
	if got := d.cluster.Kubectl(t, "-n", "knative-serving", "get", "configmap", "config-features", "-o", "jsonpath={.data}"); strings.Count(got, `:"enabled"`) != 2 {
		t.Errorf("the features are %s", got)
	}
}

// The example of the command line is the plan that docs/zpr.md goes by.
func TestZPRExample(t *testing.T) {
	const golden = "cmd/certloop/zpr/testdata/ca-by-address.yaml"
	if got := output(t, rig.Binary(t, "certloop"), "zpr", "example"); got != read(t, golden) {
		t.Errorf("it differs from %s:\n%s", golden, got)
	}
}
