package cmp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"
)

// Config is what all transactions with one CA share. The zero value of every
// optional field is a safe default.
type Config struct {
	Recipient  Name       // DN of the CA for the header; nil: the pinned server certificate's, else an issuer's, else the NULL-DN
	Sender     Name       // sender where the credential is a shared secret; nil: CN=reference (RFC 9483 §3.1)
	Credential Credential // protects our messages; required
	Trust      Trust

	PVNO      int64      // pvno to begin with: PVNO2 or PVNO3; 0: 2 unless more is needed (RFC 9810 §7)
	Wrapper   Credential // where this side is an RA: wraps every message in a nested one (RFC 9810 §5.1.3.5); nil: none
	WrappedBy *Trust     // who may wrap the peer's messages in nested ones; nil: nobody, they are refused

	ImplicitConfirm   bool // ask to do without certConf (RFC 9810 §5.1.1.1)
	SameProtection    bool // refuse a signed answer to a request protected by MAC; the CA has then issued already
	UnprotectedErrors bool // let an error without protection end a transaction; it is never believed otherwise
	Differences       DifferencePolicy

	// TotalTimeout bounds a whole transaction from Begin on, polling and
	// confirmation included; 0: no bound. The last poll is at its end, and to
	// confirm what that brings may take a round trip more.
	TotalTimeout         time.Duration
	MaxCheckAfter        time.Duration // upper bound of the peer's checkAfter; 0: DefaultMaxCheckAfter
	MaxPolls             int           // 0: DefaultMaxPolls
	MessageTimeTolerance time.Duration // 0: DefaultMessageTimeTolerance; negative: messageTime is not looked at
	RequireMessageTime   bool          // refuse a message without messageTime
	MaxIterations        int           // of a peer's MAC parameters; 0: DefaultMaxIterations, half of that for PBMAC1

	Now  func() time.Time // nil: time.Now
	Rand io.Reader        // nil: crypto/rand.Reader
}

// DifferencePolicy says what becomes of a certificate that is not quite what was asked for.
type DifferencePolicy uint8

// The policies. What makes a certificate useless or dangerous (another public
// key, an unwanted CA flag, no path to the roots) is always refused.
const (
	ReportDifferences DifferencePolicy = iota // accept it; Issued.Differences tells
	RejectDifferences                         // refuse any difference, also under grantedWithMods
	RejectUnannounced                         // refuse a difference unless the status is grantedWithMods
)

func (c Config) withDefaults() (Config, error) {
	if c.Credential == nil {
		return c, errors.New("cmp config: no credential")
	}
	if err := c.Trust.validate(); err != nil {
		return c, err
	}
	if _, mac := c.Credential.(*SharedSecret); !mac && !c.Trust.signatures() {
		return c, errors.New("cmp config: signed requests need roots or a server certificate to trust")
	}
	if c.PVNO != 0 && c.PVNO != PVNO2 && c.PVNO != PVNO3 {
		return c, fmt.Errorf("cmp config: pvno %d is neither 2 nor 3", c.PVNO)
	}
	if c.WrappedBy != nil && !c.WrappedBy.signatures() {
		return c, errors.New("cmp config: who may wrap messages needs roots or a certificate")
	}
	c.MaxCheckAfter = orDefault(c.MaxCheckAfter, DefaultMaxCheckAfter)
	c.MessageTimeTolerance = orDefault(c.MessageTimeTolerance, DefaultMessageTimeTolerance)
	c.MaxPolls = orDefault(c.MaxPolls, DefaultMaxPolls)
	if c.Trust.Paths == nil {
		c.Trust.Paths = new(PathCache)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return c, nil
}

func orDefault[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}
