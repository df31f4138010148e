package cmp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// versions names the versions of HTTP for tables.
var versions = map[string]HTTPVersion{"HTTP/1.0": HTTP10, "HTTP/1.1": HTTP11}

// visit is what a server has seen of a request.
type visit struct{ proto, body string }

// picky serves by a function of the request and remembers the visits.
type picky struct {
	*httptest.Server
	mu     sync.Mutex
	visits []visit
}

func newPicky(t testing.TB, serve func(w http.ResponseWriter, r *http.Request)) *picky {
	t.Helper()
	p := new(picky)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.visits = append(p.visits, visit{r.Proto, string(body)})
		p.mu.Unlock()
		serve(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *picky) protos() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, v := range p.visits {
		out = append(out, v.proto)
	}
	return out
}

func reply(w http.ResponseWriter) {
	w.Header().Set("Content-Type", mediaType)
	_, _ = io.WriteString(w, "reply")
}

// refusing refuses one version of HTTP in some way.
func refusing(minor int, refuse func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMinor == minor {
			refuse(w)
			return
		}
		reply(w)
	}
}

func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { http.Error(w, "no", code) }
}

// The first message of a transaction is sent once more, the same bytes in the
// other version of HTTP, where the server may have stumbled over the version.
func TestOtherHTTPVersion(t *testing.T) {
	first := signed(t).begin(t).Step().Send
	for name, test := range map[string]struct {
		refuse    func(http.ResponseWriter)
		wantRetry bool
	}{
		"426":          {status(426), true},
		"505":          {status(505), true},
		"400":          {status(400), true},
		"hanging up":   {hangUp, true},
		"404":          {status(404), false},
		"500":          {status(500), false},
		"503":          {status(503), false},
		"CMP with 400": {func(w http.ResponseWriter) { w.Header().Set("Content-Type", mediaType); w.WriteHeader(400); reply(w) }, false},
		"half an answer": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			reply(w)
		}, false},
	} {
		for version, tried := range versions {
			t.Run(version+"/"+name, func(t *testing.T) {
				server := newPicky(t, refusing(map[HTTPVersion]int{HTTP10: 0, HTTP11: 1}[tried], test.refuse))
				client := &Client{URL: server.URL, Version: tried}
				_, err := client.Exchange(t.Context(), first)
				other := map[HTTPVersion]string{HTTP10: "HTTP/1.1", HTTP11: "HTTP/1.0"}[tried]
				want := []string{version}
				if test.wantRetry {
					want = append(want, other)
				}
				if got := server.protos(); !slices.Equal(got, want) || (err == nil) != (test.wantRetry || name == "CMP with 400") {
					t.Fatalf("requests in %q, %v, want %q", got, err, want)
				}
				if !test.wantRetry {
					return
				}
				if server.visits[0].body != string(first) || server.visits[1].body != string(first) {
					t.Error("not the same bytes")
				}
				// what worked is tried first from then on
				if _, err := client.Exchange(t.Context(), first); err != nil || server.protos()[2] != other {
					t.Errorf("then %q, %v", server.protos()[2:], err)
				}
			})
		}
	}
}

// Later messages are not sent again, and nobody is asked three times.
func TestOtherHTTPVersionOnlyOnce(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	later := s.next(t, tr, s.ca.granted(t, tr.Step().Send)).Send
	for name, test := range map[string]struct {
		message []byte
		want    int
	}{
		"first message": {s.begin(t).Step().Send, 2},
		"certConf":      {later, 1},
		"rubbish":       {[]byte("rubbish"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			server := newPicky(t, func(w http.ResponseWriter, _ *http.Request) { status(505)(w) })
			_, err := (&Client{URL: server.URL}).Exchange(t.Context(), test.message)
			var failure *TransportError
			if !errors.As(err, &failure) || failure.StatusCode != 505 || len(server.protos()) != test.want {
				t.Errorf("%d requests, want %d: %v", len(server.protos()), test.want, err)
			}
		})
	}
	t.Run("unknown version", func(t *testing.T) {
		_, err := (&Client{URL: "http://127.0.0.1:1/", Version: 2}).Exchange(t.Context(), later)
		var failure *TransportError
		if !errors.As(err, &failure) || failure.Retryable() {
			t.Errorf("error %v, want a permanent one", err)
		}
	})
}

