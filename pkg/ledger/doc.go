// Package ledger is everything certloop reads from and writes to a cluster: the
// configurations, the record of each certificate, the Secrets that workloads mount.
//
// The record is a Secret of our own, one for each CMPCertificate, owned by it. It
// holds the private key, the certificate and its chain, and, while a CMP transaction
// is in flight, the next key, the transaction and the lease of whoever works on it.
// Outputs are projections of the record: losing one loses nothing.
//
// # Concurrency
//
// Every write of a record is a compare-and-swap on its resourceVersion: of two
// writers one gets [ErrConflict] and must look again. A [Store] is safe for
// concurrent use; a [Record] belongs to one goroutine.
//
// A lease is not a time on a clock. Whoever finds one comes back later and takes
// over if the record has not changed in between, because its holder touches it while
// it works; so clocks of different machines need not agree.
//
// # Limits
//
// Nothing is cached, and no private key is ever in a list: configurations are listed in pages of
// [PageSize], and of Secrets only metadata, to compare their resourceVersions. A sweep holds these for
// one namespace, about a hundred octets a Secret; otherwise memory does not grow with the
// number of certificates.
//
// Configurations are JSON, Secrets protobuf, which costs both sides less.
//
// # Secrets
//
// Private keys are held as [PrivateKey], which prints as redacted. They go nowhere
// but into Secrets.
package ledger
