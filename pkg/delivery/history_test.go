package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// told are the subjects of the facts that a selection finds.
func told(t *testing.T, r *rig, s Selection) []string {
	t.Helper()
	var all []string
	err := History(t.Context(), r.js, s, func(e event.Event) error {
		all = append(all, e.Subject())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func fact(name string) event.Event {
	return model.NewEvent(model.CertificateIssued, types.NamespacedName{Namespace: "shop", Name: name}, model.CertificateFact{})
}

func TestHistory(t *testing.T) {
	r := newRig(t)
	if got := told(t, r, Selection{}); got != nil {
		t.Errorf("an empty history holds %v", got)
	}
	if err := r.Bus.Publish(t.Context(), fact("web"), fact("api")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: "certloop.evt.x", Data: []byte("no event")}); err != nil {
		t.Fatal(err)
	}
	if got, want := told(t, r, Selection{}), []string{"shop/web", "shop/api"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	key := types.NamespacedName{Namespace: "shop", Name: "api"}
	if got, want := told(t, r, Selection{Subjects: []string{model.ObjectFactFilter(key)}}), []string{"shop/api"}; !slices.Equal(got, want) {
		t.Errorf("of one certificate: got %v, want %v", got, want)
	}
	if got := told(t, r, Selection{Since: time.Now().Add(time.Hour)}); got != nil {
		t.Errorf("the future holds %v", got)
	}
}

func TestHistoryIsFollowed(t *testing.T) {
	r := newRig(t)
	if err := r.Bus.Publish(t.Context(), fact("web")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	err := History(ctx, r.js, Selection{Follow: true}, func(e event.Event) error {
		if got = append(got, e.Subject()); len(got) == 2 {
			cancel()
			return nil
		}
		return r.Bus.Publish(ctx, fact("api"))
	})
	if want := []string{"shop/web", "shop/api"}; !errors.Is(err, context.Canceled) || !slices.Equal(got, want) {
		t.Errorf("got %v and %v, want %v and %v", got, err, want, context.Canceled)
	}
}

// letters are all dead letters.
func letters(t *testing.T, r *rig) []DeadLetter {
	t.Helper()
	var all []DeadLetter
	err := DeadLetters(t.Context(), r.js, Selection{}, func(l DeadLetter) error {
		all = append(all, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What a dead letter needed is there now: it is handled once, and can be dropped.
func TestReplay(t *testing.T) {
	r := newRig(t)
	var fixed atomic.Bool
	handled := make(chan event.Event, 8)
	r.Mux[model.ConfigCreated] = Route{Handle: func(_ context.Context, in event.Event) ([]event.Event, error) {
		handled <- in
		return nil, nil
	}, Check: func(event.Event) error {
		if !fixed.Load() {
			return &model.InvalidError{Kind: "event", Fields: []string{"data: no"}}
		}
		return nil
	}}
	sent := model.NewEvent(model.ConfigCreated, web, map[string]string{"a": "b"})
	if err := r.Bus.Publish(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	stop := r.consume(t)
	defer stop()
	eventually(t, "a dead letter", func() bool { return len(letters(t, r)) == 1 })
	l := letters(t, r)[0]
	if l.Verb != model.Enroll || l.Reason != InvalidEvent || l.Error != "data: no" || l.Deliveries != 1 || l.Subject != model.WorkSubject(model.Enroll, web) || l.Event.ID() != sent.ID() || string(l.Event.Data()) != `{"a":"b"}` {
		t.Errorf("got %+v", l)
	}

	fixed.Store(true)
	for range 2 { // the second is a duplicate of the first
		if err := r.Bus.Replay(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it is settled", func() bool { return len(handled) > 0 && r.settledAll(t) })
	if e := <-handled; e.ID() != sent.ID() || len(handled) != 0 {
		t.Errorf("got %s and %d more, want %s once", e.ID(), len(handled), sent.ID())
	}

	if err := DropDeadLetter(t.Context(), r.js, l.Sequence); err != nil {
		t.Fatal(err)
	}
	if _, err := FindDeadLetter(t.Context(), r.js, l.Sequence); !errors.Is(err, ErrNoDeadLetter) {
		t.Errorf("got %v, want %v", err, ErrNoDeadLetter)
	}
	if err := DropDeadLetter(t.Context(), r.js, l.Sequence); err == nil {
		t.Error("it can be dropped twice")
	}
}

func TestWhatCannotBeReplayed(t *testing.T) {
	known := model.NewEvent(model.ConfigCreated, web, nil)
	unknown := model.NewEvent("io.certloop.config.created.v9", web, nil)
	noObject := model.NewEvent(model.ConfigCreated, types.NamespacedName{}, nil)
	told := model.NewEvent(model.CertificateIssued, web, nil)
	tests := map[string]struct {
		letter DeadLetter
		says   string
	}{
		"withheld":          {DeadLetter{Event: &known, Withheld: "it may hold a private key"}, "7: its body was not kept (it may hold a private key): send it again from where it came"},
		"unreadable":        {DeadLetter{Error: "specversion: unknown", Body: []byte("x")}, "7: it cannot be read as an event (specversion: unknown)"},
		"misaddressed":      {DeadLetter{Event: &known, Reason: Misaddressed, Error: "another's"}, "7: its sender has no say about its object (another's)"},
		"of another type":   {DeadLetter{Event: &unknown}, "7: no function of this version takes an event of type io.certloop.config.created.v9"},
		"taken by nobody":   {DeadLetter{Event: &told}, "no function of this version takes"},
		"without an object": {DeadLetter{Event: &noObject}, "7: subject"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.letter.Sequence = 7
			if err := new(Bus).Replay(t.Context(), tt.letter); err == nil || !strings.HasPrefix(err.Error(), tt.says) && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}
