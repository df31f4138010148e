package cmp

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// reticent is a CA behind HTTP that never answers messages of one type, and
// takes its time for the others.
type reticent struct {
	served
	silent  BodyType
	takes   time.Duration // by the clock of the scene
	confirm time.Time     // confirmWaitTime; zero: none

	clockMu sync.Mutex
}

func (s *reticent) now() time.Time {
	s.clockMu.Lock()
	defer s.clockMu.Unlock()
	return s.clock.now
}

func (s *reticent) pass(d time.Duration) {
	s.clockMu.Lock()
	defer s.clockMu.Unlock()
	s.clock.advance(d)
}

// start gives a client whose own patience is longer than the test's.
func (s *reticent) start(t *testing.T) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, _ := io.ReadAll(r.Body)
		m := mustParse(t, request)
		if m.Type == s.silent {
			<-r.Context().Done()
			return
		}
		s.pass(s.takes)
		w.Header().Set("Content-Type", mediaType)
		if m.Type == TypeIR && !s.confirm.IsZero() {
			granted := s.ca.granted(t, request)
			granted.Header.GeneralInfo = []InfoTypeAndValue{confirmWaitInfo(s.confirm)}
			_, _ = w.Write(seal(t, granted, s.reply))
			return
		}
		_, _ = w.Write(s.serve(t, request))
	}))
	t.Cleanup(server.Close)
	s.cfg.Now = s.now
	s.cfg.MessageTimeTolerance = -1
	return &Client{URL: server.URL, Timeout: time.Hour}
}

func confirmWaitInfo(until time.Time) InfoTypeAndValue {
	var w writer
	w.generalizedTime(until)
	return InfoTypeAndValue{Type: InfoConfirmWaitTime, Value: w.b}
}

// The total time is over whatever is waited for at its end, and a certificate
// that is there already is not lost.
func TestDeadlineOfSilence(t *testing.T) {
	for name, test := range map[string]struct {
		ca     *reticent
		total  time.Duration
		issued bool
	}{
		"request":                     {&reticent{silent: TypeIR}, 50 * time.Millisecond, false},
		"poll":                        {&reticent{silent: TypePollReq, takes: time.Hour, served: served{waits: 1}}, time.Hour + 50*time.Millisecond, false},
		"confirmation":                {&reticent{silent: TypeCertConf, takes: time.Hour}, time.Hour + 50*time.Millisecond, true},
		"the CA's own time":           {&reticent{silent: TypeCertConf, confirm: epoch.Add(time.Second)}, 0, true},
		"the CA's own time, the less": {&reticent{silent: TypeCertConf, confirm: epoch.Add(time.Second)}, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := test.ca
			ca.scene = signed(t)
			ca.cfg.TotalTimeout = test.total
			client := ca.start(t)
			issued, err := client.Do(t.Context(), ca.cfg, ca.req)
			if !errors.Is(err, ErrDeadline) || (issued != nil) != test.issued {
				t.Errorf("issued %t, %v, want %t and ErrDeadline", issued != nil, err, test.issued)
			}
			if _, ok := errors.AsType[*TransportError](err); !ok {
				t.Errorf("%v does not tell what was waited for", err)
			}
		})
	}
}

// The answer to the last poll comes after the deadline of necessity: what it
// brings is confirmed.
func TestLastPollIsConfirmed(t *testing.T) {
	s := signed(t)
	s.cfg.TotalTimeout = time.Minute
	tr := s.begin(t)
	first := tr.Step()
	if first.Within != time.Minute {
		t.Errorf("within %s, want a minute", first.Within)
	}
	step := s.next(t, tr, s.ca.waiting(t, first.Send))
	step = s.next(t, tr, s.ca.pollRep(t, step.Send, 45))
	if step.Wait != 45*time.Second || step.Within != 15*time.Second {
		t.Errorf("after %s within %s, want 45 s and the rest", step.Wait, step.Within)
	}
	step = s.next(t, tr, s.ca.pollRep(t, step.Send, 3600))
	if step.Wait != time.Minute || step.Within != 0 {
		t.Errorf("after %s within %s, want the last poll at the deadline", step.Wait, step.Within)
	}
	s.clock.advance(step.Wait)
	granted := s.ca.granted(t, first.Send)
	granted.Header.RecipNonce = mustParse(t, tr.Step().Send).Header.SenderNonce
	if step = s.next(t, tr, granted); step.Type != TypeCertConf || step.Within != 0 {
		t.Errorf("%s within %s, want certConf without a bound", step.Type, step.Within)
	}
	if step = s.next(t, tr, s.ca.confirmed(t, step.Send)); !step.Done {
		t.Errorf("after pkiconf: %+v", step)
	}
}

// After the deadline nothing is begun: no request is sent, none is made in another
// version, and no polling starts.
func TestNothingBeginsAfterTheDeadline(t *testing.T) {
	late := func(t *testing.T) (*scene, *Transaction) {
		s := signed(t)
		s.cfg.TotalTimeout = time.Minute
		tr := s.begin(t)
		s.clock.advance(time.Minute)
		return s, tr
	}
	t.Run("request", func(t *testing.T) {
		s, tr := late(t)
		url, requests := answers(t, 200, nil, "")
		_, err := (&Client{URL: url}).Run(t.Context(), s.resumed(t, tr))
		if !errors.Is(err, ErrDeadline) || requests.Load() != 0 {
			t.Errorf("%d requests, %v, want none and ErrDeadline", requests.Load(), err)
		}
	})
	t.Run("polling", func(t *testing.T) {
		s, tr := late(t)
		last, err := tr.Next(seal(t, s.ca.waiting(t, tr.Step().Send), s.reply))
		if !errors.Is(err, ErrDeadline) || last.Type != TypeError || last.Within <= 0 || tr.Step().Send != nil {
			t.Errorf("%+v, %v, want ErrDeadline and an error for the CA", last, err)
		}
	})
	t.Run("polling for the confirmation", func(t *testing.T) {
		s, tr := late(t)
		s.next(t, tr, s.ca.granted(t, tr.Step().Send))
		waiting := &ErrorMsg{Status: StatusInfo{Status: StatusWaiting}}
		last, err := tr.Next(seal(t, s.ca.answer(t, tr.Step().Send, TypeError, waiting), s.reply))
		if !errors.Is(err, ErrDeadline) || last.Issued == nil {
			t.Errorf("%+v, %v, want ErrDeadline and the certificate", last, err)
		}
	})
	t.Run("another version", func(t *testing.T) {
		s, tr := late(t)
		no := &ErrorMsg{Status: StatusInfo{Status: StatusRejection, FailInfo: FailUnsupportedVersion}}
		m := s.ca.answer(t, tr.Step().Send, TypeError, no)
		m.Header.PVNO = PVNO3
		if _, err := tr.Next(seal(t, m, s.reply)); outcome(err) != "peer" || tr.Step().Send != nil {
			t.Errorf("%v, want the refusal", err)
		}
	})
}
