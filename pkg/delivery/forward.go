package delivery

import (
	"context"
	"errors"
	"net/http"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/model"
)

// Forward gives the work of one function to where it listens for HTTP: a Mux for a
// [Receiver] that pulls the work of a function somebody else has to wake.
//
// What the function accepted is settled, and so is what it refused, because it has
// dead-lettered that itself. Every other answer means that the event is to be delivered
// again. The client's timeout must leave the function its own.
func Forward(verb model.Verb, client *http.Client, url string) Mux {
	mux := Mux{}
	handle := func(ctx context.Context, in event.Event) ([]event.Event, error) {
		err := Post(ctx, client, url, in)
		if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Final {
			return nil, nil // the function has dead-lettered it
		}
		return nil, err
	}
	for _, kind := range model.KindsFor(verb) {
		mux[kind.Type] = Route{Handle: handle}
	}
	return mux
}
