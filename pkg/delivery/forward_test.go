package delivery

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// forwarding is a function that listens for HTTP alone, and the rig's receiver that
// forwards its work to it.
func forwarding(t *testing.T, r *rig, handle Handler) *httptest.Server {
	t.Helper()
	function := &Receiver{Verb: r.Verb, Bus: r.Bus, Log: r.Log, Mux: Mux{
		model.EnrollmentRequested: {Handle: handle, Check: func(e event.Event) error {
			if e.Subject() == "shop/bad" {
				return errors.New("subject: bad")
			}
			return nil
		}},
	}}
	server := httptest.NewServer(function)
	t.Cleanup(server.Close)
	r.Mux = Forward(r.Verb, server.Client(), server.URL)
	return server
}

func TestForwardDeliversTheSameEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var mu sync.Mutex
	var got []event.Event
	forwarding(t, r, func(_ context.Context, in event.Event) ([]event.Event, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, in)
		return nil, nil
	})
	sent := model.Follow(model.NewEvent(model.Ping, web, nil), model.NewEvent(model.EnrollmentRequested, web, model.Work{Reason: model.WorkPoll}))
	r.publish(t, sent)
	r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) })
	if len(got) != 1 {
		t.Fatalf("delivered %d times, want 1", len(got))
	}
	e := got[0]
	if e.ID() != sent.ID() || e.Type() != sent.Type() || e.Subject() != sent.Subject() || string(e.Data()) != string(sent.Data()) ||
		model.Correlation(e) != model.Correlation(sent) || e.Extensions()[model.CausationID] != sent.Extensions()[model.CausationID] {
		t.Errorf("delivered\n%s\nwant\n%s", e, sent)
	}
}

// A function that fails, is not there yet, or answers through a gateway that does not
// know it gets its event again; one that refuses has dead-lettered it already.
func TestForwardSendsAgainWhatWasNotSettled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var runs counter
	function := forwarding(t, r, func(context.Context, event.Event) ([]event.Event, error) {
		if runs.add() == 1 {
			return nil, errors.New("not now")
		}
		return nil, nil
	})
	var asked counter
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch asked.add() {
		case 1:
			http.NotFound(w, req)
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			http.Error(w, "no route", http.StatusBadRequest)
		default:
			function.Config.Handler.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(gateway.Close)
	r.Mux = Forward(r.Verb, gateway.Client(), gateway.URL)
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) })
	if got := []int{asked.get(), runs.get()}; !slices.Equal(got, []int{5, 2}) {
		t.Errorf("asked and run %v times, want 5 and 2", got)
	}
	if n := len(r.dead(t)); n != 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

func TestForwardLeavesRefusalsToTheFunction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	forwarding(t, r, func(context.Context, event.Event) ([]event.Event, error) { return nil, nil })
	r.publish(t, model.NewEvent(model.EnrollmentRequested, types.NamespacedName{Namespace: "shop", Name: "bad"}, nil))
	r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) })
	dead := r.dead(t)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters, want 1", len(dead))
	}
	if got := dead[0].Header.Get(ReasonHeader); got != string(InvalidEvent) {
		t.Errorf("dead of %q, want %q", got, InvalidEvent)
	}
}
