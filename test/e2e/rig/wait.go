package rig

import (
	"testing"
	"time"
)

// Patience bounds waits for what must happen and whose time is not the point: far
// longer than a busy machine takes.
const Patience = 90 * time.Second

const pollInterval = 25 * time.Millisecond

// Eventually calls check until it returns nil, and fails the test with its last
// error when that takes longer than within. It returns how long it took.
func Eventually(tb testing.TB, within time.Duration, what string, check func() error) time.Duration {
	tb.Helper()
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		switch {
		case err == nil:
			return took
		case took > within:
			tb.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(pollInterval)
	}
}
