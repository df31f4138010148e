package cmp

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Oddities of CAs in the field, one test each. Those that are a whole policy of
// their own stand with it: 02, 03, 08, 09, 22 and 24.

// cp to a p10cr has certReqId -1, from some CAs 0. What came is repeated.
func TestPitfall01P10CRCertReqID(t *testing.T) {
	for id, want := range map[int64]string{-1: "ok", 0: "ok", 1: "response.certReqId", -2: "response.certReqId"} {
		t.Run(fmt.Sprint(id), func(t *testing.T) {
			s := signed(t).asking(t, TypeP10CR)
			tr := s.begin(t)
			first := tr.Step().Send
			waiting := s.ca.waiting(t, first)
			waiting.Body.(*CertRepMessage).Response[0].CertReqID = id
			step, err := tr.Next(seal(t, waiting, s.reply))
			if got := outcome(err); got != want {
				t.Fatalf("%q (%v), want %q", got, err, want)
			}
			if err != nil {
				return
			}
			if poll := mustParse(t, step.Send).Body.(PollReq); poll[0] != id {
				t.Errorf("pollReq for %d, want %d", poll[0], id)
			}
			granted := s.ca.granted(t, first)
			granted.Body.(*CertRepMessage).Response[0].CertReqID = id
			granted.Header.RecipNonce = mustParse(t, step.Send).Header.SenderNonce
			step = s.next(t, tr, granted)
			if conf := mustParse(t, step.Send).Body.(CertConf); conf[0].CertReqID != id {
				t.Errorf("certConf for %d, want %d", conf[0].CertReqID, id)
			}
		})
	}
}

// Who could not read a request cannot repeat its transactionID: what it says is
// shown, but ends the transaction only where that is allowed.
func TestPitfall04ErrorWithoutTransactionID(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		s := signed(t)
		s.cfg.UnprotectedErrors = allowed
		tr := s.begin(t)
		m := &Message{Header: Header{PVNO: 2}, Type: TypeError, Body: &ErrorMsg{
			Status: StatusInfo{Status: StatusRejection, FailInfo: FailBadDataFormat, Text: []string{"ASN.1 decoding error"}},
		}}
		der, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		_, err = tr.Next(der)
		var peer *Error
		if !errors.As(err, &peer) || peer.Verified || peer.Failure != FailBadDataFormat || peer.Text[0] != "ASN.1 decoding error" {
			t.Errorf("allowed %t: error %v does not show what the peer says", allowed, err)
		}
		if ended := tr.Step().Send == nil; ended != allowed || errors.Is(err, ErrProtection) == allowed {
			t.Errorf("allowed %t: ended %t, %v", allowed, ended, err)
		}
	}
}

// Some CAs want 1000 iterations at least, others refuse more than 2047.
func TestPitfall05PBMIterations(t *testing.T) {
	for configured, want := range map[int]int64{0: 1024, 100: 100, 2047: 2047, 100_000: 100_000} {
		s := shared(t)
		s.cfg.Credential.(*SharedSecret).Iterations = configured
		p, err := parseMAC(mustParse(t, s.begin(t).Step().Send).Header.ProtectionAlg)
		if err != nil || p.iterations != want || len(p.salt) != 16 {
			t.Errorf("configured %d: %+v, %v, want %d and 16 bytes of salt", configured, p, err, want)
		}
	}
	for received, limit := range map[int64]int{100_001: 0, 5001: 5000, 99: 0} {
		s := shared(t)
		s.cfg.MaxIterations = limit
		p := macParameters{salt: []byte("salt"), iterations: received, owf: crypto.SHA256, mac: crypto.SHA256}
		alg, err := p.passwordBasedMac()
		if err != nil {
			t.Fatal(err)
		}
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		m.Header.Sender, m.Header.ProtectionAlg, m.Protection = DirectoryName(nil), alg, make([]byte, 32)
		der, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Next(der); outcome(err) != string(CheckMAC) || !strings.Contains(err.Error(), "iterationCount") {
			t.Errorf("%d received: %v", received, err)
		}
	}
}

