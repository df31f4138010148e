package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certloop/certloop/pkg/model"
)

const (
	ackTimeout     = 5 * time.Second // for JetStream to confirm an acknowledgement
	retryConsumer  = time.Second     // between attempts to reach the broker
	maxUnsettled   = 10_000          // events under way or waiting for redelivery, for one function
	heartbeatShare = 4               // heartbeats within AckWait while a handler runs
	maxTermText    = 200             // bytes of a reason for termination
)

// Consume pulls the function's work from JetStream through a durable consumer
// named after the verb, which it creates. It outlasts an absent broker or stream.
// When ctx ends it pulls no more, gives the handlers at work up to Grace to
// finish, and returns once all have; the error says that some were cut off, and
// their events will be delivered again.
func (r *Receiver) Consume(ctx context.Context) error {
	hard, stop := withGrace(ctx, r.grace())
	defer stop()
	var said notice
	var one durable
	var workers sync.WaitGroup
	for range r.concurrency() {
		workers.Go(func() { r.pull(ctx, hard, &one, &said) })
	}
	workers.Wait()
	if hard.Err() != nil {
		return fmt.Errorf("handlers of %s were cut off after %s", r.Verb, r.grace())
	}
	return nil
}

// withGrace returns a context that ends some time after ctx has, or at stop.
func withGrace(ctx context.Context, grace time.Duration) (hard context.Context, stop func()) {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
			pause(hard, grace)
			cancel()
		case <-hard.Done():
		}
	})
	return hard, func() { cancel(); wg.Wait() }
}

// pull takes one event after the other, each only when the former is settled.
func (r *Receiver) pull(ctx, hard context.Context, one *durable, said *notice) {
	for ctx.Err() == nil {
		consumer, err := one.get(ctx, r.consumer)
		for err == nil && ctx.Err() == nil {
			r.tell(ctx, said, nil)
			err = r.next(ctx, hard, consumer)
		}
		if err != nil {
			one.drop(consumer)
			r.tell(ctx, said, err)
			pause(ctx, retryConsumer)
		}
	}
}

// durable is the consumer that the workers share, made by the first who needs it.
type durable struct {
	mu       sync.Mutex
	consumer jetstream.Consumer
}

func (d *durable) get(ctx context.Context, create func(context.Context) (jetstream.Consumer, error)) (_ jetstream.Consumer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.consumer == nil {
		d.consumer, err = create(ctx)
	}
	return d.consumer, err
}

// drop forgets a consumer that does not work, so that it is made again.
func (d *durable) drop(consumer jetstream.Consumer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.consumer == consumer {
		d.consumer = nil
	}
}

func (r *Receiver) consumer(ctx context.Context) (jetstream.Consumer, error) {
	if !r.Bus.conn.IsConnected() {
		return nil, errAway
	}
	consumer, err := r.Bus.js.CreateOrUpdateConsumer(ctx, model.WorkStream, jetstream.ConsumerConfig{
		Durable:       string(r.Verb),
		Description:   "certloop function " + string(r.Verb),
		FilterSubject: model.WorkFilter(r.Verb),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       r.ackWait(),
		// The server would keep an exhausted message for ever and tell nobody, so
		// the counting is ours: see settle.
		MaxDeliver:    -1,
		MaxAckPending: maxUnsettled,
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s does not exist: create it with `certloop bus apply`", model.WorkStream)
	}
	return consumer, err
}

// next waits for one event and sees it settled. No event for a while is no error.
func (r *Receiver) next(ctx, hard context.Context, consumer jetstream.Consumer) error {
	msg, err := consumer.Next(jetstream.FetchContext(ctx))
	switch {
	case err == nil:
		r.receive(hard, msg)
		return nil
	case errors.Is(err, nats.ErrTimeout), ctx.Err() != nil:
		return nil //nolint:nilerr // no event came, or none is wanted any more
	default:
		return err
	}
}

// tell logs whether events can be pulled, when that is news.
func (r *Receiver) tell(ctx context.Context, said *notice, err error) {
	switch {
	case !said.change(err) || ctx.Err() != nil:
	case err == nil:
		r.Log.InfoContext(ctx, "consuming", "consumer", r.Verb)
	default:
		r.Log.WarnContext(ctx, "cannot consume", "consumer", r.Verb, "err", err)
	}
}

// receive sees one delivery through to its settlement.
func (r *Receiver) receive(ctx context.Context, msg jetstream.Msg) {
	began := time.Now()
	release := r.hold(ctx, msg)
	defer release()
	in, err := decode(ctx, msg.Headers(), msg.Data())
	if err == nil {
		err = r.addressed(msg, in)
	}
	if err == nil {
		err = r.attempt(ctx, in)
	}
	d := receiptOf(msg)
	outcome, err := r.settle(ctx, msg, d, in, err)
	r.report(ctx, settled{in, d.count, outcome, time.Since(began), err})
}

// addressed refuses an event that came on the subject of another object than it is about: rights of
// NATS are rights to publish on subjects, and hold for nothing else in a message. One that the
// server published, because it was scheduled, has to come from its own schedule: whoever may
// publish somewhere may schedule there, for any target.
func (r *Receiver) addressed(msg jetstream.Msg, in event.Event) error {
	key, err := keyOf(in)
	if err != nil {
		return nil //nolint:nilerr // its route refuses it for that
	}
	misaddressed := func(came, want string) error {
		return refuse(Misaddressed, fmt.Errorf("subject: it is about %s and belongs on %s, but came on %s", key, want, clip(came, 320)))
	}
	if want := model.WorkSubject(r.Verb, key); msg.Subject() != want {
		return misaddressed(msg.Subject(), want)
	}
	// The server strips what a publisher writes there.
	by := msg.Headers().Get(schedulerHeader)
	if want := model.AlarmSubject(r.Verb, in.Type(), key); by != "" && by != want {
		return misaddressed(by, want)
	}
	return nil
}

// schedulerHeader names the subject of the schedule that a message comes from (ADR-51 of NATS).
const schedulerHeader = "Nats-Scheduler"

// hold tells JetStream that the event is being worked on, until release.
func (r *Receiver) hold(ctx context.Context, msg jetstream.Msg) (release func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause(ctx, r.ackWait()/heartbeatShare) {
			// A heartbeat that does not get through is followed by the next one.
			_ = msg.InProgress()
		}
	})
	return func() { cancel(); wg.Wait() }
}

