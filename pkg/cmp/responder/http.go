package responder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

const (
	contentType       = "application/pkixcmp"      // RFC 9811 §3.3
	contentTypePoll   = "application/pkixcmp-poll" // of older clients
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	shutdownTimeout   = 10 * time.Second
	maxHeaderBytes    = 16 << 10
)

// ServeHTTP answers a POST of one PKIMessage, on any path (RFC 9811 §3), and a
// GET of a path that ends in /crl with the CRL in DER (RFC 2585 §4).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/crl") {
		s.serveCRL(w)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "CMP needs POST", http.StatusMethodNotAllowed)
		return
	}
	if b := s.behaves(); b.OnlyHTTP10 && r.ProtoAtLeast(1, 1) || b.OnlyHTTP11 && !r.ProtoAtLeast(1, 1) {
		w.WriteHeader(http.StatusHTTPVersionNotSupported)
		return
	}
	if !isCMP(r.Header.Get("Content-Type")) {
		http.Error(w, "CMP needs Content-Type "+contentType, http.StatusUnsupportedMediaType)
		return
	}
	der, err := io.ReadAll(http.MaxBytesReader(w, r.Body, cmp.MaxMessageBytes))
	if err != nil {
		readError(w, err)
		return
	}
	reply, kind, err := s.respond(der)
	s.send(r.Context(), w, reply, kind, err)
}

func (s *Server) serveCRL(w http.ResponseWriter) {
	crl, err := s.crl(s.cfg.Now())
	if err != nil {
		s.cfg.Log.Error("CRL", "err", err)
		http.Error(w, "the CA failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	_, _ = w.Write(crl) // the client is gone if this fails
}

func isCMP(header string) bool {
	mediaType, _, err := mime.ParseMediaType(header)
	return err == nil && (mediaType == contentType || mediaType == contentTypePoll)
}

func readError(w http.ResponseWriter, err error) {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		http.Error(w, "the message is too large", http.StatusRequestEntityTooLarge)
		return
	}
	http.Error(w, "the message could not be read", http.StatusBadRequest)
}

// send delivers an answer, or what the behaviour has in its place.
func (s *Server) send(ctx context.Context, w http.ResponseWriter, reply []byte, kind cmp.BodyType, problem error) {
	faults := s.behaves().faults(kind)
	if faults.Delay > 0 && !sleep(ctx, faults.Delay) {
		return
	}
	var syntax *cmp.SyntaxError
	status := http.StatusOK
	switch {
	case s.dropReply(kind):
		panic(http.ErrAbortHandler) // closes the connection without a word
	case faults.HTTPStatus != 0:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(faults.HTTPStatus)
		_, _ = io.WriteString(w, "<html><body>not now</body></html>\n")
		return
	case reply == nil:
		http.Error(w, "the CA failed", http.StatusInternalServerError)
		return
	case errors.As(problem, &syntax):
		status = http.StatusBadRequest
	case faults.CMPStatus != 0:
		status = faults.CMPStatus
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(reply) // the client is gone if this fails
}

// sleep waits, and tells whether it was for that long.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Running is a Server that listens.
type Running struct {
	*Server
	URL string // to POST to

	http *http.Server
	done chan error
}

// Start runs a new Server on an address of the loopback interface, host and
// port; an empty address, like port 0, takes a free one. Close ends it.
func Start(cfg Config, address string) (*Running, error) {
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return s.Start(address)
}

// Start listens like the function of this name; Close of what it returns ends
// the listening, after which s can be started again.
func (s *Server) Start(address string) (*Running, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	r := &Running{Server: s, URL: "http://" + listener.Addr().String() + "/.well-known/cmp", done: make(chan error, 1)}
	r.http = &http.Server{
		Handler: s, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	go func() { r.done <- r.http.Serve(listener) }()
	return r, nil
}

// Close refuses new connections, lets messages under way be answered for up to
// ten seconds, and returns when nothing runs any more.
func (r *Running) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := r.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, r.http.Close())
	}
	if served := <-r.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