// CAs differ in the MAC they know, and the one-way function is another thing.
func TestPitfall06PBMAlgorithms(t *testing.T) {
	for mac, macOID := range map[crypto.Hash]asn1.ObjectIdentifier{
		0: oidHMACWithSHA256, crypto.SHA1: oidHMACSHA1, crypto.SHA384: oidHMACWithSHA384, crypto.SHA512: oidHMACWithSHA512,
	} {
		for owf, owfOID := range map[crypto.Hash]asn1.ObjectIdentifier{0: oidSHA256, crypto.SHA1: oidSHA1, crypto.SHA512: oidSHA512} {
			s := shared(t)
			secret := &SharedSecret{Reference: []byte("ref"), Secret: []byte("s"), Iterations: 100, MAC: mac, OWF: owf, AllowSHA1: true}
			s.cfg.Credential, s.reply = secret, secret
			tr := s.begin(t)
			parameters := mustParse(t, tr.Step().Send).Header.ProtectionAlg.Parameters
			p := newParser(parameters, inPBM)
			p.enter(0x30, "parameters")
			p.octets("salt", MaxSaltBytes)
			gotOWF := p.algorithm("owf")
			p.integer("iterationCount")
			gotMAC := p.algorithm("mac")
			if !gotOWF.Algorithm.Equal(owfOID) || !gotMAC.Algorithm.Equal(macOID) {
				t.Errorf("MAC %d, owf %d: sent %s and %s", mac, owf, gotMAC.Algorithm, gotOWF.Algorithm)
			}
			s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		}
	}
}

// HMAC takes a key of any length: the key derived is not expanded to that of the MAC.
func TestPitfall07PBMKeyIsNotExpanded(t *testing.T) {
	salt, secret := []byte("0123456789abcdef"), []byte("secret")
	p := macParameters{salt: salt, iterations: 100, owf: crypto.SHA256, mac: crypto.SHA512}
	alg, err := p.passwordBasedMac()
	if err != nil {
		t.Fatal(err)
	}
	key, err := (&SharedSecret{Secret: secret}).derive(alg, 0)
	if err != nil {
		t.Fatal(err)
	}
	base := sha256.Sum256(append(bytes.Clone(secret), salt...))
	for range 99 {
		base = sha256.Sum256(base[:])
	}
	want := hmac.New(sha512.New, base[:])
	want.Write([]byte("part"))
	if got := key.mac([]byte("part")); !hmac.Equal(got, want.Sum(nil)) {
		t.Errorf("MAC %x", got)
	}
}

