package kubetest

import (
	"os"
	"sync"
	"testing"
)

// shared is the server of the tests of this binary, from Main to its end.
var shared struct {
	sync.Mutex
	inMain  bool
	cluster *Cluster
	err     error
}

// Main runs the tests and then ends the server they shared. Its result is for os.Exit.
func Main(m *testing.M) int {
	shared.Lock()
	shared.inMain = true
	shared.Unlock()
	defer stopShared()
	return m.Run()
}

func stopShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		shared.cluster.close()
	}
}

// Start returns the server that the tests of this binary share. The first call
// starts it; if that fails, so does every test that asks.
func Start(tb testing.TB) *Cluster {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		tb.Fatal("kubetest.Start needs kubetest.Main in TestMain, which ends the server")
	}
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = start(tb, os.Getenv("CERTLOOP_TEST_KUBECONFIG"))
	}
	if shared.err != nil {
		tb.Fatalf("starting the API server: %v", shared.err)
	}
	return shared.cluster
}

// StartOwn returns a server for this test alone, for what the others would not
// survive, such as Stop. It always is a new one. flags are further ones of kube-apiserver.
func StartOwn(tb testing.TB, flags ...string) *Cluster {
	tb.Helper()
	c, err := start(tb, "", flags...)
	if err != nil {
		tb.Fatalf("starting an API server: %v", err)
	}
	tb.Cleanup(c.close)
	return c
}
