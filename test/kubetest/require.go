package kubetest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// find returns a program: the file that env names, or bin/name of this source
// tree, or for other people's programs the one in PATH. Without it the test ends.
func find(tb testing.TB, name, env string) string {
	tb.Helper()
	if path := os.Getenv(env); path != "" {
		return path
	}
	root, err := moduleRoot()
	if err != nil {
		tb.Fatalf("finding bin/%s: %v; set %s", name, err, env)
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err := exec.LookPath(name); err == nil && name != "kubeapi" {
		return path
	}
	missing(tb, path, "make bin/"+name)
	return ""
}

// missing skips the test, or fails it where CERTLOOP_REQUIRE=all says that
// nothing may be left out.
func missing(tb testing.TB, path, remedy string) {
	tb.Helper()
	const message = "NOT TESTED: %s does not exist; run `%s`"
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		tb.Fatalf(message, path, remedy)
	}
	tb.Skipf(message, path, remedy)
}

// moduleRoot is the directory of go.mod above the working directory, which go
// test makes that of the package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return dir, err
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
