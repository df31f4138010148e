package lifecycle_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// requests counts what is asked of the API server, and may fail it.
type requests struct {
	mu     sync.Mutex
	seen   []string // method and path, with the selector
	status map[int]int
	fault  func(*http.Request, http.RoundTripper) (*http.Response, error)
}

func (q *requests) wrap(next http.RoundTripper) http.RoundTripper { return counted{q, next} }

type counted struct {
	q    *requests
	next http.RoundTripper
}

func (c counted) RoundTrip(req *http.Request) (*http.Response, error) {
	c.q.mu.Lock()
	c.q.seen = append(c.q.seen, req.Method+" "+req.URL.RequestURI())
	fault := c.q.fault
	c.q.mu.Unlock()
	send := c.next.RoundTrip
	if fault != nil {
		send = func(req *http.Request) (*http.Response, error) { return fault(req, c.next) }
	}
	res, err := send(req)
	if err == nil {
		c.q.mu.Lock()
		defer c.q.mu.Unlock()
		if c.q.status == nil {
			c.q.status = map[int]int{}
		}
		c.q.status[res.StatusCode]++
	}
	return res, err
}

// count counts requests whose method and path hold some text, and forgets nothing.
func (q *requests) count(match func(string) bool) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.seen {
		if match(s) {
			n++
		}
	}
	return n
}

func (q *requests) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seen, q.status = nil, nil
}

