package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

// pursued is a pursuit of one declared certificate that writes to what is returned.
func pursued(t *testing.T) (*pursuit, event.Event, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	e := model.NewEvent(model.ConfigCreated, web, nil)
	return newPursuit(&terminal{err: &out}, []event.Event{e}), e, &out
}

func issuedFact(generation int64) event.Event {
	return model.NewEvent(model.CertificateIssued, web, model.CertificateFact{Serial: "2a", SecretName: "web-tls", Generation: generation, NotAfter: metav1.NewTime(time.Now().Add(time.Hour))})
}

func attemptFact(eventType, reason string, generation int64) event.Event {
	return model.NewEvent(eventType, web, model.AttemptFact{Reason: reason, Generation: generation})
}

// What is told of a certificate counts when it is about the generation that our event became,
// whoever caused it and whatever the order.
func TestWhatCounts(t *testing.T) {
	other := model.NewEvent(model.ConfigUpdated, web, nil)
	rejection := func() event.Event {
		return model.NewEvent(model.ConfigRejected, web, model.RejectedFact{Reason: "ConfigInvalid", Fields: []string{"spec.x: no"}})
	}
	applied := func(generation int64) event.Event {
		return model.NewEvent(model.ConfigApplied, web, model.ChangeFact{Generation: generation, Effect: model.EffectReissue})
	}
	ours := func(e event.Event) func(event.Event) event.Event {
		return func(in event.Event) event.Event { return model.Follow(in, e) }
	}
	others := func(e event.Event) func(event.Event) event.Event {
		return func(event.Event) event.Event { return model.Follow(other, e) }
	}
	type told = []func(event.Event) event.Event
	tests := map[string]struct {
		told told
		want string
	}{
		"nothing":                              {nil, ""},
		"issued":                               {told{ours(issuedFact(1))}, isReady},
		"ready already":                        {told{ours(model.NewEvent(model.CertificateReady, web, model.CertificateFact{Generation: 1}))}, isReady},
		"rejected":                             {told{ours(rejection())}, isRejected},
		"somebody else is rejected":            {told{ours(applied(2)), others(rejection())}, isApplied},
		"a retry of others brings it":          {told{ours(attemptFact(model.CertificateFailed, "CAUnreachable", 2)), others(issuedFact(2))}, isReady},
		"of an older generation":               {told{ours(applied(2)), others(issuedFact(1))}, isApplied},
		"of a newer generation":                {told{ours(applied(2)), others(issuedFact(3))}, isReady},
		"before we knew ours":                  {told{others(issuedFact(2)), ours(attemptFact(model.CertificateWaiting, "Pending", 2))}, isReady},
		"an older one before we knew ours":     {told{others(issuedFact(1)), ours(attemptFact(model.CertificateWaiting, "Pending", 2))}, isWaiting},
		"parked":                               {told{ours(applied(2)), ours(attemptFact(model.CertificateParked, "RejectedByCA", 2))}, isParked},
		"parked before, and declared anew":     {told{others(attemptFact(model.CertificateParked, "RejectedByCA", 1)), ours(applied(2))}, isApplied},
		"ready stays ready":                    {told{ours(issuedFact(1)), ours(attemptFact(model.CertificateFailed, "x", 1))}, isReady},
		"an issuer of the same name":           {told{ours(model.NewEvent(model.IssuerReady, web, model.IssuerFact{Generation: 1}))}, ""},
		"another certificate in the same file": {told{ours(model.NewEvent(model.CertificateIssued, types.NamespacedName{Namespace: "shop", Name: "db"}, model.CertificateFact{Generation: 1}))}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, in, _ := pursued(t)
			for _, fact := range tt.told {
				p.learn(p.aims[0], fact(in))
			}
			if got := p.aims[0].Outcome; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The ends of the command, and their exit codes.
func TestVerdicts(t *testing.T) {
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	tests := map[string]struct {
		ctx     context.Context //nolint:containedctx // of one call
		outcome string
		want    int
	}{
		"ready": {t.Context(), isReady, exitDone}, "rejected": {t.Context(), isRejected, exitRejected}, "parked": {t.Context(), isParked, exitParked},
		"waiting": {t.Context(), isWaiting, exitTimedOut}, "interrupted": {interrupted, isWaiting, exitInterrupted}, "ready and interrupted": {interrupted, isReady, exitDone},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, _, _ := pursued(t)
			p.aims[0].Outcome = tt.outcome
			err := p.verdict(tt.ctx, time.Minute)
			end, failed := errors.AsType[*exitError](err)
			if failed != (tt.want != exitDone) || (failed && end.code != tt.want) {
				t.Errorf("got %v, want exit code %d", err, tt.want)
			}
		})
	}
}

// An answer that comes before the publishing returns is not missed, and an event that a
// function refuses for good is rejected.
func TestListening(t *testing.T) {
	b := openBroker(t, filepath.Join(t.TempDir(), "nats"))
	defer b.stop()
	conn, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if code, _, stderr := run(t, "bus", "apply", "--nats-url", b.url()); code != exitDone {
		t.Fatal(stderr)
	}
	bus, err := delivery.NewBus(conn, "/test")
	if err != nil {
		t.Fatal(err)
	}
	p, in, out := pursued(t)
	if err := p.listen(conn); err != nil {
		t.Fatal(err)
	}
	quick := func(ctx context.Context, e event.Event) error {
		if err := bus.Publish(ctx, model.Follow(e, issuedFact(1))); err != nil {
			return err
		}
		return bus.Publish(ctx, e)
	}
	if err := p.send(t.Context(), quick, "stored"); err != nil {
		t.Fatal(err)
	}
	if err := p.follow(t.Context(), time.Minute, p.askAgain(quick)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if r := p.results(); len(r) != 1 || r[0].Outcome != isReady || r[0].Certificate.Serial != "2a" || r[0].ID != in.ID() {
		t.Errorf("got %+v", r)
	}

	p, in, out = pursued(t)
	if err := p.listen(conn); err != nil {
		t.Fatal(err)
	}
	dead := &nats.Msg{Subject: model.DeadSubject(model.Enroll, web), Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {in.ID()}, "ce-type": {in.Type()}, "ce-source": {"/x"}, "ce-subject": {in.Subject()},
		delivery.ReasonHeader: {"invalid-event"}, delivery.ErrorHeader: {"spec.x: no; spec.y: no"},
	}}
	if err := conn.PublishMsg(dead); err != nil {
		t.Fatal(err)
	}
	err = p.follow(t.Context(), time.Minute, p.askAgain(quick))
	if end, ok := errors.AsType[*exitError](err); !ok || end.code != exitRejected || !strings.Contains(out.String(), "spec.y: no\n") {
		t.Errorf("got %v\n%s", err, out)
	}
}

// When the connection was lost, what is open is asked about: declared again as long as it was
// not answered, and later without touching what others may have declared since.
func TestQuestions(t *testing.T) {
	p, in, _ := pursued(t)
	again := p.questions()
	if len(again) != 1 || again[0].Type() != model.ConfigCreated || again[0].ID() == in.ID() || model.Correlation(again[0]) != in.ID() {
		t.Fatalf("got %v", again)
	}
	p.learn(p.aims[0], model.Follow(again[0], attemptFact(model.CertificateFailed, "CAUnreachable", 4)))
	asked := p.questions()
	var work model.Work
	if len(asked) != 1 || asked[0].Type() != model.EnrollmentRequested || asked[0].DataAs(&work) != nil || work.Reason != model.WorkStatus {
		t.Fatalf("got %v", asked)
	}
	p.learn(p.aims[0], model.Follow(asked[0], issuedFact(4)))
	if left := p.questions(); len(left) != 0 || p.aims[0].Outcome != isReady {
		t.Errorf("got %v, and %+v", left, p.aims[0].result)
	}
}

// Progress has no colours where no terminal is, and says why and until when one waits.
func TestProgress(t *testing.T) {
	p, in, out := pursued(t)
	next := metav1.NewTime(time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC))
	p.learn(p.aims[0], model.Follow(in, model.NewEvent(model.CertificateFailed, web, model.AttemptFact{Reason: "CAUnreachable", Message: "connection\nrefused", NextAttempt: &next, Generation: 1})))
	if want := "…  shop/web         waiting: CAUnreachable: connection refused; again at 2100-01-02T03:04:05Z\n"; !strings.HasSuffix(out.String(), want) || strings.Contains(out.String(), "\x1b") {
		t.Errorf("got %q, want …%q", out, want)
	}
}

