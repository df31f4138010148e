package cmpcmd

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
)

// answerGenm makes the CA say this to every genm.
func (s *site) answerGenm(infos ...cmp.InfoTypeAndValue) {
	s.ca.Behave(func(b *responder.Behaviour) {
		b.Only = []cmp.BodyType{cmp.TypeGenP}
		b.Alter = func(m *cmp.Message) { m.Body = cmp.GenMsg(infos) }
	})
}

// der builds a SEQUENCE.
func der(tb testing.TB, content func(*cryptobyte.Builder)) []byte {
	tb.Helper()
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, content)
	out, err := b.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestTemplateOfRequests(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	template := []byte{0x30, 0}
	keySpec := der(t, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 5, 1, 12})
			b.AddASN1Int64(3072)
		})
	})
	value := der(t, func(b *cryptobyte.Builder) { b.AddBytes(template); b.AddBytes(keySpec) })
	s.answerGenm(cmp.InfoTypeAndValue{Type: cmp.InfoCertReqTemplate, Value: value})
	const line = "-cmd genm SIGN -infotype certReqTemplate -template @template.der -keyspec @keyspec.der -show"
	if got := s.must(line); !strings.Contains(got.out, "key: RSA 3072 bits") {
		t.Errorf("the template is not shown: %s", got.out)
	}
	if got := readTestFile(t, s.path("template.der")); got != string(template) {
		t.Errorf("template %x, want %x", got, template)
	}
	if got := readTestFile(t, s.path("keyspec.der")); got != string(keySpec) {
		t.Errorf("keySpec %x, want %x", got, keySpec)
	}
	// none any more: the files go
	s.answerGenm(cmp.InfoTypeAndValue{Type: cmp.InfoCertReqTemplate})
	s.must(line)
	for _, name := range []string{"template.der", "keyspec.der"} {
		if _, err := os.Stat(s.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestRevocationLists(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	s.must("-cmd genm SIGN -infotype crlStatusList -crlcert @id.pem -crlout @crl.pem -crlform PEM -reqout @1")
	if text := readTestFile(t, s.path("crl.pem")); !strings.HasPrefix(text, "-----BEGIN X509 CRL-----\n") {
		t.Errorf("-crlform PEM wrote %.40q", text)
	}
	s.must("-cmd genm SIGN -infotype crlStatusList -oldcrl @crl.pem -crlout @new.der -reqout @2")
	if first, second := s.statusTimes("1"), s.statusTimes("2"); first != 0 || second != 1 {
		t.Errorf("%d and %d times in the requests, want none without -oldcrl and one with it", first, second)
	}
	s.answerGenm(cmp.InfoTypeAndValue{Type: cmp.InfoCRLs})
	s.must("-cmd genm SIGN -infotype crlStatusList -oldcrl @crl.pem -crlout @crl.pem")
	if _, err := os.Stat(s.path("crl.pem")); err == nil {
		t.Error("there is no new CRL, but the file is still there")
	}
}

// statusTimes counts the UTCTimes in a request for CRLs.
func (s *site) statusTimes(name string) int {
	s.Helper()
	m, _, err := message(s.path(name))
	if err != nil {
		s.Fatal(err)
	}
	value, _ := m.Body.(cmp.GenMsg).Info(cmp.InfoCRLStatusList)
	return bytes.Count(value, []byte{byte(tag.UTCTime), 13})
}

func TestOtherInfos(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	s.answerGenm(cmp.InfoTypeAndValue{Type: infoOID(2), Value: []byte{0x30, 0}})
	if got := s.must("-cmd genm SIGN -infotype signKeyPairTypes"); got.out != "genp info #1: signKeyPairTypes\n" {
		t.Errorf("output %q", got.out)
	}
	s.answerGenm()
	s.must("-cmd genm SIGN -infotype caCerts -cacertsout @cas.pem")
	if _, err := os.Stat(s.path("cas.pem")); err == nil {
		t.Error("there are no CA certificates, but a file with them")
	}
}

func TestKeysToCertify(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	s.pem("public.pem", "PUBLIC KEY", s.certs("id.pem")[0].RawSubjectPublicKeyInfo)
	for name, tt := range map[string]struct{ options, fail string }{
		"a public key, with proof":     {"-newkey @public.pem", "a proof of possession needs the private one"},
		"a public key, without":        {"-newkey @public.pem -popo 0", ""},
		"that of the signer":           {"", ""},
		"that of the reference":        {"-oldcert @id.pem -popo -1", ""},
		"an encrypted one":             {"-newkey testdata/pbes2-sha256.pem -newkeypass pass:phrase", ""},
		"an encrypted one, no phrase":  {"-newkey testdata/pbes2-sha256.pem", "is encrypted, and no option gives its pass phrase"},
		"an encrypted one, wrong":      {"-newkey testdata/pbes2-sha256.pem -newkeypass pass:no", "wrong pass phrase"},
		"no key at all":                {"-newkey testdata/ir-mac.txt", "neither a private nor a public key"},
		"on a curve without Go":        {"-newkey testdata/secp256k1.pem", "use P-256, P-384 or P-521"},
		"an absent one":                {"-newkey @absent.key", "no such file"},
		"one that leads to its anchor": {"-own_trusted @ca.pem", ""},
		"one that leads nowhere":       {"-own_trusted @id2.pem", "the chain of -cert"},
	} {
		t.Run(name, func(t *testing.T) {
			other := newSite(t, responder.Config{Name: "Other"})
			s.pem("id2.pem", "CERTIFICATE", other.ca.CACertificate().Raw)
			got := s.run("-cmd cr SIGN -subject /CN=k -reqout_only @req.der " + strings.ReplaceAll(tt.options, "testdata/", "./testdata/"))
			checkError(t, got.err, tt.fail)
		})
	}
}

// TestWhatCountsAsAnAnswer: unprotected errors are shown, and never believed.
func TestWhatCountsAsAnAnswer(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	s.ca.Reject(cmp.FailSystemUnavail, "come back later")
	s.ca.Behave(func(b *responder.Behaviour) { b.UnprotectedErrors, b.RejectAsError = true, true })
	const line = "-cmd cr SIGN -newkey @new.key -subject /CN=u -certout @c.pem -srvcertout @srv.pem "
	for _, options := range []string{"", "-unprotected_errors"} {
		got := s.run(line + options)
		checkError(t, got.err, "come back later")
		checkError(t, got.err, "[unverified]")
	}
	if _, err := os.Stat(s.path("srv.pem")); err == nil {
		t.Error("a server certificate was saved for an error nobody has signed")
	}
	// an authentic refusal names who has said it
	s.ca.Behave(func(b *responder.Behaviour) { b.UnprotectedErrors = false })
	checkError(t, s.run(line).err, "come back later")
	if len(s.certs("srv.pem")) != 1 {
		t.Error("the certificate that signed the refusal was not saved")
	}
}

// TestWrongCertificate: what is not what was asked for is refused, and the CA told so.
func TestWrongCertificate(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	for name, change := range map[string]func(*responder.Behaviour){
		"another key":    func(b *responder.Behaviour) { b.WrongKey = true },
		"another issuer": func(b *responder.Behaviour) { b.ForeignIssuer = true },
		"wrong nonce":    func(b *responder.Behaviour) { b.BadNonce = true },
		"forged":         func(b *responder.Behaviour) { b.WrongSignature = true },
		"garbage":        func(b *responder.Behaviour) { b.Garbage = true },
	} {
		t.Run(name, func(t *testing.T) {
			s.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{}; change(b) })
			got := s.run("-cmd cr SIGN -newkey @new.key -subject /CN=w -certout @wrong.pem -cacertsout @caps.pem -show")
			if got.err == nil {
				t.Error("there is no error")
			}
			for _, file := range []string{"wrong.pem", "caps.pem"} {
				if _, err := os.Stat(s.path(file)); err == nil {
					t.Errorf("%s was written", file)
				}
			}
		})
	}
}

