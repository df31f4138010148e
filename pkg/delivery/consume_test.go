package delivery

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

func TestASlowHandlerIsNotDeliveredTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.AckWait = time.Second
	var runs counter
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) {
		runs.add()
		time.Sleep(3 * r.AckWait)
		return nil, nil
	}}
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) })
	if got := runs.get(); got != 1 {
		t.Errorf("the handler ran %d times, want 1", got)
	}
}

// Without a heartbeat the same handler runs twice: the test above is not blind.
func TestWithoutHeartbeatASlowHandlerIsDeliveredTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.AckWait = 300 * time.Millisecond
	consumer, err := r.consumer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	for range 2 {
		if _, err := consumer.Next(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheBrokerGoesAwayWhileAHandlerRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.AckWait = time.Second
	var runs counter
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) {
		if runs.add() == 1 {
			r.stop()
		}
		return issued(0)
	}}
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	r.consume(t)
	eventually(t, "the first delivery is given up", func() bool { return len(r.logs.events()) == 1 })
	if got := r.logs.events()[0]["outcome"]; got != retried {
		t.Errorf("without a broker the outcome is %s, want %s", got, retried)
	}
	r.start(t)
	eventually(t, "redelivery and settlement", func() bool { return r.Bus.conn.IsConnected() && r.settledAll(t) })
	if got := len(r.facts(t)); got != 1 {
		t.Errorf("%d facts, want 1", got)
	}
}

func TestHTTPWhileTheBrokerIsAway(t *testing.T) {
	tests := map[string]struct {
		eventType string
		after     int // status once the broker is back
	}{
		"an event to handle":      {model.EnrollmentRequested, http.StatusAccepted},
		"an event to dead-letter": {"io.certloop.tea.served.v1", http.StatusUnprocessableEntity},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) { return issued(0) }}
			r.stop()
			eventually(t, "the connection is lost", func() bool { return !r.Bus.conn.IsConnected() })
			if got := post(t, r, tt.eventType); got != http.StatusServiceUnavailable {
				t.Errorf("without a broker: status %d, want 503", got)
			}
			r.start(t)
			eventually(t, "the connection is back", func() bool { return r.Bus.conn.IsConnected() })
			if got := post(t, r, tt.eventType); got != tt.after {
				t.Errorf("with the broker back: status %d, want %d", got, tt.after)
			}
		})
	}
}

func post(t testing.TB, r *rig, eventType string) int {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
	for name, value := range binaryHeader(eventType, "shop/web") {
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Code
}

func TestTheLastDeliveryIsDeadLettered(t *testing.T) {
	r := newRig(t)
	r.MaxDeliver = 3
	var runs counter
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) {
		runs.add()
		return nil, errors.New("never")
	}}
	dotted := types.NamespacedName{Namespace: "shop", Name: "web.example.com"}
	sent := model.NewEvent(model.EnrollmentRequested, dotted, model.Work{Reason: model.WorkManual})
	r.publish(t, sent)
	r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) })
	if got := runs.get(); got != 3 {
		t.Errorf("the handler ran %d times, want 3", got)
	}
	letters := r.dead(t)
	if len(letters) != 1 {
		t.Fatalf("%d dead letters, want 1", len(letters))
	}
	l := letters[0]
	if got, want := l.Subject, "certloop.dead.enroll.shop.web_example_com"; got != want {
		t.Errorf("dead at %s, want %s", got, want)
	}
	want := map[string]string{
		ReasonHeader: string(Exhausted), ErrorHeader: "never", DeliveriesHeader: "3",
		SubjectHeader: "certloop.work.enroll.shop.web_example_com", "ce-id": sent.ID(), "ce-subject": "shop/web.example.com",
	}
	for name, v := range want {
		if got := l.Header.Get(name); got != v {
			t.Errorf("header %s is %q, want %q", name, got, v)
		}
	}
	if got, want := string(l.Data), `{"reason":"manual"}`; got != want {
		t.Errorf("body %s, want %s", got, want)
	}
}

