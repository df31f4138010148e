package cmp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"
)

// wrapped is a message in a nested message of an RA, with a change if need be.
func wrapped(t testing.TB, inner []byte, ra Credential, spoil func(*Message)) []byte {
	t.Helper()
	m, err := Nest(nil, ra, epoch, mustParse(t, inner))
	if err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		spoil(m)
	}
	return seal(t, m, ra)
}

// An answer in a nested message is taken if both protections hold: that of the RA, and that of the CA.
func TestNestedAnswer(t *testing.T) {
	ra := newAuthority(t, "RA")
	for name, test := range map[string]struct {
		wrapper Credential
		spoil   func(*Message)
		inner   func(*testing.T, *scene)
		off     bool
		want    string
	}{
		"good":              {want: "ok"},
		"not configured":    {off: true, want: "signer"},
		"a stranger wraps":  {wrapper: newAuthority(t, "RA").credential(), want: "signer"},
		"a MAC wraps":       {wrapper: &SharedSecret{Reference: []byte("r"), Secret: []byte("s")}, want: "protectionAlg"},
		"a stranger inside": {inner: func(t *testing.T, s *scene) { s.reply = newAuthority(t, "Test CA").credential() }, want: "signer"},
		"transactionID":     {spoil: func(m *Message) { m.Header.TransactionID = []byte("another") }, want: "transactionID"},
		"pvno":              {spoil: func(m *Message) { m.Header.PVNO = 1 }, want: "pvno"},
		"messageTime":       {spoil: func(m *Message) { m.Header.MessageTime = epoch.AddDate(0, 0, 1) }, want: "messageTime"},
		"two inside":        {spoil: func(m *Message) { b := m.Body.(Nested); m.Body = append(b, b[0]) }, want: "transactionID"},
	} {
		t.Run(name, func(t *testing.T) {
			s := signed(t)
			if !test.off {
				s.cfg.WrappedBy = &Trust{Roots: []*x509.Certificate{ra.root}}
			}
			if test.wrapper == nil {
				test.wrapper = ra.credential()
			}
			if test.inner != nil {
				test.inner(t, s)
			}
			tr := s.begin(t)
			before := tr.Step().Send
			step, err := tr.Next(wrapped(t, seal(t, s.ca.granted(t, before), s.reply), test.wrapper, test.spoil))
			judge(t, tr, corruption{want: test.want}, step, err)
			if err != nil && (!errors.Is(err, ErrProtection) || !bytes.Equal(tr.Step().Send, before)) {
				t.Errorf("%v has changed the transaction", err)
			}
		})
	}
	t.Run("unprotected", func(t *testing.T) {
		s := signed(t)
		s.cfg.WrappedBy = &Trust{Roots: []*x509.Certificate{ra.root}}
		tr := s.begin(t)
		m := mustParse(t, wrapped(t, seal(t, s.ca.granted(t, tr.Step().Send), s.reply), ra.credential(), nil))
		m.Protection, m.Header.ProtectionAlg, m.received = nil, AlgorithmIdentifier{}, nil
		der, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Next(der); outcome(err) != "protection" {
			t.Errorf("error %v", err)
		}
	})
}

// An RA wraps every message of a transaction, unchanged, and is answered in the transaction.
func TestWrapper(t *testing.T) {
	s := signed(t)
	ra := s.ca.identity(t, "RA")
	s.cfg.Wrapper = ra
	tr := s.begin(t)
	trust := Trust{Roots: []*x509.Certificate{s.ca.root}}
	var inner *Message
	unwrapped := func(der []byte) []byte {
		t.Helper()
		outer := mustParse(t, der)
		list, ok := outer.Body.(Nested)
		if !ok || len(list) != 1 {
			t.Fatalf("%s with %+v", outer.Type, outer.Body)
		}
		if signer, err := trust.Verify(outer, epoch); err != nil || !signer.Equal(ra.Certificate) {
			t.Errorf("signed by %v, %v", signer, err)
		}
		inner = list[0]
		if !bytes.Equal(inner.Header.TransactionID, outer.Header.TransactionID) || !bytes.Equal(inner.Header.SenderNonce, outer.Header.SenderNonce) {
			t.Errorf("header %+v around %+v", outer.Header, inner.Header)
		}
		if _, err := trust.Verify(inner, epoch); err != nil {
			t.Errorf("the message inside: %v", err)
		}
		out, err := inner.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := unwrapped(tr.Step().Send)
	if again := unwrapped(s.resumed(t, tr).Step().Send); !bytes.Equal(again, first) {
		t.Error("another message inside after resuming")
	}
	step := s.next(t, tr, s.ca.granted(t, first))
	if step.Type != TypeCertConf {
		t.Fatalf("then %s", step.Type)
	}
	if step = s.next(t, tr, s.ca.confirmed(t, unwrapped(step.Send))); !step.Done || step.Send != nil {
		t.Errorf("after pkiConf: %+v", step)
	}
}

// What we say last is wrapped as well.
func TestWrapperOfRefusals(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *scene, *Message){
		"certConf": bodies["another key"].spoil, "error": bodies["status 7"].spoil,
	} {
		s := signed(t)
		s.cfg.Wrapper = s.ca.identity(t, "RA")
		tr := s.begin(t)
		m := s.ca.granted(t, func() []byte {
			inner, err := mustParse(t, tr.Step().Send).Body.(Nested)[0].Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return inner
		}())
		spoil(t, s, m)
		step, err := tr.Next(seal(t, m, s.reply))
		if list, ok := mustParse(t, step.Send).Body.(Nested); err == nil || !ok || list[0].Type.String() != name {
			t.Errorf("%s: %+v, %v", name, step, err)
		}
	}
}

func TestNest(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := signed(t)
	one, two := mustParse(t, s.begin(t).Step().Send), mustParse(t, s.begin(t).Step().Send)
	batch, err := Nest(nil, ca.credential(), epoch, one, two)
	if err != nil {
		t.Fatal(err)
	}
	h := &batch.Header
	if len(h.TransactionID) != 16 || len(h.SenderNonce) != 16 || bytes.Equal(h.TransactionID, one.Header.TransactionID) || h.RecipNonce != nil {
		t.Errorf("header of several: %+v", h)
	}
	for name, inner := range map[string][]*Message{"nothing": nil, "nested": {batch}, "too many": make([]*Message, MaxEntries+1), "no body": {{}}} {
		if _, err := Nest(nil, ca.credential(), epoch, inner...); err == nil {
			t.Errorf("%s is nested", name)
		}
	}
	if _, err := Nest(bytes.NewReader(nil), ca.credential(), epoch, one, two); err == nil {
		t.Error("nested without randomness")
	}
	s.cfg.WrappedBy = &Trust{}
	if _, err := Begin(s.cfg, s.req); err == nil {
		t.Error("anybody may wrap")
	}
}
