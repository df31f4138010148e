package responder

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
)

// Each kind of misbehaviour must be noticed by a client that does its checks,
// and by the check it is made for.
func TestMisbehaviourIsNoticed(t *testing.T) {
	rejection := &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailNotAuthorized, Text: []string{"ask the operator"}}
	notBelieved := func(check cmp.Check) func(error) bool {
		return func(err error) bool {
			var p *cmp.ProtectionError
			return errors.As(err, &p) && p.Check == check && errors.Is(err, cmp.ErrProtection)
		}
	}
	refusedFor := func(field string) func(error) bool {
		return func(err error) bool {
			var r *cmp.ReplyError
			return errors.As(err, &r) && r.Field == field
		}
	}
	undecodable := func(err error) bool {
		var s *cmp.SyntaxError
		return errors.As(err, &s)
	}
	told := func(err error) bool {
		var e *cmp.Error
		return errors.As(err, &e) && e.Verified && e.Failure == cmp.FailNotAuthorized && slices.Equal(e.Text, rejection.Text)
	}
	overheard := func(err error) bool {
		var e *cmp.Error
		return errors.Is(err, cmp.ErrProtection) && errors.As(err, &e) && !e.Verified && e.Failure == cmp.FailNotAuthorized
	}
	cases := []struct {
		name      string
		behaviour Behaviour
		signed    bool
		noticed   func(error) bool
		told      bool // the CA is told, so that it revokes what it issued
	}{
		{"bad nonce", Behaviour{BadNonce: true}, false, notBelieved(cmp.CheckRecipNonce), false},
		{"wrong transactionID", Behaviour{WrongTransactionID: true}, false, notBelieved(cmp.CheckTransactionID), false},
		{"wrong MAC", Behaviour{WrongSignature: true}, false, notBelieved(cmp.CheckMAC), false},
		{"wrong signature", Behaviour{WrongSignature: true}, true, notBelieved(cmp.CheckSigner), false},
		{"unprotected", Behaviour{Unprotected: true}, false, notBelieved(cmp.CheckProtected), false},
		{"garbage", Behaviour{Garbage: true}, false, undecodable, false},
		{"altered", Behaviour{Alter: func(m *cmp.Message) { m.Header.SenderNonce = nil }}, false, notBelieved(cmp.CheckSenderNonce), false},
		{"altered on the way", Behaviour{AlterDER: func(der []byte) []byte { der[40] ^= 1; return der }}, false, func(err error) bool { return err != nil }, false},
		{"rejection", Behaviour{Reject: rejection}, false, told, false},
		{"rejection, signed", Behaviour{Reject: rejection}, true, told, false},
		{"rejection by error", Behaviour{Reject: rejection, RejectAsError: true}, false, told, false},
		{"rejection after polling", Behaviour{Reject: rejection, Wait: 2}, true, told, false},
		{"rejection unprotected", Behaviour{Reject: rejection, UnprotectedErrors: true}, false, overheard, false},
		{"wrong key", Behaviour{WrongKey: true}, false, refusedFor("certificate.subjectPublicKeyInfo"), true},
		{"a CA certificate", Behaviour{Modify: func(c *x509.Certificate) { c.IsCA = true }}, false, refusedFor("certificate.basicConstraints"), true},
		{"expired", Behaviour{Modify: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*time.Hour), c.NotBefore.Add(-time.Hour)
		}}, false, refusedFor("certificate.validity.notAfter"), true},
		{"foreign issuer", Behaviour{ForeignIssuer: true}, false, refusedFor("certificate"), true},
		{"wrong transactionID in pkiconf", Behaviour{Only: []cmp.BodyType{cmp.TypePKIConf}, WrongTransactionID: true}, false, notBelieved(cmp.CheckTransactionID), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, Config{})
			cfg := l.client()
			if c.signed {
				cfg = l.signedBy(l.identity())
			}
			l.behave(c.behaviour)
			tx := l.begin(cfg, request(cmp.TypeCR, name(t, "a"), newKey(t)))
			var step cmp.Step
			var err error
			for range 10 {
				if step, err = l.step(tx); err != nil || step.Done {
					break
				}
			}
			if !c.noticed(err) {
				t.Fatalf("got %v", err)
			}
			if !c.told {
				return
			}
			if step.Send == nil {
				t.Fatal("the client has nothing to tell the CA")
			}
			l.ask(step.Send)
			if got := l.last(); !got.Revoked || got.Reason != "rejected by its owner" {
				t.Errorf("got revoked %t, %q; want true, rejected by its owner", got.Revoked, got.Reason)
			}
		})
	}
}

