// Package interop tries pkg/cmp against implementations that share no code with
// it: our client against an issuing CA on libcrypto, one on Bouncy Castle and the
// mock server of openssl cmp, and the openssl cmp client against our responder.
//
// Every combination of operation, protection and key is a subtest, which passes
// or is one of the refusals listed, with its reason, in refusals_test.go. The
// result is testdata/matrix.md; -update writes it anew.
package interop
