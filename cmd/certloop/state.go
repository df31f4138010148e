package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// state is the directory that a command keeps its things in, its own while it runs.
type state struct {
	dir  string
	lock *os.File
}

// openState creates the directory if need be and takes it, or says who has it.
func openState(dir string) (*state, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, misused(fmt.Errorf("state directory: %w", err))
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, misused(fmt.Errorf("state directory: %w: give another one with --state-dir", err))
	}
	lock, err := takeLock(filepath.Join(abs, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("process %s of certloop runs on the state directory %s: end it, or give another directory with --state-dir", holder(abs), abs)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &state{abs, lock}, errors.Join(lock.Truncate(0), writePID(lock))
}

// errLocked: another process holds the lock.
var errLocked = errors.New("locked")

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder is the number of the process that took the lock, for people.
func holder(dir string) string {
	pid, err := os.ReadFile(filepath.Join(dir, "lock")) //nolint:gosec // in the directory the user named
	if err != nil || len(pid) == 0 {
		return "(unknown)"
	}
	return strings.TrimSpace(string(pid))
}

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// close lets others have the directory. It removes nothing.
func (s *state) close() { _ = s.lock.Close() }

// stateHome is where the state of a command belongs if nobody says otherwise
// (XDG Base Directory Specification).
func stateHome(name string) (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "certloop", name), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", misused(fmt.Errorf("no place for the state: %w: give --state-dir", err))
	}
	return filepath.Join(home, ".local", "state", "certloop", name), nil
}

const loopback = "127.0.0.1"

func listenLoopback(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
}

func portFree(ctx context.Context, port int) error {
	l, err := listenLoopback(ctx, port)
	if err != nil {
		return err
	}
	return l.Close()
}

// lastPort is the port that an earlier start noted in a file and that is free now; 0
// when there is none.
func lastPort(ctx context.Context, path string) int {
	text, err := os.ReadFile(path) //nolint:gosec // in the directory the user named
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil || portFree(ctx, int(port)) != nil {
		return 0
	}
	return int(port)
}

// notePort notes the port of an address for the next start.
func notePort(path, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(port+"\n"), 0o600)
}
