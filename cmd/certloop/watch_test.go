package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/certloop/certloop/pkg/model"
)

// fakeAPI answers lists and watches as it is told to.
type fakeAPI struct {
	lists   chan page
	watches chan watching
	asked   chan metav1.ListOptions // of every list and watch
}

// watching is the answer to a watch.
type watching struct {
	*watch.FakeWatcher
	err error
}

type page struct {
	items   []model.CMPCertificate
	next    string
	version string
	err     error
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{lists: make(chan page, 8), watches: make(chan watching, 8), asked: make(chan metav1.ListOptions, 64)}
}

func (a *fakeAPI) listWatch() *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			a.asked <- opts
			select {
			case p := <-a.lists:
				return &model.CMPCertificateList{ListMeta: metav1.ListMeta{Continue: p.next, ResourceVersion: p.version}, Items: p.items}, p.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			a.asked <- opts
			select {
			case w := <-a.watches:
				return w, w.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
}

func (a *fakeAPI) next(tb testing.TB) metav1.ListOptions {
	tb.Helper()
	select {
	case opts := <-a.asked:
		return opts
	case <-time.After(30 * time.Second):
		tb.Fatal("the API server was not asked again")
		return metav1.ListOptions{}
	}
}

// newFeed follows the certificates of a, into r.
func newFeed(a *fakeAPI, r *recorder) *feed {
	s := testSources()
	s.Bus, s.Log = r, slog.New(slog.DiscardHandler)
	f := s.own(model.CertificateResource, "", a.listWatch())
	f.missed = func(context.Context) {}
	return f
}

func start(tb testing.TB, f *feed) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
}

func eventually(tb testing.TB, what string, met func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !met(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 30 s: %s", what)
		}
	}
}

func told(eventType, name string) string {
	return eventType + " /apis/certloop.io/v1alpha1/namespaces/demo/cmpcertificates/" + name
}