func TestResults(t *testing.T) {
	p, in, _ := pursued(t)
	p.learn(p.aims[0], model.Follow(in, issuedFact(1)))
	for format, want := range map[string]string{
		formatTable: "OUTCOME   OBJECT     SECRET    EXPIRES   REASON\nready     shop/web   web-tls   in ",
		formatWide:  "OUTCOME   OBJECT     SECRET    EXPIRES   REASON   EVENT                           ID ",
		formatName:  "cmpcertificate.certloop.io/web\n",
		formatYAML:  "- certificate:\n    fingerprint: \"\"\n    generation: 1\n",
	} {
		var out bytes.Buffer
		if err := printResults(&terminal{out: &out}, format, p.results()); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("-o %s: got %v\n%s\nwant\n%s", format, err, &out, want)
		}
	}
	var out bytes.Buffer
	var back []result
	if err := printResults(&terminal{out: &out}, formatJSON, p.results()); err != nil || json.Unmarshal(out.Bytes(), &back) != nil || back[0].Certificate.SecretName != "web-tls" {
		t.Errorf("-o json: got %v %s", err, &out)
	}
}

// A specification is in the cluster when the cluster's says all that it says.
func TestHolds(t *testing.T) {
	want := model.CMPCertificateSpec{}
	want.Output.SecretName = "web-tls"
	has := *want.DeepCopy()
	has.Validity = &metav1.Duration{Duration: time.Hour} // a default
	if !holds(has, want) || holds(want, has) {
		t.Error("a default makes a difference, or a missing field none")
	}
	has.Output.SecretName = "other"
	if holds(has, want) {
		t.Error("another Secret makes no difference")
	}
}