// through gives a rig a store whose requests are counted.
func (r *rig) through(q *requests) {
	r.t.Helper()
	cfg := rest.CopyConfig(r.config)
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.Wrap(q.wrap)
	store, err := ledger.Open(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.store, r.watch = store, nil
}

// fleet makes configurations whose status says that they are due.
func (r *rig) fleet(n int, status func(i int, st *model.CMPCertificateStatus)) {
	r.t.Helper()
	var all sync.WaitGroup
	work := make(chan int)
	for range 8 {
		all.Go(func() {
			for i := range work {
				name := fmt.Sprintf("fleet-%04d", i)
				c, err := r.store.ApplyCertificate(r.t.Context(), r.key(name), certificate(name, 24*time.Hour))
				if err != nil {
					r.t.Error(err)
					continue
				}
				status(i, &c.Status)
				if err := r.store.UpdateCertificateStatus(r.t.Context(), c); err != nil {
					r.t.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
}

func dueAt(now time.Time) func(int, *model.CMPCertificateStatus) {
	return func(i int, st *model.CMPCertificateStatus) {
		at := func(d time.Duration) *metav1.Time { t := metav1.NewTime(now.Add(d)); return &t }
		st.ObservedGeneration = 1
		st.NotBefore, st.NotAfter, st.RenewalTime = at(-48*time.Hour), at(time.Duration(i)*time.Minute+time.Hour), at(-time.Hour)
		st.RenewalDay = model.RenewalDay(st.RenewalTime.Time)
		st.Conditions = []metav1.Condition{{Type: model.Ready, Status: metav1.ConditionTrue, Reason: model.ReasonIssued, LastTransitionTime: metav1.NewTime(now)}}
	}
}

// A sweep is one event for each page; the Secrets are compared by their metadata, page by page,
// and only what differs is read.
func TestSweepByPages(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, name := range []string{"one", "two", "three"} {
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
	}
	later := func(now time.Time) func(int, *model.CMPCertificateStatus) {
		return func(i int, st *model.CMPCertificateStatus) {
			dueAt(now)(i, st)
			at := metav1.NewTime(now.Add(time.Hour))
			st.RenewalTime = &at
		}
	}
	r.fleet(510, later(r.now()))
	r.edit("two-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
	var q requests
	r.through(&q)
	pages := 0
	var completed event.Event
	for queue := []event.Event{model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": "sweep"})}; len(queue) > 0; queue = queue[1:] {
		in := queue[0]
		if in.Type() == model.ScanCompleted {
			completed = in
		}
		if in.Type() != model.Ping && in.Type() != model.SweepContinued {
			continue
		}
		pages++
		out, err := r.watcher().Sweep(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		r.facts = append(r.facts, out...)
		queue = append(queue, out...)
	}
	var fact model.ScanFact
	if err := completed.DataAs(&fact); err != nil {
		t.Fatal(err)
	}
	if pages != 2 || fact.Looked != 514 || fact.Drifted != 1 {
		t.Errorf("got %d pages and %+v, want 2, 514 looked at and 1 drifted", pages, fact)
	}
	reads := q.count(func(s string) bool { return strings.HasPrefix(s, "GET") })
	t.Logf("%d requests for %d certificates", reads, fact.Looked)
	if reads > 12 {
		t.Errorf("%d requests, want a few for the pages and for the one that differs:\n%s", reads, strings.Join(q.seen, "\n"))
	}
	r.wantTold(model.SecretModified, 1)
}

// What was changed or asked for while nobody watched is found by a sweep, also where certloop had
// given up or was told to rest.
func TestSweepFindsWhatNobodySaw(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, name := range []string{"changed", "asked", "parked", "paused", "gone-on"} {
		if name == "parked" {
			r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailBadCertTemplate) })
		}
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
		r.honest()
	}
	r.patch("gone-on", `{"spec":{"paused":true}}`)
	for name, body := range map[string]string{
		"changed": `{"spec":{"subject":{"commonName":"changed anew"}}}`,
		"asked":   `{"metadata":{"annotations":{"certloop.io/renew":"now"}}}`,
		"parked":  `{"spec":{"subject":{"commonName":"parked anew"}}}`,
		"paused":  `{"spec":{"paused":true}}`,
		"gone-on": `{"spec":{"paused":false,"subject":{"commonName":"gone-on anew"}}}`,
	} {
		r.patchUnseen(name, body)
	}
	r.tick("sweep")
	r.wantReason("paused", model.ReasonIssued)
	if c := condition(r.status("paused"), model.Stalled); c.Reason != model.ReasonPaused {
		t.Errorf("got condition %+v of what was paused, want Stalled", c)
	}
	for name, want := range map[string]int{"changed": 2, "asked": 2, "parked": 1, "paused": 1, "gone-on": 2} {
		r.wantIssuances(name, want)
		r.wantReady(name, true)
	}
	spec := certificate("withdrawn", 24*time.Hour)
	spec.DeletionPolicy = model.DeletionDelete
	r.declare(model.ConfigCreated, "withdrawn", spec)
	if err := r.store.DeleteCertificate(t.Context(), r.key("withdrawn")); err != nil {
		t.Fatal(err)
	}
	r.tick("sweep")
	if !r.gone("withdrawn") || r.outputExists("withdrawn") {
		t.Error("what was withdrawn is still there")
	}
	facts := len(r.facts)
	r.tick("sweep")
	if told := r.facts[facts:]; len(told) != 1 {
		t.Errorf("a second sweep told %v, want scan.completed alone", told)
	}
}

// An expired token begins the list of the namespace again.
func TestSweepBeginsAgain(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	in := model.NewEvent(model.SweepContinued, types.NamespacedName{}, model.SweepWork{Sweep: "x", Continue: "expired"})
	var q requests
	q.fault = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if req.URL.Query().Get("continue") != "expired" {
			return next.RoundTrip(req)
		}
		return refusal(http.StatusGone, metav1.StatusReasonExpired), nil
	}
	r.through(&q)
	r.send(in)
	r.wantTold(model.SweepContinued, 1)
	r.wantTold(model.ScanCompleted, 1)
}

// However many are due at once, a scan asks for a bounded number, nearest expiry first; the
// rest is told as held, and asked for a minute later.
func TestStormIsHeld(t *testing.T) {
	const n = 130
	r := newRig(t, nil)
	r.fleet(n, dueAt(r.now()))
	for _, tick := range []string{"expiry", "sweep"} {
		t.Run(tick, func(t *testing.T) {
			r.facts, r.later = nil, nil
			w := &lifecycle.Watcher{Ledger: r.store, Namespaces: []string{r.ns}, Now: r.now}
			handle := w.Scan
			if tick == "sweep" {
				handle = w.Sweep
			}
			out, err := handle(t.Context(), model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": tick}))
			if err != nil {
				t.Fatal(err)
			}
			var held model.HeldFact
			asked := map[string]bool{}
			for _, e := range out {
				switch e.Type() {
				case model.CertificateExpiring, model.CertificateExpired:
					asked[strings.TrimPrefix(e.Subject(), r.ns+"/")] = true
				case model.ScanHeld:
					if err := e.DataAs(&held); err != nil {
						t.Fatal(err)
					}
				case model.SweepContinued:
					if pause := due(e).Sub(r.now()); pause < 50*time.Second || pause > time.Minute {
						t.Errorf("the next sweep is in %s, want a minute", pause)
					}
				}
			}
			if len(asked) != 50 || held.Due != n || held.Told != 50 {
				t.Errorf("%d were asked for, and %+v told; want 50 of %d", len(asked), held, n)
			}
			for i := range 50 {
				if !asked[fmt.Sprintf("fleet-%04d", i)] {
					t.Errorf("fleet-%04d expires before others and was not asked for", i)
				}
			}
		})
	}
}

// A Secret that an issuer names and has not seen as it is now is told once, and so is one that is
// gone; what certloop writes itself is not.
func TestInputs(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.tick("sweep")
	r.wantTold(model.InputChanged, 0)
	r.edit("ca-trust", func(s *corev1.Secret) {
		s.Labels = map[string]string{model.RoleLabel: model.RoleInput}
	})
	for _, told := range [][]event.Event{r.watched(r.ref(model.RefUpdate, "ca-trust")), r.watched(model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": "sweep"}))} {
		if len(told) != 1 || told[0].Subject() != r.ns+"/ca" {
			t.Errorf("got %v, want one input.changed about the issuer", told)
		}
	}
	r.delete("ca-bootstrap")
	if told := r.watched(r.ref(model.RefDelete, "ca-bootstrap")); len(told) != 1 {
		t.Errorf("got %v for a Secret that is gone, want one input.changed", told)
	}
}

// watched are the input.changed that a watcher tells of an event, without anybody acting on them.
func (r *rig) watched(in event.Event) (told []event.Event) {
	r.t.Helper()
	handle := r.watcher().Changed
	if in.Type() == model.Ping {
		handle = r.watcher().Sweep
	}
	out, err := handle(r.t.Context(), in)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range out {
		if e.Type() == model.InputChanged {
			told = append(told, e)
		}
	}
	return told
}
