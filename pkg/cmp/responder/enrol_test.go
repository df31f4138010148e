package responder

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// wanted is a request for much of what can be asked for.
func wanted(l *lab, kind cmp.BodyType, key crypto.Signer) cmp.Request {
	req := request(kind, name(l, "web"), key)
	req.Template.NotBefore = l.Now().Add(time.Minute)
	req.Template.NotAfter = l.Now().Add(48 * time.Hour)
	req.Template.Extensions = []pkix.Extension{
		dnsName(l, "web.example"),
		{Id: cmp.ExtensionKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0x80}},
		{Id: cmp.ExtensionExtKeyUsage, Value: marshal(l, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}})},
	}
	return req
}

func checkWanted(t *testing.T, l *lab, cert *x509.Certificate, key crypto.Signer, notAfter time.Time) {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(l.ca.CACertificate())
	intermediates.AddCert(l.ca.IssuingCertificate())
	options := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: cert.NotBefore, DNSName: "web.example"}
	if _, err := cert.Verify(options); err != nil {
		t.Errorf("verifying the certificate: %v", err)
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		t.Error("the public key is not the one asked for")
	}
	if cert.Subject.CommonName != "web" || cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 1 || cert.IsCA {
		t.Errorf("got %s, key usage %b, %d extended, CA %t", cert.Subject, cert.KeyUsage, len(cert.ExtKeyUsage), cert.IsCA)
	}
	if !cert.NotAfter.Equal(notAfter) {
		t.Errorf("notAfter: got %s, want %s", cert.NotAfter, notAfter)
	}
}

func TestEnrolment(t *testing.T) {
	for _, intermediate := range []bool{false, true} {
		for _, kind := range []cmp.BodyType{cmp.TypeIR, cmp.TypeCR, cmp.TypeKUR, cmp.TypeP10CR} {
			for _, signed := range []bool{false, true} {
				for _, implicit := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s signed=%t implicit=%t intermediate=%t", kind, signed, implicit, intermediate), func(t *testing.T) {
						testEnrolment(t, kind, signed, implicit, intermediate)
					})
				}
			}
		}
	}
}

func testEnrolment(t *testing.T, kind cmp.BodyType, signed, implicit, intermediate bool) {
	l := newLab(t, Config{Intermediate: intermediate})
	cfg, peer := l.client(), "mac:"+testReference
	if signed {
		cert, key := l.identity()
		cfg = l.signedBy(cert, key)
		peer = "signature:" + cert.SerialNumber.Text(16) + " CN=identity"
	}
	cfg.ImplicitConfirm = implicit
	key := newKey(t)
	req := wanted(l, kind, key)
	notAfter := req.Template.NotAfter
	switch kind {
	case cmp.TypeKUR:
		req.OldCert = l.enrol(l.client(), request(cmp.TypeIR, name(t, "web"), newKey(t))).Certificate
	case cmp.TypeP10CR:
		template := &x509.CertificateRequest{RawSubject: req.Template.Subject, ExtraExtensions: req.Template.Extensions}
		csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		req = cmp.Request{Type: kind, CSR: csr}
		notAfter = l.Now().Add(DefaultValidity)
	default:
	}
	issued := l.enrol(cfg, req)
	checkWanted(t, l, issued.Certificate, key, notAfter)
	if issued.Status != cmp.StatusAccepted || len(issued.Differences) != 0 {
		t.Errorf("got status %s, differences %v; want accepted and none", issued.Status, issued.Differences)
	}
	got := l.last()
	hash := sha256.Sum256(issued.Certificate.RawSubjectPublicKeyInfo)
	want := Issuance{
		Serial: issued.Certificate.SerialNumber.Text(16), Subject: "CN=web", PublicKeyHash: hex.EncodeToString(hash[:]),
		TransactionID: got.TransactionID, Request: kind, Authenticated: peer, Time: l.Now(), NotAfter: notAfter,
		Confirmed: true, Certificate: issued.Certificate.Raw,
	}
	if kind == cmp.TypeKUR {
		want.Replaces = req.OldCert.SerialNumber.Text(16)
	}
	if fmt.Sprintf("%v", got) != fmt.Sprintf("%v", want) {
		t.Errorf("ledger:\n got %v\nwant %v", got, want)
	}
	l.wantOpen(0)
}