// settle is the JetStream column of the table in the package documentation. It
// returns what became of the event, and the error to report.
func (r *Receiver) settle(ctx context.Context, msg jetstream.Msg, d receipt, in event.Event, err error) (string, error) {
	if err == nil {
		return accepted, acknowledge(ctx, msg)
	}
	refused, ok := errors.AsType[*refusal](err)
	if !ok && d.count >= r.maxDeliver() {
		refused, ok = refuse(Exhausted, err), true
	}
	if ok {
		buried := r.bury(ctx, letter{msg.Headers(), msg.Data(), msg.Subject(), d.count, d.id}, in, refused)
		if buried == nil {
			return dead, errors.Join(err, msg.TermWithReason(term(refused)))
		}
		err = errors.Join(err, buried)
	}
	return retried, errors.Join(err, msg.NakWithDelay(r.delay(d)))
}

func acknowledge(ctx context.Context, msg jetstream.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if err := msg.DoubleAck(ctx); err != nil {
		return fmt.Errorf("acknowledging: %w; it will be delivered again", err)
	}
	return nil
}

// term is the reason in an advisory, one line of text.
func term(why *refusal) string {
	return clip(string(why.reason)+": "+strings.Join(strings.Fields(why.Error()), " "), maxTermText)
}

// receipt is where and how often JetStream has delivered a message.
type receipt struct {
	id       string // of the message, unlike that of any other
	sequence uint64
	count    uint64
}

func receiptOf(msg jetstream.Msg) receipt {
	meta, err := msg.Metadata()
	if err != nil { // only a message that no consumer delivered has none
		return receipt{count: 1}
	}
	return receipt{
		id:       fmt.Sprintf("%s/%d/%d", meta.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano()),
		sequence: meta.Sequence.Stream,
		count:    meta.NumDelivered,
	}
}

// delay doubles with every delivery, from MinDelay up to MaxDelay, and is spread
// over the last fifth so that what failed together does not return together.
func (r *Receiver) delay(d receipt) time.Duration {
	wait := r.minDelay()
	for n := uint64(1); n < d.count && wait < r.maxDelay(); n++ {
		wait *= 2
	}
	wait = min(wait, r.maxDelay())
	spread := float64((d.sequence*2654435761+d.count*40503)%1000) / 1000
	return wait - time.Duration(spread*float64(wait)/5)
}

// pause waits, and reports whether it waited to the end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// notice remembers what was last said, so that a trouble is told once and not by
// every worker every second.
type notice struct {
	mu   sync.Mutex
	said bool
	last string
}

// change reports whether err is news.
func (n *notice) change(err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	news := !n.said || text != n.last
	n.said, n.last = true, text
	return news
}
