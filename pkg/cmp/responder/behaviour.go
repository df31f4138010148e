package responder

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// Behaviour is how a [Server] departs from what is correct. The zero value does
// not depart at all.
//
// The first group decides about requests, the second about what is issued, the
// third strikes answers: only those of the types in Only, or all if it is empty.
type Behaviour struct {
	// Wait makes new requests be answered with status waiting this many times
	// before they are decided, counting the first answer; negative: for ever.
	Wait int
	// WaitConfirm makes certConf be answered with an error of status waiting and
	// then pollRep, this many times together (RFC 9810 §5.3.22).
	WaitConfirm int
	// CheckAfter is what pollRep tells clients to wait, in whole seconds.
	CheckAfter time.Duration
	// Reject refuses every request for a certificate with this status.
	Reject *cmp.StatusInfo
	// RejectAsError sends Reject in an error message in place of ip, cp or kup.
	RejectAsError bool
	// NoImplicitConfirm never grants implicit confirmation; correct, but else it
	// is granted to who asks.
	NoImplicitConfirm bool
	// GrantImplicitConfirm grants implicit confirmation to who did not ask.
	GrantImplicitConfirm bool
	// RefuseCertConf answers certConf with an error: the certificate stays unconfirmed.
	RefuseCertConf bool

	// WrongKey issues for another public key.
	WrongKey bool
	// ForeignIssuer issues with a key that is not the CA's, under its name.
	ForeignIssuer bool
	// Modify changes a certificate before it is signed; the status becomes grantedWithMods.
	Modify func(template *x509.Certificate)

	// Only restricts the fields below to answers of these types.
	Only []cmp.BodyType
	// Alter changes an answer before it is protected.
	Alter func(answer *cmp.Message)
	// AlterDER changes an answer after it was protected and encoded.
	AlterDER func(der []byte) []byte
	// BadNonce puts a recipNonce that is not the request's senderNonce.
	BadNonce bool
	// WrongTransactionID puts another transactionID.
	WrongTransactionID bool
	// WrongSignature protects with a key that is not the CA's, or a wrong secret.
	WrongSignature bool
	// SignMAC answers requests protected by MAC with a signature, as EJBCA does by default.
	SignMAC bool
	// Unprotected leaves all protection out.
	Unprotected bool
	// UnprotectedErrors leaves protection out of error messages and rejections.
	UnprotectedErrors bool
	// Garbage answers with bytes that are no PKIMessage.
	Garbage bool
	// OnlyHTTP10 and OnlyHTTP11 answer requests of the other version with 505,
	// whatever Only says; they have not been processed.
	OnlyHTTP10, OnlyHTTP11 bool
	// HTTPStatus answers with this status and a page of HTML; the request has been processed.
	HTTPStatus int
	// CMPStatus is the HTTP status that accompanies CMP answers; 0 means 200.
	CMPStatus int
	// DropReply processes this many requests and closes their connections without an answer.
	DropReply int
	// Delay is how long answers are held back; the request has been processed.
	Delay time.Duration
}

// strikes tells whether the third group applies to an answer.
func (b *Behaviour) strikes(answer cmp.BodyType) bool {
	return len(b.Only) == 0 || slices.Contains(b.Only, answer)
}

// faults is b without its third group where that does not strike.
func (b Behaviour) faults(answer cmp.BodyType) Behaviour {
	if b.strikes(answer) {
		return b
	}
	return Behaviour{}
}

// Behave changes the behaviour from the next message on. change is called with
// the server locked: it must not call the server.
func (s *Server) Behave(change func(*Behaviour)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.behaviour)
}

// behaves is a copy of the present behaviour.
func (s *Server) behaves() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behaviour
}

// dropReply tells whether the answer at hand is one to be dropped.
func (s *Server) dropReply(answer cmp.BodyType) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behaviour.DropReply <= 0 || !s.behaviour.strikes(answer) {
		return false
	}
	s.behaviour.DropReply--
	return true
}

// Wait makes new requests be answered with waiting n times, with checkAfter in whole seconds.
func (s *Server) Wait(n int, checkAfter time.Duration) {
	s.Behave(func(b *Behaviour) { b.Wait, b.CheckAfter = n, checkAfter })
}

// Reject refuses requests for certificates with status rejection; with no bits
// and no text it ends that.
func (s *Server) Reject(failure cmp.FailureInfo, text string) {
	var info *cmp.StatusInfo
	if failure != 0 || text != "" {
		info = &cmp.StatusInfo{Status: cmp.StatusRejection, Text: texts(text), FailInfo: failure}
	}
	s.Behave(func(b *Behaviour) { b.Reject = info })
}

// DropReply processes the next n requests without answering, of the types given
// if any: their answers' types.
func (s *Server) DropReply(n int, only ...cmp.BodyType) {
	s.Behave(func(b *Behaviour) { b.DropReply, b.Only = n, only })
}
