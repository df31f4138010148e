// Package cmpcmd is the command certloop cmp: a CMP client with the options of
// openssl cmp, so that the one can take the place of the other in a script.
//
// Options mean what openssl-cmp(1) says they mean, up to OpenSSL 3.5; those that
// cannot be honoured are refused with the reason, never ignored. What is written
// to files, and when, is as there, and so is the exit code: 0 or 1.
// docs/cmp-command.md lists what differs.
//
// A run has four steps: the options are read from the command line and from a
// configuration file (values); from them comes what to ask and how (plan); the
// exchange drives the transaction, over HTTP or by files (exchange); what came
// is saved. Secrets are read when they are needed and are never printed.
package cmpcmd