// senderKID may be absent, and from some CAs is the client's.
func TestPitfall10SenderKID(t *testing.T) {
	for name, test := range map[string]struct {
		kid    []byte
		ignore bool
		want   string
	}{
		"right":         {kid: nil, want: "ok"}, // the default of the scene
		"wrong":         {kid: []byte("client's"), want: "signer"},
		"wrong, lax":    {kid: []byte("client's"), ignore: true, want: "ok"},
		"absent":        {kid: []byte{}, want: "ok"},
		"right and lax": {ignore: true, want: "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			s.cfg.Trust.IgnoreSenderKID = test.ignore
			tr := s.begin(t)
			der := seal(t, s.ca.granted(t, tr.Step().Send), s.reply)
			if test.kid != nil {
				der = s.signedWithKID(t, mustParse(t, der), test.kid)
			}
			_, err := tr.Next(der)
			if got := outcome(err); got != test.want {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// signedWithKID signs a message of the CA once more, with another senderKID.
func (s *scene) signedWithKID(t testing.TB, m *Message, kid []byte) []byte {
	t.Helper()
	forget(m)
	if m.Header.SenderKID = kid; len(kid) == 0 {
		m.Header.SenderKID = nil
	}
	scheme, err := signatureScheme(s.ca.signerKey.Public(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if m.Protection, err = scheme.sign(rand.Reader, s.ca.signerKey, m.protectedPart()); err != nil {
		t.Fatal(err)
	}
	der, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// extraCerts of every message begin with the certificate that protects it, then
// come its issuers, without the root.
func TestPitfall11ExtraCertsOrder(t *testing.T) {
	s := signed(t)
	upper := s.ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Upper"}, IsCA: true, BasicConstraintsValid: true}, s.ca.rootKey.Public(), s.ca.root)
	lower := s.ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Lower"}, IsCA: true, BasicConstraintsValid: true}, s.ca.rootKey.Public(), upper)
	own := s.ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "device"}}, s.cfg.Credential.(*Signer).Key.Public(), lower)
	s.cfg.Credential = &Signer{Key: s.cfg.Credential.(*Signer).Key, Certificate: own, Chain: []*x509.Certificate{lower, upper, s.ca.root}}
	tr := s.begin(t)
	step := tr.Step()
	for range 2 { // ir and certConf
		got := mustParse(t, step.Send).ExtraCerts
		if len(got) != 3 || !bytes.Equal(got[0], own.Raw) || !bytes.Equal(got[1], lower.Raw) || !bytes.Equal(got[2], upper.Raw) {
			t.Errorf("%s has %d extraCerts in another order", step.Type, len(got))
		}
		if step.Type == TypeIR {
			step = s.next(t, tr, s.ca.granted(t, step.Send))
		}
	}
}

// Old CAs sign messages with a certificate that is for signing certificates only.
func TestPitfall12SignerWithoutDigitalSignature(t *testing.T) {
	for ignore, want := range map[bool]string{false: "signer", true: "ok"} {
		s := signed(t)
		s.cfg.Trust.IgnoreKeyUsage = ignore
		s.reply = &Signer{Key: s.ca.rootKey, Certificate: s.ca.root} // keyCertSign
		tr := s.begin(t)
		_, err := tr.Next(seal(t, s.ca.granted(t, tr.Step().Send), s.reply))
		if got := outcome(err); got != want {
			t.Errorf("ignored %t: %q (%v), want %q", ignore, got, err, want)
		}
	}
}

// With a MAC the sender is CN=reference or, where the CA wants it so, the
// NULL-DN; the senderKID is the reference value in any case.
func TestPitfall13SenderWithMAC(t *testing.T) {
	for name, test := range map[string]struct {
		sender Name
		want   []byte
	}{
		"RFC 9483":   {nil, DirectoryName(commonName([]byte("ref")))},
		"NULL-DN":    {NullDN(), []byte{0xa4, 2, 0x30, 0}},
		"configured": {mustName(t, "/O=x"), DirectoryName(mustName(t, "/O=x"))},
	} {
		s := shared(t)
		s.cfg.Sender = test.sender
		h := mustParse(t, s.begin(t).Step().Send).Header
		if !bytes.Equal(h.Sender, test.want) || string(h.SenderKID) != "ref" {
			t.Errorf("%s: sender %x, senderKID %q, want %x", name, h.Sender, h.SenderKID, test.want)
		}
	}
}

// Names are compared by their meaning, not by their string types, but RDNs have an order.
func TestPitfall14DNComparison(t *testing.T) {
	printableString := func(values ...string) Name {
		var rdns [][][]byte
		for i, value := range values {
			rdns = append(rdns, [][]byte{encodeAVA([]asn1.ObjectIdentifier{x520(10), x520(3)}[i], append([]byte{19, byte(len(value))}, value...))})
		}
		return encodeName(rdns)
	}
	for name, test := range map[string]struct {
		expected Name
		want     string
	}{
		"same":            {mustName(t, "/O=Great CA/CN=Signer"), "ok"},
		"string type":     {printableString("Great CA", "Signer"), "ok"},
		"case and blanks": {mustName(t, "/O=great  ca/CN=SIGNER"), "ok"},
		"reverse order":   {mustName(t, "/CN=Signer/O=Great CA"), "sender"},
		"another":         {mustName(t, "/O=Great CA/CN=Signer2"), "sender"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			s.cfg.Trust.ExpectedSender = test.expected
			key := newKey(t)
			subject := mustName(t, "/O=Great CA/CN=Signer")
			s.reply = &Signer{Key: key, Certificate: s.ca.issue(t, &x509.Certificate{RawSubject: subject}, key.Public(), s.ca.root)}
			tr := s.begin(t)
			_, err := tr.Next(seal(t, s.ca.granted(t, tr.Step().Send), s.reply))
			if got := outcome(err); got != test.want {
				t.Errorf("%q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// EJBCA in client mode takes one request per registration: asking again is of no use.
func TestPitfall15EJBCAClientMode(t *testing.T) {
	const text = "Got request with status GENERATED (40), NEW, FAILED or INPROCESS required: web."
	s := shared(t)
	tr := s.begin(t)
	body := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, FailInfo: FailBadRequest, Text: []string{text}}}
	_, err := tr.Next(seal(t, s.ca.answer(t, tr.Step().Send, TypeError, body), s.reply))
	var peer *Error
	if !errors.As(err, &peer) || peer.Retryable() || peer.Failure.Class() != ClassPermanent || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want a permanent one with the CA's text", err)
	}
}

// An answer that got lost: the message of a stored transaction is sent again as
// it was; a CA that calls the transaction in use needs a new one.
func TestPitfall16LostAnswer(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	first := tr.Step().Send
	tr = s.resumed(t, tr)
	if !bytes.Equal(tr.Step().Send, first) {
		t.Error("another message after a restart")
	}
	body := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, FailInfo: FailTransactionIDInUse}}
	_, err := tr.Next(seal(t, s.ca.answer(t, first, TypeError, body), s.reply))
	var peer *Error
	if !errors.As(err, &peer) || !peer.Retryable() || !peer.Failure.Has(FailTransactionIDInUse) || tr.Step().Send != nil {
		t.Errorf("error %v, want the end of the transaction, and a reason for another", err)
	}
	if again := s.begin(t); bytes.Equal(again.ID(), tr.ID()) {
		t.Error("the same transactionID in another transaction")
	}
}

// Overload is announced by a web server in front of the CA.
func TestPitfall17RateLimit(t *testing.T) {
	url, _ := answers(t, 503, map[string]string{"Retry-After": "30", "Content-Type": "text/html"}, "<html>busy</html>")
	s := signed(t)
	_, err := (&Client{URL: url}).Do(t.Context(), s.cfg, s.req)
	var failure *TransportError
	if !errors.As(err, &failure) || !failure.Retryable() || failure.RetryAfter != 30*time.Second || failure.StatusCode != 503 {
		t.Errorf("error %v: %+v", err, failure)
	}
}

// The media type is one in any case, with parameters, and as older drafts had it.
func TestPitfall18ContentType(t *testing.T) {
	for mediaType, want := range map[string]bool{
		"application/pkixcmp": true, "Application/PKIXCMP": true, "application/pkixcmp; charset=utf-8": true, "application/pkixcmp-poll": true,
		"application/pkixcmpx": false, "text/html": false, "": false, "application/octet-stream": false, ";": false,
	} {
		url, _ := answers(t, 200, map[string]string{"Content-Type": mediaType}, "reply")
		_, err := (&Client{URL: url}).Exchange(t.Context(), []byte("request"))
		if got := err == nil; got != want {
			t.Errorf("%q: %v", mediaType, err)
		}
	}
}

// A CMP message counts, whatever the status of HTTP (RFC 9811 §3.1).
func TestPitfall19CMPUnderHTTPErrors(t *testing.T) {
	for _, status := range []int{200, 201, 400, 401, 403, 404, 500, 503} {
		url, _ := answers(t, status, map[string]string{"Content-Type": mediaType}, "reply")
		if got, err := (&Client{URL: url}).Exchange(t.Context(), []byte("request")); err != nil || string(got) != "reply" {
			t.Errorf("%d: %q, %v", status, got, err)
		}
	}
}

// A server that serves one connection at a time is blocked by an idle one: the
// last message closes it, even if the answer offers to keep it.
func TestPitfall20KeepAlive(t *testing.T) {
	for version, tried := range versions {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		var serving sync.WaitGroup
		serving.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				ended <- err
				return
			}
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Type: %s\r\nContent-Length: 5\r\n\r\nreply", mediaType)
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, err = conn.Read(make([]byte, 1))
			ended <- err
		})
		got, err := (&Client{URL: "http://" + listener.Addr().String(), Version: tried}).Exchange(t.Context(), []byte("request"))
		if err != nil || string(got) != "reply" {
			t.Errorf("%s: %q, %v", version, got, err)
		}
		var timeout net.Error
		if err := <-ended; err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: the connection stays open: %v", version, err)
		}
		serving.Wait()
		_ = listener.Close()
	}
}

