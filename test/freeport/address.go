// Package freeport finds ports for the servers of tests.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// The ports that systems do not give to connections and to listeners on port 0:
// Linux begins at 32768 (net.ipv4.ip_local_port_range), others later.
const (
	lowest = 15_000
	beyond = 32_000
)

// Address is a port on 127.0.0.1 that nobody listens on. Nobody is given it by
// chance either, so that a server which goes away finds it free on its return.
func Address(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		port := lowest + rand.IntN(beyond-lowest) //nolint:gosec // to differ from other processes is all that is wanted
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", address)
		if err != nil {
			continue
		}
		_ = l.Close()
		return address
	}
	tb.Fatalf("no free port on 127.0.0.1 between %d and %d", lowest, beyond)
	return ""
}
