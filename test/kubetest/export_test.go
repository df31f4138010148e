package kubetest

import "testing"

// Borrow is what Start does with CERTLOOP_TEST_KUBECONFIG.
func Borrow(kubeconfig string) (*Cluster, error) { return connect(kubeconfig, nil) }

// Binary is the server that StartOwn runs.
func Binary(tb testing.TB) string { return find(tb, "kubeapi", "CERTLOOP_KUBEAPI") }