// What ends polling may repeat the nonce of the request or of the last pollReq;
// a pollRep must repeat that of the pollReq.
func TestPitfall21PollNonce(t *testing.T) {
	nonces := map[string]func(first, poll *Message) []byte{
		"pollReq's": func(_, poll *Message) []byte { return poll.Header.SenderNonce },
		"request's": func(first, _ *Message) []byte { return first.Header.SenderNonce },
		"another":   func(_, _ *Message) []byte { return []byte("0123456789abcdef") },
	}
	for kind, want := range map[BodyType]map[string]string{
		TypeIP:      {"pollReq's": "ok", "request's": "ok", "another": "recipNonce"},
		TypePollRep: {"pollReq's": "ok", "request's": "recipNonce", "another": "recipNonce"},
	} {
		for name, nonce := range nonces {
			s := signed(t)
			tr := s.begin(t)
			first := tr.Step().Send
			poll := s.next(t, tr, s.ca.waiting(t, first)).Send
			m := s.ca.pollRep(t, poll, 1)
			if kind == TypeIP {
				m = s.ca.granted(t, first)
			}
			m.Header.RecipNonce = nonce(mustParse(t, first), mustParse(t, poll))
			_, err := tr.Next(seal(t, m, s.reply))
			if got := outcome(err); got != want[name] {
				t.Errorf("%s with %s nonce: %q (%v), want %q", kind, name, got, err, want[name])
			}
		}
	}
}

