package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// Obtainer obtains certificates and delivers them. Ledger, Holder and Log are
// required; it is safe for concurrent use.
type Obtainer struct {
	Ledger *ledger.Store
	// Holder names this process in leases; unique among all that run.
	Holder string
	Log    *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Lease is how long a record must stay unchanged before its holder is taken for
	// dead. While a holder lives it touches the record three times as often. Default 2.5 s:
	// with the silence after which JetStream delivers again, 1 s, and the whole seconds of
	// its schedules, a holder that died is replaced within 5 s.
	Lease time.Duration
	// Namespace is certloop's own: there are the Secrets that a CMPClusterIssuer names. Without it
	// there are no cluster issuers.
	Namespace string
	// Namespaces are the ones this installation serves; all of them when empty.
	Namespaces []string
	// Trace, when set, is told of every step as it is done.
	Trace func(Step)

	known authorities
	reach reach
}

// Step is one step of an attempt, for live displays and tests.
type Step struct {
	Certificate types.NamespacedName
	Name        string // claim, exchange, stage, promote, project, report
	Detail      string // for an exchange "ir → ip", for a project the Secret's name
	Took        time.Duration
}

func (o *Obtainer) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

func (o *Obtainer) lease() time.Duration {
	if o.Lease > 0 {
		return o.Lease
	}
	return 2500 * time.Millisecond
}

// Enroll sees to it that a certificate exists and is delivered. It handles
// enrollment.requested, recreation.requested, secret.modified and secret.deleted.
func (o *Obtainer) Enroll(ctx context.Context, in event.Event) ([]event.Event, error) {
	return o.handle(ctx, ledger.ForEnrollment, in)
}

// Renew replaces a certificate that is due. It handles certificate.expiring,
// certificate.expired and renewal.requested.
func (o *Obtainer) Renew(ctx context.Context, in event.Event) ([]event.Event, error) {
	return o.handle(ctx, ledger.ForRenewal, in)
}

func (o *Obtainer) handle(ctx context.Context, purpose string, in event.Event) ([]event.Event, error) {
	key, err := model.ObjectOf(in)
	if err != nil {
		return nil, err
	}
	return o.obtain(ctx, key, purpose, in)
}

// looks bounds how often an attempt looks again at once after losing a race.
const looks = 3

// obtain makes one attempt for one certificate. Who loses a race looks again at once,
// and mostly finds somebody at work.
func (o *Obtainer) obtain(ctx context.Context, key types.NamespacedName, purpose string, in event.Event) (out []event.Event, err error) {
	return o.obtainFor(ctx, sight{}, key, purpose, in)
}

// sight is what the API server has just told: a configuration, nil when it is still to be read, and
// perhaps its rivals.
type sight struct {
	cert   *model.CMPCertificate
	rivals []ledger.Rival
	listed bool // the rivals are these and no others
}

// obtainFor is obtain for who has read the configuration already.
func (o *Obtainer) obtainFor(ctx context.Context, seen sight, key types.NamespacedName, purpose string, in event.Event) (out []event.Event, err error) {
	var lasting []event.Event
	for look := range looks {
		if out, err = o.attempt(ctx, seen, key, purpose, in, look > 0); !errors.Is(err, ledger.ErrConflict) {
			break
		}
		lasting = append(lasting, lastingIn(out)...) // the next look finds it done
		seen = sight{}
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", purpose, key, err)
	}
	return distinct(append(lasting, out...)), nil
}

// distinct is each event once: a second look tells again what the first has stored.
func distinct(all []event.Event) []event.Event {
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(e event.Event) bool {
		was := seen[e.ID()]
		seen[e.ID()] = true
		return was
	})
}

// lastingIn are the facts that hold whatever came afterwards: that outputs were put back, and how
// an issuer stands.
func lastingIn(facts []event.Event) (lasting []event.Event) {
	for _, e := range facts {
		switch e.Type() {
		case model.SecretModified, model.SecretDeleted, model.CertificateRestored, model.IssuerReady, model.IssuerFailed:
			lasting = append(lasting, e)
		}
	}
	return lasting
}

// attempt makes one look. What it has to tell is given also where it fails, but may not hold then.
func (o *Obtainer) attempt(ctx context.Context, seen sight, key types.NamespacedName, purpose string, in event.Event, again bool) (_ []event.Event, err error) {
	cert := seen.cert
	if cert == nil {
		cert, err = o.Ledger.Certificate(ctx, key)
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, nil // withdrawn: its record goes with it, its output stays
	}
	if err != nil {
		return nil, err
	}
	a := &attempt{o: o, key: key, in: in, cert: cert, purpose: purpose, work: workOf(in), config: configDigest(cert.Spec), again: again, seen: seen}
	was := cert.Status.DeepCopy()
	act := a.run
	if cert.DeletionTimestamp != nil {
		act = a.end
	}
	if err := a.hindered(ctx, act(ctx)); err != nil {
		return a.facts, err
	}
	a.stand(was)
	if a.answer {
		if err := a.reached(ctx); err != nil {
			return nil, err
		}
	}
	return a.facts, nil
}

// workOf reads why we were asked. Only our own requests say; other events carry
// other data.
func workOf(in event.Event) (w model.Work) {
	switch in.Type() {
	case model.EnrollmentRequested, model.RenewalRequested, model.RecreationRequested:
		_ = in.DataAs(&w) // absent data mean no particular reason
	}
	return w
}

