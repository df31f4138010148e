package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
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
		{"-f netpol/testdata/some.yaml", exitFindings, "the audit has findings"},
		{"-f netpol/testdata/some.yaml -f netpol/testdata/all.yaml -o json", exitFindings, `"verdict": "some namespaces lack a NetworkPolicy"`},
		{"-f netpol/testdata/none.yaml --exclude shop,certloop", exitDone, "0 namespaces"},
		{"-f netpol/testdata/absent.yaml", exitUsage, "no such file"},
		{"-f netpol_oci.sh", exitUsage, "document 1"},
		{"-f netpol/testdata/all.yaml --values netpol_oci.sh", exitUsage, "--values netpol_oci.sh: "},
		{"-f netpol/testdata/all.yaml --values absent.yaml", exitUsage, "no such file"},
		{"-f ../../deploy/knative/kustomization.yaml", exitUsage, "no workload and no NetworkPolicy"},
		{"-f " + os.DevNull, exitUsage, "no workload and no NetworkPolicy"},
		{"-f - --values -", exitUsage, "give one of them a file"},
		{"-f netpol/testdata/all.yaml --context c", exitUsage, "give one of the two"},
		{"--all-contexts --context c", exitUsage, "--all-contexts goes without --context"},
		{"-o xml", exitUsage, "-o xml is not one of table, json, yaml, sarif"},
		{"--kubeconfig " + unreachable + " --all-contexts", exitUnjudged, "not judged: listing namespaces of c"},
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

