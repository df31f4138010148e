package cmpcmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// Times for one message and its answer.
const (
	defaultMessageTimeout = 120 * time.Second
	forever               = 100 * 365 * 24 * time.Hour
)

// Values of -keep_alive.
const (
	keepNone     = 0
	keepIfKept   = 1
	keepRequired = 2
)

// server is where -server and -path point to.
type server struct {
	tls  bool
	host string // without port and brackets
	port string
	path string // begins with a slash
}

func (a server) String() string {
	scheme := "http"
	if a.tls {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(a.host, a.port) + a.path
}

// parseServer reads [http[s]://][userinfo@]host[:port][/path][?query][#fragment].
// User information and fragment are dropped. A scheme is http unless it is https.
func parseServer(text string) (server, error) {
	a := server{port: "80"}
	rest, isHTTPS := strings.CutPrefix(text, "https://")
	if isHTTPS {
		a.tls, a.port = true, "443"
	}
	rest = strings.TrimPrefix(rest, "http://")
	rest, _, _ = strings.Cut(rest, "#")
	end := len(rest)
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		end = i
	}
	a.path = rooted(rest[end:])
	authority := rest[:end]
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	if strings.HasSuffix(authority, "]") || !strings.Contains(authority, ":") {
		authority += ":" + a.port
	}
	var err error
	if a.host, a.port, err = net.SplitHostPort(authority); err != nil {
		return server{}, errServer
	}
	if n, err := strconv.ParseUint(a.port, 10, 16); err != nil || n == 0 || a.host == "" || strings.ContainsAny(a.host, " \t[]") {
		return server{}, errServer
	}
	return a, nil
}

var errServer = errors.New("not [http[s]://]host[:port][/path]")

func rooted(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

// client makes the HTTP client; nil without -server.
func (b *builder) client() (*cmp.Client, error) {
	if !b.has("server") {
		return nil, nil
	}
	a, err := parseServer(b.values["server"])
	if err != nil {
		return nil, fmt.Errorf("-server: %w", err)
	}
	if a.tls && !b.has("tls_used") {
		b.log.warn("assuming -tls_used since -server says https")
	}
	a.tls = a.tls || b.has("tls_used")
	if b.has("path") {
		a.path = rooted(b.values["path"])
	}
	c := &cmp.Client{URL: a.String(), Timeout: b.messageTimeout(), KeepAlive: b.number("keep_alive", keepIfKept) != keepNone}
	if c.Proxy, err = b.proxy(a); err != nil {
		return nil, err
	}
	if a.tls {
		c.TLS, err = b.tls(a)
	}
	return c, err
}

// goesOn tells whether a message may need another one after its answer, so that
// a persistent connection is worth asking for.
func goesOn(kind cmp.BodyType) bool {
	switch kind {
	case cmp.TypeIR, cmp.TypeCR, cmp.TypeKUR, cmp.TypeP10CR, cmp.TypePollReq:
		return true
	default:
		return false
	}
}

// send sends a message and wants the server to keep the connection, if that is
// required and there may be another message.
func (x *exchange) send(ctx context.Context, kind cmp.BodyType, message []byte) ([]byte, error) {
	kept := false
	watched := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{PutIdleConn: func(err error) { kept = err == nil }})
	answer, err := x.client.Exchange(watched, message)
	if err != nil {
		return nil, fmt.Errorf("sending %s: %w", kind, err)
	}
	if x.keep == keepRequired && goesOn(kind) && !kept {
		return nil, fmt.Errorf("answer to %s: the server does not keep connections, and -keep_alive 2 requires that", kind)
	}
	return answer, nil
}

func (b *builder) messageTimeout() time.Duration {
	total := seconds(b.number("total_timeout", 0))
	timeout := defaultMessageTimeout
	switch n := b.number("msg_timeout", -1); {
	case n == 0:
		timeout = forever
	case n > 0:
		return seconds(n)
	}
	if total > 0 {
		return min(timeout, total)
	}
	return timeout
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// proxy is the proxy to use for a server; nil: none.
func (b *builder) proxy(a server) (func(*http.Request) (*url.URL, error), error) {
	text, names := b.values["proxy"], "http_proxy"
	if a.tls {
		names = "https_proxy"
	}
	if text == "" {
		text = firstEnv(names, strings.ToUpper(names))
	}
	except := b.values["no_proxy"]
	if except == "" {
		except = firstEnv("no_proxy", "NO_PROXY")
	}
	if text == "" || slices.Contains(splitList(except), a.host) {
		return nil, nil
	}
	p, err := parseServer(text)
	if err != nil {
		return nil, errors.New("-proxy (or http_proxy, https_proxy): not [http[s]://]host[:port]")
	}
	b.log.info("using the proxy %s", net.JoinHostPort(p.host, p.port))
	return http.ProxyURL(&url.URL{Scheme: "http", Host: net.JoinHostPort(p.host, p.port)}), nil
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// tls is the configuration of TLS, whose trust has nothing to do with CMP's.
func (b *builder) tls(a server) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: a.host, MinVersion: tls.VersionTLS12}
	if b.has("tls_host") {
		cfg.ServerName = b.values["tls_host"]
	}
	roots, err := b.certificatesOf("tls_trusted")
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		b.log.warn("TLS without -tls_trusted: the TLS server is not authenticated (CMP has its own protection)")
		cfg.InsecureSkipVerify = true // as openssl cmp does; CMP messages are protected by themselves
	}
	cfg.RootCAs = x509.NewCertPool()
	for _, root := range roots {
		cfg.RootCAs.AddCert(root)
	}
	return cfg, b.tlsIdentity(cfg)
}

// tlsIdentity adds our certificate, its chain and -tls_extra.
func (b *builder) tlsIdentity(cfg *tls.Config) error {
	switch {
	case !b.has("tls_cert") && !b.has("tls_key") && !b.has("tls_keypass"):
		b.log.info("TLS without -tls_key: no authentication to the TLS server")
		return nil
	case !b.has("tls_key"):
		return errors.New("-tls_key is missing")
	case !b.has("tls_cert"):
		return errors.New("-tls_cert is missing")
	}
	cert, more, err := b.certificateOf("tls_cert")
	if err != nil {
		return err
	}
	extra, err := b.certificatesOf("tls_extra")
	if err != nil {
		return err
	}
	key, err := b.privateKey("tls_key")
	if err != nil {
		return err
	}
	if !sameKey(key.Public(), cert.PublicKey) {
		return errors.New("-tls_key is not the key of -tls_cert")
	}
	own := tls.Certificate{PrivateKey: key, Certificate: [][]byte{cert.Raw}}
	for _, c := range append(withoutRoot(chainOf(cert, more, b.untrusted)), extra...) {
		own.Certificate = append(own.Certificate, c.Raw)
	}
	cfg.Certificates = []tls.Certificate{own}
	return nil
}