// Where it is certConf that has to wait, pkiconf may repeat its nonce: that of the
// request is of an exchange that is over.
func TestPitfall21NonceOfDelayedCertConf(t *testing.T) {
	for name, test := range map[string]struct {
		nonce     func(request, conf, poll *Message) []byte
		want, old string // with a state stored now, and by a program that did not keep the nonce
	}{
		"pollReq's":  {func(_, _, poll *Message) []byte { return poll.Header.SenderNonce }, "ok", "ok"},
		"certConf's": {func(_, conf, _ *Message) []byte { return conf.Header.SenderNonce }, "ok", "recipNonce"},
		"request's":  {func(request, _, _ *Message) []byte { return request.Header.SenderNonce }, "recipNonce", "recipNonce"},
	} {
		s := signed(t)
		tr := s.begin(t)
		request := mustParse(t, tr.Step().Send)
		s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		conf := mustParse(t, tr.Step().Send)
		s.next(t, tr, s.ca.answer(t, tr.Step().Send, TypeError, &ErrorMsg{Status: StatusInfo{Status: StatusWaiting}}))
		for kind, again := range map[string]*Transaction{"now": tr, "stored": s.resumed(t, tr), "old": s.forgetting(t, tr, "delayedNonce")} {
			m := s.ca.confirmed(t, again.Step().Send)
			m.Header.RecipNonce = test.nonce(request, conf, mustParse(t, again.Step().Send))
			_, err := again.Next(seal(t, m, s.reply))
			want := test.want
			if kind == "old" {
				want = test.old
			}
			if got := outcome(err); got != want {
				t.Errorf("%s, %s: %q (%v), want %q", kind, name, got, err, want)
			}
		}
	}
}

// A request that was waiting when an older program stored it gets its answer
// by the request's nonce as before.
func TestPitfall21NonceInOlderState(t *testing.T) {
	s := signed(t)
	tr := s.begin(t)
	first := tr.Step().Send
	s.next(t, tr, s.ca.waiting(t, first))
	tr = s.forgetting(t, tr, "delayedNonce")
	if step := s.next(t, tr, s.ca.granted(t, first)); step.Type != TypeCertConf {
		t.Errorf("%+v, want certConf", step)
	}
}

