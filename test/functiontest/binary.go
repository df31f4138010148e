package functiontest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

// built is the binary under test, from Main to its end.
var built struct {
	sync.Mutex
	dir string
	err error
}

// Main runs the tests of a function. Its result is for os.Exit.
func Main(m *testing.M) (code int) {
	defer func() {
		built.Lock()
		defer built.Unlock()
		if built.dir != "" {
			_ = os.RemoveAll(built.dir) // it is in the temporary directory
		}
	}()
	return kubetest.Main(m)
}

// name is that of the function under test: a test runs in the folder of its package.
func name(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Base(dir)
}

// binary is the path of the function under test, built for the first test that asks.
func binary(tb testing.TB) string {
	tb.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" && built.err == nil {
		built.dir, built.err = build(tb.Context(), name(tb))
	}
	if built.err != nil {
		tb.Fatal(built.err)
	}
	return filepath.Join(built.dir, name(tb))
}

func build(ctx context.Context, name string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "certloop-"+name+"-"); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, name), ".") // #nosec G204 -- the package under test
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("building %s: %w\n%s", name, err, out), os.RemoveAll(dir))
	}
	return dir, nil
}
