package cmp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Parameters out of bounds are refused before any work is done for them.
func TestMACBounds(t *testing.T) {
	secret := &SharedSecret{Secret: []byte("s")}
	good := macParameters{salt: []byte("salt"), iterations: MinIterations, owf: crypto.SHA256, mac: crypto.SHA256}
	for name, test := range map[string]struct {
		change func(*macParameters)
		want   string
	}{
		"good":                  {func(*macParameters) {}, ""},
		"most iterations":       {func(p *macParameters) { p.iterations = 5000 }, ""},
		"too many iterations":   {func(p *macParameters) { p.iterations = 5001 }, "iterationCount 5001"},
		"iterations for ever":   {func(p *macParameters) { p.iterations = 1<<63 - 1 }, "iterationCount"},
		"too few iterations":    {func(p *macParameters) { p.iterations = MinIterations - 1 }, "iterationCount 99"},
		"no iterations":         {func(p *macParameters) { p.iterations = 0 }, "iterationCount 0"},
		"negative iterations":   {func(p *macParameters) { p.iterations = -1 }, "iterationCount -1"},
		"no salt":               {func(p *macParameters) { p.salt = nil }, "salt"},
		"salt too long":         {func(p *macParameters) { p.salt = make([]byte, MaxSaltBytes+1) }, "salt"},
		"one-way function SHA1": {func(p *macParameters) { p.owf = crypto.SHA1 }, "SHA-1"},
		"HMAC with SHA1":        {func(p *macParameters) { p.mac = crypto.SHA1 }, "SHA-1"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good
			test.change(&p)
			for kind, encode := range map[string]func() (AlgorithmIdentifier, error){"PBM": p.passwordBasedMac, "PBMAC1": p.pbmac1} {
				a, err := encode()
				if err != nil {
					t.Fatal(err)
				}
				_, err = secret.derive(a, 5000)
				if got := err == nil; got != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: error %v, want one with %q", kind, err, test.want)
				}
			}
		})
	}
}

// keyLength and prf of PBKDF2 are optional, and some encode the default of prf.
func TestPitfall08PBMAC1OptionalFields(t *testing.T) {
	secret := &SharedSecret{Secret: []byte("s"), AllowSHA1: true}
	encode := func(optional func(*writer)) AlgorithmIdentifier {
		var kdf writer
		m := kdf.open(0x30)
		kdf.octets([]byte("salt"))
		kdf.integer(1000)
		optional(&kdf)
		kdf.close(m)
		var w writer
		m = w.open(0x30)
		w.algorithm(AlgorithmIdentifier{oidPBKDF2, kdf.b})
		w.algorithm(AlgorithmIdentifier{Algorithm: oidHMACWithSHA256})
		w.close(m)
		return AlgorithmIdentifier{oidPBMAC1, w.b}
	}
	var want string
	for name, optional := range map[string]func(*writer){
		"nothing":      func(*writer) {},
		"keyLength":    func(w *writer) { w.integer(32) },
		"prf":          func(w *writer) { w.algorithm(AlgorithmIdentifier{oidHMACWithSHA1, derNULL}) },
		"both":         func(w *writer) { w.integer(32); w.algorithm(AlgorithmIdentifier{oidHMACWithSHA1, derNULL}) },
		"keyLength 0":  func(w *writer) { w.integer(0) },
		"keyLength 2k": func(w *writer) { w.integer(2048) },
	} {
		key, err := secret.derive(encode(optional), 0)
		if refused := strings.HasPrefix(name, "keyLength "); refused != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if want == "" {
			want = string(key.key)
		}
		if string(key.key) != want {
			t.Errorf("%s gives another key", name)
		}
	}
}

