package cmpcmd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// secretText is the secret of all tests with the responder. It must not be seen anywhere.
const secretText = "a-secret-that-must-not-be-seen"

// result is what a run has written.
type result struct {
	out, log string
	err      error
}

// run1 runs one command line.
func run1(tb testing.TB, args ...string) result {
	tb.Helper()
	var out, log bytes.Buffer
	err := execute(tb.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &log})
	return result{out.String(), log.String(), err}
}

// site is a CA and a directory with keys, where a client works.
type site struct {
	testing.TB
	ca  *responder.Running
	dir string
}

func newSite(t *testing.T, cfg responder.Config) *site {
	t.Helper()
	t.Setenv("OPENSSL_CONF", "")
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"} {
		t.Setenv(name, "")
	}
	t.Setenv("CERTLOOP_TEST_SECRET", secretText)
	cfg.SharedSecrets, cfg.AllowSHA1 = map[string]string{"1234": secretText}, true
	ca, err := responder.Start(cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Errorf("closing the CA: %v", err)
		}
	})
	s := &site{TB: t, ca: ca, dir: t.TempDir()}
	s.pem("ca.pem", "CERTIFICATE", ca.CACertificate().Raw)
	for _, name := range []string{"id.key", "new.key"} {
		s.key(name)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) pem(name, kind string, der []byte) {
	s.Helper()
	writeTestFile(s, s.path(name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func (s *site) key(name string) {
	s.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.Fatal(err)
	}
	s.pem(name, "PRIVATE KEY", der)
}

// csr writes a PKCS #10 request for the key of a file.
func (s *site) csr(name, key, commonName string) {
	s.Helper()
	signer, err := parseKey([]byte(readTestFile(s, s.path(key))), noPhrase)
	if err != nil {
		s.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}, signer)
	if err != nil {
		s.Fatal(err)
	}
	s.pem(name, "CERTIFICATE REQUEST", der)
}

// run runs a command line at the site: @name is a file of its directory, MAC
// and SIGN stand for the two ways to authenticate. Nothing secret may be shown.
func (s *site) run(line string) result {
	s.Helper()
	line = strings.ReplaceAll(line, "MAC", "-ref 1234 -secret env:CERTLOOP_TEST_SECRET")
	line = strings.ReplaceAll(line, "SIGN", "-cert @id.pem -key @id.key -trusted @ca.pem")
	line = strings.ReplaceAll(line, "@", s.dir+"/")
	args := append([]string{"-server", strings.TrimPrefix(s.ca.URL, "http://")}, strings.Fields(line)...)
	got := run1(s, args...)
	said := got.out + got.log
	if got.err != nil {
		said += got.err.Error()
	}
	if strings.Contains(said, secretText) || strings.Contains(said, "PRIVATE KEY") {
		s.Errorf("something secret is shown: %s", said)
	}
	return got
}

// must runs a command line that has to succeed.
func (s *site) must(line string) result {
	s.Helper()
	got := s.run(line)
	if got.err != nil {
		s.Fatalf("%s: %v\n%s", line, got.err, got.log)
	}
	return got
}

// certs reads the certificates of a file, which may be empty but must be there.
func (s *site) certs(name string) []*x509.Certificate {
	s.Helper()
	if readTestFile(s, s.path(name)) == "" {
		return nil
	}
	certs, err := certificates(s.path(name), noPhrase)
	if err != nil {
		s.Fatal(err)
	}
	return certs
}

// identity gives the site a certificate to sign with.
func (s *site) identity() {
	s.Helper()
	s.must("-cmd ir MAC -newkey @id.key -subject /O=shop/CN=identity -sans id.example -certout @id.pem")
}

func TestEnrolment(t *testing.T) {
	s := newSite(t, responder.Config{Intermediate: true})
	s.must("-cmd ir MAC -newkey @id.key -subject /O=shop/CN=identity -sans id.example -certout @id.pem -chainout @chain.pem -cacertsout @caps.pem -extracertsout @extra.pem -srvcertout @srv.pem -days 7")
	c := s.certs("id.pem")[0]
	if got, want := cmp.Name(c.RawSubject).String(), "CN=identity,O=shop"; got != want {
		t.Errorf("subject %s, want %s", got, want)
	}
	if life := c.NotAfter.Sub(c.NotBefore); life < 6*24*time.Hour || life > 8*24*time.Hour {
		t.Errorf("lifetime %s, want 7 days", life)
	}
	if chain := s.certs("chain.pem"); len(chain) != 1 || !chain[0].Equal(s.ca.IssuingCertificate()) {
		t.Errorf("%d certificates in the chain, want the issuing CA", len(chain))
	}
	if caps := s.certs("caps.pem"); len(caps) == 0 {
		t.Error("no caPubs were saved")
	}
	if _, err := os.Stat(s.path("srv.pem")); err == nil {
		t.Error("there is a server certificate, although a MAC has protected the answer")
	}

	s.must("-cmd cr SIGN -newkey @new.key -subject /CN=web -certout @web.pem -chainout @web.pem -srvcertout @srv.pem -extracertsout @extra.pem -digest sha512")
	if certs := s.certs("web.pem"); len(certs) != 2 || len(certs[0].DNSNames) != 1 {
		t.Errorf("%d certificates with DNS names %v, want 2 with that of the reference certificate", len(certs), certs[0].DNSNames)
	}
	if srv := s.certs("srv.pem"); len(srv) != 1 || !srv[0].Equal(s.ca.IssuingCertificate()) {
		t.Error("the server's certificate was not saved")
	}
	s.must("-cmd cr SIGN -newkey @new.key -subject /CN=web -san_nodefault -certform DER -certout @web.der")
	if certs := s.certs("web.der"); len(certs[0].DNSNames) != 0 {
		t.Errorf("DNS names %v, want none with -san_nodefault", certs[0].DNSNames)
	}
	s.key("next.key")
	s.must("-cmd kur -cert @web.pem -key @new.key -trusted @ca.pem -newkey @next.key -certout @next.pem -out_trusted @ca.pem -implicit_confirm")
	if got, want := cmp.Name(s.certs("next.pem")[0].RawSubject).String(), "CN=web"; got != want {
		t.Errorf("subject after kur: %s, want %s", got, want)
	}
}

func TestProofOfPossession(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	for popo, want := range map[string]cmp.POPType{"1": cmp.POPSignature, "0": cmp.POPRAVerified, "-1": cmp.POPAbsent} {
		s.must("-cmd cr SIGN -newkey @new.key -subject /CN=p -popo " + popo + " -reqout_only @req.der")
		m, _, err := message(s.path("req.der"))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Body.(cmp.CertReqMessages)[0].POPO.Type; got != want {
			t.Errorf("-popo %s: proof of type %d, want %d", popo, got, want)
		}
		if err := m.VerifySignature(s.certs("id.pem")[0]); err != nil {
			t.Errorf("-popo %s: %v", popo, err)
		}
	}
}

func TestRequestsWithoutProtection(t *testing.T) {
	s := newSite(t, responder.Config{})
	got := s.run("-cmd ir -ref 77 -newkey @new.key -subject /CN=p -certout @c.pem -trusted @ca.pem -unprotected_requests -reqout @req.der")
	checkError(t, got.err, "peer answers error")
	m, _, err := message(s.path("req.der"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Protection != nil || m.Header.ProtectionAlg.Algorithm != nil || string(m.Header.SenderKID) != "77" {
		t.Errorf("header %+v, want no protection and senderKID 77", m.Header)
	}
}

func TestRequestOptions(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	writeTestFile(t, s.path("ext.cnf"), "[ext]\nsubjectAltName = @names\nkeyUsage = critical, digitalSignature\n1.2.3.4 = DER:0500\n[names]\nDNS.1 = a.example\nIP.1 = 10.0.0.1\n")
	s.must("-cmd cr SIGN -newkey @new.key -subject /CN=o -config @ext.cnf -reqexts ext -policy_oids 1.2.3,1.2.4 -policy_oids_critical -profile tls " +
		"-geninfo 1.2.3.4:int:5,1.2.3.5:str:five -issuer /CN=Other -extracerts @ca.pem -recipient /CN=R -reqout_only @req.der")
	m, der, err := message(s.path("req.der"))
	if err != nil {
		t.Fatal(err)
	}
	text := describe(m, len(der))
	for _, want := range []string{
		"recipient: CN=R\n", `generalInfo: certProfile = ["tls"]`, "generalInfo: 1.2.3.4 = 5\n", `generalInfo: 1.2.3.5 = "five"`, "issuer: CN=Other\n",
		`subjectAltName: DNS:"a.example", IP:10.0.0.1`, "keyUsage: critical, digitalSignature\n", "extension 1.2.3.4: 0500\n", "certificatePolicies: critical, ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the request lacks %q:\n%s", want, text)
		}
	}
	if n := len(m.ExtraCerts); n != 2 {
		t.Errorf("%d extraCerts, want the signer's and that of -extracerts", n)
	}
}

func TestRevocationAndGeneralMessages(t *testing.T) {
	s := newSite(t, responder.Config{Name: "CA"})
	s.identity()
	s.must("-cmd cr SIGN -newkey @new.key -subject /CN=a -certout @a.pem")
	s.must("-cmd rr SIGN -oldcert @a.pem -revreason 4")
	s.must("-cmd cr SIGN -newkey @new.key -subject /CN=b -certout @b.pem")
	b := s.certs("b.pem")[0]
	s.must("-cmd rr SIGN -issuer /CN=" + b.Issuer.CommonName + " -serial 0x" + b.SerialNumber.Text(16))
	s.key("c.key")
	s.must("-cmd cr SIGN -newkey @c.key -subject /CN=c -certout @c.pem")
	s.csr("c.csr", "c.key", "c")
	s.must("-cmd rr SIGN -csr @c.csr -revreason 5")
	issued := s.ca.Issued()
	for _, i := range issued[len(issued)-3:] {
		if !i.Revoked {
			t.Errorf("%s is not revoked", i.Subject)
		}
	}
	s.must("-cmd genm SIGN -infotype caCerts -cacertsout @cas.pem")
	if certs := s.certs("cas.pem"); len(certs) == 0 {
		t.Error("genm caCerts saved no certificate")
	}
	s.must("-cmd genm SIGN -infotype crlStatusList -crlcert @id.pem -crlout @crl.der")
	list, err := revocationList(s.path("crl.der"))
	if err != nil || len(list.RevokedCertificateEntries) != 3 {
		t.Errorf("CRL %v, %v, want three entries", list, err)
	}
	s.must("-cmd genm SIGN -infotype certReqTemplate -template @template.der -keyspec @keyspec.der")
	s.must("-cmd genm SIGN -infotype rootCaCert -oldwithold @ca.pem -newwithnew @new.pem -newwithold @nwo.pem -oldwithnew @own.pem")
}

func TestPollingAndFiles(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	s.ca.Wait(2, time.Second)
	line := "-cmd cr SIGN -newkey @new.key -subject /CN=polled -certout @c.pem "
	s.must(line + "-reqout @1,@2,@3,@4 -rspout @11,@12,@13,@14,@15")
	if got := s.types("1", "2", "3", "4", "11", "12", "13", "14"); !slices.Equal(got, []string{"cr", "pollReq", "pollReq", "certConf", "cp", "pollRep", "cp", "pkiconf"}) {
		t.Errorf("the files have %v", got)
	}
	if _, err := os.Stat(s.path("15")); err == nil {
		t.Error("there is a fifth answer")
	}
	want := readTestFile(t, s.path("c.pem"))

	// the recorded answers fit another run, without a server and without waiting
	offline := strings.Fields(strings.ReplaceAll("-cmd cr -cert @id.pem -key @id.key -trusted @ca.pem -newkey @new.key -subject /CN=polled -certout @offline.pem -rspin @11,@12,@13,@14", "@", s.dir+"/"))
	checkError(t, run1(t, offline...).err, "")
	if got := readTestFile(t, s.path("offline.pem")); got != want {
		t.Error("the recorded answers give another certificate")
	}
	// a recorded request is answered with the same certificate, being the same request
	s.must(line + "-reqin @1 -rspout @21")
	if got := readTestFile(t, s.path("c.pem")); got != want {
		t.Error("the recorded request gives another certificate")
	}
	// with a transactionID of its own it is a new one
	s.ca.Wait(0, 0)
	s.must(line + "-reqin @1 -reqin_new_tid -reqout @31")
	if got := readTestFile(t, s.path("c.pem")); got == want {
		t.Error("a new transactionID gives the same certificate")
	}
}

func (s *site) types(names ...string) []string {
	s.Helper()
	var types []string
	for _, name := range names {
		m, _, err := message(s.path(name))
		if err != nil {
			s.Fatal(err)
		}
		types = append(types, m.Type.String())
	}
	return types
}

func TestConfirmation(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.must("-cmd ir MAC -newkey @id.key -subject /CN=a -certout @a.pem -disable_confirm -reqout @1,@2")
	if _, err := os.Stat(s.path("2")); err == nil {
		t.Error("there is a second message, in spite of -disable_confirm")
	}
	if n := s.ca.Open(); n != 1 {
		t.Errorf("%d unconfirmed transactions, want 1", n)
	}
	s.must("-cmd ir MAC -newkey @id.key -subject /CN=a -certout @a.pem -implicit_confirm -reqout @1,@2")
	if _, err := os.Stat(s.path("2")); err == nil {
		t.Error("there is a second message, in spite of -implicit_confirm")
	}
}

// TestNothingIsSavedOnFailure: a refusal leaves files as they were.
func TestNothingIsSavedOnFailure(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.ca.Reject(cmp.FailBadCertTemplate, "not this one")
	writeTestFile(t, s.path("c.pem"), "old")
	got := s.run("-cmd ir MAC -newkey @id.key -subject /CN=a -certout @c.pem -cacertsout @caps.pem -extracertsout @extra.pem -chainout @chain.pem -rspout @answer.der")
	checkError(t, got.err, "not this one")
	if text := readTestFile(t, s.path("c.pem")); text != "old" {
		t.Errorf("-certout has %q now", text)
	}
	for _, name := range []string{"caps.pem", "extra.pem", "chain.pem"} {
		if _, err := os.Stat(s.path(name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if _, err := os.Stat(s.path("answer.der")); err != nil {
		t.Errorf("-rspout was not written: %v", err)
	}
}

func TestShowOfAnExchange(t *testing.T) {
	s := newSite(t, responder.Config{})
	got := s.must("-cmd ir MAC -newkey @id.key -subject /CN=shown -certout @c.pem -show -verbosity 3")
	for _, want := range []string{"request: PKIMessage ir,", "answer: PKIMessage ip,", "request: PKIMessage certConf,", "answer: PKIMessage pkiconf,", "subject: CN=shown\n"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("what is shown lacks %q", want)
		}
	}
	if got.log != "" {
		t.Errorf("-verbosity 3 says %q", got.log)
	}
}

func TestRepeat(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.must("-cmd ir MAC -newkey @id.key -subject /CN=again -certout @c.pem -repeat 3")
	if n := len(s.ca.Issued()); n != 3 {
		t.Errorf("%d certificates were issued, want 3", n)
	}
}

// TestUnfitOptions: what cannot be done is refused before anything is sent.
func TestUnfitOptions(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	writeTestFile(t, s.path("ext.cnf"), "[san]\nsubjectAltName = DNS:a\n[odd]\nnsComment = x\n[empty]\nkeyUsage =\n")
	before := len(s.ca.Issued())
	for name, tt := range map[string]struct{ line, fail string }{
		"no command":           {"MAC", "-cmd is missing"},
		"unknown command":      {"-cmd ccr MAC", "-cmd ccr is unknown"},
		"no credential":        {"-cmd ir -newkey @new.key -subject /CN=a -certout @c.pem -trusted @ca.pem", "give -secret, or -cert and -key"},
		"key without cert":     {"-cmd ir -key @id.key -subject /CN=a -certout @c.pem -trusted @ca.pem", "-key needs its -cert"},
		"secret without ref":   {"-cmd ir -secret pass:x -newkey @new.key -subject /CN=a -certout @c.pem", "-secret needs -ref"},
		"no trust":             {"-cmd cr -cert @id.pem -key @id.key -newkey @new.key -certout @c.pem", "nothing to authenticate the server by"},
		"another key":          {"-cmd cr -cert @id.pem -key @new.key -trusted @ca.pem -certout @c.pem", "-key is not the key of -cert"},
		"no certout":           {"-cmd cr SIGN -newkey @new.key", "-certout is missing"},
		"no key":               {"-cmd ir MAC -subject /CN=a -certout @c.pem", "-newkey is missing"},
		"no csr":               {"-cmd p10cr SIGN", "-cmd p10cr needs -csr"},
		"nothing to update":    {"-cmd kur MAC -newkey @new.key -certout @c.pem", "-cmd kur needs -oldcert"},
		"nothing to revoke":    {"-cmd rr SIGN", "-cmd rr needs -oldcert"},
		"half a serial":        {"-cmd rr SIGN -serial 5", "both -issuer and -serial"},
		"octal serial":         {"-cmd rr SIGN -issuer /CN=a -serial 010", "is not a number"},
		"name without a slash": {"-cmd cr SIGN -newkey @new.key -certout @c.pem -subject CN=a", "-subject: a name begins with a slash"},
		"bad name":             {"-cmd cr SIGN -newkey @new.key -certout @c.pem -subject /CN", "-subject: distinguished name"},
		"digest":               {"-cmd cr SIGN -newkey @new.key -certout @c.pem -digest sha1", "-digest sha1 is not supported"},
		"mac":                  {"-cmd ir MAC -newkey @new.key -subject /CN=a -certout @c.pem -mac hmac-md5", "-mac hmac-md5 is not supported"},
		"SANs twice":           {"-cmd cr SIGN -newkey @new.key -certout @c.pem -config @ext.cnf -reqexts san -sans a.example", "-sans and -reqexts both"},
		"odd extension":        {"-cmd cr SIGN -newkey @new.key -certout @c.pem -config @ext.cnf -reqexts odd", "nsComment: is not supported"},
		"empty extension":      {"-cmd cr SIGN -newkey @new.key -certout @c.pem -config @ext.cnf -reqexts empty", "keyUsage: has no value"},
		"no such extensions":   {"-cmd cr SIGN -newkey @new.key -certout @c.pem -config @ext.cnf -reqexts nosuch", "has no section [nosuch]"},
		"no configuration":     {"-cmd cr SIGN -newkey @new.key -certout @c.pem -reqexts san", "there is no configuration file"},
		"no infotype":          {"-cmd genm SIGN", "-infotype is missing"},
		"unknown infotype":     {"-cmd genm SIGN -infotype frobnicate", "-infotype frobnicate is unknown"},
		"nowhere to save":      {"-cmd genm SIGN -infotype caCerts", "-infotype caCerts needs -cacertsout"},
		"geninfo":              {"-cmd cr SIGN -newkey @new.key -certout @c.pem -geninfo 1.2.3:real:5", "neither int nor str"},
		"format":               {"-cmd cr SIGN -newkey @new.key -certout @c.pem -certform P7", "-certform P7 is not supported"},
		"TLS key":              {"-cmd cr SIGN -newkey @new.key -certout @c.pem -tls_used -tls_cert @id.pem", "-tls_key is missing"},
		"own chain":            {"-cmd cr SIGN -newkey @new.key -certout @c.pem -own_trusted @id2.pem", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			checkError(t, s.run(tt.line).err, tt.fail)
		})
	}
	if n := len(s.ca.Issued()); n != before {
		t.Errorf("%d certificates were issued by refused command lines", n-before)
	}
}

func TestWarnings(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	got := s.must("-cmd genm SIGN -infotype caCerts -cacertsout @cas.pem -days 5 -revreason 1 -tls_trusted @ca.pem -reqin_new_tid")
	for _, want := range []string{"-days has no effect with -cmd genm", "-revreason has no effect", "TLS options have no effect", "-reqin_new_tid has no effect without -reqin"} {
		if !strings.Contains(got.log, want) {
			t.Errorf("the log lacks %q: %s", want, got.log)
		}
	}
}

func TestHelp(t *testing.T) {
	got := run1(t, "-help")
	if got.err != nil || !strings.Contains(got.out, "-implicit_confirm") {
		t.Errorf("-help: %v, %q", got.err, got.out)
	}
	checkError(t, run1(t).err, "there are no options")
}
