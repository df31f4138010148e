package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"
)

// epoch is the time at which tests happen.
var epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// clock is a clock that only moves when told.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

// authority is a CA of the tests: a root, and a CMP server certificate under it.
type authority struct {
	rootKey, signerKey crypto.Signer
	root, signer       *x509.Certificate
	signs              x509.SignatureAlgorithm // 0: what suits rootKey
}

var serials atomic.Int64

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	return newAuthorityOf(t, name, newKey(t), newKey(t), 0)
}

// newAuthorityOf is an authority with given keys that signs certificates in a given way.
func newAuthorityOf(t testing.TB, name string, rootKey, signerKey crypto.Signer, signs x509.SignatureAlgorithm) *authority {
	t.Helper()
	a := &authority{rootKey: rootKey, signerKey: signerKey, signs: signs}
	root := &x509.Certificate{
		Subject: pkix.Name{Organization: []string{"certloop"}, CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.root = a.issue(t, root, a.rootKey.Public(), root)
	server := &x509.Certificate{Subject: pkix.Name{CommonName: name + " CMP"}, KeyUsage: x509.KeyUsageDigitalSignature}
	a.signer = a.issue(t, server, a.signerKey.Public(), a.root)
	return a
}

// issue signs a certificate valid from an hour before epoch for a year.
func (a *authority) issue(t testing.TB, template *x509.Certificate, key crypto.PublicKey, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(serials.Add(1))
	template.SignatureAlgorithm = a.signs
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = epoch.Add(-time.Hour), epoch.AddDate(1, 0, 0)
	}
	if len(template.SubjectKeyId) == 0 {
		template.SubjectKeyId = big.NewInt(1e12 + template.SerialNumber.Int64()).Bytes()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaf issues what a template asks for.
func (a *authority) leaf(t testing.TB, template *CertTemplate) *x509.Certificate {
	t.Helper()
	key, err := template.Key()
	if err != nil {
		t.Fatal(err)
	}
	return a.issue(t, &x509.Certificate{RawSubject: template.Subject, ExtraExtensions: template.Extensions}, key, a.root)
}

// credential is what the authority signs with.
func (a *authority) credential() *Signer { return &Signer{Key: a.signerKey, Certificate: a.signer} }

// identity issues a certificate that can sign requests.
func (a *authority) identity(t testing.TB, name string) *Signer {
	t.Helper()
	key := newKey(t)
	c := a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature}, key.Public(), a.root)
	return &Signer{Key: key, Certificate: c}
}

// answer begins a good answer to a message: everything but its body.
func (a *authority) answer(t testing.TB, request []byte, bodyType BodyType, body Body) *Message {
	t.Helper()
	req := mustParse(t, request)
	m := &Message{Type: bodyType, Body: body}
	m.Header = Header{
		PVNO: req.Header.PVNO, Recipient: req.Header.Sender, MessageTime: epoch,
		TransactionID: req.Header.TransactionID, RecipNonce: req.Header.SenderNonce, SenderNonce: randomNonce(t),
	}
	return m
}

// granted answers a request with a certificate.
func (a *authority) granted(t testing.TB, request []byte) *Message {
	t.Helper()
	req := mustParse(t, request)
	template, id := a.requested(t, req)
	body := &CertRepMessage{Response: []CertResponse{{
		CertReqID: id, Certified: &CertifiedKeyPair{Certificate: a.leaf(t, &template).Raw},
	}}}
	return a.answer(t, request, responseTo[req.Type], body)
}

// requested is what a request asks for, and the certReqId of the answer.
func (a *authority) requested(t testing.TB, req *Message) (CertTemplate, int64) {
	t.Helper()
	if csr, ok := req.Body.(P10CR); ok {
		asked, err := askedInCSR(csr)
		if err != nil {
			t.Fatal(err)
		}
		return asked.template, -1
	}
	msg, err := req.certReqMsg()
	if err != nil {
		t.Fatal(err)
	}
	if err := msg.VerifyPOP(); err != nil && msg.POPO.Type != POPRAVerified {
		t.Fatal(err)
	}
	return msg.CertReq.CertTemplate, 0
}

func (a *authority) confirmed(t testing.TB, request []byte) *Message {
	t.Helper()
	return a.answer(t, request, TypePKIConf, PKIConf{})
}

// waiting answers that the certificate takes time.
func (a *authority) waiting(t testing.TB, request []byte) *Message {
	t.Helper()
	req := mustParse(t, request)
	_, id := a.requested(t, req)
	body := &CertRepMessage{Response: []CertResponse{{CertReqID: id, Status: StatusInfo{Status: StatusWaiting}}}}
	return a.answer(t, request, responseTo[req.Type], body)
}

func (a *authority) pollRep(t testing.TB, request []byte, seconds int64) *Message {
	t.Helper()
	poll, ok := mustParse(t, request).Body.(PollReq)
	if !ok {
		t.Fatalf("not a pollReq")
	}
	return a.answer(t, request, TypePollRep, PollRep{{CertReqID: poll[0], CheckAfter: seconds}})
}

func randomNonce(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, nonceBytes)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func mustParse(t testing.TB, der []byte) *Message {
	t.Helper()
	m, err := ParseMessage(der)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// seal protects and encodes.
func seal(t testing.TB, m *Message, c Credential) []byte {
	t.Helper()
	if err := m.Protect(nil, c); err != nil {
		t.Fatal(err)
	}
	der, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// mustName reads a name that is right.
func mustName(t testing.TB, s string) Name {
	t.Helper()
	n, err := ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
