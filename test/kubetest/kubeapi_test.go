package kubetest_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certloop/certloop/test/kubetest"
)

// atOnce separates an end at once from a graceful one, which takes a minute.
const atOnce = 15 * time.Second

func TestKubeapiEnds(t *testing.T) {
	for name, end := range map[string]func(*kubeapi) error{
		"on SIGTERM":                   func(k *kubeapi) error { return k.cmd.Process.Signal(syscall.SIGTERM) },
		"on SIGINT":                    func(k *kubeapi) error { return k.cmd.Process.Signal(syscall.SIGINT) },
		"at the end of standard input": func(k *kubeapi) error { return k.stdin.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			k := runKubeapi(t, t.TempDir())
			k.wantReady(t)
			began := time.Now()
			if err := end(k); err != nil {
				t.Fatal(err)
			}
			if err := k.cmd.Wait(); err != nil {
				t.Errorf("got %v, want exit status 0\n%s", err, k.stderr)
			}
			if took := time.Since(began); took > atOnce {
				t.Errorf("took %v, want at most %v", took, atOnce)
			}
		})
	}
}

func TestKubeapiRefusesASecondServerOnTheDirectory(t *testing.T) {
	dir := t.TempDir()
	runKubeapi(t, dir).wantReady(t)
	second := runKubeapi(t, dir)
	var exit *exec.ExitError
	if err := second.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("got %v, want exit status 1", err)
	}
	if got := second.stderr.String(); !strings.Contains(got, "another server runs on this state directory") {
		t.Errorf("got %q, want the reason", got)
	}
}

// A state directory may be deep: the paths of Unix sockets may not.
func TestKubeapiInADeepDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	k := runKubeapi(t, dir)
	if got, want := k.wantReady(t), filepath.Join(dir, "kubeconfig"); got != want {
		t.Errorf("got kubeconfig %s, want %s", got, want)
	}
}

// kubeapi is a process of the server as people start it.
type kubeapi struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.Reader
	stderr *bytes.Buffer
}

func runKubeapi(tb testing.TB, dir string) *kubeapi {
	tb.Helper()
	k := &kubeapi{cmd: exec.CommandContext(tb.Context(), kubetest.Binary(tb), "-dir", dir, "-stop-on-stdin-eof"), stderr: &bytes.Buffer{}}
	k.cmd.Stderr = k.stderr
	var err1, err2 error
	k.stdin, err1 = k.cmd.StdinPipe()
	k.stdout, err2 = k.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, k.cmd.Start()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = k.cmd.Wait() }) // its context has ended it
	return k
}

// wantReady returns the path of the kubeconfig.
func (k *kubeapi) wantReady(tb testing.TB) string {
	tb.Helper()
	line, err := bufio.NewReader(k.stdout).ReadString('\n')
	if err != nil {
		tb.Fatalf("got %q, %v, want READY\n%s", line, err, k.stderr)
	}
	_, path, ok := strings.Cut(strings.TrimSpace(line), " kubeconfig=")
	if !ok || !strings.HasPrefix(line, "READY ") {
		tb.Fatalf("got %q, want READY and the kubeconfig", line)
	}
	if _, err := os.Stat(path); err != nil {
		tb.Fatal(err)
	}
	return path
}
