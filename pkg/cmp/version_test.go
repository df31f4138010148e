package cmp

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// unsupported is an error that says which version the peer knows.
func (s *scene) unsupported(t testing.TB, request []byte, knows int64) *Message {
	t.Helper()
	body := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, FailInfo: FailUnsupportedVersion}}
	m := s.ca.answer(t, request, TypeError, body)
	m.Header.PVNO = knows
	return m
}

// A peer that does not know our version is asked again in the one it knows, once.
func TestVersionNegotiation(t *testing.T) {
	for name, newScene := range map[string]func(testing.TB) *scene{"signature": signed, "MAC": shared} {
		for begun, knows := range map[int64]int64{PVNO2: PVNO3, PVNO3: PVNO2} {
			t.Run(name, func(t *testing.T) {
				s := newScene(t)
				s.cfg.PVNO, s.cfg.TotalTimeout = begun, time.Hour
				s.cfg.ImplicitConfirm, s.req.Profile = true, "web"
				tr := s.begin(t)
				first := mustParse(t, tr.Step().Send)
				step := s.next(t, tr, s.unsupported(t, tr.Step().Send, knows))
				again := mustParse(t, s.resumed(t, tr).Step().Send)
				if first.Header.PVNO != begun || again.Header.PVNO != knows || step.Type != TypeIR || step.Done {
					t.Fatalf("pvno %d, then %d in %s", first.Header.PVNO, again.Header.PVNO, step.Type)
				}
				h := &again.Header
				if h.RecipNonce != nil || bytes.Equal(h.TransactionID, first.Header.TransactionID) || bytes.Equal(h.SenderNonce, first.Header.SenderNonce) {
					t.Errorf("not a new transaction: %+v", h)
				}
				if len(h.GeneralInfo) != 2 || again.Body.(CertReqMessages)[0].VerifyPOP() != nil {
					t.Errorf("asks for something else: %+v", again)
				}
				step = s.next(t, s.resumed(t, tr), s.ca.granted(t, step.Send))
				if conf := mustParse(t, step.Send); conf.Type != TypeCertConf || conf.Header.PVNO != knows {
					t.Errorf("then %s with pvno %d", conf.Type, conf.Header.PVNO)
				}
			})
		}
	}
}

func TestVersionNegotiationEnds(t *testing.T) {
	refused := func(t *testing.T, s *scene, tr *Transaction, m *Message) {
		t.Helper()
		step, err := tr.Next(seal(t, m, s.reply))
		var peer *Error
		if !errors.As(err, &peer) || peer.Failure != FailUnsupportedVersion || step.Send != nil {
			t.Errorf("%+v, %v, want the peer's refusal", step, err)
		}
	}
	t.Run("after one retry", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		step := s.next(t, tr, s.unsupported(t, tr.Step().Send, PVNO3))
		tr = s.resumed(t, tr)
		refused(t, s, tr, s.unsupported(t, step.Send, PVNO2))
	})
	t.Run("same version", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		refused(t, s, tr, s.unsupported(t, tr.Step().Send, PVNO2))
	})
	t.Run("cmp1999", func(t *testing.T) { // RFC 9810 §7.1.1: the transaction must end
		s := signed(t)
		tr := s.begin(t)
		if _, err := tr.Next(seal(t, s.unsupported(t, tr.Step().Send, 1), s.reply)); outcome(err) != string(CheckVersion) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("not authentic", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		m := s.unsupported(t, tr.Step().Send, PVNO3)
		if _, err := tr.Next(seal(t, m, newAuthority(t, "Test CA").credential())); !errors.Is(err, ErrProtection) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("at certConf", func(t *testing.T) {
		s := signed(t)
		tr := s.begin(t)
		step := s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		if _, err := tr.Next(seal(t, s.unsupported(t, step.Send, PVNO3), s.reply)); outcome(err) != "peer" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("unknown to begin with", func(t *testing.T) {
		s := signed(t)
		s.cfg.PVNO = 4
		if _, err := Begin(s.cfg, s.req); err == nil || !strings.Contains(err.Error(), "pvno 4") {
			t.Errorf("error %v", err)
		}
	})
}
