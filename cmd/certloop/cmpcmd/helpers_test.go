package cmpcmd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

func writeTestFile(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func readTestFile(tb testing.TB, path string) string {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(content)
}

// checkError wants an error that says something, or none where want is empty.
func checkError(tb testing.TB, err error, want string) {
	tb.Helper()
	switch {
	case want == "" && err != nil:
		tb.Errorf("error %q, want none", err)
	case want != "" && err == nil:
		tb.Errorf("no error, want one that says %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		tb.Errorf("error %q does not say %q", err, want)
	}
}

// noPhrase stands for a user who is not there.
func noPhrase() ([]byte, error) { return nil, errors.New("asked for a pass phrase") }

// phraseIs is a user who knows one.
func phraseIs(text string) phrase { return func() ([]byte, error) { return []byte(text), nil } }

func decimal(n uintptr) string { return strconv.FormatUint(uint64(n), 10) }

// skipOrFail leaves a test out for want of something, unless CERTLOOP_REQUIRE=all forbids that.
func skipOrFail(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv("CERTLOOP_REQUIRE") == "all" {
		tb.Fatalf("%s, but CERTLOOP_REQUIRE=all", reason)
	}
	tb.Skip(reason)
}