// A request in HTTP/1.0 goes out in one write and is complete.
func TestHTTP10Request(t *testing.T) {
	var got *http.Request
	server := newPicky(t, func(w http.ResponseWriter, r *http.Request) { got = r; reply(w) })
	client := &Client{URL: server.URL + "/.well-known/cmp?p=1", Version: HTTP10}
	transport := client.transport()
	var writes atomic.Int32
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &countingConn{Conn: conn, writes: &writes}, err
	}
	client.HTTP = &http.Client{Transport: &http10{transport}}
	answer, err := client.Exchange(t.Context(), []byte("request"))
	if err != nil || string(answer) != "reply" {
		t.Fatalf("%q, %v", answer, err)
	}
	if writes.Load() != 1 {
		t.Errorf("%d writes, want 1", writes.Load())
	}
	if got.Proto != "HTTP/1.0" || got.Method != http.MethodPost || got.URL.String() != "/.well-known/cmp?p=1" ||
		got.ContentLength != 7 || got.Header.Get("Content-Type") != mediaType || got.Host != server.Listener.Addr().String() {
		t.Errorf("%s %s %s, length %d, host %s, %v", got.Method, got.URL, got.Proto, got.ContentLength, got.Host, got.Header)
	}
}

// The connection ends with the context, in either version, wherever the server is stuck.
func TestStuckServers(t *testing.T) {
	for name, head := range map[string]string{
		"nothing": "", "half a head": "HTTP/1.0 200", "half a body": "HTTP/1.0 200 OK\r\nContent-Type: application/pkixcmp\r\n\r\nx",
	} {
		for version, tried := range versions {
			t.Run(version+"/"+name, func(t *testing.T) {
				client := &Client{URL: raw(t, head, false), Version: tried, Timeout: 50 * time.Millisecond}
				_, err := client.Exchange(t.Context(), []byte("request"))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want a deadline exceeded", err)
				}
			})
		}
	}
}

// raw answers every connection with some bytes and then closes it, or leaves it open.
func raw(t testing.TB, answer string, hangUp bool) (url string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1<<16))
				_, _ = io.WriteString(conn, answer)
				if !hangUp {
					<-over
				}
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); close(over); serving.Wait() })
	return "http://" + listener.Addr().String()
}

func TestHeadTooLong(t *testing.T) {
	answer := func(head int) string {
		return "HTTP/1.0 200 OK\r\nContent-Type: " + mediaType + "\r\nX: " + strings.Repeat("x", head) + "\r\n\r\nreply"
	}
	for version, tried := range versions {
		got, err := (&Client{URL: raw(t, answer(maxHeaderBytes/2), true), Version: tried}).Exchange(t.Context(), []byte("request"))
		if err != nil || string(got) != "reply" {
			t.Errorf("%s: a long head: %q, %v", version, got, err)
		}
		if _, err := (&Client{URL: raw(t, answer(2*maxHeaderBytes), true), Version: tried}).Exchange(t.Context(), []byte("request")); err == nil {
			t.Errorf("%s: too long a head is accepted", version)
		}
	}
}

// An IPv6 address stands in brackets, with or without a port.
func TestIPv6Literal(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp6", "[::1]:0")
	if err != nil {
		skipOrFail(t, "no IPv6 on this machine")
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Host", r.Host)
		reply(w)
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	for version, tried := range versions {
		client := &Client{URL: "http://" + listener.Addr().String() + "/pkix/", Version: tried}
		if answer, err := client.Exchange(t.Context(), []byte("request")); err != nil || string(answer) != "reply" {
			t.Errorf("%s: %q, %v", version, answer, err)
		}
	}
	for text, want := range map[string]string{
		"http://[::1]/": "[::1]:80", "https://[2001:db8::1]/": "[2001:db8::1]:443", "http://[::1]:829/": "[::1]:829",
		"http://ca.example/": "ca.example:80", "https://ca.example:8443/": "ca.example:8443",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := hostPort(u); got != want {
			t.Errorf("%s leads to %s, want %s", text, got, want)
		}
	}
}

// tlsServer is a CA behind HTTPS that wants client certificates.
func tlsServer(t testing.TB, clients *x509.Certificate, names *[]string) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w) }))
	pool := x509.NewCertPool()
	pool.AddCert(clients)
	var mu sync.Mutex
	server.TLS = &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, Time: (&clock{epoch}).Now,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			*names = append(*names, hello.ServerName)
			return nil, nil //nolint:nilnil // the configuration stays as it is
		},
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// SNI is the host of the URL, without its port; an address has none (RFC 6066 §3).
func TestSNI(t *testing.T) {
	devices := newAuthority(t, "Devices")
	for version, tried := range versions {
		for host, want := range map[string]string{"example.com": "example.com", "127.0.0.1": ""} {
			t.Run(version+"/"+host, func(t *testing.T) {
				var names []string
				server := tlsServer(t, devices.root, &names)
				client := &Client{URL: onHost(t, server, host), TLS: clientTLS(t, devices, server), Version: tried}
				direct(client, server)
				if _, err := client.Exchange(t.Context(), []byte("request")); err != nil {
					t.Fatal(err)
				}
				if len(names) != 1 || names[0] != want {
					t.Errorf("SNI %q, want %q", names, want)
				}
			})
		}
	}
}