func TestFeedTellsWhatNeedsWorkAndThenWhatChanges(t *testing.T) {
	a, r := newFakeAPI(), &recorder{}
	ready := seen(2, model.Ready)
	w := watch.NewFake()
	a.lists <- page{items: []model.CMPCertificate{*certificate("a", seen(0)), *certificate("b", ready)}, next: "more"}
	a.lists <- page{items: []model.CMPCertificate{*certificate("c", seen(0))}, version: "42"}
	a.watches <- watching{FakeWatcher: w}
	start(t, newFeed(a, r))
	if first, second := a.next(t), a.next(t); first.Limit != pageSize || first.FieldSelector != neverIssued || first.Continue != "" || second.Continue != "more" {
		t.Errorf("lists were asked for with %+v and %+v", first, second)
	}
	if from := a.next(t).ResourceVersion; from != "42" {
		t.Errorf("watches from version %q, want 42", from)
	}
	w.Add(certificate("d", seen(0)))
	w.Modify(certificate("b", ready)) // our own status
	w.Modify(certificate("b", seen(1, model.Ready)))
	w.Delete(certificate("a", seen(0)))
	want := []string{
		told(model.ResourceAdd, "a"), told(model.ResourceAdd, "c"),
		told(model.ResourceAdd, "d"), told(model.ResourceUpdate, "b"), told(model.ResourceDelete, "a"),
	}
	eventually(t, "five events", func() bool { return len(r.subjects()) >= len(want) })
	if got := r.subjects(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestFeedListsAgainWhenItsPositionIsGone(t *testing.T) {
	a, r := newFakeAPI(), &recorder{}
	gone, w := watch.NewFake(), watch.NewFake()
	a.lists <- page{err: errors.New("connection refused")}
	a.lists <- page{version: "42"}
	a.watches <- watching{FakeWatcher: gone}
	f := newFeed(a, r)
	listed, missed := make(chan struct{}, 9), make(chan struct{}, 9)
	f.listed = func(context.Context) { listed <- struct{}{} }
	f.missed = func(context.Context) { missed <- struct{}{} }
	start(t, f)
	<-listed
	go gone.Error(&metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired})
	a.lists <- page{version: "50", items: []model.CMPCertificate{*certificate("late", seen(0))}}
	a.watches <- watching{FakeWatcher: w}
	<-missed
	for _, want := range []string{"", "", "42", "", "50"} {
		if opts := a.next(t); opts.ResourceVersion != want {
			t.Errorf("asked from version %q, want %q", opts.ResourceVersion, want)
		}
	}
	if got, want := r.subjects(), []string{told(model.ResourceAdd, "late")}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if len(listed) > 0 || len(missed) > 0 {
		t.Error("the first list or the gap was told twice")
	}
}

func TestFeedSurvivesWatchesThatDoNotBegin(t *testing.T) {
	a, r := newFakeAPI(), &recorder{}
	a.lists <- page{version: "42"}
	a.watches <- watching{err: errors.New("connection refused")}
	a.watches <- watching{err: apierrors.NewResourceExpired("too old")}
	a.lists <- page{version: "50"}
	a.watches <- watching{err: apierrors.NewForbidden(schema.GroupResource{Resource: "x"}, "", errors.New("no"))}
	w := watch.NewFake()
	a.lists <- page{version: "60"}
	a.watches <- watching{FakeWatcher: w}
	var log strings.Builder
	f := newFeed(a, r)
	f.log = slog.New(slog.NewTextHandler(&log, nil))
	start(t, f)
	for _, want := range []string{"", "42", "42", "", "50", "", "60"} {
		if opts := a.next(t); opts.ResourceVersion != want {
			t.Errorf("asked from version %q, want %q", opts.ResourceVersion, want)
		}
	}
	w.Add(certificate("a", seen(0))) // returns when the feed has it
	eventually(t, "one event", func() bool { return len(r.subjects()) == 1 })
	for _, says := range []string{"connection refused", "too old", "forbidden"} {
		if n := strings.Count(log.String(), says); n != 1 {
			t.Errorf("%q is logged %d times, want once:\n%s", says, n, log.String())
		}
	}
}

// away is a broker that refuses a while.
type away struct {
	recorder
	refusals int
}

func (b *away) Publish(ctx context.Context, events ...event.Event) error {
	if b.refusals--; b.refusals >= 0 {
		return errors.New("the broker is away")
	}
	return b.recorder.Publish(ctx, events...)
}

func TestPublishWaitsForTheBroker(t *testing.T) {
	b := &away{refusals: 2}
	s := testSources()
	s.Bus, s.Log = b, slog.New(slog.DiscardHandler)
	s.publish(t.Context(), s.ping(scanSweep))
	if got := len(b.events); got != 1 {
		t.Errorf("stored %d events, want 1", got)
	}
}

// After a start and after a gap a look at everything is asked for, and not at once: what is new
// comes first.
func TestSweepComesSoon(t *testing.T) {
	r := &recorder{}
	s := testSources()
	s.Bus, s.Log = r, slog.New(slog.DiscardHandler)
	now := time.Now()
	s.Now = func() time.Time { return now }
	s.sweepSoon(t.Context())
	due, err := model.DueTime(r.events[0])
	if err != nil || due.Sub(now) != gapSweep {
		t.Errorf("due in %s (%v), want %s", due.Sub(now), err, gapSweep)
	}
	if got := dataOf(t, r.events[0])["scan"]; got != scanSweep {
		t.Errorf("a %v was asked for", got)
	}
}

func TestTicksAreTheSameInEveryProcess(t *testing.T) {
	const every = 50 * time.Millisecond
	ids := func() []string {
		r := &recorder{}
		s := testSources()
		s.Bus, s.Log = r, slog.New(slog.DiscardHandler)
		// A clock that stands still sees the same tick come again and again.
		now := time.Date(2026, 11, 21, 12, 0, 0, int(10*time.Millisecond), time.UTC)
		s.Now = func() time.Time { return now }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.tick(ctx, every, scanExpiry) }()
		eventually(t, "two ticks", func() bool { return len(r.subjects()) >= 2 })
		cancel()
		<-done
		return []string{r.events[0].ID(), r.events[1].ID()}
	}
	one, other := ids(), ids()
	if one[0] != one[1] || one[0] != other[0] {
		t.Errorf("the tick of one moment has ids %v and %v", one, other)
	}
}
