package cmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// mediaType is that of a PKIMessage over HTTP (RFC 9811 §3.2).
const mediaType = "application/pkixcmp"

// TransportError reports that no CMP message came back.
type TransportError struct {
	URL        string        // without user information and query
	StatusCode int           // of the HTTP response; 0: none came
	Sent       bool          // the peer may have got the message and acted on it
	RetryAfter time.Duration // the least time the peer wants to be left alone; 0: it does not say
	Err        error

	unanswered bool // the peer closed the connection without a word
}

// Error says what was tried and what came of it.
func (e *TransportError) Error() string { return fmt.Sprintf("POST %s: %v", e.URL, e.Err) }

// Unwrap returns the cause.
func (e *TransportError) Unwrap() error { return e.Err }

// Retryable tells whether the same message may get through later: nothing came
// back, or a status that says so.
func (e *TransportError) Retryable() bool {
	switch e.StatusCode {
	case 0, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return !errors.Is(e.Err, errURL) && !errors.Is(e.Err, errVersion)
	}
	return e.StatusCode >= 500
}

var errURL = errors.New("not an http or https URL")

// Exchange sends one message in an HTTP POST (RFC 9811 §3) and returns the CMP
// message in the answer, whatever its HTTP status. The connection is closed
// afterwards unless KeepAlive is set. The errors are of type [TransportError].
//
// The message is sent again, the very same bytes, where no connection came
// about, so that the peer cannot have seen it, and once more where the first
// message of a transaction meets a server that seems to want the other version
// of HTTP; see [HTTPVersion]. Redirects are not followed.
func (c *Client) Exchange(ctx context.Context, message []byte) ([]byte, error) {
	return c.post(ctx, message, true)
}

// postIn sends one message in one version of HTTP.
func (c *Client) postIn(ctx context.Context, version HTTPVersion, message []byte, last bool) ([]byte, error) {
	target, err := c.target()
	if err != nil {
		return nil, &TransportError{URL: "", Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(c.Timeout, DefaultTimeout))
	defer cancel()
	var seen wire
	req, err := retryablehttp.NewRequestWithContext(seen.trace(ctx), http.MethodPost, target.String(), message)
	if err != nil {
		return nil, &TransportError{URL: shown(target), Err: withoutURL(err)}
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("User-Agent", "certloop") // fixed: says nothing about versions
	req.Close = last && !c.KeepAlive
	resp, err := c.retrying(version).Do(req)
	if err != nil {
		return nil, &TransportError{URL: shown(target), Sent: seen.connected.Load(), Err: withoutURL(err), unanswered: seen.unanswered(err)}
	}
	defer resp.Body.Close()
	body, err := c.read(resp)
	if err != nil {
		return nil, &TransportError{URL: shown(target), StatusCode: resp.StatusCode, Sent: true, RetryAfter: retryAfter(resp), Err: err}
	}
	return body, nil
}

// wire is what has happened on the connection of one round trip.
type wire struct{ connected, answered atomic.Bool }

func (w *wire) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { w.connected.Store(true) },
		GotFirstResponseByte: func() { w.answered.Store(true) },
	})
}

// unanswered tells whether the peer closed the connection without a word.
func (w *wire) unanswered(err error) bool {
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	return closed && w.connected.Load() && !w.answered.Load()
}

func (c *Client) target() (*url.URL, error) {
	target, err := url.Parse(c.URL)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, errURL // the text of err would show user information
	}
	return target, nil
}

// shown is a URL fit for errors and logs.
func shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// withoutURL takes off what net/http adds, which may show more of the URL than we want.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// retrying is a client that repeats a request only where none was sent.
func (c *Client) retrying(version HTTPVersion) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:   c.client(version),
		RetryMax:     dialRetries,
		RetryWaitMin: 100 * time.Millisecond,
		RetryWaitMax: time.Second,
		CheckRetry:   retryUnsent,
		Backoff:      retryablehttp.DefaultBackoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// maxHeaderBytes bounds the head of an HTTP response.
const maxHeaderBytes = 64 << 10

// dialRetries is how often a connection is tried again.
const dialRetries = 2

// retryUnsent repeats only what failed while dialling: once there is a
// connection the peer may have got the message, and a CMP request must not be
// processed twice.
func retryUnsent(ctx context.Context, _ *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	var op *net.OpError
	return err != nil && errors.As(err, &op) && op.Op == "dial", nil
}

// client is the configured client, or our own for a version of HTTP, but for redirects.
func (c *Client) client(version HTTPVersion) *http.Client {
	if c.HTTP != nil {
		own := *c.HTTP
		own.CheckRedirect = neverRedirect
		return &own
	}
	c.once.Do(func() {
		base := c.transport()
		c.own[HTTP11] = &http.Client{Transport: base, CheckRedirect: neverRedirect}
		c.own[HTTP10] = &http.Client{Transport: &http10{base}, CheckRedirect: neverRedirect}
	})
	return c.own[version]
}

// neverRedirect hands a redirection back as the answer, so that a message goes
// nowhere but where it was meant for (RFC 9811 §3.1).
func neverRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// transport writes header and body of a request at once: two writes would cost
// the peer's delayed acknowledgement between them.
func (c *Client) transport() *http.Transport {
	return &http.Transport{
		Proxy:                  c.Proxy,
		TLSClientConfig:        c.TLS,
		TLSHandshakeTimeout:    orDefault(c.Timeout, DefaultTimeout),
		DialContext:            (&net.Dialer{Timeout: orDefault(c.Timeout, DefaultTimeout)}).DialContext,
		DisableCompression:     true,
		WriteBufferSize:        64 << 10,
		MaxResponseHeaderBytes: maxHeaderBytes,
		IdleConnTimeout:        10 * time.Second,
	}
}

// read takes a CMP message out of a response. Servers may send one with a
// status of 4xx or 5xx (RFC 9811 §3.1); anything else is a failure of transport.
func (c *Client) read(resp *http.Response) ([]byte, error) {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, fmt.Errorf("HTTP status %d: redirects are not followed", resp.StatusCode)
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != mediaType && kind != mediaType+"-poll" {
		return nil, fmt.Errorf("HTTP status %d without a CMP message", resp.StatusCode)
	}
	limit := orDefault(c.MaxResponse, DefaultMaxResponse)
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	case len(body) == 0:
		return nil, fmt.Errorf("HTTP status %d with an empty body", resp.StatusCode)
	}
	return body, nil
}

// maxRetryAfter bounds what a Retry-After can ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter is the Retry-After of a response, 0 if it has none that makes sense (RFC 9110 §10.2.3).
func retryAfter(resp *http.Response) time.Duration {
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return min(max(0, time.Duration(min(seconds, 1<<20))*time.Second), maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		date = time.Now()
	}
	return min(max(0, at.Sub(date)), maxRetryAfter)
}
