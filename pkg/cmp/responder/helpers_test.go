package responder

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"sync"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

const (
	testReference = "1234"
	testSecret    = "a secret nobody may read"
)

// start runs a CA for the time of a test.
func start(t testing.TB, cfg Config) *Running {
	t.Helper()
	ca, err := Start(cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Errorf("closing the CA: %v", err)
		}
	})
	return ca
}

// clock is virtual time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// lab is a CA and its clients in virtual time, without a network.
type lab struct {
	testing.TB
	*clock
	cfg Config
	ca  *Server
}

func newLab(t testing.TB, cfg Config) *lab {
	t.Helper()
	l := &lab{TB: t, clock: newClock(), cfg: cfg}
	l.cfg.Now = l.Now
	if l.cfg.SharedSecrets == nil {
		l.cfg.SharedSecrets = map[string]string{testReference: testSecret, "other": "another secret"}
	}
	l.open()
	return l
}

// open starts the CA, again if it has a directory.
func (l *lab) open() {
	l.Helper()
	ca, err := New(l.cfg)
	if err != nil {
		l.Fatal(err)
	}
	l.ca = ca
}

func (l *lab) behave(b Behaviour) { l.ca.Behave(func(old *Behaviour) { *old = b }) }

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func name(t testing.TB, commonName string) cmp.Name {
	t.Helper()
	n, err := cmp.NameOf(pkix.Name{CommonName: commonName})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// dnsName is a subjectAltName with one dNSName.
func dnsName(t testing.TB, dns string) pkix.Extension {
	t.Helper()
	return pkix.Extension{Id: cmp.ExtensionSubjectAltName, Value: marshal(t, []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(dns)}})}
}

// client is the configuration of a client with a shared secret.
func (l *lab) client() cmp.Config {
	return cmp.Config{
		Credential: &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret)},
		Trust:      cmp.Trust{Roots: []*x509.Certificate{l.ca.CACertificate()}},
		Now:        l.Now,
	}
}

// signedBy is the configuration of a client with a certificate.
func (l *lab) signedBy(cert *x509.Certificate, key crypto.Signer) cmp.Config {
	cfg := l.client()
	cfg.Credential = &cmp.Signer{Key: key, Certificate: cert}
	return cfg
}

func request(kind cmp.BodyType, subject cmp.Name, key crypto.Signer) cmp.Request {
	return cmp.Request{Type: kind, Template: cmp.CertTemplate{Subject: subject}, Key: key}
}

func (l *lab) begin(cfg cmp.Config, req cmp.Request) *cmp.Transaction {
	l.Helper()
	tx, err := cmp.Begin(cfg, req)
	if err != nil {
		l.Fatal(err)
	}
	return tx
}

// ask sends one message and returns the answer.
func (l *lab) ask(der []byte) []byte {
	l.Helper()
	reply, err := l.ca.Respond(der)
	if reply == nil {
		l.Fatalf("no answer: %v", err)
	}
	return reply
}

// parsed sends one message and returns the decoded answer.
func (l *lab) parsed(der []byte) *cmp.Message {
	l.Helper()
	m, err := cmp.ParseMessage(l.ask(der))
	if err != nil {
		l.Fatal(err)
	}
	return m
}

// step sends what a transaction has to send, when it is time, and gives it the answer.
func (l *lab) step(tx *cmp.Transaction) (cmp.Step, error) {
	l.Helper()
	l.Advance(tx.Step().Wait)
	return tx.Next(l.ask(tx.Step().Send))
}

// finish drives a transaction to its end.
func (l *lab) finish(tx *cmp.Transaction) (*cmp.Issued, error) {
	l.Helper()
	for range 100 {
		step, err := l.step(tx)
		if err != nil || step.Done {
			return step.Issued, err
		}
	}
	l.Fatal("the transaction does not end")
	return nil, nil
}

// enrol must succeed.
func (l *lab) enrol(cfg cmp.Config, req cmp.Request) *cmp.Issued {
	l.Helper()
	issued, err := l.finish(l.begin(cfg, req))
	if err != nil {
		l.Fatal(err)
	}
	return issued
}

// identity enrols a certificate that can sign requests.
func (l *lab) identity() (*x509.Certificate, crypto.Signer) {
	l.Helper()
	key := newKey(l)
	return l.enrol(l.client(), request(cmp.TypeIR, name(l, "identity"), key)).Certificate, key
}

// last is the newest entry of the ledger.
func (l *lab) last() Issuance {
	l.Helper()
	issued := l.ca.Issued()
	if len(issued) == 0 {
		l.Fatal("the ledger is empty")
	}
	return issued[len(issued)-1]
}

func (l *lab) wantIssued(n int) {
	l.Helper()
	if got := len(l.ca.Issued()); got != n {
		l.Errorf("certificates issued: got %d, want %d", got, n)
	}
}

func (l *lab) wantOpen(n int) {
	l.Helper()
	if got := l.ca.Open(); got != n {
		l.Errorf("open transactions: got %d, want %d", got, n)
	}
}

// refusedWith tells of a message whether it refuses with exactly these bits.
func (l *lab) refusedWith(m *cmp.Message, want cmp.FailureInfo) {
	l.Helper()
	a := answer{kind: m.Type, body: m.Body}
	if got := a.status(); got.Status != cmp.StatusRejection || got.FailInfo != want {
		l.Errorf("got %s with status %s (%s) %q, want rejection (%s)", m.Type, got.Status, got.FailInfo, got.Text, want)
	}
}

// message builds a first message field by field, protected by the test secret.
func (l *lab) message(kind cmp.BodyType, body cmp.Body, change func(*cmp.Message)) []byte {
	l.Helper()
	return l.messageBy(kind, body, change, &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret)})
}

func (l *lab) messageBy(kind cmp.BodyType, body cmp.Body, change func(*cmp.Message), credential cmp.Credential) []byte {
	l.Helper()
	m := &cmp.Message{Type: kind, Body: body}
	m.Header = cmp.Header{PVNO: cmp.PVNO2, MessageTime: l.Now(), TransactionID: random(l), SenderNonce: random(l)}
	if change != nil {
		change(m)
	}
	if credential != nil {
		if err := m.Protect(nil, credential); err != nil {
			l.Fatal(err)
		}
	}
	der, err := m.Marshal()
	if err != nil {
		l.Fatal(err)
	}
	return der
}

func random(t testing.TB) []byte {
	t.Helper()
	octets := make([]byte, 16)
	if _, err := rand.Read(octets); err != nil {
		t.Fatal(err)
	}
	return octets
}

// reply builds a message that continues the transaction of an answer.
func (l *lab) reply(answer *cmp.Message, kind cmp.BodyType, body cmp.Body, change func(*cmp.Message)) []byte {
	l.Helper()
	return l.message(kind, body, func(m *cmp.Message) {
		m.Header.TransactionID, m.Header.RecipNonce = answer.Header.TransactionID, answer.Header.SenderNonce
		if change != nil {
			change(m)
		}
	})
}

// certRequest is the body of a request with its proof of possession.
func certRequest(t testing.TB, template cmp.CertTemplate, key crypto.Signer, controls ...cmp.AttributeTypeAndValue) cmp.CertReqMessages {
	t.Helper()
	if template.PublicKey == nil {
		template.PublicKey = key.Public()
	}
	msg := cmp.CertReqMsg{CertReq: cmp.CertRequest{CertTemplate: template, Controls: controls}}
	if err := msg.Prove(rand.Reader, key, 0); err != nil {
		t.Fatal(err)
	}
	return cmp.CertReqMessages{msg}
}
