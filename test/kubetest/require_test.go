package kubetest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

func TestMissingServer(t *testing.T) {
	for name, tc := range map[string]struct {
		require, skipped, failed string
	}{
		"is skipped loudly":   {"", "make bin/kubeapi", ""},
		"fails when required": {"all", "", "make bin/kubeapi"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(emptyModule(t))
			t.Setenv("CERTLOOP_KUBEAPI", "")
			t.Setenv("CERTLOOP_REQUIRE", tc.require)
			r := record(t, func(tb testing.TB) { kubetest.StartOwn(tb) })
			if !strings.Contains(r.skipped, tc.skipped) || (r.skipped == "") != (tc.skipped == "") {
				t.Errorf("got skip %q, want it to say %q", r.skipped, tc.skipped)
			}
			if !strings.Contains(r.failed, tc.failed) || (r.failed == "") != (tc.failed == "") {
				t.Errorf("got failure %q, want it to say %q", r.failed, tc.failed)
			}
		})
	}
}

func TestNoServerWanted(t *testing.T) {
	t.Setenv("CERTLOOP_REQUIRE", "none")
	r := record(t, func(tb testing.TB) { kubetest.StartOwn(tb) })
	if !strings.Contains(r.skipped, "CERTLOOP_REQUIRE=none") {
		t.Errorf("got skip %q, failure %q, want a skip that says why", r.skipped, r.failed)
	}
}

func TestServerThatFailsSaysWhy(t *testing.T) {
	script := filepath.Join(t.TempDir(), "kubeapi")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho noise >&2; echo 'no disk' >&2; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CERTLOOP_KUBEAPI", script)
	t.Setenv("TMPDIR", t.TempDir()) // the log stays
	r := record(t, func(tb testing.TB) { kubetest.StartOwn(tb) })
	if !strings.Contains(r.failed, "no disk") {
		t.Errorf("got %q, want the last line of its log", r.failed)
	}
}

func TestStopOfABorrowedCluster(t *testing.T) {
	lender := kubetest.Start(t)
	borrowed, err := kubetest.Borrow(lender.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if got := borrowed.Config().Host; got != lender.Config().Host {
		t.Errorf("got host %s, want %s", got, lender.Config().Host)
	}
	if r := record(t, borrowed.Stop); !strings.Contains(r.failed, "not ours to stop") {
		t.Errorf("Stop: got %q, want a refusal", r.failed)
	}
	borrowed.Namespace(t)
}

// emptyModule is a directory like the project's root, with nothing built.
func emptyModule(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module empty\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// recorder is a test that may be skipped or fail without consequences.
type recorder struct {
	testing.TB
	skipped, failed string
}

// record runs f as a test of its own and says how it ended.
func record(tb testing.TB, f func(testing.TB)) *recorder {
	tb.Helper()
	r := &recorder{TB: tb}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer r.ended()
		f(r)
	}()
	<-ended
	return r
}

// ended lets pass what Skip and Fatal throw, and nothing else.
func (r *recorder) ended() {
	if thrown := recover(); thrown != nil && thrown != any(r) {
		panic(thrown)
	}
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	panic(r)
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	panic(r)
}

func (r *recorder) Fatal(args ...any) {
	r.failed = fmt.Sprint(args...)
	panic(r)
}
