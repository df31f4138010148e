package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestZPR(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old.yaml")
	writeFile(t, old, strings.Replace(zprExample, "v1.33.1", "v1.31.1", 1))
	tests := []struct {
		args string
		code int
		says string // on stdout or stderr
	}{
		{"example", exitDone, "caClientsPool: ca-clients"},
		{"check -f zpr/testdata/ca-by-address.yaml", exitDone, "the plan can be carried out"},
		{"check -f " + old, exitFailed, "v1.31.1 is older than 1.32"},
		{"check", exitUsage, "name the plan with -f FILE"},
		{"check -f zpr/testdata/ca-by-address.tf", exitUsage, "ca-by-address.tf: "},
		{"generate -f zpr/testdata/ca-by-address.yaml", exitDone, "## ZPR policy statements"},
		{"generate -f zpr/testdata/nodes-join.yaml --edition 2024", exitDone, "osn-services-ip-endpoints"},
		{"generate -f zpr/testdata/ca-by-address.yaml -o terraform", exitDone, `resource "oci_zpr_zpr_policy" "certloop"`},
		{"generate -f zpr/testdata/ca-by-address.yaml -o xml", exitUsage, "-o xml is not one of text, terraform, json, yaml"},
		{"generate -f zpr/testdata/ca-by-address.yaml -o json", exitDone, `"why": "enroll and renew ask the CA operator-ca"`},
		{"generate -f zpr/testdata/ca-by-address.yaml -o yaml", exitDone, "\nstatements:\n- statement: in certloop.network:prod VCN allow"},
		{"check -f zpr/testdata/ca-by-address.yaml -o json", exitDone, "{\n  \"valid\": true,\n  \"problems\": []\n}\n"},
		{"check -f zpr/testdata/ca-by-address.yaml -o yaml", exitDone, "problems: []\nvalid: true\n"},
		{"check -f zpr/testdata/ca-by-address.yaml -o terraform", exitUsage, "-o terraform is not one of text, json, yaml"},
		{"check -o json -f " + old, exitFailed, `"field": "kubernetesVersion"`},
		{"check -o json -f " + old, exitFailed, "the plan cannot be carried out"},
		{"check -f zpr/testdata/absent.yaml", exitUsage, "no such file"},
		{"generate -f zpr/testdata/ca-by-address.yaml --edition 1999", exitUsage, "--edition 1999 is not one of 2026, 2024"},
		{"generate -f " + old, exitFailed, "older than 1.32"},
		{"", exitUsage, "say what to do"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := run(t, append([]string{"zpr"}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.says) {
				t.Errorf("exit code %d, want %d, and %q in\n%s%s", code, tt.code, tt.says, stdout, stderr)
			}
		})
	}
}

// What a shell proposes is what the flags take.
func TestZPRCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"zpr generate --edition ": "2026\n2024\n:4\n",
		"zpr generate -o ":        "text\nterraform\njson\nyaml\n:4\n",
		"zpr check -o ":           "text\njson\nyaml\n:4\n",
	} {
		if _, stdout, _ := run(t, append([]string{"__complete"}, strings.Split(args, " ")...)...); stdout != want {
			t.Errorf("%s: %q, want %q", args, stdout, want)
		}
	}
}
