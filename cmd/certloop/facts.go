package main

import (
	"context"
	"fmt"
	"sync"

	cejs "github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certloop/certloop/pkg/model"
)

// maxFacts bounds how many facts are remembered; older ones are forgotten.
const maxFacts = 1000

// facts are the events of the history from a moment on.
type facts struct {
	tell func(event.Event) // called with each

	mu   sync.Mutex
	seen []event.Event
	news chan struct{} // closed and replaced when there is another one
}

// followFacts reads what is told from now on, until stop is called.
func followFacts(ctx context.Context, js jetstream.JetStream, tell func(event.Event)) (f *facts, stop func(), err error) {
	f = &facts{tell: tell, news: make(chan struct{})}
	consumer, err := js.OrderedConsumer(ctx, model.EventsStream, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", model.EventsStream, err)
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) { f.add(ctx, msg) })
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", model.EventsStream, err)
	}
	return f, func() { consuming.Stop(); <-consuming.Closed() }, nil
}

func (f *facts) add(ctx context.Context, msg jetstream.Msg) {
	e, err := eventIn(ctx, &nats.Msg{Header: msg.Headers(), Data: msg.Data()})
	if err != nil {
		return // not one of ours
	}
	f.tell(*e)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen[max(0, len(f.seen)-maxFacts+1):], *e)
	close(f.news)
	f.news = make(chan struct{})
}

// eventIn is the event that a message of NATS holds.
func eventIn(ctx context.Context, msg *nats.Msg) (*event.Event, error) {
	return binding.ToEvent(ctx, cejs.NewMessage(msg))
}

// wait returns the first fact of a type about an object, told already or to come.
func (f *facts) wait(ctx context.Context, eventType, subject string) (event.Event, error) {
	return f.find(ctx, func(e event.Event) bool { return e.Type() == eventType && e.Subject() == subject })
}

func (f *facts) find(ctx context.Context, is func(event.Event) bool) (event.Event, error) {
	for {
		f.mu.Lock()
		for _, e := range f.seen {
			if is(e) {
				f.mu.Unlock()
				return e, nil
			}
		}
		news := f.news
		f.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return event.Event{}, ctx.Err()
		}
	}
}