// The manifests that are installed with kubectl are as they should be, whatever else the
// cluster has, and not when one of their policies is missing.
func TestNetpolAuditOfTheManifests(t *testing.T) {
	noCluster(t)
	const dir = "../../deploy/knative/"
	content, err := os.ReadFile(dir + "kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal(content, &kustomization); err != nil || !slices.Contains(kustomization.Resources, "certloop.yaml") {
		t.Fatalf("%v: resources %v", err, kustomization.Resources)
	}
	all := []string{"netpol", "audit"}
	for _, name := range kustomization.Resources {
		all = append(all, "-f", dir+name)
	}
	for _, args := range [][]string{
		{"netpol", "audit", "-f", dir + "certloop.yaml"},
		{"netpol", "audit", "-f", dir + "certloop.yaml", "--values", dir + "values.yaml"},
		all,
	} {
		if code, stdout, stderr := run(t, args...); code != exitDone || !strings.Contains(stdout, "all namespaces have a NetworkPolicy (2 namespaces, 8 workloads judged)") {
			t.Errorf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	manifests, err := os.ReadFile(dir + "certloop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	without := slices.DeleteFunc(strings.Split(string(manifests), "\n---\n"), func(document string) bool {
		return strings.Contains(document, "kind: NetworkPolicy") && strings.Contains(document, "name: certloop-nats\n")
	})
	file := filepath.Join(t.TempDir(), "without.yaml")
	writeFile(t, file, strings.Join(without, "\n---\n"))
	if code, stdout, stderr := run(t, "netpol", "audit", "-f", file, "-o", "json"); code != exitFindings || !strings.Contains(stdout, `"edge": "expiry-scan → NATS, TCP 4222"`) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// emptyCluster answers as one that has nothing but the namespace shop, and no Knative.
func emptyCluster(t *testing.T) (url string) {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, version, _ := strings.Cut(map[string]string{"namespaces": "NamespaceList v1", "pods": "PodList v1", "networkpolicies": "NetworkPolicyList networking.k8s.io/v1",
			"endpointslices": "EndpointSliceList discovery.k8s.io/v1"}[path.Base(r.URL.Path)], " ")
		if kind == "" {
			http.NotFound(w, r) // no Knative
			return
		}
		items := "[]"
		if kind == "NamespaceList" {
			items = `[{"metadata": {"name": "shop"}}]`
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"kind": %q, "apiVersion": %q, "metadata": {}, "items": %s}`, kind, version, items)
	}))
	t.Cleanup(api.Close)
	return api.URL
}

// What --help and docs/network.md show works: with the manifests for kubectl in place of what
// Helm prints, and their values in place of yours.
func TestNetpolAuditExamples(t *testing.T) {
	noCluster(t)
	document, err := os.ReadFile("../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := os.ReadFile("../../deploy/knative/certloop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values, err := os.ReadFile("../../deploy/knative/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("deploy/knative", 0o750); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"deploy/knative/certloop.yaml": string(manifests), "deploy/knative/values.yaml": string(values), "my.yaml": string(values),
		"kubeconfig": kubeconfigFor(emptyCluster(t)), "a": kubeconfigFor(emptyCluster(t)), "b": kubeconfigFor(emptyCluster(t)),
	} {
		writeFile(t, name, content)
	}
	t.Setenv("KUBECONFIG", "kubeconfig")
	_, help, _ := run(t, "netpol", "audit", "--help")
	examples := auditExamples(string(document) + help)
	if len(examples) != 9 {
		t.Errorf("%d examples were found, want all 9", len(examples))
	}
	for _, e := range examples {
		stdin, want := string(manifests), exitDone
		if strings.HasPrefix(e.source, "helm get values") {
			stdin = string(values)
		}
		if !slices.Contains(e.args, "-f") && !slices.Contains(e.args, "--oci-script") {
			want = exitFindings // the cluster's shop has no policy
		}
		var out, errs strings.Builder
		c := newCommandLine(e.args, &out, &errs)
		c.root.SetIn(strings.NewReader(stdin))
		if code := c.execute(t.Context()); code != want {
			t.Errorf("%v: exit code %d, want %d\n%s%s", e, code, want, out.String(), errs.String())
		}
	}
}

// auditExample is a command, and what pipes into it.
type auditExample struct {
	source string
	args   []string
}

var auditCommand = regexp.MustCompile(`(?m)^ *(helm .*\| )?certloop (netpol audit\b[^>#\n]*)`)

func auditExamples(text string) (all []auditExample) {
	for _, m := range auditCommand.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[2], "[flags]") {
			all = append(all, auditExample{m[1], strings.Fields(m[2])})
		}
	}
	return all
}

// What can be read is judged, and that something could not be is not mistaken for findings.
func TestNetpolAuditOfManyClusters(t *testing.T) {
	noCluster(t)
	api := emptyCluster(t)
	reachable, unreachable := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	writeFile(t, reachable, kubeconfigFor(api))
	writeFile(t, unreachable, kubeconfigFor("https://127.0.0.1:1"))
	if code, stdout, stderr := run(t, "netpol", "audit", "--kubeconfig", reachable); code != exitFindings || !strings.Contains(stdout, "no namespace has a NetworkPolicy") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr := run(t, "netpol", "audit", "--kubeconfig", unreachable, "--kubeconfig", reachable)
	if code != exitUnjudged || !strings.Contains(stdout, "Namespace/shop") || !strings.Contains(stderr, "not judged: listing namespaces of c") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// Wherever a context may be named, the shell offers those of the kubeconfig.
func TestContextsAreCompleted(t *testing.T) {
	noCluster(t)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, file, kubeconfigFor("https://127.0.0.1:1"))
	var commands [][]string
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Flags().Lookup("context") != nil {
			commands = append(commands, strings.Fields(cmd.CommandPath())[1:])
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newCommandLine(nil, io.Discard, io.Discard).root)
	if len(commands) < 4 {
		t.Errorf("only %v name a context", commands)
	}
	for _, path := range commands {
		code, stdout, stderr := run(t, slices.Concat([]string{cobra.ShellCompRequestCmd}, path, []string{"--kubeconfig", file, "--context", ""})...)
		if code != exitDone || !strings.HasPrefix(stdout, "c\n:4") {
			t.Errorf("%v: exit code %d, offered %q\n%s", path, code, stdout, stderr)
		}
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

// It ends with the worst that any cluster ends with: not judged is worse than findings.
func TestNetpolOCIScriptEnds(t *testing.T) {
	_, script, _ := run(t, "netpol", "audit", "--oci-script")
	dir := t.TempDir()
	for name, stub := range map[string]string{
		"oci":      `[ "$OCI_FAILS" = 1 ] && [ "$3" = create-kubeconfig ] && exit 1; exit 0`,
		"jq":       `case "$2" in *name*) printf '%s one\n%s two\n' $CODES ;; esac`,
		"certloop": `exit "${4##*/}"`, // the cluster's id is the exit code
	} {
		writeFile(t, filepath.Join(dir, name), "#!/bin/sh\n"+stub+"\n")
		if err := os.Chmod(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		codes, fails string
		want         int
	}{{"0 0", "", exitDone}, {"1 0", "", exitFindings}, {"3 1", "", exitUnjudged}, {"1 3", "", exitUnjudged}, {"0 0", "1", exitUnjudged}} {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
		cmd.Env = append(os.Environ(), "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"), "OCI_TENANCY=t", "CODES="+tt.codes, "OCI_FAILS="+tt.fails)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != tt.want {
			t.Errorf("%v: exit code %d, want %d\n%s", tt, code, tt.want, out)
		}
	}
}
