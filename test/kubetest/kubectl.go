package kubetest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Kubectl runs the real kubectl as cluster administrator and returns what it
// prints. An error ends the test. The program is bin/kubectl, or else the one in
// PATH; CERTLOOP_KUBECTL names another.
func (c *Cluster) Kubectl(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.KubectlInput(tb, "", args...)
}

// KubectlInput is Kubectl with a standard input, for "apply -f -".
func (c *Cluster) KubectlInput(tb testing.TB, stdin string, args ...string) string {
	tb.Helper()
	out, said, err := c.kubectl(tb, stdin, args)
	if err != nil {
		tb.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return out
}

// KubectlRefused runs a kubectl that has to fail, and returns what it says then.
func (c *Cluster) KubectlRefused(tb testing.TB, args ...string) string {
	tb.Helper()
	out, said, err := c.kubectl(tb, "", args)
	if err == nil {
		tb.Fatalf("kubectl %s: got %s, want it refused", strings.Join(args, " "), out)
	}
	return said
}

func (c *Cluster) kubectl(tb testing.TB, stdin string, args []string) (out, said string, err error) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), find(tb, "kubectl", "CERTLOOP_KUBECTL"), args...) //nolint:gosec // the test's own words
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}
