package lifecycle_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// outage is a rig whose CA can be taken away, and one process that writes down what it does.
type outage struct {
	*rig
	server  *responder.Server
	address string
	steps   []timed
}

// timed is a step and the virtual time it was done at.
type timed struct {
	lifecycle.Step
	at time.Time
}

func newOutage(t *testing.T) *outage {
	o := &outage{rig: newRig(t, nil)}
	o.ready()
	o.process = o.obtainer(func(s lifecycle.Step) { o.steps = append(o.steps, timed{s, o.now()}) })
	o.server, o.address = o.ca.Server, strings.TrimPrefix(strings.TrimSuffix(o.ca.URL, "/.well-known/cmp"), "http://")
	return o
}

func (o *outage) back() {
	o.t.Helper()
	var err error
	if o.ca, err = o.server.Start(o.address); err != nil {
		o.t.Fatal(err)
	}
}

// asked are the attempts to reach the CA since a time.
func (o *outage) asked(since time.Time) (out []timed) {
	for _, s := range o.steps {
		if s.Name == "exchange" && !s.at.Before(since) {
			out = append(out, s)
		}
	}
	return out
}

// circuit is that of the issuer, which its conditions show.
func (o *outage) circuit() *model.Circuit {
	o.t.Helper()
	i, err := o.store.Issuer(o.t.Context(), o.key("ca"))
	if err != nil {
		o.t.Fatal(err)
	}
	c, shown := i.Status.Circuit, meta.FindStatusCondition(i.Status.Conditions, model.Reconciling)
	if open := c != nil && c.AnsweredAt == nil; open != (shown != nil) || open && shown.Reason != model.ReasonCircuitOpen {
		o.t.Errorf("got condition %+v of an issuer with circuit %+v", shown, c)
	}
	if !meta.IsStatusConditionTrue(i.Status.Conditions, model.Ready) {
		o.t.Errorf("got conditions %+v, want Ready: what the issuer names can be read", i.Status.Conditions)
	}
	return c
}

// pass lets alarms ring for a while.
func (o *outage) pass(d time.Duration) {
	o.t.Helper()
	for end := o.now().Add(d); len(o.later) > 0 && o.now().Before(end); {
		o.wait()
	}
}

