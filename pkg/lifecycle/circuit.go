package lifecycle

import (
	order "cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// A circuit breaker for each issuer keeps a CA that is down from being asked by everybody.
// It stands in status.circuit of the issuer, so that all processes share it:
//
//	closed     there is none
//	open       nobody asks the CA but one probe every 30 s, whose slot is claimed by compare-and-swap
//	releasing  the CA has answered; what waited is let go by alarms, nearest expiry first
//
// Who finds it open sets the alarm of the next probe, so that no crash can lose it; the same
// alarm watches the release.
const (
	openAfter      = 3                // failures in a row, as one process has seen them
	probeInterval  = 30 * time.Second // between probes
	probesInARow   = 10               // by one certificate
	releasedAtOnce = 500              // alarms set for one event
)

// reach counts for each issuer how often in a row its CA could not be reached.
type reach struct {
	mu       sync.Mutex
	failures map[types.UID]int64
}

func (r *reach) failed(issuer types.UID) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures == nil {
		r.failures = map[types.UID]int64{}
	}
	r.failures[issuer]++
	return r.failures[issuer]
}

func (r *reach) answered(issuer types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failures, issuer)
}

// circuit is that of the issuer; nil when it is closed, or when the issuer wants every attempt made.
func (a *attempt) circuit() *model.Circuit {
	if a.ca == nil || a.fixed() {
		return nil
	}
	return a.ca.issuer.Status.Circuit
}

// held: the CA must not be asked now. While it is open only a probe may; when it has closed
// again, whoever waits for that is let go in its turn.
func (a *attempt) held() bool {
	c := a.circuit()
	switch {
	case c == nil:
		return false
	case c.AnsweredAt == nil:
		return a.work.Reason != model.WorkProbe
	default:
		return waitsForCircuit(a.cert) && a.work.Reason != model.WorkProbe && a.work.Reason != model.WorkRelease && !a.demand.fresh
	}
}

// hold ends an attempt without asking the CA: the end of the outage wakes it. A lease that is
// left, of a holder that died or of ours, is not.
func (a *attempt) hold(ctx context.Context) error {
	if a.insist() || a.rec.Lease != nil {
		if err := a.release(ctx); err != nil {
			return err
		}
	}
	c := a.circuit()
	a.tell(probeAt(a.issuerKey(), watchTime(c)))
	return a.report(ctx, held(c))
}

// held is the outcome of who waits for the CA. It is the same for the whole outage, so that
// it is written once.
func held(c *model.Circuit) outcome {
	return outcome{reason: model.ReasonCircuitOpen, message: away(c)}
}

func away(c *model.Circuit) string {
	return fmt.Sprintf("the CA has not answered since %s (%s); it is tried every %s, and what waits goes on when it answers",
		c.OpenedAt.UTC().Format(time.RFC3339), c.Message, probeInterval)
}

// showCircuit makes an outage a condition of the issuer. Ready is not touched: what the issuer
// names is as good as before.
func showCircuit(issuer *model.CMPIssuer) {
	conditions, c := &issuer.Status.Conditions, issuer.Status.Circuit
	if c == nil || c.AnsweredAt != nil {
		meta.RemoveStatusCondition(conditions, model.Reconciling)
		return
	}
	set(conditions, metav1.Condition{Type: model.Reconciling, Status: metav1.ConditionTrue, Reason: model.ReasonCircuitOpen, Message: away(c)}, issuer.Generation)
}

// watchTime is when the next probe is due, or when the release should have gone on.
func watchTime(c *model.Circuit) time.Time {
	if c.AnsweredAt != nil {
		return c.NextProbe.Add(overdueAfter)
	}
	return c.NextProbe.Time
}

// probeAt is the alarm of a probe, the same event whoever sets it.
func probeAt(issuer types.NamespacedName, t time.Time) event.Event {
	e := model.NewEvent(model.IssuerProbe, issuer, nil)
	e.SetID(model.DerivedID(model.IssuerProbe, issuer.String(), t.UTC().Format(time.RFC3339)))
	return model.Delay(e, t)
}

// unreachable counts a failure to reach the CA and opens the circuit when there were enough of
// them. It tells whether the circuit is open.
func (a *attempt) unreachable(ctx context.Context, failure error) (bool, error) {
	if a.fixed() {
		return false, nil
	}
	n := a.o.reach.failed(a.ca.issuer.UID)
	if n < openAfter && a.circuit() == nil {
		return false, nil
	}
	opened := false
	issuer, err := a.o.swapCircuit(ctx, a.issuerKey(), func(c *model.Circuit) *model.Circuit {
		if opened = c == nil || c.AnsweredAt != nil; !opened {
			return c
		}
		now := a.o.now()
		return &model.Circuit{OpenedAt: metav1.NewTime(now), NextProbe: *ceil(metav1.NewTime(now.Add(probeInterval))), Failures: n, Message: bounded(failure.Error())}
	})
	if err != nil || issuer == nil {
		return false, err
	}
	own := *a.ca.inputs
	own.issuer, a.ca.inputs = issuer, &own
	if opened {
		a.tell(unavailable(issuer))
	}
	a.tell(probeAt(a.issuerKey(), issuer.Status.Circuit.NextProbe.Time))
	return true, nil
}

