package cmp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// answers serves one fixed answer and counts the requests.
func answers(t testing.TB, status int, header map[string]string, body string) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

func TestExchangeReadsAnswers(t *testing.T) {
	cmpType := map[string]string{"Content-Type": mediaType}
	for name, test := range map[string]struct {
		status    int
		header    map[string]string
		body      string
		wantErr   string // part of the error; empty: there is none
		retryable bool
		after     time.Duration
	}{
		"good":                      {status: 200, header: cmpType, body: "x"},
		"media type in capitals":    {status: 200, header: map[string]string{"Content-Type": "Application/PKIXCMP; charset=x"}, body: "x"},
		"media type of old drafts":  {status: 200, header: map[string]string{"Content-Type": mediaType + "-poll"}, body: "x"},
		"CMP message under 400":     {status: 400, header: cmpType, body: "x"},
		"CMP message under 500":     {status: 500, header: cmpType, body: "x"},
		"no media type":             {status: 200, header: map[string]string{"Content-Type": ""}, body: "x", wantErr: "without a CMP message"},
		"HTML":                      {status: 200, header: map[string]string{"Content-Type": "text/html"}, body: "x", wantErr: "without a CMP message"},
		"empty":                     {status: 200, header: cmpType, wantErr: "empty body"},
		"too long":                  {status: 200, header: cmpType, body: strings.Repeat("x", 65), wantErr: "more than 64 bytes"},
		"as long as allowed":        {status: 200, header: cmpType, body: strings.Repeat("x", 64)},
		"redirect":                  {status: 307, header: map[string]string{"Location": "http://192.0.2.1/"}, wantErr: "redirects are not followed"},
		"redirect with CMP message": {status: 302, header: map[string]string{"Location": "/", "Content-Type": mediaType}, body: "x", wantErr: "redirects are not followed"},
		"not found":                 {status: 404, wantErr: "HTTP status 404"},
		"overload": {status: 503, header: map[string]string{"Retry-After": "17", "Content-Type": "text/html"}, body: "<p>busy",
			wantErr: "HTTP status 503", retryable: true, after: 17 * time.Second},
		"overload for years": {status: 503, header: map[string]string{"Retry-After": "999999999999999"}, wantErr: "HTTP status 503", retryable: true, after: maxRetryAfter},
		"overload until": {status: 429, header: map[string]string{"Retry-After": "Sat, 21 Nov 2026 12:00:30 GMT", "Date": "Sat, 21 Nov 2026 12:00:00 GMT"},
			wantErr: "HTTP status 429", retryable: true, after: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := answers(t, test.status, test.header, test.body)
			client := Client{URL: url, MaxResponse: 64}
			got, err := client.Exchange(t.Context(), []byte("request"))
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			if test.wantErr == "" {
				if err != nil || string(got) != test.body {
					t.Errorf("got %q, %v, want %q", got, err, test.body)
				}
				return
			}
			var failure *TransportError
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("error %v, want a TransportError with %q", err, test.wantErr)
			}
			if failure.StatusCode != test.status || !failure.Sent || failure.Retryable() != test.retryable || failure.RetryAfter != test.after {
				t.Errorf("%+v, want retryable %t after %s", failure, test.retryable, test.after)
			}
		})
	}
}

// A request looks as RFC 9811 §3 wants it, and nothing in it says who we are.
func TestExchangeRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", mediaType)
		_, _ = io.WriteString(w, "reply")
	}))
	defer server.Close()
	client := Client{URL: server.URL + "/.well-known/cmp"}
	if _, err := client.Exchange(t.Context(), []byte("request")); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodPost || got.URL.Path != "/.well-known/cmp" || string(body) != "request" {
		t.Errorf("%s %s %q", got.Method, got.URL, body)
	}
	if got.ContentLength != 7 || len(got.TransferEncoding) != 0 || got.Header.Get("Content-Type") != mediaType || !got.Close {
		t.Errorf("length %d, encoding %v, header %v, close %t", got.ContentLength, got.TransferEncoding, got.Header, got.Close)
	}
}

// flaky refuses the first connections and counts all of them.
type flaky struct {
	refuse int32
	dials  atomic.Int32
	next   net.Dialer
}

func (f *flaky) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if f.dials.Add(1) <= f.refuse {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	return f.next.DialContext(ctx, network, address)
}

func TestExchangeRepeatsOnlyWhatWasNotSent(t *testing.T) {
	t.Run("no connection at first", func(t *testing.T) {
		url, requests := answers(t, 200, map[string]string{"Content-Type": mediaType}, "reply")
		f := &flaky{refuse: dialRetries}
		client := Client{URL: url, HTTP: &http.Client{Transport: &http.Transport{DialContext: f.dial, DisableKeepAlives: true}}}
		if _, err := client.Exchange(t.Context(), []byte("request")); err != nil {
			t.Fatal(err)
		}
		if f.dials.Load() != dialRetries+1 || requests.Load() != 1 {
			t.Errorf("%d connections, %d requests", f.dials.Load(), requests.Load())
		}
	})
	t.Run("never a connection", func(t *testing.T) {
		f := &flaky{refuse: 1000}
		client := Client{URL: "http://user:password@ca.example/path?query", HTTP: &http.Client{Transport: &http.Transport{DialContext: f.dial}}}
		_, err := client.Exchange(t.Context(), []byte("request"))
		var failure *TransportError
		if !errors.As(err, &failure) || failure.Sent || !failure.Retryable() || f.dials.Load() != dialRetries+1 {
			t.Errorf("%v after %d connections: %+v", err, f.dials.Load(), failure)
		}
		if text := err.Error(); text != "POST http://ca.example/path: dial tcp: connection refused" {
			t.Errorf("text %q", text)
		}
	})
	t.Run("connection closed without an answer", func(t *testing.T) {
		url, connections := hangsUp(t)
		client := Client{URL: url}
		_, err := client.Exchange(t.Context(), []byte("request"))
		var failure *TransportError
		if !errors.As(err, &failure) || !failure.Sent || !failure.Retryable() || connections.Load() != 1 {
			t.Errorf("%v after %d connections: %+v", err, connections.Load(), failure)
		}
	})
	t.Run("no URL", func(t *testing.T) {
		for _, url := range []string{"", "ca.example", "ftp://ca.example/", "http://", "http://user:pass word@x/", "://"} {
			client := Client{URL: url}
			_, err := client.Exchange(t.Context(), nil)
			var failure *TransportError
			if !errors.As(err, &failure) || failure.Retryable() || strings.Contains(err.Error(), "pass") {
				t.Errorf("%q: %v", url, err)
			}
		}
	})
}