func TestCAPubsComeWithAnIPByMACOnly(t *testing.T) {
	l := newLab(t, Config{})
	cfg := l.client()
	cfg.Trust = cmp.Trust{} // knows nothing but the secret
	issued := l.enrol(cfg, request(cmp.TypeIR, name(t, "a"), newKey(t)))
	if len(issued.CAPubs) != 1 || !issued.CAPubs[0].Equal(l.ca.CACertificate()) {
		t.Errorf("caPubs of ip by MAC: got %d certificates, want the root", len(issued.CAPubs))
	}
	issued = l.enrol(cfg, request(cmp.TypeCR, name(t, "a"), newKey(t)))
	if len(issued.CAPubs) != 0 {
		t.Errorf("caPubs of cp: got %d certificates, want none", len(issued.CAPubs))
	}
}

func TestKeyTypes(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Config{})
	for kind, key := range map[string]crypto.Signer{"Ed25519": ed, "P-521": p521, "RSA-2048": rsa2048} {
		t.Run(kind, func(t *testing.T) {
			cert := l.enrol(l.client(), request(cmp.TypeIR, name(t, kind), key)).Certificate
			again := l.enrol(l.signedBy(cert, key), request(cmp.TypeCR, name(t, kind), newKey(t)))
			if len(again.Certificate.SubjectKeyId) != 20 || bytes.Equal(again.Certificate.SubjectKeyId, cert.SubjectKeyId) {
				t.Errorf("subjectKeyIdentifier: got %x", again.Certificate.SubjectKeyId)
			}
		})
	}
}

func TestGrantedWithMods(t *testing.T) {
	l := newLab(t, Config{Validity: time.Hour})
	req := request(cmp.TypeIR, name(t, "a"), newKey(t))
	req.Template.NotAfter = l.Now().Add(48 * time.Hour)
	req.Template.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
	issued := l.enrol(l.client(), req)
	if issued.Status != cmp.StatusGrantedWithMods {
		t.Errorf("status: got %s, want grantedWithMods", issued.Status)
	}
	if got, want := issued.Certificate.NotAfter, l.Now().Add(time.Hour); !got.Equal(want) {
		t.Errorf("notAfter: got %s, want %s", got, want)
	}
}

// No certificate is longer valid than that of its issuer.
func TestNothingOutlivesTheCA(t *testing.T) {
	l := newLab(t, Config{Validity: 100 * 365 * 24 * time.Hour})
	cert, _ := l.identity()
	if got, want := cert.NotAfter, l.ca.IssuingCertificate().NotAfter; !got.Equal(want) {
		t.Errorf("valid until %s, the CA until %s", got, want)
	}
}