// onHost is the URL of a server under another name.
func onHost(t testing.TB, server *httptest.Server, host string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "https://" + net.JoinHostPort(host, port) + "/"
}

// clientTLS trusts a server and has an identity of an authority.
func clientTLS(t testing.TB, a *authority, server *httptest.Server) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	own := a.identity(t, "device")
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{own.Certificate.Raw}, PrivateKey: own.Key}}}
}

// direct makes a client find a server whatever its name.
func direct(c *Client, server *httptest.Server) {
	transport := c.transport()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, network, server.Listener.Addr().String())
	}
	c.HTTP = &http.Client{Transport: transport}
	if c.Version == HTTP10 {
		c.HTTP.Transport = &http10{transport}
	}
}

// What TLS trusts and what CMP trusts are two things: an anchor of the one is none of the other.
func TestTLSTrustIsNotCMPTrust(t *testing.T) {
	for version, tried := range versions {
		s := &served{scene: signed(t)}
		server := httptest.NewUnstartedServer(s.handler(t))
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.StartTLS()
		t.Cleanup(server.Close)
		web, cmpRoots := x509.NewCertPool(), x509.NewCertPool()
		web.AddCert(server.Certificate())
		cmpRoots.AddCert(s.ca.root)
		for name, test := range map[string]struct {
			tls  *x509.CertPool
			cmp  *x509.Certificate
			want string
		}{
			"each its own":       {web, s.ca.root, ""},
			"CMP's root for TLS": {cmpRoots, s.ca.root, "certificate"},
			"TLS's root for CMP": {web, server.Certificate(), "message not authentic: signer"},
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				cfg := s.cfg
				cfg.Trust.Roots = []*x509.Certificate{test.cmp}
				client := &Client{URL: server.URL, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: test.tls}, Version: tried}
				_, err := client.Do(t.Context(), cfg, s.req)
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want one with %q", err, test.want)
				}
			})
		}
	}
}

// gateway is a proxy on loopback that passes everything on to one server.
type gateway struct {
	url     *url.URL
	mu      sync.Mutex
	lines   []string // the request lines
	secrets []string // Proxy-Authorization
}

func newGateway(t testing.TB, to string) *gateway {
	t.Helper()
	g := new(gateway)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.url = &url.URL{Scheme: "http", User: url.UserPassword("user", "word"), Host: listener.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { g.pass(conn, to) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return g
}

// pass hands on one request, or after CONNECT everything.
func (g *gateway) pass(conn net.Conn, to string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	g.mu.Lock()
	g.lines = append(g.lines, fmt.Sprintf("%s %s %s", req.Method, req.RequestURI, req.Proto))
	g.secrets = append(g.secrets, req.Header.Get("Proxy-Authorization"))
	g.mu.Unlock()
	behind, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer behind.Close()
	if req.Method == http.MethodConnect {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(behind, in); _ = behind.(*net.TCPConn).CloseWrite() }() // ends with conn
	} else {
		req.Close = true
		_ = req.Write(behind)
	}
	_, _ = io.Copy(conn, behind)
}

// A proxy is used only where one is configured: as such for http, as a tunnel for https.
func TestProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // nobody listens there
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	devices := newAuthority(t, "Devices")
	for version, tried := range versions {
		t.Run(version+"/http", func(t *testing.T) {
			server := newPicky(t, func(w http.ResponseWriter, _ *http.Request) { reply(w) })
			g := newGateway(t, server.Listener.Addr().String())
			client := &Client{URL: "http://ca.example/pkix/", Proxy: http.ProxyURL(g.url), Version: tried}
			if answer, err := client.Exchange(t.Context(), []byte("request")); err != nil || string(answer) != "reply" {
				t.Fatalf("%q, %v", answer, err)
			}
			if want := "POST http://ca.example/pkix/ " + version; g.lines[0] != want || g.secrets[0] != "Basic dXNlcjp3b3Jk" {
				t.Errorf("the proxy got %q, %q, want %q", g.lines[0], g.secrets[0], want)
			}
		})
		t.Run(version+"/https", func(t *testing.T) {
			var names []string
			server := tlsServer(t, devices.root, &names)
			g := newGateway(t, server.Listener.Addr().String())
			client := &Client{URL: "https://example.com/", Proxy: http.ProxyURL(g.url), TLS: clientTLS(t, devices, server), Version: tried}
			if answer, err := client.Exchange(t.Context(), []byte("request")); err != nil || string(answer) != "reply" {
				t.Fatalf("%q, %v", answer, err)
			}
			if want := "CONNECT example.com:443 HTTP/1.1"; g.lines[0] != want || g.secrets[0] != "Basic dXNlcjp3b3Jk" || names[0] != "example.com" {
				t.Errorf("the proxy got %q, %q, the server %q", g.lines[0], g.secrets[0], names)
			}
		})
		t.Run(version+"/none", func(t *testing.T) {
			url, _ := answers(t, 200, map[string]string{"Content-Type": mediaType}, "reply")
			if _, err := (&Client{URL: url, Version: tried}).Exchange(t.Context(), []byte("request")); err != nil {
				t.Error(err)
			}
		})
		t.Run(version+"/refusing", func(t *testing.T) {
			server := newPicky(t, func(w http.ResponseWriter, _ *http.Request) { status(407)(w) })
			proxy, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			_, err = (&Client{URL: "https://example.com/", Proxy: http.ProxyURL(proxy), Version: tried}).Exchange(t.Context(), []byte("request"))
			var failure *TransportError
			if !errors.As(err, &failure) || failure.Sent {
				t.Errorf("error %v, want one of a message that was not sent", err)
			}
		})
	}
	t.Run("HTTP/1.0/socks5", func(t *testing.T) {
		_, err := (&Client{URL: "http://ca.example/", Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: "127.0.0.1:1"}), Version: HTTP10}).Exchange(t.Context(), nil)
		if err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("error %v", err)
		}
	})
}