// TestConfirmationLost: where the CA has had our certConf already, the certificate is saved.
func TestConfirmationLost(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.ca.Behave(func(b *responder.Behaviour) {
		b.Only = []cmp.BodyType{cmp.TypePKIConf}
		b.Alter = func(m *cmp.Message) {
			m.Type = cmp.TypeError
			m.Body = &cmp.ErrorMsg{Status: cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailCertConfirmed}}
		}
	})
	s.must("-cmd ir MAC -newkey @id.key -subject /CN=c -certout @c.pem -cacertsout @caps.pem")
	if len(s.certs("c.pem")) != 1 || len(s.certs("caps.pem")) == 0 {
		t.Error("the certificate, or the caPubs that came with it, were not saved")
	}
}

func TestFilesThatDoNotFit(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	const line = "-cmd cr SIGN -newkey @new.key -subject /CN=f -certout @c.pem "
	m := &cmp.Message{Type: cmp.TypePKIConf, Body: cmp.PKIConf{}}
	m.Header = cmp.Header{PVNO: 2, Sender: cmp.DirectoryName(nil), Recipient: cmp.DirectoryName(nil), TransactionID: []byte("short"), MessageTime: time.Now()}
	short, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, s.path("short"), string(short))
	checkError(t, s.run(line+"-rspin @short").err, "the transactionID has 5 bytes")
	checkError(t, s.run(line+"-reqin @short").err, "the transactionID has 5 bytes")
	checkError(t, s.run(line+"-reqin @absent").err, "no such file")
	checkError(t, s.run(line+"-rspin @ca.pem").err, "-rspin")
	checkError(t, s.run(line+"-rspin testdata/cp-rejection.txt").err, "not authentic")
	checkError(t, s.run(line+"-certout @absent/c.pem").err, "-certout")
	checkError(t, s.run(line+"-reqout @absent/1").err, "-reqout")
}