// unavailable is the fact that a circuit has opened, the same one each time it is told.
func unavailable(issuer *model.CMPIssuer) event.Event {
	c := issuer.Status.Circuit
	e := model.NewEvent(model.IssuerUnavailable, ledger.IssuerKey(issuer), model.IssuerFact{Reason: model.ReasonCircuitOpen, Message: c.Message})
	e.SetID(model.DerivedID(model.IssuerUnavailable, string(issuer.UID), c.OpenedAt.UTC().Format(time.RFC3339)))
	return e
}

// reached: the CA gave an authentic answer, a refusal perhaps. If its circuit is open, that is over.
func (a *attempt) reached(ctx context.Context) error {
	a.o.reach.answered(a.ca.issuer.UID)
	if c := a.circuit(); c == nil || c.AnsweredAt != nil {
		return nil
	}
	closed := false
	issuer, err := a.o.swapCircuit(ctx, a.issuerKey(), func(c *model.Circuit) *model.Circuit {
		if closed = c != nil && c.AnsweredAt == nil; !closed {
			return c
		}
		next, now := *c, metav1.NewTime(a.o.now())
		next.AnsweredAt, next.NextProbe = &now, now
		return &next
	})
	if err != nil || issuer == nil || !closed {
		return err
	}
	a.tell(model.NewEvent(model.IssuerRelease, a.issuerKey(), model.ReleaseWork{}))
	return nil
}

// swapCircuit changes the circuit of an issuer by compare-and-swap. change may be called again
// after a lost race; what it returns unchanged is not written. The issuer is nil when there is none.
func (o *Obtainer) swapCircuit(ctx context.Context, key types.NamespacedName, change func(*model.Circuit) *model.Circuit) (issuer *model.CMPIssuer, err error) {
	for range looks {
		issuer, err = o.Ledger.Issuer(ctx, key)
		if errors.Is(err, ledger.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		next := change(issuer.Status.Circuit)
		if next == issuer.Status.Circuit {
			return issuer, nil
		}
		issuer.Status.Circuit = next
		showCircuit(issuer)
		if err = o.Ledger.UpdateIssuerStatus(ctx, issuer); !errors.Is(err, ledger.ErrConflict) {
			break
		}
	}
	o.known.forget(key)
	return issuer, err
}

// Probe handles issuer.probe: it lets one certificate try an issuer that did not answer, and
// sees to it that the certificates waiting for one that answers again are let go.
func (o *Obtainer) Probe(ctx context.Context, in event.Event) (out []event.Event, err error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	claimed := false
	issuer, err := o.swapCircuit(ctx, key, func(c *model.Circuit) *model.Circuit {
		if claimed = c != nil && c.AnsweredAt == nil && !o.now().Before(c.NextProbe.Time); !claimed {
			return c
		}
		next := *c
		next.Failures++
		next.NextProbe = *ceil(metav1.NewTime(o.now().Add(probeInterval)))
		return &next
	})
	if err != nil || issuer == nil {
		return nil, err
	}
	switch c := issuer.Status.Circuit; {
	case claimed:
		out, err = o.probe(ctx, issuer)
	case c != nil && watchTime(c).After(o.now()):
		out = []event.Event{probeAt(key, watchTime(c))}
	default: // the release was lost, or left somebody behind
		out = []event.Event{model.NewEvent(model.IssuerRelease, key, model.ReleaseWork{})}
	}
	for i := range out {
		out[i] = model.Follow(in, out[i])
	}
	return out, err
}

// probe asks for the probe whose slot was claimed. Where nobody waits nobody probes: who comes
// next finds the slot free.
func (o *Obtainer) probe(ctx context.Context, issuer *model.CMPIssuer) ([]event.Event, error) {
	prober, err := o.prober(ctx, issuer)
	if err != nil || prober == nil {
		return nil, err
	}
	c := issuer.Status.Circuit
	ask := prober.work(model.WorkProbe, issuer.UID, c.NextProbe.UTC().Format(time.RFC3339))
	out := []event.Event{ask, probeAt(ledger.IssuerKey(issuer), c.NextProbe.Time)}
	if o.now().Sub(c.OpenedAt.Time) < announceFor {
		out = append(out, unavailable(issuer)) // in case who opened it died
	}
	return out, nil
}

// prober is who probes for all, nil when nobody waits: the same certificate as before, so that
// not everybody is looked at every 30 s; but only some times in a row, since it may be the only
// one that the CA has no answer for.
func (o *Obtainer) prober(ctx context.Context, issuer *model.CMPIssuer) (*waiter, error) {
	c, key := issuer.Status.Circuit, ledger.IssuerKey(issuer)
	if c.Failures%probesInARow != 0 {
		if w, err := o.waits(ctx, c.Prober, key); w != nil || err != nil {
			return w, err
		}
	}
	waiting, err := o.waiting(ctx, key)
	if err != nil || len(waiting) == 0 {
		return nil, err
	}
	w := &waiting[c.Failures/probesInARow%int64(len(waiting))]
	_, err = o.swapCircuit(ctx, key, func(c *model.Circuit) *model.Circuit {
		if c == nil || c.Prober == w.name() {
			return c
		}
		next := *c
		next.Prober = w.name()
		return &next
	})
	return w, err
}

// waits reads a certificate that waited for an issuer; nil when it does so no more.
func (o *Obtainer) waits(ctx context.Context, name string, issuer types.NamespacedName) (*waiter, error) {
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		return nil, nil
	}
	c, err := o.Ledger.Certificate(ctx, types.NamespacedName{Namespace: namespace, Name: name})
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil
	}
	if err != nil || issuerKey(c) != issuer {
		return nil, err
	}
	return waiterOf(c), nil
}

