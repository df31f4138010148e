package kubetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startLimit is for a machine that does much else; two seconds are usual.
const startLimit = 5 * time.Minute

// server is a process of bin/kubeapi and the directory it lives in.
type server struct {
	binary, dir string
	flags       []string // of kube-apiserver

	process *os.Process
	held    io.Closer     // the server ends when this is closed
	exited  chan struct{} // closed when it has
}

func (s *server) logPath() string { return filepath.Join(s.dir, "kubeapi.log") }

// start returns the path of the kubeconfig when the server is ready.
func (s *server) start() (kubeconfig string, err error) {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	// Not the context of a test: the server outlives the one that starts it.
	args := append([]string{"-dir", s.dir, "-stop-on-stdin-eof", "--"}, s.flags...)
	cmd := exec.CommandContext(context.Background(), s.binary, args...) //nolint:gosec // the binary under test
	cmd.Stderr = log
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return "", err
	}
	s.process, s.held, s.exited = cmd.Process, stdin, make(chan struct{})
	ready := make(chan string, 1)
	go func() {
		defer close(s.exited)
		announce(stdout, ready)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return s.wait(ready)
}

func (s *server) wait(ready <-chan string) (string, error) {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case path := <-ready:
		return path, nil
	case <-s.exited:
		return "", fmt.Errorf("%s ended before it was ready: %s", s.binary, lastLine(s.logPath()))
	case <-limit.C:
		s.stop()
		return "", fmt.Errorf("%s was not ready after %v", s.binary, startLimit)
	}
}

// stop kills the server and waits for its end. It does nothing to a dead one.
func (s *server) stop() {
	_ = s.process.Kill() // or it has already ended
	_ = s.held.Close()
	<-s.exited
}

// announce reads all of r and sends the kubeconfig of its READY line.
func announce(r io.Reader, ready chan<- string) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if _, path, ok := strings.Cut(lines.Text(), " kubeconfig="); ok && strings.HasPrefix(lines.Text(), "READY ") {
			ready <- path
		}
	}
	_, _ = io.Copy(io.Discard, r)
}

// lastLine is what a program that failed says last.
func lastLine(path string) string {
	log, err := os.ReadFile(path) //nolint:gosec // our own log
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return lines[len(lines)-1]
}
