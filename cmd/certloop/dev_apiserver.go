package main

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

const (
	apiServerEnd = 10 * time.Second // for it to end after it is asked to
	logTail      = 64 << 10         // bytes of its log that are looked at for a reason
)

// apiServer is a Kubernetes API server in a process of its own. It ends when we do,
// however we end: it reads a pipe whose other end is ours.
type apiServer struct {
	kubeconfig string
	logFile    string
	cmd        *exec.Cmd
	stdin      io.Closer
	ended      chan struct{} // closed when the process has ended
}

// startAPIServer starts the program on a directory and returns when it is ready.
func startAPIServer(ctx context.Context, program, dir string) (*apiServer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &apiServer{logFile: filepath.Join(dir, "kubeapi.log"), ended: make(chan struct{})}
	log, err := os.Create(a.logFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	//nolint:gosec // the program is the one the user built or named
	a.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, "-dir", dir, "-stop-on-stdin-eof")
	ownGroup(a.cmd)
	a.cmd.Stderr = log
	stdout, err := a.cmd.StdoutPipe()
	if err == nil {
		a.stdin, err = a.cmd.StdinPipe()
	}
	if err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	ready := make(chan string, 1)
	go a.watch(stdout, ready)
	return a, a.await(ctx, ready)
}

// watch reads what the process says until it ends.
func (a *apiServer) watch(stdout io.Reader, ready chan<- string) {
	defer close(a.ended)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if _, path, ok := strings.Cut(lines.Text(), "kubeconfig="); ok {
			select {
			case ready <- path:
			default:
			}
		}
	}
	_ = a.cmd.Wait() // why it ended is in its log
}

// await waits for the kubeconfig, and ends the process if that does not come.
func (a *apiServer) await(ctx context.Context, ready <-chan string) error {
	select {
	case a.kubeconfig = <-ready:
		return nil
	case <-a.ended:
		return a.why()
	case <-ctx.Done():
		a.stop()
		return fmt.Errorf("it is not ready yet: %w: see %s", ctx.Err(), a.logFile)
	}
}

// why is the reason the process gave for its end.
func (a *apiServer) why() error {
	reason := "it ended without a reason"
	for _, prefix := range []string{"panic: ", "kubeapi: "} {
		if text := lastWith(a.logFile, prefix); text != "" {
			reason = text
		}
	}
	return fmt.Errorf("%s (its log is %s)", reason, a.logFile)
}

// stop ends the process and waits for it.
func (a *apiServer) stop() {
	_ = a.stdin.Close() // asks it to end
	select {
	case <-a.ended:
	case <-time.After(apiServerEnd):
		_ = a.cmd.Cancel()
		<-a.ended
	}
}

// lastWith finds, near the end of a log, the last line that begins with prefix, and
// returns the rest of it.
func lastWith(path, prefix string) (found string) {
	f, err := os.Open(path) //nolint:gosec // our own log
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil {
		_, err = f.Seek(max(0, info.Size()-logTail), io.SeekStart)
		if err != nil {
			return ""
		}
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			found = text
		}
	}
	return found
}

// apiServerProgram finds the program: where the user says, beside this one, or in the
// project's bin folder, in which case it may not exist yet.
func apiServerProgram(named, root string) (path string, err error) {
	if named != "" {
		if _, err := os.Stat(named); err != nil {
			return "", misused(fmt.Errorf("--kubeapi: %w", err))
		}
		return named, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "kubeapi")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	if root == "" {
		return "", misused(errors.New("there is no kubeapi beside this program and no source of certloop around the current directory to build it from: give a cluster with --kubeconfig, or the program with --kubeapi"))
	}
	return filepath.Join(root, "bin", "kubeapi"), nil
}
