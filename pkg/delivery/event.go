package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	cejs "github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/certloop/certloop/pkg/model"
)

// encode writes an event in the binary mode of the NATS protocol binding for
// CloudEvents: every attribute a header, the data as body.
func encode(ctx context.Context, e event.Event) (*nats.Msg, error) {
	var body bytes.Buffer
	header, err := cejs.WriteMsg(ctx, binding.ToMessage(&e), &body)
	if err != nil {
		return nil, err
	}
	msg := &nats.Msg{Header: header, Data: body.Bytes()}
	if n := size(header, msg.Data); n > model.MaxEventBytes {
		return nil, fmt.Errorf("%d bytes, the limit is %d", n, model.MaxEventBytes)
	}
	return msg, nil
}

// decode reads an event in binary or structured mode. Its error is a *refusal.
func decode(ctx context.Context, header nats.Header, body []byte) (event.Event, error) {
	if n := size(header, body); n > model.MaxEventBytes {
		return event.Event{}, refuse(TooLarge, fmt.Errorf("%d bytes, the limit is %d", n, model.MaxEventBytes))
	}
	m := cejs.NewMessage(&nats.Msg{Header: attributeHeaders(header), Data: body})
	return toEvent(ctx, m)
}

// toEvent reads a message of either transport. Only what is a CloudEvent leaves it.
func toEvent(ctx context.Context, m binding.Message) (event.Event, error) {
	e, err := binding.ToEvent(ctx, m)
	if err != nil {
		return event.Event{}, refuse(Undecodable, err)
	}
	if errs := faults(*e); len(errs) > 0 {
		return *e, refuse(Undecodable, errs...)
	}
	e.Context = e.Context.AsV1()
	return *e, nil
}

// attributeHeaders keeps the headers that carry CloudEvents attributes, in lower
// case: the binding compares their names without regard to case, the SDK does not.
func attributeHeaders(header nats.Header) nats.Header {
	kept := nats.Header{}
	for name, values := range header {
		name = strings.ToLower(name)
		if (name == "content-type" || strings.HasPrefix(name, "ce-")) && len(values) > 0 {
			kept[name] = values[:1]
		}
	}
	return kept
}

// size counts an event as [model.MaxEventBytes] bounds it: attributes and data.
func size(header nats.Header, body []byte) int {
	n := len(body)
	for name, values := range header {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	return n
}

// faults lists why e is not a CloudEvent, in an order that does not change.
func faults(e event.Event) []error {
	var errs []error
	var invalid event.ValidationError
	if err := e.Validate(); errors.As(err, &invalid) {
		for _, name := range slices.Sorted(maps.Keys(invalid)) {
			errs = append(errs, fmt.Errorf("%s: %w", name, invalid[name]))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	values := map[string]string{
		"id": e.ID(), "source": e.Source(), "type": e.Type(), "subject": e.Subject(),
		"datacontenttype": e.DataContentType(), "dataschema": e.DataSchema(),
	}
	extensions := e.Extensions()
	for _, name := range slices.Sorted(maps.Keys(extensions)) {
		values[name] = fmt.Sprint(extensions[name])
		// The SDK does not look at the names in events of version 0.3.
		if strings.ContainsFunc(name, notInName) {
			errs = append(errs, fmt.Errorf("%q: the name of an attribute is made of a-z and 0-9 (CloudEvents 1.0.2 §2.3)", clip(name, 80)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := values[name]
		// Control characters are not allowed in a String (CloudEvents 1.0.2 §2.4).
		// Blanks around a value do not survive as a header: another id would arrive.
		if strings.ContainsFunc(v, isControl) || strings.TrimSpace(v) != v {
			errs = append(errs, fmt.Errorf("%s: holds a control character, or begins or ends with a blank", name))
		}
	}
	return errs
}

func notInName(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f }

// keyOf is the object an event is about, fit to be written into a subject. Names
// that Kubernetes would refuse are refused here, before they meet a wildcard.
func keyOf(e event.Event) (types.NamespacedName, error) {
	key, err := model.ObjectOf(e)
	if err != nil {
		return types.NamespacedName{}, err
	}
	if key == (types.NamespacedName{}) {
		return key, nil
	}
	var problems []string
	if key.Namespace != "" { // a CMPClusterIssuer has none
		problems = validation.IsDNS1123Label(key.Namespace)
	}
	if len(problems) > 0 {
		return types.NamespacedName{}, fmt.Errorf("namespace %q: %s", clip(key.Namespace, 80), problems[0])
	}
	if problems = validation.IsDNS1123Subdomain(key.Name); len(problems) > 0 {
		return types.NamespacedName{}, fmt.Errorf("name %q: %s", clip(key.Name, 80), problems[0])
	}
	return key, nil
}

// clip shortens what others wrote before it is repeated in a log or a header.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