// Bouncy Castle's name for PBKDF2 is that of PBES2; the key is the same.
func TestPBMAC1NamesPBES2(t *testing.T) {
	secret := &SharedSecret{Secret: []byte("s")}
	p := macParameters{salt: []byte("salt"), iterations: 1000, owf: crypto.SHA512, mac: crypto.SHA512}
	a, err := p.pbmac1()
	if err != nil {
		t.Fatal(err)
	}
	want, err := secret.derive(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.Parameters = asBouncyCastle(a.Parameters)
	got, err := secret.derive(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.key, want.key) {
		t.Errorf("got key %x, want %x", got.key, want.key)
	}
	a.Parameters = bytes.Replace(a.Parameters, inDER(oidPBES2), inDER(oidPBMAC1), 1)
	if _, err := secret.derive(a, 0); err == nil {
		t.Error("another function is taken for PBKDF2")
	}
}

// asBouncyCastle names PBES2 in parameters of PBMAC1.
func asBouncyCastle(parameters []byte) []byte {
	return bytes.Replace(parameters, inDER(oidPBKDF2), inDER(oidPBES2), 1)
}

func inDER(oid asn1.ObjectIdentifier) []byte {
	var w writer
	w.oid(oid)
	return w.b
}

// What PBKDF2 may cost is bounded in hashes: a key of several blocks costs all iterations for each.
func TestPBMAC1Work(t *testing.T) {
	for name, test := range map[string]struct {
		iterations, keyLength int64
		limit                 int
		want                  bool
	}{
		"as many as by default":   {DefaultMaxIterations / 2, 32, 0, true},
		"more than by default":    {DefaultMaxIterations/2 + 1, 32, 0, false},
		"as allowed":              {60_000, 32, 60_000, true},
		"two blocks":              {15_000, 33, 60_000, true},
		"two blocks, too many":    {15_001, 33, 60_000, false},
		"the longest key allowed": {15_000, MaxSaltBytes, 60_000, true},
	} {
		p := macParameters{salt: []byte("salt"), iterations: test.iterations, owf: crypto.SHA256, mac: crypto.SHA256, keyLength: test.keyLength}
		if err := p.check(test.limit, false); (err == nil) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPSSParameters(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	digest := crypto.SHA256.New()
	digest.Write([]byte("message"))
	otherMGF := pssParameters(oidSHA256, 32)
	last := bytes.LastIndex(otherMGF, inDER(oidSHA256))
	copy(otherMGF[last:], inDER(oidSHA512))
	trailer := append(pssParameters(oidSHA256, 32), 0xa3, 3, 2, 1, 2)
	trailer[1] += 5
	for name, test := range map[string]struct {
		parameters []byte
		salt       int
		want       bool
	}{
		"as we make them": {pssParameters(oidSHA256, 32), 32, true},
		"shorter salt":    {pssParameters(oidSHA256, 20), 20, true},
		"no salt":         {pssParameters(oidSHA256, 0), rsa.PSSSaltLengthEqualsHash, false},
		"salt too long":   {pssParameters(oidSHA256, MaxSaltBytes+1), 32, false},
		"negative salt":   {pssParameters(oidSHA256, -1), 32, false},
		"SHA-1":           {pssParameters(oidSHA1, 20), 20, false},
		"all defaults":    {[]byte{0x30, 0}, 20, false},
		"absent":          {nil, 32, false},
		"another hash":    {pssParameters(oidHMACSHA1, 32), 32, false},
		"MGF1 of another": {otherMGF, 32, false},
		"another trailer": {trailer, 32, false},
	} {
		signature, err := key.Sign(rand.Reader, digest.Sum(nil), &rsa.PSSOptions{SaltLength: test.salt, Hash: crypto.SHA256})
		if err != nil {
			t.Fatal(err)
		}
		err = verifySignature(key.Public(), AlgorithmIdentifier{oidRSASSAPSS, test.parameters}, []byte("message"), signature)
		if (err == nil) != test.want {
			t.Errorf("%s: %v, want it to verify: %t", name, err, test.want)
		}
	}
}

// Signatures that are not even looked at.
func TestSignaturesRefused(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		key  crypto.PublicKey
		alg  asn1.ObjectIdentifier
		want string
	}{
		"RSA with SHA-1":       {rsaKey.Public(), oidSHA1WithRSA, "SHA-1"},
		"ECDSA with SHA-1":     {newKey(t).Public(), oidECDSAWithSHA1, "SHA-1"},
		"unknown":              {rsaKey.Public(), oidMGF1, "unknown signature algorithm"},
		"of another key":       {newKey(t).Public(), oidSHA256WithRSA, "does not fit the key"},
		"of a key of no use":   {[]byte("key"), oidSHA256WithRSA, "key"},
		"that does not verify": {rsaKey.Public(), oidSHA256WithRSA, "does not verify"},
	} {
		if err := verifySignature(test.key, AlgorithmIdentifier{test.alg, derNULL}, []byte("message"), make([]byte, 256)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
	}
}

// What has no protection verifies by nothing.
func TestUnprotectedVerifiesByNothing(t *testing.T) {
	ca := newAuthority(t, "CA")
	m := mustParse(t, encoded(t, &Message{Header: Header{PVNO: 2, Sender: DirectoryName(ca.signer.RawSubject)}, Type: TypePKIConf, Body: PKIConf{}}))
	if err := m.VerifySignature(ca.signer); outcome(err) != "protection" {
		t.Errorf("by signature: %v", err)
	}
	if err := m.VerifyMAC(&SharedSecret{Reference: []byte("r"), Secret: []byte("s")}, 0); !errors.Is(err, ErrProtection) {
		t.Errorf("by MAC: %v", err)
	}
	if _, err := new(Trust).Verify(m, epoch); outcome(err) != "signer" || !strings.Contains(err.Error(), "at hand") {
		t.Errorf("by nobody: %v", err)
	}
}

// A modulus so long that to verify with it would take a peer's choice of time is refused at once.
func TestOversizedKeys(t *testing.T) {
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), MaxRSABits), E: 65537}
	err := verifySignature(huge, AlgorithmIdentifier{oidSHA256WithRSA, derNULL}, nil, make([]byte, MaxRSABits/8))
	if err == nil || !strings.Contains(err.Error(), "more than 8192 bits") {
		t.Errorf("error %v", err)
	}
	ca := newAuthority(t, "CA")
	der := ca.issue(t, &x509.Certificate{}, huge, ca.root).Raw
	if got := parseAll([][]byte{der, ca.root.Raw}); len(got) != 1 {
		t.Errorf("%d certificates are kept, want 1", len(got))
	}
}

