package responder

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/certloop/certloop/pkg/cmp"
)

func TestHTTP(t *testing.T) {
	l := newLab(t, Config{})
	der := l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil)
	cases := []struct {
		name, method, contentType string
		body                      []byte
		want                      int
		cmp                       bool
	}{
		{"CMP", "POST", "application/pkixcmp", der, 200, true},
		{"in capitals", "POST", "Application/PKIXCMP; charset=x", der, 200, true},
		{"the old type", "POST", "application/pkixcmp-poll", der, 200, true},
		{"GET", "GET", "application/pkixcmp", nil, 405, false},
		{"PUT", "PUT", "application/pkixcmp", der, 405, false},
		{"another type", "POST", "application/octet-stream", der, 415, false},
		{"no type", "POST", "", der, 415, false},
		{"empty", "POST", "application/pkixcmp", nil, 400, true},
		{"garbage", "POST", "application/pkixcmp", []byte("hello"), 400, true},
		{"an octet too many", "POST", "application/pkixcmp", append(bytes.Clone(der), 0), 400, true},
		{"an octet missing", "POST", "application/pkixcmp", der[:len(der)-1], 400, true},
		{"too large", "POST", "application/pkixcmp", make([]byte, cmp.MaxMessageBytes+1), 413, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), c.method, "/any/path", bytes.NewReader(c.body))
			r.Header.Set("Content-Type", c.contentType)
			w := httptest.NewRecorder()
			l.ca.ServeHTTP(w, r)
			if w.Code != c.want || (w.Header().Get("Content-Type") == contentType) != c.cmp {
				t.Errorf("got %d %s, want %d and CMP %t", w.Code, w.Header().Get("Content-Type"), c.want, c.cmp)
			}
			if !c.cmp || c.want == 200 {
				return
			}
			m, err := cmp.ParseMessage(w.Body.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			l.TB = t
			l.refusedWith(m, cmp.FailBadDataFormat)
		})
	}
}

func TestHTTPVersions(t *testing.T) {
	l := newLab(t, Config{})
	der := l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil)
	for _, c := range []struct {
		behaviour Behaviour
		minor     int
		want      int
	}{
		{Behaviour{}, 0, 200},
		{Behaviour{}, 1, 200},
		{Behaviour{OnlyHTTP10: true}, 0, 200},
		{Behaviour{OnlyHTTP10: true}, 1, 505},
		{Behaviour{OnlyHTTP11: true}, 0, 505},
		{Behaviour{OnlyHTTP11: true}, 1, 200},
	} {
		l.behave(c.behaviour)
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", bytes.NewReader(der))
		r.Header.Set("Content-Type", contentType)
		r.ProtoMajor, r.ProtoMinor = 1, c.minor
		w := httptest.NewRecorder()
		l.ca.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("HTTP/1.%d, only 1.0 %t, only 1.1 %t: got %d, want %d", c.minor, c.behaviour.OnlyHTTP10, c.behaviour.OnlyHTTP11, w.Code, c.want)
		}
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	var text bytes.Buffer
	l := newLab(t, Config{Log: slog.New(slog.NewTextHandler(&text, nil))})
	l.enrol(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
	l.parsed(l.messageBy(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil,
		&cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret + "x")}))
	l.ask([]byte("garbage"))
	if got := strings.Count(text.String(), "\n"); got != 4 {
		t.Errorf("lines: got %d, want 4\n%s", got, text.String())
	}
	if strings.Contains(text.String(), testSecret) {
		t.Errorf("the secret is in the log:\n%s", text.String())
	}
	for _, want := range []string{"received=ir", "answer=pkiconf", "failInfo=badMessageCheck", "received=undecodable", "subject=\"CN=a\""} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, text.String())
		}
	}
}

func TestConfiguration(t *testing.T) {
	for name, cfg := range map[string]Config{
		"empty secret":    {SharedSecrets: map[string]string{"a": ""}},
		"empty reference": {SharedSecrets: map[string]string{"": "a"}},
		"validity":        {Validity: -1},
		"bound":           {MaxOpen: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), testSecret) {
			t.Errorf("%s: the error shows a secret", name)
		}
	}
	failing := Config{Rand: io.MultiReader()}
	if _, err := New(failing); err == nil {
		t.Error("a CA without random bytes")
	}
}

// failingReader has some random bytes, and then none.
type failingReader struct{ left int }

