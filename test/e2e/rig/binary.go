package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Root is the directory of the project's source.
func Root(tb testing.TB) string {
	tb.Helper()
	_, file, _, ok := runtime.Caller(0)
	if ok && filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "..", "..", "..")
	}
	// Built with -trimpath: a test runs in the directory of its package.
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	tb.Fatal("the source of the project is not above the working directory")
	return ""
}

// Binary is the path of one of certloop's programs, in bin/ or in the directory that
// CERTLOOP_BIN names.
func Binary(tb testing.TB, name string) string {
	tb.Helper()
	dir := os.Getenv("CERTLOOP_BIN")
	if dir == "" {
		dir = filepath.Join(Root(tb), "bin")
	}
	return present(tb, filepath.Join(dir, name), "make build")
}

// Tool is the path of a program of the machine.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, name+" is not installed")
	}
	return path
}

func present(tb testing.TB, path, remedy string) string {
	tb.Helper()
	if _, err := os.Stat(path); err != nil { //nolint:gosec // whoever runs the tests says where the programs are
		Missing(tb, path+" is not there: run `"+remedy+"`")
	}
	return path
}

// Missing ends a test for want of something: it is skipped, or fails where
// CERTLOOP_REQUIRE=all forbids that.
func Missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		tb.Fatal(what)
	}
	tb.Skip("SKIPPED, " + what)
}

// Program is the path of a program of others that make builds into bin/.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	return present(tb, filepath.Join(Root(tb), "bin", name), "make bin/"+name)
}
