package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certloop/certloop/pkg/model"
)

// publishTimeout bounds the wait for JetStream to store one call's events.
const publishTimeout = 10 * time.Second

// inFlight is how many messages of one call are under way before the first is
// waited for.
const inFlight = 128

// errAway is why nothing is stored or pulled while the connection is lost.
var errAway = errors.New("the broker is away")

// Publisher hands events on.
type Publisher interface {
	// Publish returns nil when JetStream has stored all events. After an error
	// some may be stored: publish all of them again, with the same ids.
	Publish(ctx context.Context, events ...event.Event) error
}

// Bus publishes events to JetStream. The connection remains its owner's.
type Bus struct {
	// Now is the clock; time.Now when nil.
	Now func() time.Time

	source string
	conn   *nats.Conn
	js     jetstream.JetStream
}

var _ Publisher = (*Bus)(nil)

// NewBus makes a Bus over conn, which need not be connected yet. Events that name
// no source get this one.
func NewBus(conn *nats.Conn, source string) (*Bus, error) {
	js, err := jetstream.New(conn,
		jetstream.WithPublishAsyncMaxPending(1<<14),
		jetstream.WithPublishAsyncTimeout(publishTimeout))
	if err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	return &Bus{source: source, conn: conn, js: js}, nil
}

// Publish implements [Publisher]. An event whose type has no row in [model.Kinds],
// that is no valid CloudEvent or that is larger than [model.MaxEventBytes] is an
// error, and then nothing is published.
func (b *Bus) Publish(ctx context.Context, events ...event.Event) error {
	var all []outgoing
	for _, e := range events {
		messages, err := b.address(ctx, e)
		if err != nil {
			return fmt.Errorf("publishing %s of %s: %w", e.Type(), e.Subject(), err)
		}
		all = append(all, messages...)
	}
	if len(all) == 0 {
		return nil
	}
	if !b.conn.IsConnected() {
		return fmt.Errorf("publishing %s: %w", events[0].Type(), errAway)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for len(all) > 0 {
		n := min(len(all), inFlight)
		if err := b.store(ctx, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// outgoing is a message and how it is to be stored.
type outgoing struct {
	msg  *nats.Msg
	opts []jetstream.PublishOpt
}

// address completes an event and says where it goes.
func (b *Bus) address(ctx context.Context, e event.Event) ([]outgoing, error) {
	e = b.complete(e)
	if errs := faults(e); len(errs) > 0 {
		return nil, errs[0]
	}
	kind, ok := model.KindOf(e.Type())
	if !ok {
		return nil, errors.New("unknown type")
	}
	key, err := keyOf(e)
	if err != nil {
		return nil, err
	}
	due, err := model.DueTime(e)
	if err != nil {
		return nil, err
	}
	msg, err := encode(ctx, e)
	if err != nil {
		return nil, err
	}
	var all []outgoing
	for _, verb := range kind.Consumers {
		if target := model.WorkSubject(verb, key); due.After(b.now()) {
			all = append(all, scheduled(msg, model.AlarmSubject(verb, e.Type(), key), target, due))
		} else {
			all = append(all, stored(msg, model.WorkStream, target, e.ID()+"/"+string(verb)))
		}
	}
	if kind.Fact {
		all = append(all, stored(msg, model.EventsStream, model.FactSubject(e.Type(), key), e.ID()+"/evt"))
	}
	return all, nil
}

// complete fills in what the maker of an event may leave out.
func (b *Bus) complete(e event.Event) event.Event {
	e = e.Clone()
	if e.Source() == "" {
		e.SetSource(b.source)
	}
	if e.Time().IsZero() {
		e.SetTime(b.now())
	}
	return e
}

func (b *Bus) now() time.Time {
	if b.Now == nil {
		return time.Now()
	}
	return b.Now()
}

// stored is a message that a stream keeps once for each id.
func stored(m *nats.Msg, stream, subject, id string) outgoing {
	return outgoing{addressed(m, subject), []jetstream.PublishOpt{
		jetstream.WithExpectStream(stream),
		jetstream.WithMsgID(id),
	}}
}

// scheduled is a message that JetStream holds until it is due. It carries no
// message id: the subject keeps one schedule only, and a duplicate would be
// dropped together with the new time it brings.
func scheduled(m *nats.Msg, subject, target string, due time.Time) outgoing {
	return outgoing{addressed(m, subject), []jetstream.PublishOpt{
		jetstream.WithExpectStream(model.WorkStream),
		jetstream.WithScheduleAt(ceilSecond(due)),
		jetstream.WithScheduleTarget(target),
	}}
}

// addressed copies m, because publishing adds headers of its own.
func addressed(m *nats.Msg, subject string) *nats.Msg {
	header := make(nats.Header, len(m.Header)+3)
	maps.Copy(header, m.Header)
	return &nats.Msg{Subject: subject, Header: header, Data: m.Data}
}

// ceilSecond rounds up: a schedule has whole seconds, and must not fire early.
func ceilSecond(t time.Time) time.Time {
	whole := t.Truncate(time.Second)
	if whole.Before(t) {
		whole = whole.Add(time.Second)
	}
	return whole
}

// store sends messages in their order and waits until all are stored.
func (b *Bus) store(ctx context.Context, all []outgoing) error {
	futures := make([]jetstream.PubAckFuture, len(all))
	for i, o := range all {
		future, err := b.js.PublishMsgAsync(o.msg, o.opts...)
		if err != nil {
			return fmt.Errorf("publishing to %s: %w", o.msg.Subject, err)
		}
		futures[i] = future
	}
	for i, future := range futures {
		if err := wait(ctx, future); err != nil {
			return fmt.Errorf("publishing to %s: %w", all[i].msg.Subject, err)
		}
	}
	return nil
}

func wait(ctx context.Context, stored jetstream.PubAckFuture) error {
	select {
	case <-stored.Ok():
		return nil
	case err := <-stored.Err():
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