// What is unusual but allowed must not stop a client.
func TestOddBehaviourIsAccepted(t *testing.T) {
	cases := []struct {
		name      string
		behaviour Behaviour
		implicit  bool
	}{
		{"MAC answered by signature", Behaviour{SignMAC: true}, false},
		{"implicit confirmation refused", Behaviour{NoImplicitConfirm: true}, true},
		{"implicit confirmation nobody asked for", Behaviour{GrantImplicitConfirm: true}, false},
		{"polling", Behaviour{Wait: 4, CheckAfter: 30 * time.Second}, false},
		{"polling with implicit confirmation", Behaviour{Wait: 1}, true},
		{"waiting for pkiConf", Behaviour{WaitConfirm: 3, CheckAfter: time.Second}, false},
		{"waiting twice", Behaviour{Wait: 2, WaitConfirm: 2, CheckAfter: time.Second}, false},
	}
	for _, c := range cases {
		for _, signed := range []bool{false, true} {
			l := newLab(t, Config{})
			cfg := l.client()
			if signed {
				cfg = l.signedBy(l.identity())
			}
			cfg.ImplicitConfirm = c.implicit
			l.behave(c.behaviour)
			if _, err := l.finish(l.begin(cfg, request(cmp.TypeCR, name(t, "a"), newKey(t)))); err != nil {
				t.Errorf("%s, signed %t: %v", c.name, signed, err)
			}
			if !l.last().Confirmed {
				t.Errorf("%s, signed %t: not confirmed", c.name, signed)
			}
		}
	}
}

func TestOnlyRestrictsFaults(t *testing.T) {
	l := newLab(t, Config{Behaviour: Behaviour{Only: []cmp.BodyType{cmp.TypeKUP}, Garbage: true}})
	l.enrol(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
}

// web is a CA on the network in real time.
func web(t *testing.T) (*Running, *cmp.Client, cmp.Config) {
	t.Helper()
	ca := start(t, Config{SharedSecrets: map[string]string{testReference: testSecret}})
	cfg := cmp.Config{
		Credential: &cmp.SharedSecret{Reference: []byte(testReference), Secret: []byte(testSecret)},
		Trust:      cmp.Trust{Roots: []*x509.Certificate{ca.CACertificate()}},
	}
	return ca, &cmp.Client{URL: ca.URL, Timeout: 20 * time.Second}, cfg
}

func TestFaultsOfTransport(t *testing.T) {
	ca, client, cfg := web(t)
	cases := []struct {
		name      string
		behaviour Behaviour
		status    int
	}{
		{"HTML", Behaviour{HTTPStatus: http.StatusServiceUnavailable}, http.StatusServiceUnavailable},
		// A first message that is met with silence is sent once more, in HTTP/1.0.
		{"dropped", Behaviour{DropReply: 2}, 0},
		{"dropped pkiconf", Behaviour{DropReply: 1, Only: []cmp.BodyType{cmp.TypePKIConf}}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := len(ca.Issued())
			ca.Behave(func(b *Behaviour) { *b = c.behaviour })
			_, err := client.Do(t.Context(), cfg, request(cmp.TypeIR, name(t, "a"), newKey(t)))
			var transport *cmp.TransportError
			if !errors.As(err, &transport) || transport.StatusCode != c.status || !transport.Sent {
				t.Errorf("got %v, want a TransportError with status %d, sent", err, c.status)
			}
			if got := len(ca.Issued()); got != before+1 {
				t.Errorf("issued: got %d, want 1", got-before)
			}
		})
	}
}

func TestDroppedRepliesRunOut(t *testing.T) {
	ca, client, cfg := web(t)
	ca.DropReply(4, cmp.TypeIP) // each run asks in both versions of HTTP
	tx, err := cmp.Begin(cfg, request(cmp.TypeIR, name(t, "a"), newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := client.Run(t.Context(), tx); err == nil {
			t.Errorf("run %d: got an answer", i)
		}
	}
	if _, err := client.Run(t.Context(), tx); err != nil {
		t.Error(err)
	}
	if got := len(ca.Issued()); got != 1 {
		t.Errorf("issued: got %d, want 1", got)
	}
}

func TestDelay(t *testing.T) {
	ca, client, cfg := web(t)
	ca.Behave(func(b *Behaviour) { b.Delay = time.Hour })
	client.Timeout = 100 * time.Millisecond
	_, err := client.Do(t.Context(), cfg, request(cmp.TypeIR, name(t, "a"), newKey(t)))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestCMPUnderAnHTTPError(t *testing.T) {
	ca, client, cfg := web(t)
	ca.Behave(func(b *Behaviour) { b.CMPStatus = http.StatusInternalServerError })
	if _, err := client.Do(t.Context(), cfg, request(cmp.TypeIR, name(t, "a"), newKey(t))); err != nil {
		t.Error(err)
	}
}

func TestReject(t *testing.T) {
	l := newLab(t, Config{})
	l.ca.Reject(cmp.FailBadCertTemplate, "no")
	_, err := l.finish(l.begin(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t))))
	var e *cmp.Error
	if !errors.As(err, &e) || e.Failure != cmp.FailBadCertTemplate {
		t.Errorf("got %v, want badCertTemplate", err)
	}
	l.ca.Reject(0, "")
	l.enrol(l.client(), request(cmp.TypeIR, name(t, "a"), newKey(t)))
}