func (r *failingReader) Read(p []byte) (int, error) {
	if r.left -= len(p); r.left < 0 {
		return 0, errors.New("no random bytes left")
	}
	for i := range p {
		p[i] = byte(r.left + i)
	}
	return len(p), nil
}

func TestOwnFailures(t *testing.T) {
	source := &failingReader{left: 1 << 20}
	l := newLab(t, Config{Rand: source})
	der := l.message(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t)), nil)
	source.left = 16 // a nonce, but no serial number
	reply, err := l.ca.Respond(der)
	if err == nil {
		t.Error("the operator is not told")
	}
	m, parseErr := cmp.ParseMessage(reply)
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	l.refusedWith(m, cmp.FailSystemFailure)
	source.left = 1 << 20
	if certificateIn(l.parsed(der)) == nil {
		t.Error("the same request, later, brings no certificate")
	}
}

func revocation(issuer cmp.Name, serial *big.Int) cmp.RevReq {
	return cmp.RevReq{{CertDetails: cmp.CertTemplate{Issuer: issuer, SerialNumber: serial}}}
}

func TestRevocation(t *testing.T) {
	l := newLab(t, Config{})
	key, strangerKey := newKey(t), newKey(t)
	cert := l.enrol(l.client(), request(cmp.TypeIR, name(t, "a"), key)).Certificate
	stranger := l.enrol(l.client(), request(cmp.TypeIR, name(t, "b"), strangerKey)).Certificate
	own := &cmp.Signer{Key: key, Certificate: cert}
	other := &cmp.Signer{Key: strangerKey, Certificate: stranger}
	reason := revocation(cert.RawIssuer, cert.SerialNumber)
	reason[0].CRLEntryDetails = append(reason[0].CRLEntryDetails, dnsName(t, "x"))
	reason[0].CRLEntryDetails[0].Id, reason[0].CRLEntryDetails[0].Value = cmp.ExtensionCRLReason, []byte{10, 1, 7}
	cases := []struct {
		name string
		body cmp.RevReq
		by   cmp.Credential
		want cmp.FailureInfo
	}{
		{"by somebody else", revocation(cert.RawIssuer, cert.SerialNumber), other, cmp.FailNotAuthorized},
		{"unknown serial", revocation(cert.RawIssuer, big.NewInt(5)), own, cmp.FailBadCertID},
		{"another issuer", revocation(name(t, "x"), cert.SerialNumber), own, cmp.FailBadCertID},
		{"no serial", revocation(cert.RawIssuer, nil), own, cmp.FailBadRequest},
		{"two", append(revocation(cert.RawIssuer, cert.SerialNumber), revocation(cert.RawIssuer, cert.SerialNumber)...), own, cmp.FailBadRequest},
		{"reason 7", reason, own, cmp.FailBadDataFormat},
		{"by its holder", revocation(cert.RawIssuer, cert.SerialNumber), own, 0},
		{"again", revocation(cert.RawIssuer, cert.SerialNumber), other, cmp.FailNotAuthorized},
		{"by the revoked", revocation(cert.RawIssuer, cert.SerialNumber), own, cmp.FailSignerNotTrusted | cmp.FailCertRevoked},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l.TB = t
			m := l.parsed(l.messageBy(cmp.TypeRR, c.body, nil, c.by))
			if c.want != 0 {
				l.refusedWith(m, c.want)
			} else if b, ok := m.Body.(*cmp.RevRep); !ok || b.Status[0].Status != cmp.StatusAccepted || b.RevCerts[0].SerialNumber.Cmp(cert.SerialNumber) != 0 {
				t.Errorf("got %s %v, want an rp that accepts", m.Type, m.Body)
			}
		})
	}
	l.TB = t
	issued := l.ca.Issued()
	if !issued[0].Revoked || issued[0].Reason != "unspecified" || issued[1].Revoked {
		t.Errorf("got %t %q, %t; want true unspecified, false", issued[0].Revoked, issued[0].Reason, issued[1].Revoked)
	}
	checkCRL(t, l, cert)
}