// size is a number that a longer run of the tests raises by an environment variable.
func size(t *testing.T, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The CA is away for long, and many wait for it: one probe every 30 s asks it, nobody else;
// nobody's status is written twice; when it is back the first certificate comes within
// 30 s, and the others at the rate that was configured, nearest expiry first.
func TestOutage(t *testing.T) {
	o := newOutage(t)
	many, long := size(t, "CERTLOOP_OUTAGE_CERTIFICATES", 40), time.Duration(size(t, "CERTLOOP_OUTAGE_MINUTES", 10))*time.Minute
	for i := range 5 { // the last one declared ends first
		o.declare(model.ConfigCreated, fmt.Sprintf("old-%d", i), certificate(fmt.Sprintf("old-%d", i), 24*time.Hour-time.Duration(i)*time.Minute))
	}
	o.advance(17 * time.Hour)
	o.stopCA()
	began := o.now()
	pending := func(from, to int) {
		for i := from; i < to; i++ {
			o.declare(model.ConfigCreated, fmt.Sprintf("new-%05d", i), certificate(fmt.Sprintf("new-%05d", i), 24*time.Hour))
		}
		o.tick("expiry")
	}
	pending(0, 10)
	first := len(o.asked(began))
	if c := o.circuit(); c == nil || c.AnsweredAt != nil || first > 3 {
		t.Fatalf("got circuit %+v after %d failures, want it open after 3", c, first)
	}
	pending(10, many) // of ten thousand the last are declared many probes later
	o.pass(2 * time.Minute)
	o.wantReason("new-00000", model.ReasonCircuitOpen)
	o.wantReason("new-00007", model.ReasonCircuitOpen)
	if c := condition(o.status("old-0"), model.Reconciling); c.Reason != model.ReasonCircuitOpen || !strings.Contains(c.Message, "connection refused") {
		t.Errorf("got %+v, want the reason CircuitOpen and the failure of the CA", c)
	}
	last := fmt.Sprintf("new-%05d", many-1) // whose turn to probe does not come
	before := o.version(last)
	o.pass(long)
	o.tick("expiry")
	o.tick("sweep")
	o.see(last)
	if got := o.version(last); got != before {
		t.Errorf("the status of who waits was written again")
	}
	if probes, most := len(o.asked(began))-first, int(o.now().Sub(began)/(30*time.Second))+1; probes > most || probes < most/2 {
		t.Errorf("got %d probes in %v, want about one every 30 s", probes, o.now().Sub(began))
	}
	o.wantTold(model.IssuerUnavailable, 1)

	_, prober, _ := strings.Cut(o.circuit().Prober, "/")
	o.back()
	back := o.now()
	o.settleWithin(200 + 4*many)
	o.wantDrained(back, many, prober)
	o.wantTold(model.IssuerAvailable, 1)
	o.wantTold(model.IssuanceMaybeOrphan, 0)
	if c := o.circuit(); c != nil {
		t.Errorf("got circuit %+v, want none", c)
	}
}

func (o *outage) version(name string) string {
	o.t.Helper()
	c, err := o.store.Certificate(o.t.Context(), o.key(name))
	if err != nil {
		o.t.Fatal(err)
	}
	return c.ResourceVersion
}

// wantDrained checks when and in which order those that waited were let go, after the one that
// found the CA answering.
func (o *outage) wantDrained(back time.Time, many int, prober string) {
	o.t.Helper()
	var order []string
	var times []time.Time
	for _, s := range o.asked(back) {
		if strings.HasPrefix(s.Detail, "ir ") || strings.HasPrefix(s.Detail, "kur ") {
			order, times = append(order, s.Certificate.Name), append(times, s.at)
		}
	}
	if len(order) != many+5 {
		o.t.Fatalf("%d asked after the outage, want %d", len(order), many+5)
	}
	if wait := times[0].Sub(back); wait > 31*time.Second {
		o.t.Errorf("the first one came %v after the CA, want 30 s at most", wait)
	}
	want := slices.DeleteFunc([]string{"old-4", "old-3", "old-2", "old-1", "old-0"}, func(name string) bool { return name == prober })
	want = append([]string{prober}, want...)
	if got := order[:len(want)]; !slices.Equal(got, want) {
		o.t.Errorf("got %v first, want %v: nearest expiry first", got, want)
	}
	// 10 a second; the clock of the test has some slack.
	if took, want := times[len(times)-1].Sub(times[0]), time.Duration(len(times)-1)*100*time.Millisecond; took < want*3/4 {
		o.t.Errorf("%d certificates were let go within %v, want %v", len(times), took, want)
	}
	for i := range many {
		o.wantReady(fmt.Sprintf("new-%05d", i), true)
	}
}

// A certificate that ends while its CA is away is told once, and is not Ready any more.
func TestExpiryInAnOutage(t *testing.T) {
	o := newOutage(t)
	o.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	o.advance(17 * time.Hour)
	o.stopCA()
	o.tick("expiry")
	o.pass(5 * time.Minute)
	if c := condition(o.status("web"), model.Reconciling); c.Reason != model.ReasonCircuitOpen {
		t.Fatalf("got %+v, want the reason CircuitOpen", c)
	}
	o.wantReady("web", true)
	o.advance(8 * time.Hour)
	o.tick("expiry")
	o.wantReady("web", false)
	o.advance(11 * time.Minute)
	o.tick("expiry")
	o.wantTold(model.CertificateExpired, 1)
	o.back()
	o.settle()
	o.wantReady("web", true)
	o.wantIssuances("web", 2)
}

// However many replicas see the alarm of a probe, one probe is made.
func TestOneProbe(t *testing.T) {
	o := newOutage(t)
	o.stopCA()
	for i := range 5 {
		o.declare(model.ConfigCreated, fmt.Sprintf("web-%d", i), certificate(fmt.Sprintf("web-%d", i), 24*time.Hour))
	}
	o.advance(31 * time.Second)
	alarm := model.NewEvent(model.IssuerProbe, o.key("ca"), nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	probes := 0
	for range 5 {
		replica := o.obtainer(func(lifecycle.Step) {})
		wg.Go(func() {
			out, err := replica.Probe(t.Context(), alarm)
			for i := 0; err != nil && i < 20; i++ { // delivered again
				out, err = replica.Probe(t.Context(), alarm)
			}
			mu.Lock()
			defer mu.Unlock()
			probes += asks(out)
		})
	}
	wg.Wait()
	if probes != 1 {
		t.Errorf("got %d probes, want 1", probes)
	}
}

// The same certificate probes for some time, since to find another one is to look at all; but
// the CA may have no answer for that one alone, so that others take their turns.
func TestProbersTakeTurns(t *testing.T) {
	o := newOutage(t)
	o.stopCA()
	for i := range 5 {
		o.declare(model.ConfigCreated, fmt.Sprintf("web-%d", i), certificate(fmt.Sprintf("web-%d", i), 24*time.Hour))
	}
	began := o.now()
	o.pass(15 * time.Minute)
	var turns []string
	probes := o.asked(began)
	for _, s := range probes {
		if n := len(turns); n == 0 || turns[n-1] != s.Certificate.Name {
			turns = append(turns, s.Certificate.Name)
		}
	}
	if len(probes) < 25 || len(turns) < 3 || len(turns) > 5 || slices.Contains(turns[1:], turns[0]) {
		t.Errorf("%d probes, by %q in turn; want ten by each", len(probes), turns)
	}
	if c := o.circuit(); c == nil || !strings.HasSuffix(c.Prober, turns[len(turns)-1]) {
		t.Errorf("got circuit %+v, want the name of who probes", c)
	}
}

func asks(out []event.Event) (n int) {
	for _, e := range out {
		if e.Type() == model.EnrollmentRequested || e.Type() == model.RenewalRequested {
			n++
		}
	}
	return n
}

// Every alarm is lost, while the CA is away and while what waited is let go: a scan finds both.
func TestOutageWithoutAlarms(t *testing.T) {
	o := newOutage(t)
	o.stopCA()
	for i := range 6 {
		o.declare(model.ConfigCreated, fmt.Sprintf("web-%d", i), certificate(fmt.Sprintf("web-%d", i), 24*time.Hour))
	}
	o.pass(2 * time.Minute)
	o.later = nil
	o.advance(11 * time.Minute)
	o.back()
	o.tick("expiry")
	o.later = nil
	o.advance(11 * time.Minute)
	o.tick("expiry")
	o.settle()
	for i := range 6 {
		o.wantReady(fmt.Sprintf("web-%d", i), true)
		o.wantIssuances(fmt.Sprintf("web-%d", i), 1)
	}
}

// A refusal is an answer: it closes the circuit. What a person asked for meanwhile is done then.
func TestRefusalClosesTheCircuit(t *testing.T) {
	o := newOutage(t)
	o.declare(model.ConfigCreated, "mine", certificate("mine", 24*time.Hour))
	o.stopCA()
	for i := range 4 {
		o.declare(model.ConfigCreated, fmt.Sprintf("web-%d", i), certificate(fmt.Sprintf("web-%d", i), 24*time.Hour))
	}
	o.send(model.NewEvent(model.RecreationRequested, o.key("mine"), nil))
	if c := condition(o.status("mine"), model.Reconciling); c.Reason != model.ReasonCircuitOpen {
		t.Errorf("got %+v, want the reason CircuitOpen", c)
	}
	o.back()
	o.wantIssuances("mine", 1)
	o.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailBadPOP) })
	for o.circuit() != nil && o.circuit().AnsweredAt == nil {
		o.wait()
	}
	o.honest()
	o.settle()
	o.wantTold(model.IssuerAvailable, 1)
	o.wantTold(model.IssuerUnavailable, 1)
	parked := o.told(model.CertificateParked) // the probe, and who was let go before the CA came to its senses
	if done := o.issuances("mine") - 1 + o.issuances("web-"); parked == 0 || done+parked != 5 {
		t.Errorf("got %d issued and %d parked, want 5 together", done, parked)
	}
}
