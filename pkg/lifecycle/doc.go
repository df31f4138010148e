// Package lifecycle says which event leads to which action, and in which order the
// effects of an action happen so that a crash between any two of them is harmless.
//
// Two types hold all handlers. An [Obtainer] talks to CAs: it enrolls, renews, polls,
// confirms and delivers. A [Watcher] never does and holds no CA credentials: it
// compares what is with what should be, and says so.
//
// # The contract of a handler
//
// A handler takes one event and returns the events that follow. An error means only
// "not now, deliver this again"; a CA that refuses, a configuration that cannot be
// satisfied and a wait are facts, not errors. A handler never sleeps: what is due
// later is an event with the extension notbefore.
//
// An event is a hint. Handlers read again what they act on, so that duplicates, lost
// order, loss and replay are ordinary. They may run at the same time for the same
// certificate, in one process or in many: the lease and the compare-and-swap of the
// record keep them apart (package ledger).
//
// # The order of effects
//
// look, claim, ask, stage, confirm, project, report, publish, acknowledge: the table
// in docs/lifecycle.md, which this package keeps true. The staged key and the
// transactionID are stored before the first byte goes to the CA, the certificate
// before it is confirmed, and only then what workloads mount is replaced.
package lifecycle
