package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// run executes a command line away from the user's own cluster.
func run(tb testing.TB, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	var out, errs bytes.Buffer
	code = newCommandLine(args, &out, &errs).execute(tb.Context())
	return code, out.String(), errs.String()
}

// noCluster makes sure that no cluster is found by accident.
func noCluster(t *testing.T) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
}

func TestExitCodes(t *testing.T) {
	noCluster(t)
	unreachable := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, unreachable, kubeconfigFor("https://127.0.0.1:1"))
	tests := []struct {
		name string
		args string
		code int
		says string // on stderr
	}{
		{"help", "--help", exitDone, ""},
		{"version", "version", exitDone, ""},
		{"no such command", "frobnicate", exitUsage, `unknown command "frobnicate"`},
		{"no such flag", "get --frobnicate", exitUsage, "unknown flag: --frobnicate"},
		{"too many arguments", "get a b", exitUsage, "accepts at most 1 arg"},
		{"no such format", "get -o xml", exitUsage, "-o xml is not one of table, wide, json, yaml, name"},
		{"contradiction", "get web -A", exitUsage, "-A goes with neither a name nor -n"},
		{"no cluster", "get", exitUsage, "give --kubeconfig or set KUBECONFIG"},
		{"absent kubeconfig", "get --kubeconfig /absent/file", exitUsage, "/absent/file"},
		{"cluster away", "get --kubeconfig " + unreachable, exitFailed, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := run(t, strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d; stderr: %s", code, tt.code, stderr)
			}
			if !strings.Contains(stderr, tt.says) {
				t.Errorf("stderr %q does not say %q", stderr, tt.says)
			}
		})
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, cmd := range newRoot(&terminal{}).Commands() {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s: an example and a summary are missing from its help", cmd.CommandPath())
		}
	}
}

func TestVersionLine(t *testing.T) {
	info := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
	}
	if got, want := versionLine(info), "certloop v1.2.3 (0123456789ab) (modified) go"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q…", got, want)
	}
	if got, want := versionLine(nil), "certloop (unknown) go"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q…", got, want)
	}
}

func writeFile(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func kubeconfigFor(server string) string {
	return `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "` + server + `"}}]
contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}]
users: [{name: u, user: {}}]
`
}
