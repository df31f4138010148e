package lifecycle

import (
	"crypto/x509"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/ledger"
)

// A CA that issues for every request it gets, and every way a request can go: what the CA
// has issued is never more than what is accounted for, at any moment, and never less at the end
// where it got every request.
func TestAccountNeverTooLow(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := &world{account: account{&ledger.Record{}}}
		for range 40 {
			w.act(random.IntN(7), random.IntN(4) > 0)
			if have := w.promoted + w.Attempt.Orphans + w.owed(); w.issued > have {
				t.Fatalf("seed %d: the CA issued %d, accounted for are %d", seed, w.issued, have)
			}
		}
	}
}

// world is a record and a CA, and what happens between them.
type world struct {
	account
	issued, promoted int64
}

// owed is what the invariant says is owed for the flight.
func (w *world) owed() int64 {
	f := w.Flight
	if f == nil {
		return 0
	}
	if f.Chain != nil || !f.NextPoll.IsZero() {
		return f.Lost + 1
	}
	return f.Lost
}

// act does one of the things that can happen. arrives says whether a request gets to the CA.
func (w *world) act(what int, arrives bool) {
	f := w.Flight
	switch {
	case f == nil:
		w.Flight = new(ledger.Flight)
	case f.Chain != nil: // staged: confirmed, or given up
		if what == 0 {
			w.abandoned()
			return
		}
		w.promoted++
		w.Flight = nil
	case what == 0: // given up, which takes that it was sent
		w.abandoned()
	case !f.NextPoll.IsZero(): // the CA issues when the poll comes
		if arrives {
			f.Chain, f.NextPoll = []*x509.Certificate{{}}, time.Time{}
		}
	default:
		w.send(what, arrives)
	}
}

// send sends the request, for the first time or again.
func (w *world) send(what int, arrives bool) {
	f := w.Flight
	switch what {
	case 1, 2: // no answer
		if arrives {
			w.issued++
		}
		w.lost()
	case 3: // the CA refuses
		w.refused()
	case 4: // it makes us wait, and will issue
		w.issued++
		w.answered()
		f.NextPoll = time.Unix(1, 0)
	case 5: // what it issues is not acceptable
		w.issued++
		w.unwanted()
	default:
		w.issued++
		w.answered()
		f.Chain = []*x509.Certificate{{}}
	}
}

func TestAccount(t *testing.T) {
	issued, waits := []*x509.Certificate{{}}, time.Unix(1, 0)
	for _, tc := range []struct {
		name   string
		flight ledger.Flight
		do     func(account) int64
		want   int64
	}{
		{"answered at once", ledger.Flight{}, account.answered, 0},
		{"answered the third time", ledger.Flight{Lost: 2}, account.answered, 2},
		{"refused at once", ledger.Flight{}, account.refused, 0},
		{"refused the third time", ledger.Flight{Lost: 2}, account.refused, 2},
		{"given up without an answer", ledger.Flight{Lost: 2}, account.abandoned, 2},
		{"given up after an error that tells nothing", ledger.Flight{}, account.abandoned, 1},
		{"given up while the CA makes us wait", ledger.Flight{NextPoll: waits}, account.abandoned, 1},
		{"given up before it was confirmed", ledger.Flight{Chain: issued}, account.abandoned, 1},
		{"not acceptable", ledger.Flight{}, account.unwanted, 1},
		{"not acceptable the third time", ledger.Flight{Lost: 2}, account.unwanted, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := account{&ledger.Record{Flight: &tc.flight, Attempt: ledger.Attempts{Orphans: 10}}}
			if got := tc.do(c); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
			if got := c.Attempt.Orphans; got != 10+tc.want {
				t.Errorf("got %d counted, want %d", got, 10+tc.want)
			}
			if c.Flight != nil && c.Flight.Lost != 0 {
				t.Errorf("got %d lost, want 0", c.Flight.Lost)
			}
		})
	}
}
