package cmp

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// scene is a client and a CA that get on well, until a test changes something.
type scene struct {
	clock clock
	ca    *authority
	cfg   Config
	req   Request
	reply Credential // protects the CA's messages

	firstNonce, peerNonce []byte // senderNonces of the first message, and of the answer to it
}

// signed is a scene in which everybody signs.
func signed(t testing.TB) *scene {
	t.Helper()
	ca := newAuthority(t, "Test CA")
	s := &scene{clock: clock{epoch}, ca: ca, reply: ca.credential()}
	s.cfg = Config{Credential: ca.identity(t, "device"), Now: s.clock.Now}
	s.cfg.Trust.Roots = append(s.cfg.Trust.Roots, ca.root)
	s.req = Request{Type: TypeIR, Key: newKey(t), Template: CertTemplate{Subject: mustName(t, "/O=certloop/CN=web")}}
	return s
}

// shared is a scene in which everybody uses a shared secret.
func shared(t testing.TB) *scene {
	t.Helper()
	s := signed(t)
	secret := &SharedSecret{Reference: []byte("ref"), Secret: []byte("very secret"), Iterations: 100}
	s.cfg.Credential, s.reply = secret, secret
	return s
}

// asking makes the scene's request one of a kind.
func (s *scene) asking(t testing.TB, kind BodyType) *scene {
	t.Helper()
	s.req.Type = kind
	switch kind {
	case TypeKUR:
		s.req.OldCert = s.ca.identity(t, "web").Certificate
	case TypeP10CR:
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: s.req.Template.Subject}, s.req.Key)
		if err != nil {
			t.Fatal(err)
		}
		s.req = Request{Type: TypeP10CR, CSR: csr, Key: s.req.Key, Template: s.req.Template}
	default:
	}
	return s
}

func (s *scene) begin(t testing.TB) *Transaction {
	t.Helper()
	tr, err := Begin(s.cfg, s.req)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// resumed is the transaction as another process finds it.
func (s *scene) resumed(t testing.TB, tr *Transaction) *Transaction {
	t.Helper()
	stored, err := tr.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Resume(s.cfg, stored)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// forgetting is the transaction as another process finds it, but for a field
// that older programs did not store. It must have been there.
func (s *scene) forgetting(t testing.TB, tr *Transaction, field string) *Transaction {
	t.Helper()
	stored, err := tr.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(stored, &fields); err != nil || fields[field] == nil {
		t.Fatalf("%v, field %q: %s", err, field, stored)
	}
	delete(fields, field)
	older, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Resume(s.cfg, older)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// next gives tr a reply it must like.
func (s *scene) next(t testing.TB, tr *Transaction, m *Message) Step {
	t.Helper()
	step, err := tr.Next(seal(t, m, s.reply))
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func TestEnrolment(t *testing.T) {
	for name, newScene := range map[string]func(testing.TB) *scene{"signature": signed, "MAC": shared} {
		for _, kind := range []BodyType{TypeIR, TypeCR, TypeKUR} {
			t.Run(name+"/"+kind.String(), func(t *testing.T) {
				s := newScene(t)
				s.req.Type = kind
				s.req.OldCert = s.ca.identity(t, "web").Certificate
				tr := s.begin(t)
				step := tr.Step()
				if got, want := step.Type, kind; got != want {
					t.Fatalf("first message is %s, want %s", got, want)
				}
				step = s.next(t, tr, s.ca.granted(t, step.Send))
				if step.Type != TypeCertConf || step.Issued == nil || step.Done {
					t.Fatalf("after the certificate: %+v", step)
				}
				if got, want := step.Issued.Certificate.PublicKey, s.req.Key.Public(); !equalKeys(got, want) {
					t.Errorf("certificate has key %v, want %v", got, want)
				}
				step = s.next(t, tr, s.ca.confirmed(t, step.Send))
				if !step.Done || step.Send != nil || step.Issued == nil {
					t.Fatalf("after pkiConf: %+v", step)
				}
				if _, err := tr.Next(nil); !errors.Is(err, ErrState) {
					t.Errorf("Next after the end: %v, want ErrState", err)
				}
			})
		}
	}
}

func TestResumeAnywhere(t *testing.T) {
	s := shared(t)
	tr := s.begin(t)
	first := tr.Step()
	tr = s.resumed(t, tr)
	if !bytes.Equal(tr.Step().Send, first.Send) {
		t.Fatal("the resumed first message is not the same")
	}
	waiting := s.ca.waiting(t, first.Send)
	step := s.next(t, tr, waiting)
	if step.Type != TypePollReq || step.Wait != 0 {
		t.Fatalf("after waiting: %s after %s, want pollReq at once", step.Type, step.Wait)
	}
	tr = s.resumed(t, tr)
	poll := tr.Step().Send
	if got, want := mustParse(t, poll).Header.RecipNonce, waiting.Header.SenderNonce; !bytes.Equal(got, want) {
		t.Errorf("resumed pollReq has recipNonce %x, want %x", got, want)
	}
	rep := s.ca.pollRep(t, poll, 60)
	if got, want := s.next(t, tr, rep).Wait, time.Minute; got != want {
		t.Errorf("wait %s, want %s", got, want)
	}
	tr = s.resumed(t, tr)
	if got, want := tr.Step().Wait, time.Minute; got != want {
		t.Errorf("resumed wait %s, want %s", got, want)
	}
	s.clock.advance(time.Minute)
	poll = tr.Step().Send
	granted := s.ca.granted(t, first.Send)
	granted.Header.RecipNonce = mustParse(t, poll).Header.SenderNonce
	step = s.next(t, tr, granted)
	tr = s.resumed(t, tr)
	if again := tr.Step(); again.Type != TypeCertConf || !again.Issued.Certificate.Equal(step.Issued.Certificate) {
		t.Fatalf("resumed with a certificate: %+v", again)
	}
	step = s.next(t, tr, s.ca.confirmed(t, tr.Step().Send))
	tr = s.resumed(t, tr)
	if !step.Done || !tr.Step().Done || tr.Step().Issued == nil {
		t.Errorf("not done: %+v, %+v", step, tr.Step())
	}
}