// A whole enrolment with a CA that knows one version only, whatever is tried first.
func TestEnrolmentInOneHTTPVersion(t *testing.T) {
	for version, tried := range versions {
		for knows := range 2 {
			t.Run(fmt.Sprintf("%s first, the CA knows HTTP/1.%d", version, knows), func(t *testing.T) {
				s := &served{scene: signed(t), waits: 1}
				handler := s.handler(t)
				server := newPicky(t, nil)
				server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.ProtoMinor != knows {
						status(505)(w)
						return
					}
					handler.ServeHTTP(w, r)
				})
				issued, err := (&Client{URL: server.URL, Version: tried}).Do(t.Context(), s.cfg, s.req)
				if err != nil || issued == nil {
					t.Fatalf("%+v, %v", issued, err)
				}
				if want := []BodyType{TypeIR, TypePollReq, TypePollReq, TypeCertConf}; !slices.Equal(s.asked, want) {
					t.Errorf("sent %v, want %v", s.asked, want)
				}
			})
		}
	}
}

// Whatever a server sends, in either version of HTTP, comes to a bounded answer or an error of its type.
func FuzzHTTPAnswer(f *testing.F) {
	const limit = 4096
	cmpHead := "HTTP/1.1 200 OK\r\nContent-Type: application/pkixcmp\r\n"
	for _, answer := range []string{
		"", "x", "HTTP/1.0 200 OK\r\n\r\n", cmpHead + "Content-Length: 5\r\n\r\nreply", cmpHead + "Content-Length: 500\r\n\r\nreply",
		cmpHead + "Transfer-Encoding: chunked\r\n\r\n5\r\nreply\r\n0\r\n\r\n", cmpHead + "\r\n" + strings.Repeat("x", limit+1),
		"HTTP/1.1 100 Continue\r\n\r\n" + cmpHead + "Content-Length: 1\r\n\r\nx",
		"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", "HTTP/1.1 503 Busy\r\nRetry-After: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 429 Busy\r\nRetry-After: Sat, 21 Nov 2026 12:00:30 GMT\r\nDate: x\r\n\r\n",
		cmpHead + "Content-Length: -1\r\n\r\n", cmpHead + "Content-Length: 9223372036854775807\r\n\r\nx", "HTTP/1.1 505 No\r\n\r\n",
	} {
		f.Add(answer, false)
		f.Add(answer, true)
	}
	f.Fuzz(func(t *testing.T, answer string, old bool) {
		client := &Client{URL: "http://ca.example/", MaxResponse: limit, Timeout: 20 * time.Second}
		transport := client.transport()
		transport.DisableKeepAlives = true
		var serving sync.WaitGroup
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			serving.Go(func() { _, _ = io.Copy(io.Discard, far) })
			serving.Go(func() { _, _ = io.WriteString(far, answer); _ = far.Close() })
			return near, nil
		}
		client.HTTP = &http.Client{Transport: transport}
		if old {
			client.HTTP.Transport = &http10{transport}
		}
		body, err := client.Exchange(t.Context(), []byte("request"))
		serving.Wait()
		var failure *TransportError
		switch {
		case err == nil && (len(body) == 0 || len(body) > limit):
			t.Fatalf("%d bytes", len(body))
		case err != nil && (!errors.As(err, &failure) || errors.Is(err, context.DeadlineExceeded)):
			t.Fatalf("error %v of type %T", err, err)
		case err != nil && (failure.RetryAfter < 0 || failure.RetryAfter > maxRetryAfter):
			t.Fatalf("Retry-After %s", failure.RetryAfter)
		}
	})
}
