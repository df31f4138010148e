// Package kubetest gives tests a real Kubernetes API server.
//
// A test binary that uses it says so in its TestMain; all its tests then share
// one server, started when the first of them asks for it, and take a namespace
// each:
//
//	func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		cluster := kubetest.Start(t)
//		namespace := cluster.Namespace(t)
//		…
//	}
//
// The server is bin/kubeapi, which `make bin/kubeapi` builds; CERTLOOP_KUBEAPI
// names another file. It ends with the test binary, also when that is killed.
// With CERTLOOP_TEST_KUBECONFIG set, tests use the cluster it names instead.
//
// A test whose server or kubectl is missing is skipped and says what to run; with
// CERTLOOP_REQUIRE=all it fails, and with CERTLOOP_REQUIRE=none no server is started
// even if there is one. The package needs a clock only as a limit on waiting: five
// minutes for a start, which takes two seconds on a quiet machine.
package kubetest