func TestEmptySubjectMakesSubjectAltNameCritical(t *testing.T) {
	l := newLab(t, Config{})
	template := cmp.CertTemplate{Subject: cmp.NullDN(), Extensions: []pkix.Extension{dnsName(t, "a.example")}}
	m := l.parsed(l.message(cmp.TypeIR, certRequest(t, template, newKey(t)), nil))
	cert, err := x509.ParseCertificate(m.Body.(*cmp.CertRepMessage).Response[0].Certified.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range cert.Extensions {
		if e.Id.Equal(cmp.ExtensionSubjectAltName) && !e.Critical {
			t.Error("subjectAltName is not critical")
		}
	}
}

func TestUpdateInherits(t *testing.T) {
	l := newLab(t, Config{})
	key := newKey(t)
	old := l.enrol(l.client(), wanted(l, cmp.TypeIR, key)).Certificate
	l.Advance(time.Hour)
	req := request(cmp.TypeKUR, nil, newKey(t))
	req.OldCert = old
	cert := l.enrol(l.signedBy(old, key), req).Certificate
	if !bytes.Equal(cert.RawSubject, old.RawSubject) || len(cert.DNSNames) != 1 || cert.KeyUsage != old.KeyUsage || len(cert.ExtKeyUsage) != 1 {
		t.Errorf("got %s %v %b %v, want those of the old certificate", cert.Subject, cert.DNSNames, cert.KeyUsage, cert.ExtKeyUsage)
	}
	if got, want := cert.NotAfter, l.Now().Add(DefaultValidity); !got.Equal(want) {
		t.Errorf("notAfter: got %s, want %s: the validity is not inherited", got, want)
	}
}

func TestRefusedRequests(t *testing.T) {
	l := newLab(t, Config{})
	identity, identityKey := l.identity()
	oldKey, key := newKey(t), newKey(t)
	old := l.enrol(l.client(), request(cmp.TypeIR, name(t, "old"), oldKey)).Certificate
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	expired := l.enrol(l.client(), cmp.Request{Type: cmp.TypeIR, Key: key, Template: cmp.CertTemplate{
		Subject: name(t, "expired"), NotAfter: l.Now().Add(time.Second),
	}}).Certificate
	revoked := l.enrol(l.client(), request(cmp.TypeIR, name(t, "revoked"), key)).Certificate
	l.parsed(l.message(cmp.TypeRR, cmp.RevReq{{CertDetails: cmp.CertTemplate{Issuer: revoked.RawIssuer, SerialNumber: revoked.SerialNumber}}}, nil))
	l.Advance(time.Minute)

	oldID := func(c *x509.Certificate) cmp.AttributeTypeAndValue {
		return cmp.OldCertIDControl(cmp.CertID{Issuer: cmp.DirectoryName(c.RawIssuer), SerialNumber: c.SerialNumber})
	}
	template := func(extensions ...pkix.Extension) cmp.CertTemplate {
		return cmp.CertTemplate{Subject: name(t, "a"), Extensions: extensions}
	}
	wrongProof := certRequest(t, template(), key)
	wrongProof[0].POPO.Signature.Signature[10] ^= 1
	notProven := certRequest(t, template(), key)
	notProven[0].POPO = cmp.ProofOfPossession{Type: cmp.POPRAVerified}
	second := append(certRequest(t, template(), key), certRequest(t, template(), key)...)
	reqID := certRequest(t, template(), key)
	reqID[0].CertReq.CertReqID = 7
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: name(t, "a")}, key)
	if err != nil {
		t.Fatal(err)
	}
	wrongCSR := cmp.P10CR(csr)
	wrongCSR[len(csr)-1] ^= 1
	otherIssuer := cmp.OldCertIDControl(cmp.CertID{Issuer: cmp.DirectoryName(name(t, "somebody")), SerialNumber: old.SerialNumber})

	cases := []struct {
		name string
		kind cmp.BodyType
		body cmp.Body
		want cmp.FailureInfo
	}{
		{"CA", cmp.TypeIR, certRequest(t, template(pkix.Extension{Id: cmp.ExtensionBasicConstraints, Value: []byte{0x30, 3, 1, 1, 0xff}}), key), cmp.FailBadCertTemplate},
		{"keyCertSign", cmp.TypeIR, certRequest(t, template(pkix.Extension{Id: cmp.ExtensionKeyUsage, Value: []byte{3, 2, 2, 4}}), key), cmp.FailBadCertTemplate},
		{"undecodable key usage", cmp.TypeIR, certRequest(t, template(pkix.Extension{Id: cmp.ExtensionKeyUsage, Value: []byte{3}}), key), cmp.FailBadCertTemplate},
		{"undecodable subjectAltName", cmp.TypeIR, certRequest(t, template(pkix.Extension{Id: cmp.ExtensionSubjectAltName, Value: []byte{1}}), key), cmp.FailBadCertTemplate},
		{"an extension twice", cmp.TypeIR, certRequest(t, template(dnsName(t, "a"), dnsName(t, "b")), key), cmp.FailBadCertTemplate},
		{"unknown critical extension", cmp.TypeIR, certRequest(t, template(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}), key), cmp.FailUnacceptedExtension},
		{"no name", cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: cmp.NullDN()}, key), cmp.FailBadCertTemplate},
		{"over before it begins", cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a"), NotAfter: l.Now().Add(-time.Hour)}, key), cmp.FailBadCertTemplate},
		{"begins after the longest", cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a"), NotBefore: l.Now().Add(DefaultValidity + time.Hour)}, key), cmp.FailBadCertTemplate},
		{"weak key", cmp.TypeIR, certRequest(t, template(), small), cmp.FailBadAlg},
		{"wrong proof", cmp.TypeIR, wrongProof, cmp.FailBadPOP},
		{"raVerified", cmp.TypeIR, notProven, cmp.FailBadPOP},
		{"two requests", cmp.TypeIR, second, cmp.FailBadRequest},
		{"certReqId", cmp.TypeIR, reqID, cmp.FailBadRequest},
		{"undecodable PKCS #10", cmp.TypeP10CR, cmp.P10CR{0x30, 0}, cmp.FailBadDataFormat},
		{"PKCS #10 with a wrong signature", cmp.TypeP10CR, wrongCSR, cmp.FailBadPOP},
		{"genm without a question", cmp.TypeGenM, cmp.GenMsg{}, cmp.FailBadRequest},
		{"krr", cmp.TypeKRR, certRequest(t, template(), key), cmp.FailBadRequest},
		{"kur without oldCertID", cmp.TypeKUR, certRequest(t, template(), key), cmp.FailAddInfoNotAvailable},
		{"kur of a stranger", cmp.TypeKUR, certRequest(t, template(), key, oldID(l.ca.CACertificate())), cmp.FailBadCertID},
		{"kur of another issuer", cmp.TypeKUR, certRequest(t, template(), key, otherIssuer), cmp.FailBadCertID},
		{"kur with the same key", cmp.TypeKUR, certRequest(t, cmp.CertTemplate{Subject: name(t, "old")}, oldKey, oldID(old)), cmp.FailBadCertTemplate},
		{"kur with another subject", cmp.TypeKUR, certRequest(t, template(), key, oldID(old)), cmp.FailBadCertTemplate},
		{"kur of an expired one", cmp.TypeKUR, certRequest(t, cmp.CertTemplate{Subject: name(t, "expired")}, oldKey, oldID(expired)), cmp.FailBadCertID},
		{"kur of a revoked one", cmp.TypeKUR, certRequest(t, cmp.CertTemplate{Subject: name(t, "revoked")}, oldKey, oldID(revoked)), cmp.FailCertRevoked},
	}
	issued := len(l.ca.Issued())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l.TB = t
			l.refusedWith(l.parsed(l.message(c.kind, c.body, nil)), c.want)
			m := l.parsed(l.messageBy(c.kind, c.body, nil, &cmp.Signer{Key: identityKey, Certificate: identity}))
			l.refusedWith(m, c.want)
			if err := m.VerifySignature(l.ca.IssuingCertificate()); err != nil {
				t.Errorf("the refusal is not protected as the request was: %v", err)
			}
		})
	}
	l.TB = t
	l.wantIssued(issued)
	l.wantOpen(0)
}

