package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse is returned by Open when another process holds the directory.
var ErrInUse = errors.New("another server runs on this state directory")

// Dir is an open state directory, held until Close.
type Dir struct {
	path string
	lock *os.File
	pki  credentials
}

// Open creates the directory if needed, takes its lock and makes the
// credentials a first start needs. Only the current user can read it.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	d := &Dir{path: abs}
	if d.lock, err = lock(d.Path("lock")); err != nil {
		return nil, fmt.Errorf("state directory %s: %w", abs, err)
	}
	if d.pki, err = loadCredentials(d.Path("pki")); err != nil {
		return nil, errors.Join(fmt.Errorf("credentials: %w", err), d.Close())
	}
	return d, nil
}

// Path is the absolute path of a name inside the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// String keeps the admin token out of messages.
func (d *Dir) String() string { return d.path }

// GoString is String, for %#v.
func (d *Dir) GoString() string { return d.path }

// Close lets another process open the directory. It removes nothing.
func (d *Dir) Close() error { return d.lock.Close() }

// lock takes an exclusive lock that ends with the process.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the caller's own directory
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// replaceFile writes content so that a reader sees all of it or what was there before.
func replaceFile(path string, content []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
