package model

import (
	"testing"
	"time"
)

func TestRetryDelay(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for _, tc := range []struct {
		name           string
		attempt        int64
		lifetime, left time.Duration
		min, max       time.Duration // without jitter and with all of it
	}{
		{"first", 1, month, 10 * day, 30 * time.Second, 33 * time.Second},
		{"second", 2, month, 10 * day, 45 * time.Second, 50 * time.Second},
		{"sixth", 6, 0, 0, 227 * time.Second, 251 * time.Second},
		{"for ever", 1 << 40, month, 10 * day, 9 * time.Minute, LastRetry},
		{"nothing to lose", 100, 0, 0, 9 * time.Minute, LastRetry},
		{"a tenth is left", 100, month, month / 10, 9 * time.Minute, LastRetry},
		{"less than a tenth is left", 100, month, month/10 - time.Second, 54 * time.Second, UrgentRetry},
		{"expired", 100, month, 0, 54 * time.Second, UrgentRetry},
		{"urgent, and the first", 1, month, time.Hour, 30 * time.Second, 33 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			low, high := RetryDelay(tc.attempt, tc.lifetime, tc.left, 0), RetryDelay(tc.attempt, tc.lifetime, tc.left, 1)
			if low < tc.min || high > tc.max || low > high {
				t.Errorf("got %v to %v, want within %v to %v", low, high, tc.min, tc.max)
			}
		})
	}
}
