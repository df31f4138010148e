// Package rig starts the real parts that the end-to-end tests and the benchmarks run
// against, and looks at what they did: the binaries of certloop, NATS servers,
// certification authorities, a namespace on a Kubernetes API server.
//
// Every helper takes a testing.TB and fails it. What a helper starts ends with the
// test that started it: processes are killed by their own id, listeners are on
// loopback and on ports that were free, files are in the test's temporary
// directory. The log of a process is shown when the test fails.
//
// The binaries are those in bin/ and test/peers/, as `make test` builds them: a part that
// is not there skips the test and says how to get it. With CERTLOOP_REQUIRE=all it
// fails the test instead.
package rig