func TestRefusedMessages(t *testing.T) {
	l := newLab(t, Config{MessageTimeTolerance: 5 * time.Minute})
	key := newKey(t)
	cert := l.enrol(l.client(), request(cmp.TypeIR, name(t, "signer"), key)).Certificate
	encipher := request(cmp.TypeIR, name(t, "enciphers"), key)
	encipher.Template.Extensions = []pkix.Extension{{Id: cmp.ExtensionKeyUsage, Value: []byte{3, 2, 5, 0x20}}}
	notForSigning := l.enrol(l.client(), encipher).Certificate
	brief := request(cmp.TypeIR, name(t, "over"), key)
	brief.Template.NotAfter = l.Now().Add(time.Minute)
	over := l.enrol(l.client(), brief).Certificate
	l.Advance(2 * time.Minute)
	stranger := selfSigned(t, l, "signer", key)
	body := certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, newKey(t))
	secret := &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret)}

	cases := []struct {
		name       string
		change     func(*cmp.Message)
		credential cmp.Credential
		want       cmp.FailureInfo
	}{
		{"not protected", nil, nil, cmp.FailBadMessageCheck},
		{"wrong secret", nil, &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte("no")}, cmp.FailBadMessageCheck},
		{"secret of somebody else", nil, &cmp.SharedSecret{Reference: []byte("other"), Secret: []byte(testSecret)}, cmp.FailBadMessageCheck},
		{"unknown reference", nil, &cmp.SharedSecret{Reference: []byte("?"), Secret: []byte(testSecret)}, cmp.FailBadMessageCheck},
		{"SHA-1", nil, &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret), MAC: crypto.SHA1, AllowSHA1: true}, cmp.FailBadMessageCheck},
		{"stranger", nil, &cmp.Signer{Key: key, Certificate: stranger}, cmp.FailSignerNotTrusted},
		{"not for signing", nil, &cmp.Signer{Key: key, Certificate: notForSigning}, cmp.FailSignerNotTrusted},
		{"not valid any more", nil, &cmp.Signer{Key: key, Certificate: over}, cmp.FailSignerNotTrusted},
		{"another sender", func(m *cmp.Message) { m.Header.Sender = cmp.DirectoryName(name(t, "x")) }, &cmp.Signer{Key: key, Certificate: cert}, cmp.FailBadMessageCheck},
		{"no extraCerts", func(m *cmp.Message) { m.ExtraCerts = [][]byte{l.ca.CACertificate().Raw} }, &cmp.Signer{Key: key, Certificate: cert}, cmp.FailBadMessageCheck},
		{"pvno 1", func(m *cmp.Message) { m.Header.PVNO = 1 }, secret, cmp.FailUnsupportedVersion},
		{"no transactionID", func(m *cmp.Message) { m.Header.TransactionID = nil }, secret, cmp.FailBadDataFormat},
		{"long transactionID", func(m *cmp.Message) { m.Header.TransactionID = make([]byte, 65) }, secret, cmp.FailBadDataFormat},
		{"no senderNonce", func(m *cmp.Message) { m.Header.SenderNonce = nil }, secret, cmp.FailBadSenderNonce},
		{"old", func(m *cmp.Message) { m.Header.MessageTime = l.Now().Add(-time.Hour) }, secret, cmp.FailBadTime},
		{"sender no directoryName", func(m *cmp.Message) { m.Header.Sender = cmp.GeneralName{0x82, 1, 'a'} }, secret, cmp.FailBadDataFormat},
	}
	issued := len(l.ca.Issued())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l.TB = t
			m := l.parsed(l.messageBy(cmp.TypeIR, body, c.change, c.credential))
			l.refusedWith(m, c.want)
			if m.Type != cmp.TypeError {
				t.Errorf("got %s, want an error message", m.Type)
			}
			if err := m.VerifySignature(l.ca.IssuingCertificate()); err != nil {
				t.Errorf("who cannot be authenticated gets no signed answer: %v", err)
			}
		})
	}
	l.TB = t
	l.wantIssued(issued)
}

// selfSigned is a certificate of no CA.
func selfSigned(t testing.TB, l *lab, commonName string, key crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := newSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: commonName}, NotBefore: l.Now(), NotAfter: l.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestVendorCertificatesMaySign(t *testing.T) {
	vendor, vendorKey, err := newCA(&Config{Now: newClock().Now, Rand: rand.Reader}, "vendor", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Config{ClientCAs: []*x509.Certificate{vendor}})
	key := newKey(t)
	serial, err := newSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "device"}, NotBefore: l.Now(), NotAfter: l.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, vendor, key.Public(), vendorKey)
	if err != nil {
		t.Fatal(err)
	}
	device, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l.enrol(l.signedBy(device, key), request(cmp.TypeIR, name(t, "a"), newKey(t)))
	l.Advance(2 * time.Hour)
	m := l.parsed(l.messageBy(cmp.TypeIR, certRequest(t, cmp.CertTemplate{Subject: name(t, "a")}, key), nil, &cmp.Signer{Key: key, Certificate: device}))
	l.refusedWith(m, cmp.FailSignerNotTrusted)
}
