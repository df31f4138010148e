package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

const (
	subscribeTimeout = 10 * time.Second // for NATS to say whether we may listen
	maxHeard         = 100              // facts kept about a declaration that is not answered yet
)

// pursuit is what was published, and what became of it. It is safe for concurrent use.
type pursuit struct {
	show *display
	news chan struct{} // something was learnt; holds one
	back chan struct{} // the connection to NATS was lost and is there again; holds one

	mu    sync.Mutex
	aims  []*aim
	about map[string][]*aim // by subject
}

// aim is one published event and how what it declares stands.
type aim struct {
	event event.Event
	key   types.NamespacedName
	ids   []string   // of the event, and of those that repeated it
	heard []standing // what others' events led to, before we know which generation is ours
	result
}

func newPursuit(t *terminal, events []event.Event) *pursuit {
	p := &pursuit{
		show: newDisplay(&terminal{out: t.err, noColor: t.noColor}),
		news: make(chan struct{}, 1), back: make(chan struct{}, 1), about: map[string][]*aim{},
	}
	for _, e := range events {
		key, _ := model.ObjectOf(e) // was checked
		a := &aim{event: e, key: key, ids: []string{e.ID()}, result: result{Type: e.Type(), Subject: e.Subject(), ID: e.ID()}}
		p.aims, p.about[a.Subject] = append(p.aims, a), append(p.about[a.Subject], a)
	}
	return p
}

// certificate and issuer: what is declared, and can be followed.
func (a *aim) certificate() bool {
	return a.event.Type() == model.ConfigCreated || a.event.Type() == model.ConfigUpdated
}

func (a *aim) issuer() bool {
	return a.event.Type() == model.IssuerCreated || a.event.Type() == model.IssuerUpdated
}

// open: its end is still to come.
func (a *aim) open() bool {
	return (a.certificate() || a.issuer()) && !slices.Contains([]string{isReady, isRejected, isParked}, a.Outcome)
}

// send publishes all events in their order.
func (p *pursuit) send(ctx context.Context, do func(context.Context, event.Event) error, word string) error {
	for _, a := range p.aims {
		if err := do(ctx, a.event); err != nil {
			return p.unsent(a, err)
		}
		p.mu.Lock()
		a.Outcome = cmp.Or(a.Outcome, word) // an answer may have been quicker
		p.mu.Unlock()
		p.show.act(a.Subject, fmt.Sprintf("%s %s id=%s", word, a.Type, a.ID))
	}
	return nil
}

func (p *pursuit) unsent(a *aim, err error) error {
	text := fmt.Sprintf("%s of %s: %v", a.Type, a.Subject, err)
	if refused, ok := errors.AsType[*delivery.RefusedError](err); ok && refused.Final {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.take(a, standing{Outcome: isRejected, Reason: refused.Title, Message: strings.Join(refused.Details, "; "), Fields: refused.Details})
		return &exitError{exitRejected, text}
	}
	return errors.New(text)
}

// options make a lost connection come back, and tell us.
func (p *pursuit) options() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // listen reads them
		nats.ReconnectHandler(func(*nats.Conn) { notify(p.back) }),
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// listen subscribes to the facts about all that is declared. It returns when the server
// knows of it, so that no answer to what is published from then on is missed.
func (p *pursuit) listen(conn *nats.Conn) error {
	seen := map[string]bool{}
	for _, a := range p.aims {
		ns := a.key.Namespace
		if seen[ns] || !a.open() {
			continue
		}
		seen[ns] = true
		if err := p.subscribe(conn, model.FactFilter(ns)); err != nil {
			return fmt.Errorf("listening to %s: %w: --wait needs the right to subscribe to it", model.FactFilter(ns), err)
		}
		// Dead letters are few, and may be for others to read.
		if err := p.subscribe(conn, model.DeadFilter(ns)); err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
			return fmt.Errorf("listening to %s: %w", model.DeadFilter(ns), err)
		}
	}
	return nil
}

func (p *pursuit) subscribe(conn *nats.Conn, subject string) error {
	before := conn.LastError()
	if _, err := conn.Subscribe(subject, p.hear); err != nil {
		return err
	}
	if err := conn.FlushTimeout(subscribeTimeout); err != nil {
		return err
	}
	if err := conn.LastError(); !errors.Is(err, before) {
		return err
	}
	return nil
}