// TestDefaultMAC: a CA that wants no SHA-1 refuses the default, and we say what to do.
func TestDefaultMAC(t *testing.T) {
	s := newSite(t, responder.Config{})
	strict, err := responder.Start(responder.Config{SharedSecrets: map[string]string{"1234": secretText}}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = strict.Close() })
	line := "-cmd ir MAC -newkey @id.key -subject /CN=m -certout @c.pem -server " + strict.URL
	got := s.run(line)
	checkError(t, got.err, "badMessageCheck")
	if !strings.Contains(got.log, "the server may want -mac hmacWithSHA256") {
		t.Errorf("there is no advice: %s", got.log)
	}
	s.must(line + " -mac hmacWithSHA256")
}

// TestFailureInfo: every bit of PKIFailureInfo is shown by name, number and what
// can be done about it, and the server's text makes no mess of the terminal.
func TestFailureInfo(t *testing.T) {
	names := strings.Fields("badAlg badMessageCheck badRequest badTime badCertId badDataFormat wrongAuthority incorrectData missingTimeStamp badPOP " +
		"certRevoked certConfirmed wrongIntegrity badRecipientNonce timeNotAvailable unacceptedPolicy unacceptedExtension addInfoNotAvailable " +
		"badSenderNonce badCertTemplate signerNotTrusted transactionIdInUse unsupportedVersion notAuthorized systemUnavail systemFailure duplicateCertReq")
	classes := map[string]string{
		"badTime": "retryable", "timeNotAvailable": "retryable", "transactionIdInUse": "retryable", "systemUnavail": "retryable", "systemFailure": "retryable",
		"badMessageCheck": "security", "wrongIntegrity": "security", "badRecipientNonce": "security", "badSenderNonce": "security", "badPOP": "security",
		"signerNotTrusted": "security", "notAuthorized": "security",
	}
	s := newSite(t, responder.Config{})
	nasty := "\x1b[31mred\x1b[0m\r\nCMP info: forged\u202e\u0007 " + strings.Repeat("long ", 4000)
	for n, name := range names {
		class := classes[name]
		if class == "" {
			class = "permanent"
		}
		t.Run(name, func(t *testing.T) {
			s.ca.Reject(1<<n, nasty)
			got := s.run("-cmd ir MAC -newkey @id.key -subject /CN=f -certout @c.pem")
			checkError(t, got.err, "("+name+")")
			want := fmt.Sprintf("CMP warning: PKIStatus: rejection, PKIFailureInfo: %s (%d); %s: ", name, n, class)
			if !strings.Contains(got.log, want) {
				t.Errorf("the log lacks %q: %.500q", want, got.log)
			}
			said := got.log + got.err.Error()
			if strings.ContainsAny(said, "\x1b\r\u202e\u0007") || strings.Contains(said, "\nCMP info: forged") || len(said) > 4096 {
				t.Errorf("%d bytes are said, or with control characters: %.500q", len(said), said)
			}
		})
	}
}

