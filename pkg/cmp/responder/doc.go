// Package responder is the server side of CMP: a small certification authority
// that really issues, for demonstrations and for tests of clients, and that
// misbehaves on request.
//
// # What it does
//
// It answers ir, cr, kur and p10cr for the requested public key, subject,
// subjectAltName, key usages and validity, then certConf, pollReq, error, rr and
// genm, and messages that a registration authority has wrapped. It believes a request that is protected by a MAC with a secret of
// [Config.SharedSecrets], or signed by a certificate it issued itself (still
// valid, not revoked, in its ledger) or by one below [Config.ClientCAs], and
// proves possession of its key by a signature. It answers with the same kind of
// protection, error messages included; what cannot be authenticated is answered
// with its signature. [Behaviour] changes any of this while it runs. It makes no
// keys for others (RFC 9483 §4.1.6). Its own may be of any [KeyType].
//
// # Transactions
//
// A transactionID stands for one certificate. The same request under the same
// transactionID is answered with the same certificate again, however often and
// whether or not it has been confirmed, so a client whose answer got lost sends
// its message again; a different request is refused with transactionIdInUse.
// The same holds for certConf and pollReq. A certificate that was not confirmed
// within [Config.ConfirmWait] is revoked (RFC 9810 §5.3.18).
//
// # State, concurrency, limits
//
// With [Config.Dir] the keys and all transactions are files there, replaced
// atomically, and a new Server continues where the old one ended, in the middle
// of a transaction too; one Server at a time may use the directory. All methods
// may be called concurrently. Messages are at most [cmp.MaxMessageBytes], open
// transactions at most [Config.MaxOpen], and the ledger keeps the latest
// [Config.MaxIssued] certificates: a kur for an older one is refused.
//
// It is a CA for tests: who can authenticate may ask for any name.
package responder