// certConf for a certificate signed with Ed25519 has a hash by SHA-512, no
// hashAlg, and hence pvno 2: older servers cannot parse more (RFC 9481 §3.3).
func TestPitfall23Ed25519CertConf(t *testing.T) {
	_, rootKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := signed(t)
	s.ca = newAuthorityOf(t, "Edwards", rootKey, newKey(t), 0)
	s.cfg.Trust.Roots, s.reply = []*x509.Certificate{s.ca.root}, s.ca.credential()
	tr := s.begin(t)
	step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
	m := mustParse(t, step.Send)
	conf, want := m.Body.(CertConf)[0], sha512.Sum512(step.Issued.Certificate.Raw)
	if m.Header.PVNO != PVNO2 || conf.HashAlg != nil || !bytes.Equal(conf.CertHash, want[:]) {
		t.Errorf("pvno %d, hashAlg %v, certHash %x", m.Header.PVNO, conf.HashAlg, conf.CertHash)
	}
}

// Code paths that others have got wrong.
func TestPitfall25OddPaths(t *testing.T) {
	t.Run("an anchor comes with ip only, and pkiconf is no ip", func(t *testing.T) {
		s := signed(t)
		s.cfg.Trust = Trust{AnchorInIP: true}
		tr := s.begin(t)
		m := s.ca.granted(t, tr.Step().Send)
		m.ExtraCerts = [][]byte{s.ca.signer.Raw, s.ca.root.Raw}
		step := s.next(t, tr, m)
		conf := s.ca.confirmed(t, step.Send)
		stranger := newAuthority(t, "Test CA")
		conf.ExtraCerts = [][]byte{stranger.signer.Raw, stranger.root.Raw}
		if _, err := tr.Next(seal(t, conf, stranger.credential())); !errors.Is(err, ErrProtection) {
			t.Errorf("pkiconf of a stranger: %v", err)
		}
		if step = s.next(t, tr, s.ca.confirmed(t, step.Send)); !step.Done {
			t.Errorf("after pkiconf: %+v", step)
		}
	})
	t.Run("kur keeps the extensions asked for", func(t *testing.T) {
		s := signed(t).asking(t, TypeKUR)
		s.req.Template.Extensions = []pkix.Extension{{Id: ExtensionSubjectAltName, Value: []byte("\x30\x03\x82\x01a")}}
		template := mustParse(t, s.begin(t).Step().Send).Body.(CertReqMessages)[0].CertReq.CertTemplate
		if _, ok := template.Extension(ExtensionSubjectAltName); !ok {
			t.Error("the subjectAltName is lost")
		}
	})
	t.Run("p10cr for a key that is elsewhere", func(t *testing.T) {
		s := signed(t).asking(t, TypeP10CR)
		s.req = Request{Type: TypeP10CR, CSR: s.req.CSR}
		tr := s.begin(t)
		if got, ok := mustParse(t, tr.Step().Send).Body.(P10CR); !ok || !bytes.Equal(got, s.req.CSR) {
			t.Error("the CSR has changed")
		}
		step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		if step = s.next(t, tr, s.ca.confirmed(t, step.Send)); !step.Done {
			t.Errorf("%+v", step)
		}
	})
	t.Run("a secret or a certificate, never both", func(t *testing.T) {
		m := mustParse(t, shared(t).begin(t).Step().Send)
		if !m.ProtectedByMAC() || len(m.ExtraCerts) != 0 {
			t.Errorf("%s with %d extraCerts", m.Header.ProtectionAlg.Algorithm, len(m.ExtraCerts))
		}
	})
	t.Run("SNI from host and port", func(t *testing.T) {
		for host, want := range map[string]string{"https://ca.example:8443/": "ca.example", "https://[::1]:8443/": "::1"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := (&http10{new(http.Transport)}).tlsConfig(req.URL.Hostname()).ServerName; got != want {
				t.Errorf("%s: %q, want %q", host, got, want)
			}
		}
	})
}
