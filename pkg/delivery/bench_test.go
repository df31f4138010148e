package delivery

import (
	"context"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/model"
)

// BenchmarkPublish stores one event, and waits for it.
func BenchmarkPublish(b *testing.B) {
	r := newRig(b)
	for b.Loop() {
		r.publish(b, model.NewEvent(model.CertificateIssued, web, nil))
	}
}

// BenchmarkConsume takes one event from the work queue, stores what follows, and
// acknowledges.
func BenchmarkConsume(b *testing.B) {
	r := newRig(b)
	r.Concurrency = 16
	done := make(chan struct{}, b.N)
	r.Mux[model.EnrollmentRequested] = Route{Handle: func(context.Context, event.Event) ([]event.Event, error) {
		done <- struct{}{}
		return []event.Event{model.NewEvent(model.CertificateIssued, web, nil)}, nil
	}}
	events := make([]event.Event, b.N)
	for i := range events {
		events[i] = model.NewEvent(model.EnrollmentRequested, web, nil)
	}
	r.publish(b, events...)
	b.ResetTimer()
	r.consume(b)
	for range events {
		<-done
	}
}