// Publishing a dead letter again, where it says it came from, delivers the event.
func TestADeadLetterCanBeReplayed(t *testing.T) {
	r := newRig(t)
	r.MaxDeliver = 1
	var got []event.Event
	var runs counter
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(_ context.Context, in event.Event) ([]event.Event, error) {
		if runs.add() == 1 {
			return nil, errors.New("not yet repaired")
		}
		got = append(got, in)
		return nil, nil
	}}
	sent := model.NewEvent(model.EnrollmentRequested, web, model.Work{Reason: model.WorkManual})
	r.publish(t, sent)
	stop := r.consume(t)
	eventually(t, "the event is dead", func() bool { return len(r.dead(t)) == 1 })
	l := r.dead(t)[0]
	r.put(t, l.Header.Get(SubjectHeader), l.Header, string(l.Data))
	eventually(t, "settlement", func() bool { return runs.get() == 2 && r.settledAll(t) })
	stop()
	if len(got) != 1 || got[0].ID() != sent.ID() || string(got[0].Data()) != string(sent.Data()) {
		t.Errorf("replayed %v, want %v", got, sent)
	}
}

// When the dead letter cannot be stored, the event stays.
func TestNoDeadStreamLosesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.js.DeleteStream(t.Context(), model.DeadStream); err != nil {
		t.Fatal(err)
	}
	r.put(t, model.WorkSubject(r.Verb, web), nats.Header{}, "rubbish")
	r.consume(t)
	eventually(t, "two failures to dead-letter", func() bool { return len(r.logs.events()) >= 2 })
	if err := Apply(t.Context(), r.js, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event is dead", func() bool { return len(r.dead(t)) == 1 && r.settledAll(t) })
}

func TestConsumeOutlastsAMissingStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.js.DeleteStream(t.Context(), model.WorkStream); err != nil {
		t.Fatal(err)
	}
	var runs counter
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) {
		runs.add()
		return nil, nil
	}}
	r.consume(t)
	eventually(t, "a complaint", func() bool { return strings.Contains(r.logs.String(), "certloop bus apply") })
	if err := Apply(t.Context(), r.js, 1); err != nil {
		t.Fatal(err)
	}
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	eventually(t, "the event is handled", func() bool { return runs.get() == 1 && r.settledAll(t) })
}

func TestConsumeFinishesWhatItHolds(t *testing.T) {
	r := newRig(t)
	r.Concurrency = 1
	began, finish := make(chan struct{}), make(chan struct{})
	var runs counter
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(ctx context.Context, _ event.Event) ([]event.Event, error) {
		if runs.add() > 1 {
			t.Error("an event was taken after the end")
		}
		close(began)
		<-finish
		if ctx.Err() != nil {
			t.Error("the handler was cut off within its grace")
		}
		return issued(0)
	}}
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil), model.NewEvent(model.EnrollmentRequested, web, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Consume(ctx); err != nil {
			t.Error(err)
		}
	}()
	<-began
	cancel()
	close(finish)
	<-done
	if got := len(r.facts(t)); got != 1 {
		t.Errorf("%d facts, want 1", got)
	}
	if got := len(r.messages(t, model.WorkStream, model.WorkSubjects)); got != 1 {
		t.Errorf("%d events are left, want 1", got)
	}
}

func TestGraceEnds(t *testing.T) {
	r := newRig(t)
	r.Grace = 20 * time.Millisecond
	began := make(chan struct{})
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(ctx context.Context, _ event.Event) ([]event.Event, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Consume(ctx) }()
	<-began
	cancel()
	if err := <-done; err == nil {
		t.Error("a handler was cut off and nothing is said")
	}
	if got := r.logs.events(); len(got) != 1 || got[0]["outcome"] != retried {
		t.Errorf("log %v, want one retried event", got)
	}
}

func TestTheHandlerHasADeadline(t *testing.T) {
	r := newRig(t)
	r.HandlerTimeout = 20 * time.Millisecond
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(ctx context.Context, _ event.Event) ([]event.Event, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	if got := post(t, r, model.EnrollmentRequested); got != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", got)
	}
}

func TestNoMoreHandlersAtOnceThanAllowed(t *testing.T) {
	r := newRig(t)
	r.Concurrency = 3
	const events = 30
	var running, runs counter
	most := 0
	busy := make(chan struct{}, events)
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) {
		busy <- struct{}{}
		running.mu.Lock()
		most = max(most, len(busy))
		running.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		<-busy
		runs.add()
		return nil, nil
	}}
	for range events {
		r.publish(t, model.NewEvent(model.EnrollmentRequested, web, nil))
	}
	stop := r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) })
	stop()
	if most != 3 || runs.get() != events {
		t.Errorf("%d of %d handled, %d at once, want 3", runs.get(), events, most)
	}
}

