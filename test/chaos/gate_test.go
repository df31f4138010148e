package chaos

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/test/e2e/rig"
)

// gate stands before a CA. It writes down what was asked and answered, whoever dies
// meanwhile, holds answers back, and calls hooks between the two.
type gate struct {
	rig.CA // as it is reached through the gate

	target string
	delay  func() time.Duration

	mu        sync.Mutex
	exchanges []*exchange
	asked     func(*exchange) // when a request has come
	answered  func(*exchange) // when the CA has answered and nobody knows it yet
}

// exchange is a request to the CA and what became of it.
type exchange struct {
	Type          cmp.BodyType
	TransactionID string
	At            time.Time
	Answered      bool              // by the CA
	Over          time.Time         // when its answer, or none, went back; zero before
	Issued        *x509.Certificate // by the answer; nil when none
}

// asks tells whether a CA may issue for the exchange.
func (e *exchange) asks() bool { return e.Type == cmp.TypeIR || e.Type == cmp.TypeKUR }

func openGate(tb testing.TB, ca rig.CA, delay func() time.Duration) *gate {
	tb.Helper()
	target, err := url.Parse(ca.URL)
	if err != nil {
		tb.Fatal(err)
	}
	g := &gate{target: ca.URL, delay: delay}
	s := httptest.NewServer(g)
	tb.Cleanup(s.Close)
	g.CA = rig.CA{URL: s.URL + target.Path, Roots: ca.Roots}
	return g
}

// on sets what is called at the next moments; nil for nothing.
func (g *gate) on(asked, answered func(*exchange)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked, g.answered = asked, answered
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, cmp.MaxMessageBytes))
	if err != nil {
		return
	}
	e := g.note(body)
	defer g.over(e)
	g.call(func() func(*exchange) { return g.asked }, e)
	// The CA has to answer even when the one who asks is gone.
	status, reply, err := forward(g.target, body, r.Header.Get("Content-Type"))
	if err != nil {
		panic(http.ErrAbortHandler) // as if nobody were there
	}
	g.noteAnswer(e, reply)
	time.Sleep(g.delay())
	g.call(func() func(*exchange) { return g.answered }, e)
	w.Header().Set("Content-Type", "application/pkixcmp")
	w.WriteHeader(status)
	_, _ = w.Write(reply) // who asked may be gone
}

func forward(target string, body []byte, contentType string) (status int, reply []byte, err error) {
	resp, err := http.Post(target, contentType, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	reply, err = io.ReadAll(io.LimitReader(resp.Body, cmp.MaxMessageBytes))
	return resp.StatusCode, reply, err
}

func (g *gate) call(hook func() func(*exchange), e *exchange) {
	g.mu.Lock()
	f := hook()
	g.mu.Unlock()
	if f != nil {
		f(e)
	}
}

func (g *gate) note(request []byte) *exchange {
	e := &exchange{At: time.Now()}
	if m, err := cmp.ParseMessage(request); err == nil {
		e.Type, e.TransactionID = m.Type, hex.EncodeToString(m.Header.TransactionID)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.exchanges = append(g.exchanges, e)
	return e
}

func (g *gate) noteAnswer(e *exchange, reply []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.Answered = true
	m, err := cmp.ParseMessage(reply)
	if err != nil {
		return
	}
	if rep, ok := m.Body.(*cmp.CertRepMessage); ok && len(rep.Response) > 0 && rep.Response[0].Certified != nil {
		e.Issued, _ = x509.ParseCertificate(rep.Response[0].Certified.Certificate)
	}
}

func (g *gate) over(e *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.Over = time.Now()
}

// seen are copies of all exchanges so far, in the order of their coming.
func (g *gate) seen() []exchange {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]exchange, len(g.exchanges))
	for i, e := range g.exchanges {
		out[i] = *e
	}
	return out
}

// asking is how many requests for a certificate are with the CA now.
func (g *gate) asking() int {
	n := 0
	for _, e := range g.seen() {
		if e.asks() && e.Over.IsZero() {
			n++
		}
	}
	return n
}

// transactions are the ids under which certificates were asked for.
func (g *gate) transactions() []string {
	var ids []string
	for _, e := range g.seen() {
		if e.asks() && !slices.Contains(ids, e.TransactionID) {
			ids = append(ids, e.TransactionID)
		}
	}
	return ids
}

func serialOf(c *x509.Certificate) string { return ledger.SerialHex(c.SerialNumber.Bytes()) }
