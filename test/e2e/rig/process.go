package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Command is a program to be started.
type Command struct {
	Name string   // of its log file, NAME.log; starts of the same name share it
	Path string   // of the program
	Args []string // without the program's name
	Env  []string // NAME=value, besides the environment of the test without certloop's own variables
	Logs string   // directory of the log
}

// Process is a running program.
type Process struct {
	// Ready is what the READY line said: its key=value words, and a word without a key as "url".
	Ready map[string]string
	// Log is the file with everything the program wrote.
	Log string

	name    string
	cmd     *exec.Cmd
	readers sync.WaitGroup
	ready   chan map[string]string // closed when the program has closed its output
	ended   chan struct{}          // closed when the program has ended
	err     error                  // how it ended; read after ended
}

// Launch starts a program and does not wait for anything. The program is killed when the test ends.
func Launch(tb testing.TB, c Command) *Process {
	tb.Helper()
	p := &Process{name: c.Name, Log: filepath.Join(c.Logs, c.Name+".log"), ready: make(chan map[string]string, 1), ended: make(chan struct{})}
	_, again := os.Stat(p.Log)
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	// Not the test's own context: what a test starts is ended in order, by its cleanups.
	p.cmd = exec.CommandContext(context.WithoutCancel(tb.Context()), c.Path, c.Args...) //nolint:gosec // programs of the project
	p.cmd.Env = append(environment(), c.Env...)
	p.cmd.SysProcAttr = dieWithParent()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("starting %s: %v", c.Name, err)
	}
	p.readers.Go(func() { p.read(stdout, log) })
	go p.reap(log)
	tb.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended already
		<-p.ended
		if again == nil {
			return // the first start looks at the log of all
		}
		p.checkLog(tb)
		if tb.Failed() {
			tb.Logf("%s, end of its log:\n%s", p.name, tail(p.Log))
		}
	})
	return p
}

// marks are what a program writes when it has a fault, whatever it did otherwise: a
// crash, a handler that panicked, a race that its detector saw.
func marks() []string {
	return []string{"\npanic: ", "\nfatal error: ", `"stack":"`, "WARNING: DATA RACE"}
}

func (p *Process) checkLog(tb testing.TB) {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		tb.Error(err)
	}
	text = append([]byte("\n"), text...)
	for _, mark := range marks() {
		if i := bytes.Index(text, []byte(mark)); i >= 0 {
			tb.Errorf("%s has a fault:\n%s", p.name, text[i:min(len(text), i+4<<10)])
		}
	}
}

// Start starts a program and waits for the READY line on its standard output.
func Start(tb testing.TB, c Command) *Process {
	tb.Helper()
	p := Launch(tb, c)
	select {
	case words, ok := <-p.ready:
		if !ok {
			tb.Fatalf("%s ended before it was ready: %v\n%s", p.name, p.Wait(), tail(p.Log))
		}
		p.Ready = words
	case <-time.After(Patience):
		tb.Fatalf("%s is not ready after %s\n%s", p.name, Patience, tail(p.Log))
	}
	return p
}

// Run runs a program to its end and returns what it wrote. Any exit code but 0 fails the test.
func Run(tb testing.TB, within time.Duration, c Command) string {
	tb.Helper()
	p := Launch(tb, c)
	select {
	case <-p.Ended():
	case <-time.After(within):
		tb.Fatalf("%s has not ended after %s\n%s", p.name, within, tail(p.Log))
	}
	if err := p.Wait(); err != nil {
		tb.Fatalf("%s: %v\n%s", p.name, err, tail(p.Log))
	}
	text, err := os.ReadFile(p.Log)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// environment is the test's own without what would configure certloop.
func environment() (kept []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name != "KUBECONFIG" && name != "NATS_URL" && name != "PORT" && !strings.HasPrefix(name, "CERTLOOP_") {
			kept = append(kept, v)
		}
	}
	return kept
}

func (p *Process) read(stdout io.Reader, log io.Writer) {
	defer close(p.ready)
	lines := bufio.NewReader(stdout)
	announced := false
	for {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(log, line)
		if rest, ok := strings.CutPrefix(line, "READY "); ok && !announced {
			announced = true
			p.ready <- words(rest)
		}
		if err != nil {
			return
		}
	}
}

func words(line string) map[string]string {
	out := map[string]string{}
	for word := range strings.FieldsSeq(line) {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			key, value = "url", word
		}
		out[key] = value
	}
	return out
}

func (p *Process) reap(log io.Closer) {
	p.readers.Wait() // before Wait, which closes the pipe
	p.err = errors.Join(p.cmd.Wait(), log.Close())
	close(p.ended)
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait waits for the program to end and tells how it did, as [exec.Cmd.Wait] does.
func (p *Process) Wait() error {
	<-p.ended
	return p.err
}

// Kill ends the program as a crash would, by SIGKILL, and waits until it is gone.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	p.signal(tb, syscall.SIGKILL)
	<-p.ended
}

// Stop asks the program to end, by SIGTERM, and fails the test when it does not, or
// not with exit code 0. It returns how long that took.
func (p *Process) Stop(tb testing.TB) time.Duration {
	tb.Helper()
	began := time.Now()
	p.signal(tb, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(Patience):
		tb.Fatalf("%s still runs %s after SIGTERM", p.name, Patience)
	}
	if p.err != nil {
		tb.Errorf("%s ended by SIGTERM with %v, want exit code 0", p.name, p.err)
	}
	return time.Since(began)
}

func (p *Process) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Fatalf("%s to %s: %v", s, p.name, err)
	}
}

// tail is the end of a file, for people.
func tail(path string) string {
	const most = 8 << 10
	text, err := os.ReadFile(path) //nolint:gosec // a log of ours
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