// attempt is one look at one certificate and what follows from it. It belongs to one
// goroutine.
type attempt struct {
	o        *Obtainer
	key      types.NamespacedName
	in       event.Event
	cert     *model.CMPCertificate
	rec      *ledger.Record
	ca       *authority
	purpose  string
	work     model.Work
	demand   demand
	answer   bool // the CA has answered, authentically
	config   string
	facts    []event.Event
	retold   int            // how many of them an earlier delivery of the same event led to
	promoted bool           // this attempt has put a certificate into use
	again    bool           // it is not the first look: somebody wrote meanwhile
	seen     sight          // what was known before
	found    ledger.Outputs // the output as it was read or written last; nil before
	withheld bool           // what is in use cannot be delivered
	unread   bool           // found was not read, because there should be none
	bundle   string         // resourceVersion of the Secret that spec.caBundle names
}

func (a *attempt) run(ctx context.Context) (err error) {
	if err := a.guard(ctx); err != nil {
		return err
	}
	if a.rec, err = a.record(ctx); err != nil {
		return err
	}
	a.retell()
	a.demand = demandOf(a.cert, a.rec, a.in, a.work)
	if a.cert.Spec.Paused {
		return a.stop(ctx)
	}
	if done, err := a.prepare(ctx); done || err != nil {
		return err
	}
	v, err := a.view(ctx)
	if err != nil {
		return err
	}
	switch decide(v) {
	case comeBack:
		a.comeBack()
		return nil
	case rest:
		if a.joined(v) {
			if err := a.save(ctx, "join"); err != nil {
				return err
			}
		}
		return a.rest(ctx)
	case resume:
		a.joined(v)
		return a.resume(ctx, v)
	case abandon:
		a.orphan("something else was asked for while the CA made us wait")
		return a.begin(ctx, v)
	case begin:
		return a.begin(ctx, v)
	case deliver:
		return a.deliver(ctx)
	}
	return nil
}

// joined: what a person asks for is what the transaction in flight will bring; it is for
// that from now on.
func (a *attempt) joined(v view) bool {
	if !v.joins() {
		return false
	}
	a.rec.Flight.Cause = v.demand.id
	return true
}

// comeBack asks for another look one lease later, for the reason there is now.
func (a *attempt) comeBack() {
	w := model.Work{Reason: model.WorkLease, Seen: a.rec.Version()}
	if cameBack(a.work) {
		w.Reason = a.work.Reason
	}
	due := a.o.now().Add(a.o.lease())
	if a.in.Type() == model.RecreationRequested {
		a.tell(model.Delay(model.NewEvent(model.RecreationRequested, a.key, w), due))
		return
	}
	a.later(due, w)
}

func (a *attempt) view(ctx context.Context) (view, error) {
	v := view{rec: a.rec, spec: &a.cert.Spec, config: a.config, purpose: a.purpose, work: a.work, demand: a.demand, now: a.o.now()}
	if a.rec.Attempt.Parked == "" {
		return v, nil
	}
	ca, _, err := a.issuer(ctx)
	var why *unmetError
	if err != nil && !errors.As(err, &why) {
		return v, err
	}
	v.issuer = issuerState(ca)
	return v, nil
}

func (a *attempt) issuerKey() types.NamespacedName { return issuerKey(a.cert) }

// rest sees to it that somebody comes back in time, and that what is in use is delivered.
func (a *attempt) rest(ctx context.Context) error {
	next := a.rec.Attempt.Next
	if f := a.rec.Flight; f != nil && f.NextPoll.After(next) {
		next = f.NextPoll
	}
	if next.After(a.o.now()) {
		a.later(next, model.Work{Reason: model.WorkRetry})
	}
	if a.rec.Current == nil {
		return a.report(ctx, a.outcomeOfRecord())
	}
	return a.project(ctx)
}

// later asks for this certificate to be looked at again, by the same function.
func (a *attempt) later(t time.Time, w model.Work) {
	eventType := model.EnrollmentRequested
	if a.purpose == ledger.ForRenewal {
		eventType = model.RenewalRequested
	}
	a.facts = append(a.facts, model.Follow(a.in, model.Delay(model.NewEvent(eventType, a.key, w), t)))
}

func (a *attempt) tell(e event.Event) { a.facts = append(a.facts, model.Follow(a.in, e)) }

// tellKept tells what cannot be found out once more after the next write of the record, which
// keeps it for retell.
func (a *attempt) tellKept(e event.Event) {
	a.tell(e)
	a.keepFact(e)
}

func (a *attempt) keepFact(e event.Event) {
	a.rec.Keep(ledger.Untold{Cause: a.in.ID(), Since: a.o.now(), Type: e.Type(), ID: e.ID(), Data: e.Data()})
}

// retell tells what this very event has led to before: it comes again, so that it may not have
// been told. The history drops what it has.
func (a *attempt) retell() {
	for _, u := range a.rec.Untold {
		if u.Cause == a.in.ID() {
			e := model.NewEvent(u.Type, a.key, u.Data)
			e.SetID(u.ID)
			a.tell(e)
		}
	}
	a.retold = len(a.facts)
}

func (a *attempt) trace(began time.Time, name, detail string) {
	if a.o.Trace != nil {
		a.o.Trace(Step{Certificate: a.key, Name: name, Detail: detail, Took: a.o.now().Sub(began)})
	}
}

// save writes the record: the compare-and-swap everything rests on.
func (a *attempt) save(ctx context.Context, step string) error {
	began := a.o.now()
	if err := a.o.Ledger.Save(ctx, a.rec); err != nil {
		return err
	}
	a.trace(began, step, "")
	return nil
}

func jitter() float64 { return rand.Float64() } //nolint:gosec // spreads load; nothing secret depends on it