func TestDelay(t *testing.T) {
	r := &Receiver{}
	tests := map[string]struct {
		count    uint64
		min, max time.Duration
	}{
		"first":         {1, 800 * time.Millisecond, time.Second},
		"second":        {2, 1600 * time.Millisecond, 2 * time.Second},
		"fifth":         {5, 12800 * time.Millisecond, 16 * time.Second},
		"capped":        {8, 96 * time.Second, 2 * time.Minute},
		"no overflow":   {1 << 40, 96 * time.Second, 2 * time.Minute},
		"no deliveries": {0, 800 * time.Millisecond, time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			different := map[time.Duration]bool{}
			for sequence := range uint64(100) {
				got := r.delay(receipt{sequence: sequence, count: tt.count})
				if got < tt.min || got > tt.max {
					t.Fatalf("delay %s, want %s to %s", got, tt.min, tt.max)
				}
				different[got] = true
			}
			if len(different) < 50 {
				t.Errorf("%d different delays in 100: no jitter", len(different))
			}
		})
	}
}

// Rights of NATS are rights to subjects: who may publish for one namespace has no say in another
// by what stands in the event, nor are its dead letters shown there.
func TestOnTheSubjectOfAnotherObject(t *testing.T) {
	r := newRig(t)
	r.Mux[model.ConfigCreated] = Route{
		Handle:  func(context.Context, event.Event) ([]event.Event, error) { t.Error("it is handled"); return nil, nil },
		Refused: func(event.Event, error) []event.Event { t.Error("it is told of"); return nil },
	}
	for id, subject := range map[string]string{"namespace": "edge/web", "name": "shop/db", "none": ""} {
		header := nats.Header{"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-source": {"/pipeline"}, "ce-type": {model.ConfigCreated}, "Content-Type": {"application/json"}}
		if subject != "" {
			header.Set("ce-subject", subject)
		}
		r.put(t, model.WorkSubject(r.Verb, web), header, "{}")
	}
	// A schedule on his own subject, for another's, while nobody is there to take it.
	r.put(t, "certloop.work.enroll.shop.db", nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"scheduled"}, "ce-source": {"/pipeline"}, "ce-type": {model.ConfigCreated},
		"ce-subject": {"edge/web"}, "Nats-Schedule": {"@at " + time.Now().Add(time.Second).UTC().Format(time.RFC3339)}, "Nats-Schedule-Target": {"certloop.work.enroll.edge.web"}}, "{}")
	eventually(t, "the server publishes it", func() bool { return len(r.messages(t, model.WorkStream, "certloop.work.enroll.edge.web")) == 1 })
	r.consume(t)
	eventually(t, "four dead letters", func() bool { return len(r.dead(t)) == 4 && r.settledAll(t) })
	for _, l := range r.dead(t) {
		want := Misaddressed
		if l.Header.Get("ce-id") == "none" {
			want = InvalidEvent
		}
		if l.Subject != "certloop.dead.enroll._._" || l.Header.Get(ReasonHeader) != string(want) {
			t.Errorf("%s: on %s with reason %s, want %s", l.Header.Get("ce-id"), l.Subject, l.Header.Get(ReasonHeader), want)
		}
	}
}

// What is told of an event that is refused is stored before its dead letter is: one without the other
// would be forgotten.
func TestRefusalsAreTold(t *testing.T) {
	r := newRig(t)
	r.Mux[model.ConfigCreated] = Route{
		Check: func(event.Event) error {
			return &model.InvalidError{Kind: "it", Fields: []string{"spec.server: Required value"}}
		},
		Refused: func(in event.Event, why error) []event.Event {
			e := model.NewEvent(model.ConfigRejected, web, model.RejectedFact{Message: why.Error()})
			e.SetID(model.DerivedID(model.ConfigRejected, in.ID()))
			return []event.Event{model.Follow(in, e)}
		},
	}
	if err := r.js.DeleteStream(t.Context(), model.EventsStream); err != nil {
		t.Fatal(err)
	}
	r.put(t, model.WorkSubject(r.Verb, web), nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/pipeline"}, "ce-type": {model.ConfigCreated}, "ce-subject": {web.String()}, "Content-Type": {"application/json"}}, "{}")
	r.consume(t)
	eventually(t, "two failures to tell", func() bool { return len(r.logs.events()) >= 2 })
	if n := len(r.dead(t)); n != 0 {
		t.Errorf("%d dead letters, and nobody was told", n)
	}
	if err := Apply(t.Context(), r.js, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event is dead", func() bool { return len(r.dead(t)) == 1 && r.settledAll(t) })
	told := r.facts(t)
	if len(told) != 1 || !strings.Contains(string(told[0].Data), "spec.server: Required value") {
		t.Errorf("told %v", told)
	}
}
