package cmpcmd

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// tlsSite is a site whose CA is also reached over TLS, under the name in the
// certificate of httptest, and wants to see a certificate of its own.
func tlsSite(t *testing.T) (s *site, line string) {
	s = newSite(t, responder.Config{})
	s.identity()
	front := httptest.NewUnstartedServer(s.ca.Server)
	clients := x509.NewCertPool()
	clients.AddCert(s.ca.CACertificate())
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	front.StartTLS()
	t.Cleanup(front.Close)
	s.pem("tls.pem", "CERTIFICATE", front.Certificate().Raw)
	return s, "-cmd cr SIGN -newkey @new.key -subject /CN=t -certout @c.pem -server " + front.URL + "/pkix "
}

func TestTLS(t *testing.T) {
	s, line := tlsSite(t)
	const own = "-tls_cert @id.pem -tls_key @id.key "
	tests := []struct{ name, options, fail string }{
		{"both authenticated", "-tls_used -tls_trusted @tls.pem " + own, ""},
		{"by another name", "-tls_used -tls_trusted @tls.pem -tls_host example.com " + own, ""},
		{"by a wrong name", "-tls_used -tls_trusted @tls.pem -tls_host other.example " + own, "not other.example"},
		{"server not trusted", "-tls_used -tls_trusted @ca.pem " + own, "certificate signed by unknown authority"},
		{"server not authenticated", own, ""},
		{"client not authenticated", "-tls_used -tls_trusted @tls.pem", "certificate required"},
		{"key of another", "-tls_used -tls_trusted @tls.pem -tls_cert @id.pem -tls_key @new.key", "-tls_key is not the key of -tls_cert"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkError(t, s.run(line+tt.options).err, tt.fail)
		})
	}
	if got := s.must(line + own); !strings.Contains(got.log, "the TLS server is not authenticated") {
		t.Errorf("there is no warning: %s", got.log)
	}
}

func TestProxy(t *testing.T) {
	s := newSite(t, responder.Config{})
	var passed atomic.Int32
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		passed.Add(1)
		r.Out.URL = &url.URL{Scheme: "http", Host: r.In.Host, Path: r.In.URL.Path}
	}})
	t.Cleanup(proxy.Close)
	const line = "-cmd ir MAC -newkey @id.key -subject /CN=p -certout @c.pem -implicit_confirm "
	for _, tt := range []struct {
		name, options string
		through       bool
	}{
		{"given", "-proxy " + proxy.URL, true},
		{"given without a scheme", "-proxy " + strings.TrimPrefix(proxy.URL, "http://") + "/ignored", true},
		{"given with an exception", "-no_proxy other,127.0.0.1 -proxy " + proxy.URL, false},
		{"none", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := passed.Load()
			s.must(line + tt.options)
			if through := passed.Load() > before; through != tt.through {
				t.Errorf("through the proxy: %t, want %t", through, tt.through)
			}
		})
	}
	t.Setenv("http_proxy", strings.Replace(proxy.URL, "://", "://user:password@", 1))
	before := passed.Load()
	if got := s.must(line); passed.Load() == before || strings.Contains(got.log, "password") {
		t.Errorf("http_proxy was not used, or its password is shown: %s", got.log)
	}
	t.Setenv("NO_PROXY", "127.0.0.1")
	before = passed.Load()
	if s.must(line); passed.Load() != before {
		t.Error("NO_PROXY was not obeyed")
	}
}

func TestTimeouts(t *testing.T) {
	s := newSite(t, responder.Config{})
	held := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-held }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(held) })
	const line = "-cmd ir MAC -newkey @id.key -subject /CN=p -certout @c.pem "
	checkError(t, s.run(line+"-msg_timeout 1 -server "+silent.URL).err, "deadline exceeded")
	s.ca.Behave(func(b *responder.Behaviour) { b.Wait = -1 })
	checkError(t, s.run(line+"-total_timeout 1").err, "the total time of the transaction is over")
	// an answer to certConf that does not come has what is left of it, not as much again
	s.ca.Behave(func(b *responder.Behaviour) {
		b.Wait, b.NoImplicitConfirm, b.Delay, b.Only = 0, true, time.Hour, []cmp.BodyType{cmp.TypePKIConf}
	})
	checkError(t, s.run(line+"-total_timeout 1").err, "the total time of the transaction is over")
}