// TestTextsOfGrants: what comes with a success is bounded and harmless, too.
func TestTextsOfGrants(t *testing.T) {
	s := newSite(t, responder.Config{})
	s.identity()
	nasty := []string{"\x1b[31mred\r\nCMP info: forged", strings.Repeat("long ", 4000)}
	s.ca.Behave(func(b *responder.Behaviour) {
		b.Alter = func(m *cmp.Message) {
			switch body := m.Body.(type) {
			case *cmp.CertRepMessage:
				body.Response[0].Status = cmp.StatusInfo{Status: cmp.StatusGrantedWithMods, Text: nasty}
			case *cmp.RevRep:
				body.Status[0].Text = nasty
			}
		}
	})
	for _, line := range []string{"-cmd ir MAC -newkey @new.key -subject /CN=f -certout @c.pem", "-cmd rr MAC -oldcert @c.pem"} {
		got := s.must(line)
		if strings.ContainsAny(got.log, "\x1b\r") || strings.Contains(got.log, "\nCMP info: forged") || len(got.log) > 4096 || !strings.Contains(got.log, "red") {
			t.Errorf("%s: %d bytes are said, or with control characters: %.500q", line, len(got.log), got.log)
		}
	}
}

// TestPersistentConnections counts the connections of one enrolment with
// confirmation, to a server that keeps them and to one that does not.
func TestPersistentConnections(t *testing.T) {
	s := newSite(t, responder.Config{})
	for name, tt := range map[string]struct {
		option      string
		keeps       bool
		connections int32
		fail        string
	}{
		"by default":            {"", true, 1, ""},
		"none":                  {"-keep_alive 0", true, 2, ""},
		"wanted, not kept":      {"-keep_alive 1", false, 2, ""},
		"required":              {"-keep_alive 2", true, 1, ""},
		"required, not kept":    {"-keep_alive 2", false, 1, "the server does not keep connections, and -keep_alive 2 requires that"},
		"required for one only": {"-keep_alive 2 -cmd genm -infotype caCerts -cacertsout @cas.pem", false, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(s.ca)
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Config.SetKeepAlivesEnabled(tt.keeps)
			server.Start()
			defer server.Close()
			got := s.run("-cmd ir MAC -newkey @id.key -subject /CN=k -certout @c.pem -server " + strings.TrimPrefix(server.URL, "http://") + " " + tt.option)
			checkError(t, got.err, tt.fail)
			if n := connections.Load(); n != tt.connections {
				t.Errorf("%d connections, want %d", n, tt.connections)
			}
		})
	}
}

func FuzzArguments(f *testing.F) {
	f.Add("-cmd ir -days 5 -subject=/CN=a --batch")
	f.Fuzz(func(t *testing.T, line string) {
		given, err := parseArguments(strings.Fields(line))
		if err != nil {
			return
		}
		v := values{}
		for _, a := range given {
			if err := v.set(a.option, a.value); err == nil && a.option.reason != "" && v.has(a.option.name) {
				t.Errorf("-%s was taken, although it is refused", a.option.name)
			}
		}
	})
}