// waiter is a certificate that waits for its CA.
type waiter struct {
	model.Waiting
	uid     types.UID
	renewal bool
}

// waiterOf is nil when c does not wait for its CA.
func waiterOf(c *model.CMPCertificate) *waiter {
	if reason := waitsFor(c); reason != model.ReasonCircuitOpen && reason != model.ReasonCAUnreachable {
		return nil
	}
	return &waiter{
		model.Waiting{NotAfter: c.Status.NotAfter, Created: c.CreationTimestamp, Namespace: c.Namespace, Name: c.Name},
		c.UID, meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready),
	}
}

// name is its namespace and name.
func (w *waiter) name() string { return w.Namespace + "/" + w.Name }

// work asks for it to be looked at, as the same event for the same occasion.
func (w *waiter) work(reason string, occasion ...any) event.Event {
	eventType := model.EnrollmentRequested
	if w.renewal {
		eventType = model.RenewalRequested
	}
	e := model.NewEvent(eventType, types.NamespacedName{Namespace: w.Namespace, Name: w.Name}, model.Work{Reason: reason})
	e.SetID(model.DerivedID(eventType, string(w.uid), reason, fmt.Sprint(occasion...)))
	return e
}

// waiting lists the certificates that wait for an issuer, in the order in which they are let go.
func (o *Obtainer) waiting(ctx context.Context, issuer types.NamespacedName) (all []waiter, err error) {
	_, err = o.referring(ctx, issuer, func(c *model.CMPCertificate) error {
		if w := waiterOf(c); w != nil {
			all = append(all, *w)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b waiter) int { return inOrder(&a.Waiting, &b.Waiting) })
	return all, err
}

func waitsForCircuit(c *model.CMPCertificate) bool { return waitsFor(c) == model.ReasonCircuitOpen }

// waitsFor is the reason why a certificate waits; empty when it does not.
func waitsFor(c *model.CMPCertificate) string {
	if r := meta.FindStatusCondition(c.Status.Conditions, model.Reconciling); r != nil && r.Status == metav1.ConditionTrue {
		return r.Reason
	}
	return ""
}

// inOrder compares the places of two certificates in the order of model.Waiting.
func inOrder(a, b *model.Waiting) int {
	switch {
	case a.NotAfter == nil && b.NotAfter != nil:
		return 1
	case a.NotAfter != nil && b.NotAfter == nil:
		return -1
	case a.NotAfter != nil && !a.NotAfter.Equal(b.NotAfter):
		return a.NotAfter.Compare(b.NotAfter.Time)
	default:
		return order.Or(a.Created.Compare(b.Created.Time), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	}
}

// Release handles issuer.release: it sets the alarms of the next certificates that wait for an
// issuer, at the rate the issuer wants, and asks to go on after the last of them. Handled twice
// it sets the same alarms again.
func (o *Obtainer) Release(ctx context.Context, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	var work model.ReleaseWork
	_ = in.DataAs(&work) // absent data mean from the beginning
	issuer, err := o.Ledger.Issuer(ctx, key)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if c := issuer.Status.Circuit; c != nil && c.AnsweredAt == nil {
		return nil, nil // open again: they wait on
	}
	waiting, err := o.waiting(ctx, key)
	if err != nil {
		return nil, err
	}
	var out []event.Event
	if work.After == nil && issuer.Status.Circuit != nil {
		out = append(out, available(issuer, len(waiting)))
	}
	out = append(out, o.letGo(issuer, after(waiting, work.After))...)
	for i := range out {
		out[i] = model.Follow(in, out[i])
	}
	return out, o.released(ctx, key, out)
}

// after are those that come after one in the order; all of them when there is none.
func after(waiting []waiter, last *model.Waiting) []waiter {
	if last == nil {
		return waiting
	}
	n := slices.IndexFunc(waiting, func(w waiter) bool { return inOrder(&w.Waiting, last) > 0 })
	if n < 0 {
		return nil
	}
	return waiting[n:]
}

// letGo sets the alarms of the first of those that wait, and that of who goes on.
func (o *Obtainer) letGo(issuer *model.CMPIssuer, waiting []waiter) (out []event.Event) {
	rate := time.Duration(issuer.Spec.Retry.Release())
	now, n := o.now(), min(len(waiting), releasedAtOnce)
	at := func(i int) time.Time { return now.Add(time.Duration(i) * time.Second / rate) }
	for i := range n {
		out = append(out, model.Delay(waiting[i].work(model.WorkRelease, issuer.UID, issuer.ResourceVersion), at(i)))
	}
	if n < len(waiting) {
		next := model.NewEvent(model.IssuerRelease, ledger.IssuerKey(issuer), model.ReleaseWork{After: &waiting[n-1].Waiting})
		out = append(out, model.Delay(next, at(n)))
	}
	return out
}

// released stores when the release goes on, or that it has come to its end.
func (o *Obtainer) released(ctx context.Context, key types.NamespacedName, out []event.Event) error {
	var next time.Time
	for _, e := range out {
		if e.Type() == model.IssuerRelease {
			next, _ = model.DueTime(e) // of our own making
		}
	}
	_, err := o.swapCircuit(ctx, key, func(c *model.Circuit) *model.Circuit {
		if c == nil || c.AnsweredAt == nil || next.IsZero() {
			return stillOpen(c)
		}
		moved := *c
		moved.NextProbe = *ceil(metav1.NewTime(next))
		return &moved
	})
	return err
}

// stillOpen is what is left of a circuit when everybody was let go.
func stillOpen(c *model.Circuit) *model.Circuit {
	if c != nil && c.AnsweredAt == nil {
		return c
	}
	return nil
}

// available is the fact that a CA answers again, the same one each time it is told.
func available(issuer *model.CMPIssuer, waiting int) event.Event {
	c := issuer.Status.Circuit
	e := model.NewEvent(model.IssuerAvailable, ledger.IssuerKey(issuer), model.IssuerFact{
		Reason: model.ReasonUsable, Waiting: waiting,
		Message: fmt.Sprintf("the CA answers again, after it had not since %s", c.OpenedAt.UTC().Format(time.RFC3339)),
	})
	e.SetID(model.DerivedID(model.IssuerAvailable, string(issuer.UID), c.OpenedAt.UTC().Format(time.RFC3339)))
	return e
}

// waitsForCA wakes the issuer of a certificate that waits for its CA, once for all that do. The
// scan need not know whether the CA answers: who handles the event does.
func (s *scan) waitsForCA(c *model.CMPCertificate) bool {
	if !waitsForCircuit(c) {
		return false
	}
	s.fact.Pending++
	s.lookAtEnd(c)
	key := issuerKey(c)
	if s.issuers == nil {
		s.issuers = map[types.NamespacedName]bool{}
	}
	if !s.issuers[key] {
		s.issuers[key] = true
		e := model.NewEvent(model.IssuerProbe, key, nil)
		e.SetID(model.DerivedID(model.IssuerProbe, key.String(), s.now.Truncate(announceFor).Format(time.RFC3339)))
		s.out = append(s.out, model.Follow(s.in, e))
	}
	return true
}

// lookAtEnd tells of a certificate that is near its end, or past it, while it waits for its next
// attempt: no certificate ends without a word, and its status says so too.
func (s *scan) lookAtEnd(c *model.CMPCertificate) {
	switch {
	case !s.expired(c):
		if s.endsSoon(c) {
			s.tellDue(c)
		}
	case meta.IsStatusConditionTrue(c.Status.Conditions, model.Ready):
		s.tellDue(c)
	default:
		s.fact.Expired++
	}
}

func (s *scan) endsSoon(c *model.CMPCertificate) bool {
	st := &c.Status
	return st.NotBefore != nil && st.NotAfter != nil && model.Urgent(st.NotAfter.Sub(st.NotBefore.Time), st.NotAfter.Sub(s.now))
}
