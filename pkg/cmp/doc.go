// Package cmp speaks the Certificate Management Protocol, version 2 (RFC 9810,
// RFC 9483, RFC 4211), over HTTP (RFC 9811).
//
// At the bottom are messages: [Message] with one Go type per arm of PKIBody,
// for clients and servers alike. [ParseMessage] accepts DER only, within limits,
// and [Message.Marshal] gives the same bytes back. Messages are protected by a
// [Credential], which is a [SharedSecret] or a [Signer].
//
// Above is the [Transaction], the client's side as a value without input or
// output: [Begin] makes the first message, Next takes each answer, and every
// answer must pass the checks of RFC 9483 §3.5, in that order, before it changes
// anything. A transaction can be stored at any point and resumed by another
// process, so that nobody has to sleep while a CA makes up its mind.
//
// Beside it is the [Client], which drives transactions over HTTP.
//
// Nothing here logs, reads the environment, or keeps global state. Keys and
// secrets stay where the caller has them, and the types that hold them print as
// redacted.
package cmp
