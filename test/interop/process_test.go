package interop

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// limit is how long anything that should come about may take on a busy machine.
const limit = 2 * time.Minute

// skip leaves a test out for want of something, unless CERTLOOP_REQUIRE=all forbids that.
func skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		t.Fatalf("%s, and CERTLOOP_REQUIRE=all forbids to skip", reason)
	}
	t.Skip("skipped: " + reason)
}

func requireTools(t testing.TB, packages string, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed (Debian: "+packages+")")
		}
	}
}

// build runs make in the directory of a peer; it does nothing when all is up to date.
func build(t testing.TB, dir string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "make", "-s", "-C", dir).CombinedOutput()
	if err != nil {
		skip(t, "make -C "+dir+": "+err.Error()+"\n"+string(out))
	}
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a server until the test is over, and shows its output if the test fails.
func start(t testing.TB, stdout io.Writer, name string, args ...string) {
	t.Helper()
	out := &output{}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = limit
	cmd.Stdout, cmd.Stderr = io.MultiWriter(out, stdout), out
	if _, err := cmd.StdinPipe(); err != nil { // ours to close: its end of file ends the process too
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Wait() // ended by the signal
		if t.Failed() {
			t.Logf("%s:\n%s", name, out)
		}
	})
}

// startCA runs a CA that says READY when it listens, and returns its address and the file of its certificate.
func startCA(t testing.TB, name string, args ...string) (url, certificate string) {
	t.Helper()
	reader, writer := io.Pipe()
	ready := make(chan [2]string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "READY" {
				ready <- [2]string{fields[1], strings.TrimPrefix(fields[2], "ca=")}
			}
		}
	}()
	t.Cleanup(func() { // runs after the process has ended
		_ = writer.Close()
		<-drained
	})
	start(t, writer, name, args...)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	select {
	case r := <-ready:
		return r[0], r[1]
	case <-ctx.Done():
		t.Fatalf("%s did not say READY in %s", name, limit)
		return "", ""
	}
}