// Proof of possession as others make it: with a poposkInput where the template lacks the subject.
func TestProofWithInput(t *testing.T) {
	key := newKey(t)
	info, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	subject := mustName(t, "/CN=x")
	for name, test := range map[string]struct {
		template CertTemplate
		input    []byte // public key in the poposkInput; nil: no poposkInput
		want     string
	}{
		"good":                   {CertTemplate{PublicKeyInfo: info}, info, "ok"},
		"complete, no input":     {CertTemplate{Subject: subject, PublicKeyInfo: info}, nil, "ok"},
		"complete, but input":    {CertTemplate{Subject: subject, PublicKeyInfo: info}, info, "popo.signature.poposkInput"},
		"no subject, no input":   {CertTemplate{PublicKeyInfo: info}, nil, "popo.signature.poposkInput"},
		"another key":            {CertTemplate{PublicKeyInfo: info}, other, "popo.signature.poposkInput.publicKey"},
		"no key in the template": {CertTemplate{Subject: subject}, info, "certTemplate.publicKey"},
		"key of somebody else":   {CertTemplate{Subject: subject, PublicKeyInfo: other}, nil, "popo.signature"},
	} {
		t.Run(name, func(t *testing.T) {
			r := CertReqMsg{CertReq: CertRequest{CertTemplate: test.template}, POPO: ProofOfPossession{Type: POPSignature}}
			signed := r.CertReq.der()
			if test.input != nil {
				var w writer
				m := w.open(0x30)
				w.taggedElement(0, DirectoryName(subject))
				w.raw(test.input)
				w.close(m)
				r.POPO.Signature.Input, signed = w.b, w.b
			}
			s, err := signatureScheme(key.Public(), 0, false)
			if err != nil {
				t.Fatal(err)
			}
			r.POPO.Signature.Algorithm = s.identifier
			if r.POPO.Signature.Signature, err = s.sign(rand.Reader, key, signed); err != nil {
				t.Fatal(err)
			}
			der, err := (&Message{Header: Header{PVNO: 2}, Type: TypeCR, Body: CertReqMessages{r}}).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			parsed := mustParse(t, der).Body.(CertReqMessages)
			if err := parsed[0].VerifyPOP(); outcome(err) != test.want {
				t.Errorf("%q (%v), want %q", outcome(err), err, test.want)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]string{
		"20261121120000Z":            "2026-11-21T12:00:00Z",
		"20261121120000.5Z":          "2026-11-21T12:00:00.5Z",
		"20261121120000.123456789Z":  "2026-11-21T12:00:00.123456789Z",
		"20261121120000.50Z":         "",
		"20261121120000.Z":           "",
		"20261121120000.1234567891Z": "",
		"20261121120000,5Z":          "",
		"20261121120000":             "",
		"20261121120000+0100":        "",
		"202611211200Z":              "",
		"20261321120000Z":            "",
		"20260230120000Z":            "",
		"20261121240000Z":            "",
		"20261121126000Z":            "",
		"20261121120060Z":            "",
		"2026112112000\x00Z":         "",
		"":                           "",
		"20261121120000ZZ":           "",
		"-2026112112000Z":            "",
	} {
		var w writer
		w.primitive(24, []byte(text))
		p := newParser(w.b, inHeader)
		got := p.generalizedTime("time")
		if p.ok() != (want != "") || p.ok() && got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s, %v, want %q", text, got, p.err(), want)
		}
	}
}

// HTTPS has a trust store and an identity of its own.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		_, _ = io.WriteString(w, "reply")
	}))
	device := newAuthority(t, "Devices")
	clients := x509.NewCertPool()
	clients.AddCert(device.root)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, Time: (&clock{epoch}).Now}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	identity := device.identity(t, "device")
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	own := tls.Certificate{Certificate: [][]byte{identity.Certificate.Raw}, PrivateKey: identity.Key}
	for name, test := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"good":           {&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}, ""},
		"no identity":    {&tls.Config{RootCAs: roots}, "certificate required"},
		"unknown server": {&tls.Config{Certificates: []tls.Certificate{own}}, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			client := &Client{URL: server.URL, TLS: test.config}
			_, err := client.Exchange(t.Context(), []byte("request"))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			var failure *TransportError
			if name == "unknown server" && (!errors.As(err, &failure) || failure.Sent) {
				t.Errorf("%+v: nothing was sent", failure)
			}
		})
	}
}

