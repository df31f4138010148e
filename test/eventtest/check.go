// Package eventtest checks events against what their types promise.
package eventtest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/pkg/model/schemas"
)

// Check fails a test for each event that is not as its type promises: a type of the table,
// a subject where one belongs, and data that its JSON Schema accepts.
func Check(tb testing.TB, events ...event.Event) {
	tb.Helper()
	for _, e := range events {
		if err := Judge(e); err != nil {
			tb.Errorf("event %s about %s: %v\n%s", e.Type(), e.Subject(), err, e.Data())
		}
	}
}

// Judge says what is wrong with an event that certloop sends or is sent; nil when nothing is.
func Judge(e event.Event) error {
	if _, ok := model.KindOf(e.Type()); !ok {
		return fmt.Errorf("the table of events has no such type")
	}
	if _, err := model.ObjectOf(e); err != nil {
		return err
	}
	schema, err := schemaOf(e.Type())
	payload, optional := model.Payload(e.Type())
	switch {
	case err != nil:
		return err
	case schema == nil && payload == nil, len(e.Data()) == 0 && optional:
		return nil
	case schema == nil:
		return fmt.Errorf("there is no schema of its data")
	case len(e.Data()) == 0:
		return fmt.Errorf("it has no data")
	}
	data, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.Data()))
	if err != nil {
		return err
	}
	return schema.Validate(data)
}

var compiled sync.Map // *jsonschema.Schema by event type

func schemaOf(eventType string) (*jsonschema.Schema, error) {
	if s, ok := compiled.Load(eventType); ok {
		return s.(*jsonschema.Schema), nil
	}
	text, ok := schemas.For(eventType)
	if !ok {
		return nil, nil
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(schemas.Base+eventType+".json", document); err != nil {
		return nil, err
	}
	s, err := c.Compile(schemas.Base + eventType + ".json")
	if err != nil {
		return nil, err
	}
	compiled.Store(eventType, s)
	return s, nil
}