// hear learns from a message of NATS.
func (p *pursuit) hear(msg *nats.Msg) {
	e, err := eventIn(context.Background(), msg)
	if err != nil {
		return // not one of ours
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.about[e.Subject()] {
		if reason := msg.Header.Get(delivery.ReasonHeader); reason != "" {
			if slices.Contains(a.ids, e.ID()) {
				text := msg.Header.Get(delivery.ErrorHeader)
				p.take(a, standing{Outcome: isRejected, Reason: reason, Message: text, Fields: strings.Split(text, "; ")})
			}
			continue
		}
		p.learn(a, *e)
	}
}

// learn takes a fact for a declaration that it is about. Until our own event is answered we
// do not know which generation of the configuration it became, and keep what else is told.
func (p *pursuit) learn(a *aim, fact event.Event) {
	if fact.Subject() != a.Subject || !a.open() {
		return
	}
	cause, _ := fact.Extensions()[model.CausationID].(string)
	answer := slices.Contains(a.ids, cause)
	s, about := standingIn(fact)
	switch {
	case about == aboutRejection && !answer, about == aboutCertificate && !a.certificate(), about == aboutIssuer && !a.issuer(), about == aboutNothing:
	case answer || model.Correlation(fact) == model.Correlation(a.event):
		p.take(a, s)
		p.know(a, s.Generation)
	case a.Generation == 0:
		a.heard = append(a.heard[max(0, len(a.heard)-maxHeard+1):], s)
	case s.Generation >= a.Generation:
		p.take(a, s)
	}
}

// know: our event became this generation. What was heard of it before counts.
func (p *pursuit) know(a *aim, generation int64) {
	if generation == 0 || a.Generation != 0 {
		return
	}
	a.Generation = generation
	for _, s := range a.heard {
		if s.Generation >= generation && a.open() {
			p.take(a, s)
		}
	}
	a.heard = nil
}

// take is how a declaration stands from now on.
func (p *pursuit) take(a *aim, s standing) {
	generation := a.Generation
	news := s.Outcome != a.Outcome || s.Reason != a.Reason || s.Message != a.Message
	a.standing = s
	a.Generation = generation
	if news {
		p.tell(a)
	}
	notify(p.news)
}

func (p *pursuit) tell(a *aim) {
	text := a.text(time.Now())
	switch a.Outcome {
	case isReady:
		p.show.done(a.Subject, text)
	case isRejected, isParked:
		p.show.failed(a.Subject, text)
		for _, field := range a.Fields {
			p.show.plain(strings.Repeat(" ", 31) + oneLine(field))
		}
	default:
		p.show.line("…", yellow, a.Subject, text)
	}
}

// follow goes on until all that was declared has come to its end, or time is over. step
// waits for news, or fetches them.
func (p *pursuit) follow(ctx context.Context, within time.Duration, step func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	defer p.show.await(p.awaited)()
	for p.count(true, "") > 0 && limited.Err() == nil {
		if err := step(limited); err != nil && limited.Err() == nil {
			return err
		}
	}
	return p.verdict(ctx, within)
}

// count counts those that are open, or have an outcome.
func (p *pursuit) count(open bool, outcome string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.aims {
		if (open && a.open()) || (!open && a.Outcome == outcome) {
			n++
		}
	}
	return n
}

func (p *pursuit) awaited() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, a := range p.aims {
		if a.open() {
			names = append(names, a.Subject)
		}
	}
	if more := len(names) - 5; more > 0 {
		names = append(names[:5], fmt.Sprintf("and %d more", more))
	}
	return "waiting for " + strings.Join(names, ", ")
}

// verdict is the end of the command.
func (p *pursuit) verdict(ctx context.Context, within time.Duration) error {
	total, open := len(p.aims), p.count(true, "")
	rejected, parked := p.count(false, isRejected), p.count(false, isParked)
	switch {
	case rejected > 0:
		return &exitError{exitRejected, fmt.Sprintf("%d of %d rejected", rejected, total)}
	case parked > 0:
		return &exitError{exitParked, fmt.Sprintf("%d of %d parked: nothing happens until somebody changes something", parked, total)}
	case open > 0 && ctx.Err() != nil:
		return &exitError{exitInterrupted, fmt.Sprintf("interrupted: %d of %d not ready yet; certloop goes on without us", open, total)}
	case open > 0:
		return &exitError{exitTimedOut, fmt.Sprintf("%d of %d not ready within %s; certloop goes on without us", open, total, within)}
	default:
		return nil
	}
}

// askAgain waits for news. When the connection was lost meanwhile it asks how things stand.
func (p *pursuit) askAgain(send func(context.Context, event.Event) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-p.news:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-p.back:
		}
		for _, e := range p.questions() {
			if err := send(ctx, e); err != nil {
				return fmt.Errorf("asking again, because the connection to NATS was lost: %w", err)
			}
		}
		return nil
	}
}

// questions are events whose answers say how what is open stands. What was not answered is
// declared again. Where we know that it arrived, a certificate is only asked about, because
// others may have declared something else since.
func (p *pursuit) questions() (all []event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.aims {
		if !a.open() {
			continue
		}
		e := a.event.Clone()
		e.SetID(uuid.Must(uuid.NewV7()).String())
		if a.Generation != 0 && a.certificate() {
			e = model.NewEvent(model.EnrollmentRequested, a.key, model.Work{Reason: model.WorkStatus})
			e.SetSource(publishSource)
		}
		all = append(all, model.Follow(a.event, e))
		a.ids = append(a.ids, e.ID())
	}
	return all
}
