package cmp

import (
	"errors"
	"fmt"
)

// ErrProtection matches, with [errors.Is], every [ProtectionError]: what came
// is not authentically from the peer and part of this transaction.
var ErrProtection = errors.New("not authentic")

// ErrRejected reports a certificate that was issued and that we refused; the CA has been told so.
var ErrRejected = errors.New("certificate refused by the requester")

// ErrDeadline reports a transaction that took longer than [Config.TotalTimeout],
// needed more polls than [Config.MaxPolls], or whose confirmation took longer
// than the CA's confirmWaitTime.
var ErrDeadline = errors.New("the total time of the transaction is over")

// ErrState reports a call that does not fit the state of a transaction, or a
// stored state that cannot be used.
var ErrState = errors.New("transaction state")

// SyntaxError reports bytes that are not a PKIMessage.
type SyntaxError struct {
	Field   string // path of the field, in the RFC's names
	Section string // the document and section that define it
}

// Error names the field and the section.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("malformed %s (%s)", e.Field, e.Section)
}

// Check names one of the checks a response must pass to be believed, in the order in which they are made.
type Check string

// The checks, in their order (RFC 9483 §3.5).
const (
	CheckVersion       Check = "pvno"
	CheckTransactionID Check = "transactionID"
	CheckRecipNonce    Check = "recipNonce"
	CheckSenderNonce   Check = "senderNonce"
	CheckSender        Check = "sender"
	CheckProtected     Check = "protection"    // there must be one
	CheckKind          Check = "protectionAlg" // and of a kind that fits ours
	CheckMAC           Check = "MAC"
	CheckSignature     Check = "signature"
	CheckSigner        Check = "signer" // its certificate is acceptable and trusted
	CheckMessageTime   Check = "messageTime"
)

// ProtectionError says why a message is not believed. The transaction has not
// changed: its last message may be sent again.
type ProtectionError struct {
	Check   Check
	Section string
	Detail  string
	Err     error // what the check found; where the message was an error, the unverified [Error]
}

// Error names the check and the section.
func (e *ProtectionError) Error() string {
	text := fmt.Sprintf("message not authentic: %s (%s)", e.Check, e.Section)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Is matches ErrProtection.
func (e *ProtectionError) Is(target error) bool { return target == ErrProtection }

// Unwrap returns what the check found.
func (e *ProtectionError) Unwrap() error { return e.Err }

// ReplyError reports an authentic message that is not an acceptable answer to
// what was asked: the transaction has failed.
type ReplyError struct {
	Field   string // path of the field, in the RFC's names
	Section string
	Detail  string
	Failure FailureInfo // what we tell the peer
	Err     error
}

// Error names the field and the section.
func (e *ReplyError) Error() string {
	text := fmt.Sprintf("unacceptable reply: %s (%s)", e.Field, e.Section)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *ReplyError) Unwrap() error { return e.Err }