// hangsUp reads a request and closes the connection.
func hangsUp(t testing.TB) (url string, connections *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_, _ = conn.Read(make([]byte, 4096))
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return "http://" + listener.Addr().String(), connections
}

// Header and body leave in one write, so that no delayed acknowledgement comes between.
func TestExchangeWritesOnce(t *testing.T) {
	url, _ := answers(t, 200, map[string]string{"Content-Type": mediaType}, "reply")
	client := Client{URL: url}
	transport := client.transport()
	var writes atomic.Int32
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &countingConn{Conn: conn, writes: &writes}, err
	}
	client.HTTP = &http.Client{Transport: transport}
	if _, err := client.Exchange(t.Context(), make([]byte, 20_000)); err != nil {
		t.Fatal(err)
	}
	if got := writes.Load(); got != 1 {
		t.Errorf("%d writes, want 1", got)
	}
}

type countingConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

func TestExchangeTimesOut(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	client := Client{URL: server.URL, Timeout: 20 * time.Millisecond}
	_, err := client.Exchange(t.Context(), []byte("request"))
	var failure *TransportError
	if !errors.As(err, &failure) || !errors.Is(err, context.DeadlineExceeded) || !failure.Sent || !failure.Retryable() {
		t.Errorf("%v: %+v", err, failure)
	}
}

// served is a CA behind HTTP that answers whatever is asked.
type served struct {
	*scene
	waits int // pollRep to send before the certificate

	mu    sync.Mutex
	first []byte
	asked []BodyType
}

func (s *served) start(t testing.TB) *Client {
	t.Helper()
	server := httptest.NewServer(s.handler(t))
	t.Cleanup(server.Close)
	return &Client{URL: server.URL}
}

func (s *served) handler(t testing.TB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(s.serve(t, request))
	})
}

func (s *served) serve(t testing.TB, request []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := mustParse(t, request)
	s.asked = append(s.asked, m.Type)
	switch {
	case m.Type == TypeCertConf:
		return seal(t, s.ca.confirmed(t, request), s.reply)
	case m.Type == TypePollReq && s.waits > 0:
		s.waits--
		return seal(t, s.ca.pollRep(t, request, 0), s.reply)
	case m.Type == TypePollReq:
		granted := s.ca.granted(t, s.first)
		granted.Header.RecipNonce = m.Header.SenderNonce
		return seal(t, granted, s.reply)
	case s.waits > 0:
		s.first = request
		return seal(t, s.ca.waiting(t, request), s.reply)
	default:
		return seal(t, s.ca.granted(t, request), s.reply)
	}
}

func TestDo(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		s := &served{scene: signed(t)}
		issued, err := s.start(t).Do(t.Context(), s.cfg, s.req)
		if err != nil || !equalKeys(issued.Certificate.PublicKey, s.req.Key.Public()) {
			t.Fatalf("%+v, %v", issued, err)
		}
		if want := []BodyType{TypeIR, TypeCertConf}; !slices.Equal(s.asked, want) {
			t.Errorf("sent %v, want %v", s.asked, want)
		}
	})
	t.Run("after polling", func(t *testing.T) {
		s := &served{scene: shared(t), waits: 1}
		issued, err := s.start(t).Do(t.Context(), s.cfg, s.req)
		if err != nil || issued == nil {
			t.Fatalf("%+v, %v", issued, err)
		}
		if want := []BodyType{TypeIR, TypePollReq, TypePollReq, TypeCertConf}; !slices.Equal(s.asked, want) {
			t.Errorf("sent %v, want %v", s.asked, want)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s := &served{scene: signed(t)}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.start(t).Do(ctx, s.cfg, s.req); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
	})
	t.Run("refused certificate", func(t *testing.T) {
		s := &served{scene: signed(t)}
		s.cfg.Trust.IssuedRoots = append(s.cfg.Trust.IssuedRoots, newAuthority(t, "Other").root)
		issued, err := s.start(t).Do(t.Context(), s.cfg, s.req)
		var refused *ReplyError
		if issued != nil || !errors.As(err, &refused) {
			t.Errorf("%+v, %v", issued, err)
		}
		if want := []BodyType{TypeIR, TypeCertConf}; !slices.Equal(s.asked, want) {
			t.Errorf("sent %v, want %v: the CA must be told", s.asked, want)
		}
	})
}
