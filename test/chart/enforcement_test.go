package chart

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// attempt is `nc -z -w SECONDS HOST PORT`, as BusyBox has it: the test binary is called by this name.
func attempt(arguments []string) (code int) {
	if len(arguments) != 5 || arguments[0] != "-z" || arguments[1] != "-w" {
		return 2
	}
	limit, err := time.ParseDuration(arguments[2] + "s")
	if err != nil {
		return 2
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(arguments[3], arguments[4]), limit)
	if err != nil {
		return 1
	}
	_ = conn.Close()
	return 0
}

// trials are the Pods of `helm test`, by what they are to show.
func trials(t *testing.T, overlays ...string) map[string]corev1.Container {
	t.Helper()
	a := arrangement{"knative", "dedicated"}
	files, err := render(a.home(), a.values(t, overlays...))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]corev1.Container{}
	for _, u := range documents(t, "tests", []byte(files["certloop/templates/tests/enforcement.yaml"])) {
		p := decode[corev1.Pod](t, u.Object)
		all[p.Labels["app.kubernetes.io/component"]] = p.Spec.Containers[0]
	}
	return all
}

// The Pod that is let out fails where NATS cannot be reached, and the one that is not where it can.
func TestHelmTest(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "nc")); err != nil {
		t.Fatal(err)
	}
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range trials(t) {
		for state, at := range map[string]net.Listener{"reached": open, "not reached": closed} {
			host, port, err := net.SplitHostPort(at.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), c.Command[0], c.Command[1:]...) // #nosec G204 -- of the chart
			cmd.Env = []string{"PATH=" + bin, "HOST=" + host, "PORT=" + port}
			out, err := cmd.CombinedOutput()
			var failed *exec.ExitError
			if err != nil && !errors.As(err, &failed) {
				t.Fatal(err)
			}
			if got, want := err == nil, (name == "test-allowed") == (state == "reached"); got != want {
				t.Errorf("%s, when NATS is %s: succeeds %v, want %v: %s", name, state, got, want, out)
			}
		}
	}
}

// They try the server that the functions use.
func TestHelmTestTriesNATS(t *testing.T) {
	for overlay, want := range map[string][]string{
		"": {"nats.certloop-knative-dedicated-nats.svc.cluster.local", "4222"},
		"nats: {url: \"nats://a.example.org:4222,nats://b.example.org:4222\"}": {"a.example.org", "4222"},
		"nats: {url: \"tls://a.example.org\"}":                                 {"a.example.org", "4222"},
	} {
		all := trials(t, overlay)
		if len(all) != 2 {
			t.Fatalf("there are %d Pods for `helm test`, want 2", len(all))
		}
		for name, c := range all {
			var got []string
			for _, e := range c.Env {
				got = append(got, e.Value)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s with %q tries %q, want %q", name, overlay, got, want)
			}
		}
	}
}
