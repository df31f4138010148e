package delivery

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

func TestPublishGoesWhereTheTableSays(t *testing.T) {
	dotted := types.NamespacedName{Namespace: "shop", Name: "web.example.com"}
	tests := map[string]struct {
		event event.Event
		want  []string
	}{
		"work and fact": {model.NewEvent(model.CertificateExpiring, web, nil),
			[]string{"certloop.work.renew.shop.web", "certloop.evt.certificate.expiring.shop.web"}},
		"work only": {model.NewEvent(model.EnrollmentRequested, web, nil), []string{"certloop.work.enroll.shop.web"}},
		"fact only": {model.NewEvent(model.CertificateIssued, web, nil), []string{"certloop.evt.certificate.issued.shop.web"}},
		"dots":      {model.NewEvent(model.EnrollmentRequested, dotted, nil), []string{"certloop.work.enroll.shop.web_example_com"}},
		"no object": {model.NewEvent(model.ScanCompleted, types.NamespacedName{}, nil), []string{"certloop.evt.scan.completed._._"}},
		"delayed": {model.Delay(model.NewEvent(model.RenewalRequested, web, nil), time.Now().Add(time.Hour)),
			[]string{"certloop.sched.renew.shop.web", "certloop.evt.renewal.requested.shop.web"}},
		"overdue": {model.Delay(model.NewEvent(model.EnrollmentRequested, web, nil), time.Now().Add(-time.Hour)),
			[]string{"certloop.work.enroll.shop.web"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.publish(t, tt.event)
			var got []string
			for _, stream := range []string{model.WorkStream, model.EventsStream} {
				for _, m := range r.messages(t, stream, ">") {
					got = append(got, m.Subject)
				}
			}
			if strings.Join(got, " ") != strings.Join(tt.want, " ") {
				t.Errorf("stored at %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPublishRefuses(t *testing.T) {
	r := newRig(t)
	noID := model.NewEvent(model.EnrollmentRequested, web, nil)
	noID.SetID("")
	tests := map[string]struct {
		event event.Event
		want  string
	}{
		"an unknown type":      {model.NewEvent("io.certloop.tea.served.v1", web, nil), "unknown type"},
		"an event without id":  {noID, "id: "},
		"a wildcard as name":   {model.NewEvent(model.EnrollmentRequested, types.NamespacedName{Namespace: "shop", Name: "*"}, nil), `name "*"`},
		"a dot in a namespace": {model.NewEvent(model.EnrollmentRequested, types.NamespacedName{Namespace: "a.b", Name: "c"}, nil), `namespace "a.b"`},
		"too much":             {model.NewEvent(model.EnrollmentRequested, web, strings.Repeat("x", model.MaxEventBytes)), "the limit is 65536"},
		"a time that is no time": {func() event.Event {
			e := model.NewEvent(model.EnrollmentRequested, web, nil)
			e.SetExtension(model.NotBefore, "soon")
			return e
		}(), model.NotBefore},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			good := model.NewEvent(model.CertificateIssued, web, nil)
			err := r.Bus.Publish(t.Context(), good, tt.event)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if got := len(r.facts(t)); got != 0 {
				t.Errorf("%d events were published beside the bad one", got)
			}
		})
	}
}

func TestPublishCompletesTheEvent(t *testing.T) {
	r := newRig(t)
	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	r.Bus.Now = func() time.Time { return now }
	sent := model.NewEvent(model.CertificateIssued, web, nil)
	r.publish(t, sent)
	header := r.facts(t)[0].Header
	for name, want := range map[string]string{
		"ce-source": "/clusters/test/certloop", "ce-time": "2030-01-02T03:04:05.000000006Z", "ce-subject": "shop/web", "ce-id": sent.ID(),
	} {
		if got := header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if sent.Source() != "" {
		t.Error("the caller's event was changed")
	}
}

func TestTheSameIdIsStoredOnce(t *testing.T) {
	r := newRig(t)
	e := model.NewEvent(model.CertificateExpiring, web, nil)
	r.publish(t, e)
	r.publish(t, e)
	other := model.NewEvent(model.CertificateExpiring, web, nil)
	r.publish(t, other)
	if got := len(r.facts(t)); got != 2 {
		t.Errorf("%d facts, want 2", got)
	}
	if got := len(r.messages(t, model.WorkStream, model.WorkSubjects)); got != 2 {
		t.Errorf("%d pieces of work, want 2", got)
	}
}

func TestPublishMany(t *testing.T) {
	r := newRig(t)
	var events []event.Event
	for range 3*inFlight + 1 {
		events = append(events, model.NewEvent(model.CertificateIssued, web, nil))
	}
	r.publish(t, events...)
	for i, m := range r.facts(t) {
		if got, want := m.Header.Get("ce-id"), events[i].ID(); got != want {
			t.Fatalf("fact %d is %s, want %s", i, got, want)
		}
	}
	if got := len(r.facts(t)); got != len(events) {
		t.Errorf("%d facts, want %d", got, len(events))
	}
}

// arrival is an event and when its handler got it.
type arrival struct {
	event event.Event
	at    time.Time
}

// collect makes the handler of type keep what arrives.
func collect(r *rig, eventType string) <-chan arrival {
	arrivals := make(chan arrival, 100)
	r.Mux[eventType] = Route{Handle: func(_ context.Context, in event.Event) ([]event.Event, error) {
		arrivals <- arrival{in, time.Now()}
		return nil, nil
	}}
	return arrivals
}

func receive(t testing.TB, arrivals <-chan arrival) arrival {
	t.Helper()
	select {
	case a := <-arrivals:
		return a
	case <-time.After(patience):
		t.Fatal("nothing arrives")
		return arrival{}
	}
}

func TestADelayedEventArrivesWhenDue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	arrivals := collect(r, model.EnrollmentRequested)
	r.consume(t)
	due := time.Now().Add(1200 * time.Millisecond)
	sent := model.Delay(model.NewEvent(model.EnrollmentRequested, web, model.Work{Reason: model.WorkPoll}), due)
	sent.SetExtension(model.CorrelationID, "c-1")
	r.publish(t, sent)
	got := receive(t, arrivals)
	if got.at.Before(due) {
		t.Errorf("it arrived %s early", due.Sub(got.at))
	}
	if got.event.ID() != sent.ID() || got.event.Subject() != "shop/web" || string(got.event.Data()) != `{"reason":"poll"}` ||
		got.event.Extensions()[model.CorrelationID] != "c-1" {
		t.Errorf("arrived %s, want %s", got.event, sent)
	}
	eventually(t, "the schedule is gone", func() bool { return len(r.messages(t, model.WorkStream, ">")) == 0 })
}

// The same event with a new time must not be taken for a duplicate.
func TestALaterScheduleTakesThePlaceOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	arrivals := collect(r, model.EnrollmentRequested)
	e := model.NewEvent(model.EnrollmentRequested, web, nil)
	due := time.Now().Add(3 * time.Second)
	r.publish(t, model.Delay(e.Clone(), time.Now().Add(time.Hour)))
	r.publish(t, model.Delay(e.Clone(), due))
	if got := len(r.messages(t, model.WorkStream, model.ScheduleSubjects)); got != 1 {
		t.Fatalf("%d schedules, want 1", got)
	}
	r.consume(t)
	if got := receive(t, arrivals); got.at.Before(due) {
		t.Errorf("it arrived %s early", due.Sub(got.at))
	}
	eventually(t, "nothing is left", func() bool { return len(r.messages(t, model.WorkStream, ">")) == 0 })
	if got := len(arrivals); got != 0 {
		t.Errorf("%d more arrivals", got)
	}
}

// Why schedules carry no message id: with one, the new time would be dropped.
func TestAMessageIdWouldDropTheNewTime(t *testing.T) {
	r := newRig(t)
	for i, want := range []bool{false, true} {
		msg := &nats.Msg{Subject: model.ScheduleSubject(model.Enroll, web)}
		ack, err := r.js.PublishMsg(t.Context(), msg, jetstream.WithMsgID("1/enroll"),
			jetstream.WithScheduleAt(time.Now().Add(time.Duration(i+1)*time.Hour)),
			jetstream.WithScheduleTarget(model.WorkSubject(model.Enroll, web)))
		if err != nil {
			t.Fatal(err)
		}
		if ack.Duplicate != want {
			t.Errorf("publication %d: duplicate %v, want %v", i+1, ack.Duplicate, want)
		}
	}
}

func TestAScheduleSurvivesARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	arrivals := collect(r, model.EnrollmentRequested)
	due := time.Now().Add(2 * time.Second)
	sent := model.Delay(model.NewEvent(model.EnrollmentRequested, web, nil), due)
	r.publish(t, sent)
	r.stop()
	r.start(t)
	r.consume(t)
	got := receive(t, arrivals)
	if got.event.ID() != sent.ID() || got.at.Before(due) {
		t.Errorf("%s arrived at %s, want %s after %s", got.event.ID(), got.at, sent.ID(), due)
	}
}

// The server's own headers on a fired schedule must not travel into the dead
// letter, where the server would refuse them.
func TestAFiredScheduleCanBeDeadLettered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(t, model.Delay(model.NewEvent(model.EnrollmentRequested, web, nil), time.Now().Add(time.Millisecond)))
	r.consume(t) // no route: the type is unknown here
	eventually(t, "the event is dead", func() bool { return len(r.dead(t)) == 1 && r.settledAll(t) })
	for name := range r.dead(t)[0].Header {
		if strings.HasPrefix(name, "Nats-Schedule") {
			t.Errorf("the dead letter has the header %s", name)
		}
	}
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	r := newRig(t)
	before := r.info(t)
	r.publish(t, model.NewEvent(model.CertificateExpiring, web, nil))
	if err := Apply(t.Context(), r.js, 1); err != nil {
		t.Fatal(err)
	}
	after := r.info(t)
	for i, name := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		if before[i].Config.Name != name || before[i].Created != after[i].Created {
			t.Errorf("stream %s was made anew", name)
		}
	}
	if len(r.facts(t)) != 1 || r.settledAll(t) {
		t.Error("messages are gone")
	}
}

func (r *rig) info(t testing.TB) (all []*jetstream.StreamInfo) {
	t.Helper()
	for _, name := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		s, err := r.js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s.CachedInfo())
	}
	return all
}

func TestKeyMarksFindAKeyAtAnyPlaceInBase64(t *testing.T) {
	for shift := range 6 {
		for _, kind := range []string{"", "EC ", "RSA ", "ENCRYPTED "} {
			text := strings.Repeat("é", shift) + "-----BEGIN " + kind + "PRIVATE KEY-----\nMIG"
			body := []byte(base64.StdEncoding.EncodeToString([]byte(text)))
			found := false
			for _, mark := range keyMarks() {
				found = found || bytes.Contains(body, mark)
			}
			if !found {
				t.Errorf("no mark in %s (%q)", body, text)
			}
		}
	}
}