func checkCRL(t *testing.T, l *lab, revoked *x509.Certificate) {
	t.Helper()
	questions := cmp.GenMsg{{Type: cmp.InfoCACerts}, {Type: cmp.InfoCurrentCRL}, {Type: cmp.InfoCRLStatusList}, {Type: cmp.InfoRootCACert}, {Type: asn1.ObjectIdentifier{1, 2, 3}}}
	m := l.parsed(l.message(cmp.TypeGenM, questions, nil))
	answers, ok := m.Body.(cmp.GenMsg)
	if !ok || len(answers) != len(questions) {
		t.Fatalf("got %s with %d answers, want genp with %d", m.Type, len(answers), len(questions))
	}
	var certs []asn1.RawValue
	if _, err := asn1.Unmarshal(answers[0].Value, &certs); err != nil || len(certs) != 1 || !bytes.Equal(certs[0].FullBytes, l.ca.CACertificate().Raw) {
		t.Errorf("caCerts: got %d certificates, %v; want the root", len(certs), err)
	}
	crl, err := x509.ParseRevocationList(answers[1].Value)
	if err != nil {
		t.Fatal(err)
	}
	if err := crl.CheckSignatureFrom(l.ca.IssuingCertificate()); err != nil {
		t.Error(err)
	}
	if len(crl.RevokedCertificateEntries) != 1 || crl.RevokedCertificateEntries[0].SerialNumber.Cmp(revoked.SerialNumber) != 0 {
		t.Errorf("the CRL has %d entries, want the revoked certificate alone", len(crl.RevokedCertificateEntries))
	}
	if !answers[2].Type.Equal(cmp.InfoCRLs) || !answers[3].Type.Equal(cmp.InfoRootCAKeyUpdate) || answers[3].Value != nil || answers[4].Value != nil {
		t.Errorf("got %v %v %v", answers[2].Type, answers[3], answers[4])
	}
}

// TestWhereTheCRLIs: over HTTP, as genm for who asks for ours, and in certificates.
func TestWhereTheCRLIs(t *testing.T) {
	const url = "http://ca.example/crl"
	l := newLab(t, Config{CRLDistributionPoints: []string{url}})
	cert, _ := l.identity()
	if points := cert.CRLDistributionPoints; len(points) != 1 || points[0] != url {
		t.Errorf("distribution points %v, want %s", points, url)
	}
	w := httptest.NewRecorder()
	l.ca.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/.well-known/cmp/crl", nil))
	list, err := x509.ParseRevocationList(w.Body.Bytes())
	if err != nil || list.CheckSignatureFrom(l.ca.IssuingCertificate()) != nil || w.Header().Get("Content-Type") != "application/pkix-crl" {
		t.Errorf("GET: %d %s, %v, want our CRL", w.Code, w.Header().Get("Content-Type"), err)
	}
	for name, tt := range map[string]struct {
		issuer cmp.Name
		lists  int
	}{"ours": {cert.RawIssuer, 1}, "somebody else's": {name(t, "x"), 0}} {
		m := l.parsed(l.message(cmp.TypeGenM, cmp.GenMsg{cmp.CRLStatusList(tt.issuer, l.Now())}, nil))
		if lists, err := m.Body.(cmp.GenMsg).CRLs(); err != nil || len(lists) != tt.lists {
			t.Errorf("%s: %d lists, %v, want %d", name, len(lists), err, tt.lists)
		}
	}
}

// TestInfos: what a server has no answer of its own for can be configured.
func TestInfos(t *testing.T) {
	tags := cmp.InfoTypeAndValue{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 16}, Value: []byte{0x30, 4, 12, 2, 'd', 'e'}}
	l := newLab(t, Config{Infos: []cmp.InfoTypeAndValue{tags}})
	m := l.parsed(l.message(cmp.TypeGenM, cmp.GenMsg{{Type: tags.Type, Value: tags.Value}, {Type: cmp.InfoCertReqTemplate}}, nil))
	if got, ok := m.Body.(cmp.GenMsg); !ok || len(got) != 2 || !bytes.Equal(got[0].Value, tags.Value) || got[1].Value != nil {
		t.Errorf("got %v, want the configured value and none", m.Body)
	}
}

func BenchmarkEnrolment(b *testing.B) {
	for _, dir := range []string{"", b.TempDir()} {
		kind := "memory"
		if dir != "" {
			kind = "files"
		}
		b.Run(kind, func(b *testing.B) {
			l := newLab(b, Config{Dir: dir})
			key := newKey(b)
			cfg, req := l.client(), request(cmp.TypeIR, name(b, "a"), key)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.finish(l.begin(cfg, req)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