// A server that goes away for a while costs nothing but time: when it is back it is asked again,
// and the answer counts.
func TestServerRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	b := openBroker(t, dir)
	url := b.url()
	if code, _, stderr := run(t, "bus", "apply", "--nats-url", url); code != exitDone {
		t.Fatal(stderr)
	}
	p, in, out := pursued(t)
	conn, err := nats.Connect(url, append(p.options(), nats.ReconnectWait(50*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := p.listen(conn); err != nil {
		t.Fatal(err)
	}
	bus, err := delivery.NewBus(conn, "/test")
	if err != nil {
		t.Fatal(err)
	}
	var sent []event.Event
	send := func(ctx context.Context, e event.Event) error {
		if sent = append(sent, e); len(sent) > 1 {
			return bus.Publish(ctx, e, model.Follow(e, issuedFact(1)))
		}
		return bus.Publish(ctx, e)
	}
	if err := p.send(t.Context(), send, "stored"); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b = openBroker(t, dir)
	defer b.stop()
	if b.url() != url {
		t.Fatalf("the server is at %s now", b.url())
	}
	if err := p.follow(t.Context(), time.Minute, p.askAgain(send)); err != nil || p.aims[0].Outcome != isReady {
		t.Errorf("%v\n%s", err, out)
	}
	if len(sent) != 2 || sent[1].ID() == in.ID() || model.Correlation(sent[1]) != in.ID() {
		t.Errorf("sent %v", sent)
	}
}