func TestResumeRefuses(t *testing.T) {
	s := signed(t)
	stored, err := s.begin(t).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	good := string(stored)
	first := mustParse(t, s.begin(t).Step().Send)
	anonymous := mustParse(t, s.begin(t).Step().Send)
	forget(anonymous)
	anonymous.Header.SenderNonce = nil
	requestOf := func(kind BodyType, body Body) *Message {
		m := mustParse(t, s.begin(t).Step().Send)
		forget(m)
		m.Type, m.Body = kind, body
		return m
	}
	with := func(pairs ...any) string {
		var fields map[string]any
		if err := json.Unmarshal(stored, &fields); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(pairs); i += 2 {
			fields[pairs[i].(string)] = pairs[i+1]
		}
		changed, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(changed)
	}
	for name, test := range map[string]struct {
		cfg   Config
		state string
	}{
		"nothing":         {s.cfg, ""},
		"not JSON":        {s.cfg, "x"},
		"too long":        {s.cfg, strings.Repeat(" ", maxStateBytes+1)},
		"another version": {s.cfg, strings.Replace(good, `"version":1`, `"version":2`, 1)},
		"another phase":   {s.cfg, strings.Replace(good, `"phase":"request"`, `"phase":"x"`, 1)},
		"no certificate":  {s.cfg, strings.Replace(good, `"phase":"request"`, `"phase":"confirm"`, 1)},
		"no request":      {s.cfg, `{"version":1,"phase":"request"}`},
		"bad signer":      {s.cfg, strings.Replace(good, `"version":1`, `"version":1,"signer":"AAAA"`, 1)},
		"other kind":      {shared(t).cfg, good},
		"no nonce":        {s.cfg, with("request", encoded(t, anonymous))},
		"no CSR":          {s.cfg, with("request", seal(t, requestOf(TypeP10CR, P10CR{0x30, 0}), s.cfg.Credential))},
		"two requests":    {s.cfg, with("request", seal(t, requestOf(TypeIR, append(first.Body.(CertReqMessages), first.Body.(CertReqMessages)...)), s.cfg.Credential))},
		"rr of nothing":   {s.cfg, with("request", seal(t, requestOf(TypeRR, RevReq{{}}), s.cfg.Credential))},
		"no answer":       {s.cfg, with("phase", "done", "answer", []byte("x"))},
		"another answer":  {s.cfg, with("phase", "done", "answer", encoded(t, first))},
		"an answer early": {s.cfg, with("phase", "confirm", "answer", seal(t, s.ca.answer(t, encoded(t, first), TypeRP, &RevRep{Status: []StatusInfo{{}}}), s.reply))},
	} {
		if _, err := Resume(test.cfg, []byte(test.state)); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v, want ErrState", name, err)
		}
	}
	if _, err := Resume(Config{}, stored); err == nil {
		t.Error("resumed without a credential")
	}
}

func TestErrorInALog(t *testing.T) {
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("x", "err", &Error{Status: StatusRejection, Failure: FailBadPOP | FailBadAlg, Text: []string{"no", "way"}, Body: TypeIP, Verified: true})
	want := `err.body=ip err.status=rejection err.failInfo=badAlg,badPOP err.text="no; way" err.verified=true`
	if !strings.Contains(b.String(), want) {
		t.Errorf("log %q lacks %q", b.String(), want)
	}
	for class, want := range map[Class]string{ClassPermanent: "permanent", ClassRetryable: "retryable", ClassSecurity: "security"} {
		if class.String() != want {
			t.Errorf("class %d is %q, want %q", class, class, want)
		}
	}
}
