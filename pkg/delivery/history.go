package delivery

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certloop/certloop/pkg/model"
)

// Selection says what to read of a stream. The zero value is everything that it keeps.
type Selection struct {
	Subjects []string  // filters, such as [model.FactFilter]; all subjects when empty
	Since    time.Time // stored then or later; everything when zero
	Follow   bool      // go on with what is told from now on, until ctx ends
}

// History visits the facts that certloop has told, in the order in which they were stored. It ends
// after the last one, with Follow when ctx ends, and with the first error of visit.
func History(ctx context.Context, js jetstream.JetStream, s Selection, visit func(event.Event) error) error {
	return read(ctx, js, model.EventsStream, s, func(msg jetstream.Msg) error {
		e, err := decode(ctx, msg.Headers(), msg.Data())
		if err != nil {
			return nil //nolint:nilerr // whoever may write there told something that is no event
		}
		return visit(e)
	})
}

// DeadLetters visits the dead letters, the oldest first. It ends as [History] does.
func DeadLetters(ctx context.Context, js jetstream.JetStream, s Selection, visit func(DeadLetter) error) error {
	return read(ctx, js, model.DeadStream, s, func(msg jetstream.Msg) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		return visit(deadLetter(ctx, meta.Sequence.Stream, meta.Timestamp, &nats.Msg{Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data()}))
	})
}

func read(ctx context.Context, js jetstream.JetStream, stream string, s Selection, visit func(jetstream.Msg) error) error {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: s.Subjects}
	if !s.Since.IsZero() {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &s.Since
	}
	consumer, err := js.OrderedConsumer(ctx, stream, config)
	if err != nil {
		return fmt.Errorf("reading %s: %w", stream, err)
	}
	if consumer.CachedInfo().NumPending == 0 && !s.Follow {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("reading %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("reading %s: %w", stream, err)
		}
		if err := visit(msg); err != nil {
			return err
		}
		if meta, err := msg.Metadata(); !s.Follow && (err != nil || meta.NumPending == 0) {
			return err
		}
	}
}

// DeadLetter is an event that was not handled and never will be, and why.
type DeadLetter struct {
	Sequence   uint64     `json:"sequence"` // by which it is replayed and dropped
	Time       time.Time  `json:"time"`     // when it was given up
	Verb       model.Verb `json:"verb"`     // the function that gave it up
	Reason     Reason     `json:"reason"`
	Error      string     `json:"error"`              // what is wrong, in words
	Subject    string     `json:"subject"`            // the NATS subject or HTTP path it was sent to
	Deliveries uint64     `json:"deliveries"`         // how often
	Withheld   string     `json:"withheld,omitempty"` // why its body was not kept

	// Event is what it was; without data when they were withheld, and nil when it cannot be read as an event.
	Event *event.Event `json:"event,omitempty"`
	Body  []byte       `json:"body,omitempty"` // as it arrived, when it cannot be read as an event
}

func deadLetter(ctx context.Context, sequence uint64, stored time.Time, msg *nats.Msg) DeadLetter {
	verb, _, _ := strings.Cut(strings.TrimPrefix(msg.Subject, "certloop.dead."), ".")
	l := DeadLetter{
		Sequence: sequence, Time: stored.UTC(), Verb: model.Verb(verb),
		Reason: Reason(msg.Header.Get(ReasonHeader)), Error: msg.Header.Get(ErrorHeader),
		Subject: msg.Header.Get(SubjectHeader), Withheld: msg.Header.Get(WithheldHeader),
	}
	l.Deliveries, _ = strconv.ParseUint(msg.Header.Get(DeliveriesHeader), 10, 64) // 0 when somebody else wrote it
	if e, err := decode(ctx, msg.Header, msg.Data); err == nil {
		l.Event = &e
	} else {
		l.Body = msg.Data
	}
	return l
}

// ErrNoDeadLetter says that there is no dead letter of that sequence number: it was replayed, dropped, or has expired.
var ErrNoDeadLetter = errors.New("no such dead letter")

// FindDeadLetter reads one dead letter; [ErrNoDeadLetter] when it is not there.
func FindDeadLetter(ctx context.Context, js jetstream.JetStream, sequence uint64) (DeadLetter, error) {
	stream, err := js.Stream(ctx, model.DeadStream)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("reading %s: %w", model.DeadStream, err)
	}
	msg, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadLetter{}, fmt.Errorf("%d: %w", sequence, ErrNoDeadLetter)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("reading %d of %s: %w", sequence, model.DeadStream, err)
	}
	return deadLetter(ctx, msg.Sequence, msg.Time, &nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}), nil
}

// DropDeadLetter deletes a dead letter.
func DropDeadLetter(ctx context.Context, js jetstream.JetStream, sequence uint64) error {
	stream, err := js.Stream(ctx, model.DeadStream)
	if err == nil {
		err = stream.DeleteMsg(ctx, sequence)
	}
	if err != nil {
		return fmt.Errorf("deleting %d from %s: %w", sequence, model.DeadStream, err)
	}
	return nil
}

// Replay gives a dead letter to the functions that take its type once more, and returns when JetStream has
// stored it. What made it a dead letter should have been put right; else it becomes one again. The dead letter
// itself stays: drop it then.
func (b *Bus) Replay(ctx context.Context, l DeadLetter) error {
	all, err := b.replayed(ctx, l)
	if err != nil {
		return fmt.Errorf("%d: %w", l.Sequence, err)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return b.store(ctx, all)
}

func (b *Bus) replayed(ctx context.Context, l DeadLetter) ([]outgoing, error) {
	switch {
	case l.Withheld != "":
		return nil, fmt.Errorf("its body was not kept (%s): send it again from where it came", l.Withheld)
	case l.Event == nil:
		return nil, fmt.Errorf("it cannot be read as an event (%s): correct it where it came from, and send it again", l.Error)
	case l.Reason == Misaddressed:
		return nil, fmt.Errorf("its sender has no say about its object (%s)", l.Error)
	}
	kind, ok := model.KindOf(l.Event.Type())
	if !ok || len(kind.Consumers) == 0 {
		return nil, fmt.Errorf("no function of this version takes an event of type %s", clip(l.Event.Type(), 80))
	}
	key, err := keyOf(*l.Event)
	if err != nil {
		return nil, err
	}
	msg, err := encode(ctx, *l.Event)
	if err != nil {
		return nil, err
	}
	var all []outgoing
	for _, verb := range kind.Consumers {
		// Its own id may be remembered still, and it would be dropped as a duplicate of itself.
		id := fmt.Sprintf("%s/%s/replay/%d", l.Event.ID(), verb, l.Sequence)
		all = append(all, stored(msg, model.WorkStream, model.WorkSubject(verb, key), id))
	}
	return all, nil
}
