package cmp

import (
	"os"
	"testing"
)

// skipOrFail leaves a test out for want of something, unless CERTLOOP_REQUIRE=all forbids that.
func skipOrFail(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		t.Fatalf("%s, but CERTLOOP_REQUIRE=all", reason)
	}
	t.Skip(reason)
}
