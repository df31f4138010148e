package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNetpolAudit(t *testing.T) {
	noCluster(t)
	unreachable := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, unreachable, kubeconfigFor("https://127.0.0.1:1"))
	tests := []struct {
		args string
		code int
		says string // on stdout or stderr
	}{
		{"-f netpol/testdata/all.yaml", exitDone, "all namespaces have a NetworkPolicy"},
		{"-f netpol/testdata/some.yaml", exitFailed, "the audit has findings"},
		{"-f netpol/testdata/some.yaml -f netpol/testdata/all.yaml -o json", exitFailed, `"verdict": "some namespaces lack a NetworkPolicy"`},
		{"-f netpol/testdata/none.yaml --exclude shop,certloop", exitDone, "0 namespaces"},
		{"-f netpol/testdata/absent.yaml", exitUsage, "no such file"},
		{"-f netpol_oci.sh", exitUsage, "document 1"},
		{"-f netpol/testdata/all.yaml --context c", exitUsage, "give one of the two"},
		{"--all-contexts --context c", exitUsage, "--all-contexts goes without --context"},
		{"-o xml", exitUsage, "-o xml is not one of table, json, yaml, sarif"},
		{"--kubeconfig " + unreachable + " --all-contexts", exitFailed, "listing namespaces of c"},
		{"--all-contexts", exitUsage, "no context"},
		{"", exitUsage, "no cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := run(t, append([]string{"netpol", "audit"}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.says) {
				t.Errorf("exit code %d, want %d, and %q in\n%s%s", code, tt.code, tt.says, stdout, stderr)
			}
		})
	}
}

func TestNetpolAuditReadsStandardInput(t *testing.T) {
	noCluster(t)
	content, err := os.ReadFile("netpol/testdata/all.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	c := newCommandLine([]string{"netpol", "audit", "-f", "-"}, &out, &errs)
	c.root.SetIn(strings.NewReader(string(content)))
	if code := c.execute(t.Context()); code != exitDone {
		t.Errorf("exit code %d: %s%s", code, out.String(), errs.String())
	}
}

// The script for a whole tenancy is a shell script that calls what exists.
func TestNetpolOCIScript(t *testing.T) {
	code, stdout, _ := run(t, "netpol", "audit", "--oci-script")
	if code != exitDone || !strings.HasPrefix(stdout, "#!/usr/bin/env bash\n") {
		t.Fatalf("exit code %d:\n%s", code, stdout)
	}
	for _, step := range []string{"oci iam compartment list", "oci ce cluster list", "create-kubeconfig", `for compartment in "$tenancy"`, "certloop netpol audit --kubeconfig"} {
		if !strings.Contains(stdout, step) {
			t.Errorf("%s is missing from it", step)
		}
	}
}
