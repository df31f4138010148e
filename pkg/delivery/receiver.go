package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/model"
)

// Handler acts on one event and returns the events that follow. An error means
// "not now, deliver again". The context ends at the handler's deadline.
type Handler func(ctx context.Context, in event.Event) (out []event.Event, err error)

// Route is how one event type is treated.
type Route struct {
	// Check refuses an event that can never be handled, above all one with a bad
	// payload; its error is told to the sender. nil accepts every event.
	Check func(event.Event) error
	// Refused are the events that tell of an event that Check has refused, beside its
	// dead letter; nil where there is nothing to tell.
	Refused func(in event.Event, why error) []event.Event
	Handle  Handler
}

// Mux is the routes of a function by CloudEvents type.
type Mux map[string]Route

// Receiver gives the events for one function to its handlers and settles them.
// Its methods are two transports for the same [Mux]: ServeHTTP and Consume.
type Receiver struct {
	Verb model.Verb // whose work: names the durable consumer, its filter and the dead subjects
	Mux  Mux
	Bus  *Bus
	Log  *slog.Logger

	Concurrency    int           // handlers at once over JetStream; 16 when zero
	HandlerTimeout time.Duration // deadline of one handler; 2 min when zero
	Grace          time.Duration // what a handler still gets after the context of Consume has ended; 25 s when zero
	MaxDeliver     uint64        // deliveries before an event is dead-lettered; 100 when zero, about three hours of failing
	AckWait        time.Duration // silence after which JetStream delivers again; 1 s when zero
	MinDelay       time.Duration // before the first redelivery; 1 s when zero
	MaxDelay       time.Duration // before any redelivery; 2 min when zero
}

func (r *Receiver) concurrency() int              { return or(r.Concurrency, 16) }
func (r *Receiver) handlerTimeout() time.Duration { return or(r.HandlerTimeout, 2*time.Minute) }
func (r *Receiver) grace() time.Duration          { return or(r.Grace, 25*time.Second) }
func (r *Receiver) maxDeliver() uint64            { return or(r.MaxDeliver, 100) }
func (r *Receiver) ackWait() time.Duration        { return or(r.AckWait, time.Second) }
func (r *Receiver) minDelay() time.Duration       { return or(r.MinDelay, time.Second) }
func (r *Receiver) maxDelay() time.Duration       { return or(r.MaxDelay, 2*time.Minute) }

func or[T ~int | ~int64 | ~uint64](v, fallback T) T {
	if v == 0 {
		return fallback
	}
	return v
}

// attempt brings an event to its handler and publishes what follows. The error is
// nil when the event is done with, a *refusal when it will never be handled, and
// anything else when it is to be delivered again.
func (r *Receiver) attempt(ctx context.Context, in event.Event) error {
	route, err := r.route(in)
	if err != nil {
		return err
	}
	out, err := r.run(ctx, route, in)
	switch why, ok := errors.AsType[*refusal](err); {
	case ok && route.Refused != nil:
		// First: once it is dead-lettered nobody comes back to it.
		if untold := r.Bus.Publish(ctx, route.Refused(in, why)...); untold != nil {
			return fmt.Errorf("%s; telling so: %w", why.Error(), untold)
		}
		return why
	case err != nil:
		return err
	}
	return r.Bus.Publish(ctx, out...)
}

func (r *Receiver) route(in event.Event) (Route, error) {
	route, ok := r.Mux[in.Type()]
	if !ok {
		return Route{}, refuse(UnknownType, fmt.Errorf("type %q is not handled by %s, which handles %s",
			clip(in.Type(), 120), r.Verb, strings.Join(slices.Sorted(maps.Keys(r.Mux)), ", ")))
	}
	if _, err := keyOf(in); err != nil {
		return Route{}, refuse(InvalidEvent, err)
	}
	return route, nil
}

// run calls Check and Handle. A panic in either is an error like any other.
func (r *Receiver) run(ctx context.Context, route Route, in event.Event) (out []event.Event, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, &panicError{value: v, stack: string(debug.Stack())}
		}
	}()
	if route.Check != nil {
		if err := route.Check(in); err != nil {
			return nil, refuse(InvalidEvent, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, r.handlerTimeout())
	defer cancel()
	return route.Handle(ctx, in)
}

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack string
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// Outcomes of a delivery.
const (
	accepted = "accepted" // handled, and what follows is stored
	retried  = "retried"  // to be delivered again
	dead     = "dead"     // dead-lettered
)

// settled is what became of one delivery.
type settled struct {
	event   event.Event
	attempt uint64 // 0 over HTTP, which does not tell
	outcome string
	took    time.Duration
	err     error
}

// report writes the one log line of a delivery: names and outcome, never data.
func (r *Receiver) report(ctx context.Context, s settled) {
	e := s.event
	if e.Context == nil {
		e = event.New()
	}
	attrs := []slog.Attr{
		slog.String("type", clip(e.Type(), 120)),
		slog.String("id", clip(e.ID(), 120)),
		slog.String("subject", clip(e.Subject(), 320)),
		slog.String("outcome", s.outcome),
		slog.Uint64("attempt", s.attempt),
		slog.Duration("took", s.took),
	}
	level := slog.LevelInfo
	if s.err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("err", clip(s.err.Error(), maxErrorText)))
	}
	if s.outcome == dead {
		level = slog.LevelError
	}
	if p, ok := errors.AsType[*panicError](s.err); ok {
		attrs = append(attrs, slog.String("stack", p.stack))
	}
	r.Log.LogAttrs(ctx, level, "event", attrs...)
}
