// Package functiontest tests a function as the process that Knative starts.
//
// The binary is built from the package under test, once for each test binary. It
// listens on loopback, has an API server's namespace and a NATS server of its own, and
// no rights but those that the README beside it lists: what a function needs and its
// README does not say fails the tests.
package functiontest
