package cmp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"
)

// HTTPVersion is the version of HTTP a [Client] tries first. Some CAs know only
// HTTP/1.0, others refuse it. So where the first message of a transaction is
// answered with 400, 426 or 505 and no CMP message, or the connection is closed
// without a word, the very same bytes are sent once in the other version. They
// bear the same transactionID, so that even a CA that has processed them the
// first time issues no second certificate. What worked is used from then on.
type HTTPVersion uint8

// The versions. RFC 9811 §1.2 no longer asks for HTTP/1.0, but there are CAs that know nothing else.
const (
	HTTP11 HTTPVersion = iota
	HTTP10             // a connection for each message
)

func (v HTTPVersion) other() HTTPVersion { return HTTP10 - v }

// post sends a message in the version that is known to work, or is tried first,
// and where there is hope in the other one.
func (c *Client) post(ctx context.Context, message []byte, last bool) ([]byte, error) {
	if c.Version > HTTP10 {
		return nil, &TransportError{Err: errVersion}
	}
	version := c.Version
	settled := c.settled.Load()
	if settled {
		version = version.other()
	}
	body, err := c.postIn(ctx, version, message, last)
	var failure *TransportError
	if !errors.As(err, &failure) || c.HTTP != nil || !failure.wantsOtherVersion() || !beginsTransaction(message) {
		return body, err
	}
	again, second := c.postIn(ctx, version.other(), message, last)
	if second != nil {
		return nil, err // what was said to what we tried first
	}
	c.settled.Store(!settled)
	return again, nil
}

var errVersion = errors.New("unknown version of HTTP")

// wantsOtherVersion tells whether the peer may have stumbled over the version of HTTP.
func (e *TransportError) wantsOtherVersion() bool {
	switch e.StatusCode {
	case 0:
		return e.unanswered
	case http.StatusBadRequest, http.StatusUpgradeRequired, http.StatusHTTPVersionNotSupported:
		return true
	}
	return false
}

// beginsTransaction tells whether a message is the first of a transaction: it has nothing to answer.
func beginsTransaction(message []byte) bool {
	m, err := ParseMessage(message)
	return err == nil && m.Header.RecipNonce == nil
}

// http10 is an [http.RoundTripper] that speaks HTTP/1.0, which net/http does
// not. It takes proxy, TLS and limits from base and a new connection for each request.
type http10 struct{ base *http.Transport }

// RoundTrip implements [http.RoundTripper].
func (h *http10) RoundTrip(req *http.Request) (*http.Response, error) {
	message, proxy, err := h.encode(req)
	if err != nil {
		return nil, err
	}
	ctx := req.Context()
	conn, err := h.dial(ctx, req.URL, proxy)
	if err != nil {
		return nil, err
	}
	cancelled := interrupts(ctx, conn)
	resp, err := h.exchange(ctx, conn, req, message)
	if err != nil {
		cancelled()
		_ = conn.Close()
		return nil, orCause(ctx, err)
	}
	resp.Body = &onlyBody{
		ReadCloser: resp.Body,
		cause:      func(err error) error { return orCause(ctx, err) },
		done:       func() { cancelled(); _ = conn.Close() },
	}
	return resp, nil
}

// encode is the whole request in HTTP/1.0, and the proxy it is to go through, if any.
func (h *http10) encode(req *http.Request) (message []byte, proxy *url.URL, err error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	if h.base.Proxy != nil {
		if proxy, err = h.base.Proxy(req); err != nil {
			return nil, nil, err
		}
	}
	if proxy != nil && proxy.Scheme != "http" {
		return nil, nil, fmt.Errorf("HTTP/1.0 through a proxy that speaks %q is not supported", proxy.Scheme)
	}
	own := req.Clone(req.Context())
	own.Close = true
	var b bytes.Buffer
	write := own.Write
	if proxy != nil && req.URL.Scheme == "http" {
		authorize(own.Header, proxy)
		write = own.WriteProxy
	}
	if err := write(&b); err != nil {
		return nil, nil, err
	}
	message = b.Bytes()
	message[bytes.IndexByte(message, '\n')-2] = '0' // "POST /path HTTP/1.1\r\n"
	return message, proxy, nil
}

// authorize gives a proxy the user and password of its URL (RFC 7617 §2).
func authorize(header http.Header, proxy *url.URL) {
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
}

// dial connects to the target or its proxy, and through that, with TLS where the target wants it.
func (h *http10) dial(ctx context.Context, target, proxy *url.URL) (net.Conn, error) {
	first := target
	if proxy != nil {
		first = proxy
	}
	conn, err := h.base.DialContext(ctx, "tcp", hostPort(first))
	if err != nil || target.Scheme != "https" {
		return conn, err
	}
	cancelled := interrupts(ctx, conn)
	defer cancelled()
	if proxy != nil {
		err = tunnel(conn, hostPort(target), proxy)
	}
	secure := tls.Client(conn, h.tlsConfig(target.Hostname()))
	if err == nil {
		err = secure.HandshakeContext(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, orCause(ctx, err)
	}
	return secure, nil
}

// hostPort is where a URL points to, an IPv6 address in brackets.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// tlsConfig is the configured one; the name to ask for and to verify is the host without its port.
func (h *http10) tlsConfig(host string) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.base.TLSClientConfig != nil {
		cfg = h.base.TLSClientConfig.Clone()
	}
	cfg.ServerName = orDefault(cfg.ServerName, host)
	cfg.NextProtos = nil // HTTP/1.x needs no negotiation
	return cfg
}

// tunnel asks a proxy to pass on what follows (RFC 9110 §9.3.6).
func tunnel(conn net.Conn, address string, proxy *url.URL) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	req.Header.Set("User-Agent", "certloop")
	authorize(req.Header, proxy)
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	// the proxy has nothing more to say until we begin with TLS
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeaderBytes)), req)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("proxy: HTTP status %d", resp.StatusCode)
	}
	return nil
}

// exchange writes a request at once and reads the head of the response.
func (h *http10) exchange(ctx context.Context, conn net.Conn, req *http.Request, message []byte) (*http.Response, error) {
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: conn})
	}
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	head := &io.LimitedReader{R: conn, N: maxHeaderBytes}
	in := bufio.NewReader(head)
	if _, err := in.Peek(1); err != nil {
		return nil, err
	}
	if trace != nil && trace.GotFirstResponseByte != nil {
		trace.GotFirstResponseByte()
	}
	resp, err := http.ReadResponse(in, req)
	if err != nil && head.N == 0 {
		return nil, fmt.Errorf("the head of the answer has more than %d bytes", maxHeaderBytes)
	}
	head.N = math.MaxInt64 // who reads the body bounds it
	return resp, err
}

// interrupts makes a connection fail when ctx ends, until the function it returns is called.
func interrupts(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// orCause is the reason why ctx has ended, if it has, else err.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// onlyBody is the body of the only response on a connection.
type onlyBody struct {
	io.ReadCloser
	cause func(error) error
	done  func()
}

// Read implements [io.Reader].
func (b *onlyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.cause(err)
	}
	return n, err
}

// Close implements [io.Closer]. Nobody wants what may be left to read.
func (b *onlyBody) Close() error {
	b.done()
	return nil
}
