package cmp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTimeout bounds one round trip unless [Client.Timeout] says otherwise.
const DefaultTimeout = 30 * time.Second

// Client speaks CMP over HTTP (RFC 9811) to one URL. A zero Client with a URL
// works. It may be used concurrently and must not be copied after first use.
type Client struct {
	URL         string        // http://host[:port]/path or https://…
	Timeout     time.Duration // of one round trip, connecting included; 0: DefaultTimeout
	MaxResponse int64         // in bytes; 0: DefaultMaxResponse

	TLS   *tls.Config                           // trust and identity for https, apart from CMP's own
	Proxy func(*http.Request) (*url.URL, error) // nil: none, whatever the environment says
	HTTP  *http.Client                          // in place of our own; TLS, Proxy and Version are then not used

	Version HTTPVersion // of HTTP, tried first

	// KeepAlive keeps connections for ten seconds after the last message of a
	// transaction, for the next one. It saves a busy client a connection for each;
	// but a CA that serves one connection at a time is blocked by that. Who is done
	// earlier calls CloseIdleConnections.
	KeepAlive bool

	once    sync.Once
	own     [2]*http.Client // by HTTPVersion
	settled atomic.Bool     // the other version has been found to work
}

// Do makes a request and drives its transaction to the end, waiting as long as
// the CA asks for. An Issued beside an error is a certificate the CA has issued
// and that is not confirmed.
func (c *Client) Do(ctx context.Context, cfg Config, req Request) (*Issued, error) {
	t, err := Begin(cfg, req)
	if err != nil {
		return nil, err
	}
	return c.Run(ctx, t)
}

// ask makes a request that has an answer in place of a certificate.
func (c *Client) ask(ctx context.Context, cfg Config, req Request) (Body, error) {
	t, err := Begin(cfg, req)
	if err != nil {
		return nil, err
	}
	if _, err := c.Run(ctx, t); err != nil {
		return nil, err
	}
	return t.Step().Reply, nil
}

// Run drives a transaction to the end, from wherever it is, within its
// [Config.TotalTimeout] and the CA's confirmWaitTime. Where one of these passes
// while an answer is awaited the error matches [ErrDeadline] and t is as it was:
// a certificate that is there can still be confirmed.
func (c *Client) Run(ctx context.Context, t *Transaction) (*Issued, error) {
	if !c.KeepAlive {
		defer c.CloseIdleConnections()
	}
	step := t.Step()
	for !step.Done {
		if err := sleep(ctx, step.Wait); err != nil {
			return step.Issued, fmt.Errorf("waiting to send %s: %w", step.Type, err)
		}
		next, err := c.advance(ctx, t)
		if err != nil {
			return orElse(next.Issued, step.Issued), err
		}
		step = next
	}
	return step.Issued, nil
}

// CloseIdleConnections closes the connections that KeepAlive keeps.
func (c *Client) CloseIdleConnections() { c.client(HTTP11).CloseIdleConnections() }

// advance sends the message of the present step and takes the answer.
func (c *Client) advance(ctx context.Context, t *Transaction) (Step, error) {
	step := t.Step()
	if step.Send == nil {
		return step, fmt.Errorf("%w: the transaction is over", ErrState)
	}
	if t.tooLate() {
		return step, fmt.Errorf("sending %s: %w", step.Type, ErrDeadline)
	}
	reply, err := step.Exchange(ctx, c.begin)
	if err != nil {
		return Step{Issued: step.Issued}, fmt.Errorf("sending %s: %w", step.Type, err)
	}
	next, err := t.Next(reply)
	if err != nil {
		c.courtesy(ctx, next)
		return next, fmt.Errorf("answer to %s: %w", step.Type, err)
	}
	return next, nil
}

// begin is Exchange for a message that others follow.
func (c *Client) begin(ctx context.Context, message []byte) ([]byte, error) {
	return c.post(ctx, message, false)
}

// courtesy tells the peer that the transaction has failed, if there is something to tell.
func (c *Client) courtesy(ctx context.Context, last Step) {
	if last.Send != nil {
		_, _ = last.Exchange(ctx, c.Exchange)
	}
}

func orElse(a, b *Issued) *Issued {
	if a != nil {
		return a
	}
	return b
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
