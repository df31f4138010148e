package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// Sweep handles a slow tick, {"scan":"sweep"}, and sweep.continued: it looks at every
// certificate, every output and everything that issuers name, and so finds whatever any event should
// have told and did not.
//
// One event is one page of at most [ledger.PageSize] certificates; what is left is asked for by
// the next event. Outputs are compared by the resourceVersions in the status, of which the
// metadata of Secrets tell whether they are still the same; only what differs is read.
func (w *Watcher) Sweep(ctx context.Context, in event.Event) ([]event.Event, error) {
	if in.Type() == model.Ping && scanOf(in) != "sweep" {
		return nil, nil
	}
	p, err := w.newPage(in)
	if err != nil {
		return nil, err
	}
	certs, token, err := w.Ledger.CertificatePage(ctx, p.namespace(), p.work.Continue)
	if errors.Is(err, ledger.ErrExpired) {
		return p.startAgain(), nil
	}
	if err := p.passOver(p.namespace(), err); err != nil {
		return nil, err
	}
	for i := range certs {
		if err := p.visit(ctx, &certs[i]); err != nil {
			return nil, err
		}
	}
	p.askDue(p.work.Told)
	if token == "" {
		if err := p.inputs(ctx); err != nil {
			return nil, err
		}
	}
	return p.next(token), nil
}

// page is one page of a sweep.
type page struct {
	*scan
	w    *Watcher
	work model.SweepWork
	all  []string // the namespaces to sweep
}

func (w *Watcher) newPage(in event.Event) (*page, error) {
	p := &page{scan: w.newScan(in), w: w, all: w.namespaces()}
	if in.Type() == model.SweepContinued {
		if err := in.DataAs(&p.work); err != nil {
			return nil, err
		}
	}
	if p.work.Sweep == "" {
		p.work.Sweep = in.ID()
	}
	if p.work.Namespace >= len(p.all) { // another configuration took over
		p.work.Namespace, p.work.Continue = 0, ""
	}
	p.fact, p.held = p.work.Found, model.HeldFact{Due: p.work.Due, Told: p.work.Told}
	return p, nil
}

func (p *page) namespace() string { return p.all[p.work.Namespace] }

// visit looks at one certificate and its outputs.
func (p *page) visit(ctx context.Context, c *model.CMPCertificate) error {
	p.w.users.add(p.work.Sweep, issuerKey(c))
	if err := p.look(c); err != nil || c.Spec.Paused || c.DeletionTimestamp != nil {
		return err
	}
	if p.passedOver(c.Namespace) {
		return nil
	}
	return p.passOver(c.Namespace, p.outputs(ctx, c))
}

// outputs compares the outputs of one certificate, unless they are as they were.
func (p *page) outputs(ctx context.Context, c *model.CMPCertificate) error {
	same, err := p.unchanged(ctx, c)
	if err != nil || same {
		return err
	}
	facts, err := p.w.compare(ctx, c, p.in)
	p.out = append(p.out, facts...)
	p.fact.Drifted += len(facts)
	return err
}

// unchanged tells whether every Secret of a certificate is as it was when its status was written.
func (p *page) unchanged(ctx context.Context, c *model.CMPCertificate) (bool, error) {
	if c.Status.Revision == 0 {
		return true, nil // nothing was delivered yet
	}
	now, err := p.w.memory.versions(ctx, p.w.Ledger, p.work.Sweep, c.Namespace)
	if err != nil {
		return false, err
	}
	for _, name := range append(c.Spec.Output.SecretNames(), model.RecordName(c.Name)) {
		if version := c.Status.Secrets[name]; version == "" || now[name] != version {
			return false, nil
		}
	}
	if c.Spec.CABundle == nil {
		return true, nil
	}
	bundle, err := p.w.Ledger.SecretVersion(ctx, types.NamespacedName{Namespace: c.Namespace, Name: c.Spec.CABundle.SecretName})
	if err != nil || bundle == c.Status.Secrets[c.Spec.CABundle.SecretName] {
		return true, err
	}
	p.tell(c, model.EnrollmentRequested, model.Work{Reason: model.WorkDependency})
	return true, nil
}

// inputs looks at the issuers of a namespace and at what they name, and in the end at those of
// the cluster.
func (p *page) inputs(ctx context.Context) error {
	visit := func(i *model.CMPIssuer) error { return p.issuer(ctx, i) }
	err := p.passOver(p.namespace(), p.w.Ledger.Issuers(ctx, p.namespace(), visit))
	if err != nil || p.w.Namespace == "" || p.work.Namespace < len(p.all)-1 {
		return err
	}
	return p.w.Ledger.ClusterIssuers(ctx, visit)
}

// issuer looks at one issuer and at what it names.
func (p *page) issuer(ctx context.Context, i *model.CMPIssuer) error {
	p.check(i)
	home := i.Namespace
	if home == "" {
		home = p.w.Namespace
	}
	for _, name := range i.Spec.Inputs() {
		if p.passedOver(home) {
			return nil
		}
		version, err := p.w.Ledger.SecretVersion(ctx, types.NamespacedName{Namespace: home, Name: name})
		if err := p.passOver(home, err); err != nil {
			return err
		}
		if err == nil && version != i.Status.Inputs[name] {
			p.out = append(p.out, inputFact(i, name, version, p.in))
		}
	}
	return nil
}

// next is what follows from a page: the next page, or the end of the sweep. Where more is due
// than was asked for, another sweep follows a minute later.
func (p *page) next(token string) []event.Event {
	p.work.Continue, p.work.Found, p.work.Due, p.work.Told = token, p.fact, p.held.Due, p.held.Told
	if token == "" {
		p.work.Namespace++
	}
	if p.work.Namespace < len(p.all) {
		return append(p.out, p.continued(p.work, fmt.Sprint(p.work.Namespace), token))
	}
	p.w.memory.forget(p.work.Sweep)
	if p.held.Due > p.held.Told {
		again := p.continued(model.SweepWork{}, "held")
		p.out = append(p.out, p.heldFact(), model.Delay(again, p.now.Add(heldFor)))
	}
	return p.completed()
}

// heldFor is how long what is held waits for the next sweep.
const heldFor = time.Minute

// startAgain begins the sweep of a namespace anew, because its list has expired.
func (p *page) startAgain() []event.Event {
	p.work.Continue = ""
	return []event.Event{p.continued(p.work, "again", p.in.ID())}
}

func (p *page) continued(work model.SweepWork, parts ...string) event.Event {
	e := model.NewEvent(model.SweepContinued, types.NamespacedName{}, work)
	e.SetID(model.DerivedID(append([]string{model.SweepContinued, p.work.Sweep}, parts...)...))
	return model.Follow(p.in, e)
}

// sweepMemory holds the resourceVersions of the Secrets of one namespace from page to page:
// about a hundred octets a Secret, of the namespace that is swept and no other. Who continues
// a sweep without it reads them again.
type sweepMemory struct {
	mu        sync.Mutex
	sweep     string
	namespace string
	of        map[string]string
}

func (m *sweepMemory) versions(ctx context.Context, store *ledger.Store, sweep, namespace string) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of != nil && m.sweep == sweep && m.namespace == namespace {
		return m.of, nil
	}
	of, err := store.SecretVersions(ctx, namespace)
	if err != nil {
		return nil, err
	}
	m.sweep, m.namespace, m.of = sweep, namespace, of
	return of, nil
}

func (m *sweepMemory) forget(sweep string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sweep == sweep {
		m.of = nil
	}
}
