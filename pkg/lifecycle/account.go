package lifecycle

import "github.com/certloop/certloop/pkg/ledger"

// account keeps count of the certificates that a CA may have issued and that nobody
// has, as a record remembers them. What holds at all times, for one configuration:
//
//	issued by the CA ≤ promoted + staged + Attempt.Orphans + what is owed for the flight
//
// Owed for a flight are the times its request went out and no answer came that counts,
// which is Flight.Lost, and one more when it was answered. A CA that recognises a
// transactionID issues less than that; nothing in an answer tells.
type account struct{ *ledger.Record }

// lost: the request of the flight was sent, or may have been, and no answer came that counts.
func (c account) lost() { c.Flight.Lost++ }

// answered: the answer to the request came. It returns how many earlier sendings may have
// brought about a certificate each, and counts them.
func (c account) answered() int64 {
	n := c.Flight.Lost
	c.Flight.Lost = 0
	c.Attempt.Orphans += n
	return n
}

// refused ends the flight: the CA did not issue for the request that it answered. It returns
// and counts what it may have issued for earlier sendings.
func (c account) refused() int64 {
	n := c.answered()
	c.Flight = nil
	return n
}

// abandoned ends the flight, whatever comes of it, and returns and counts what is owed for it.
func (c account) abandoned() int64 {
	f := c.Flight
	n := f.Lost
	if f.Chain != nil || !f.NextPoll.IsZero() {
		n++ // issued, or being worked on
	}
	n = max(1, n) // sent, or it would have been forgotten
	c.Attempt.Orphans += n
	c.Flight = nil
	return n
}

// unwanted ends the flight, whose answer brought a certificate that is not acceptable, and
// returns and counts that one and what may have been issued for earlier sendings.
func (c account) unwanted() int64 {
	n := c.Flight.Lost + 1
	c.Attempt.Orphans += n
	c.Flight = nil
	return n
}
