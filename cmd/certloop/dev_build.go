package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

const modulePath = "github.com/certloop/certloop"

// sourceRoot is the folder of the project's source that the current directory or this
// program is in; empty when there is none.
func sourceRoot() string {
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if self, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(self))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			if isRoot(dir) {
				return dir
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return ""
}

func isRoot(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod")) //nolint:gosec // only compared
	return err == nil && bytes.HasPrefix(text, []byte("module "+modulePath+"\n"))
}

// build is the compilation of the API server, and how far it is.
type build struct {
	root     string
	packages atomic.Int64 // compiled so far
	total    atomic.Int64 // that there are; some may be compiled already
	began    time.Time
}

// run builds bin/kubeapi with make.
func (b *build) run(ctx context.Context) error {
	for _, tool := range []string{"go", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			return misused(fmt.Errorf("%s is needed to build the Kubernetes API server: install it, or give a cluster with --kubeconfig", tool))
		}
	}
	if err := b.count(ctx); err != nil {
		return err
	}
	cmd := b.command(ctx, "make", "-C", b.root, "bin/kubeapi")
	// -v makes go name each package it has compiled.
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -v"))
	output, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	last := b.follow(output)
	if err := cmd.Wait(); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("make bin/kubeapi: %w: %s", err, last))
	}
	return nil
}

func (b *build) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // go and make
	ownGroup(cmd)
	cmd.WaitDelay = time.Second
	return cmd
}

// count asks how many packages there are; fetching the modules is part of it.
func (b *build) count(ctx context.Context) error {
	cmd := b.command(ctx, "go", "list", "-deps", ".")
	cmd.Dir = filepath.Join(b.root, "test", "kubeapi")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	list, err := cmd.Output()
	if err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("go list in %s: %w: %s", cmd.Dir, err, lastLine(complaint.String())))
	}
	b.total.Store(int64(bytes.Count(list, []byte("\n"))))
	return nil
}

// follow counts the packages that go names, each alone on a line, and returns the last
// line that is something else.
func (b *build) follow(output io.Reader) (last string) {
	for lines := bufio.NewScanner(output); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.ContainsAny(line, " :"):
			last = line
		case line != "":
			b.packages.Add(1)
		}
	}
	return last
}

// progress says how far it is, for people.
func (b *build) progress() string {
	took := time.Since(b.began).Round(time.Second)
	packages, total := b.packages.Load(), b.total.Load()
	if total == 0 {
		return fmt.Sprintf("fetching modules, %s", took)
	}
	return fmt.Sprintf("compiled %d of at most %d packages (%d %%), %s", packages, total, min(99, 100*packages/total), took)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
