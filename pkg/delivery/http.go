package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/nats-io/nats.go"

	"github.com/certloop/certloop/pkg/model"
)

// retryAfter is what a sender is asked to wait before it tries again.
const retryAfter = 5 * time.Second

// DeadLettersPath is where a Receiver is the dead-letter sink of a Broker: it keeps whatever
// comes there, and so takes it, because a sink that refuses makes the Broker try for ever.
const DeadLettersPath = "/dead-letters"

// ServeHTTP receives CloudEvents by POST, in binary, structured or batched mode of
// the HTTP protocol binding, at any path but [DeadLettersPath]. It answers 202 without a body, or a
// problem document (RFC 9457). A batch gets one answer: 503 when any of its events
// is to be sent again, else a refusal when any was refused.
//
// The handlers run under the request's context: whoever wants them to outlive an
// impatient sender gives the request another one.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		newProblem(methodNotAllowed, "events are received by POST").write(w)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, model.MaxEventBytes))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); err != nil && !tooLarge {
		newProblem(notNow, "the body did not arrive: "+err.Error()).write(w)
		return
	}
	var verdict answer
	for _, p := range parts(req.Header, body, err) {
		verdict.add(r.receivePart(req, p))
	}
	verdict.write(w)
}

// part is one event of a request: the request itself, or an element of a batch.
type part struct {
	header http.Header
	body   []byte
	err    error // *refusal: no event can be read from it
}

func parts(header http.Header, body []byte, err error) []part {
	if err != nil {
		return []part{{header: header, err: refuse(TooLarge, fmt.Errorf("the limit is %d bytes", model.MaxEventBytes))}}
	}
	whole := part{header: header, body: body}
	if cehttp.NewMessage(header, nil).ReadEncoding() != binding.EncodingBatch {
		return []part{whole}
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		whole.err = refuse(Undecodable, fmt.Errorf("batch: %w", err))
		return []part{whole}
	}
	all := make([]part, len(elements))
	for i, element := range elements {
		all[i] = part{header: http.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}, body: element}
	}
	return all
}

// receivePart sees one event through to its settlement. Its error is the verdict:
// nil, a *refusal that is dead-lettered, or a reason to send again.
func (r *Receiver) receivePart(req *http.Request, p part) error {
	began := time.Now()
	ctx := req.Context()
	sink := req.URL.Path == DeadLettersPath
	in, err := p.decode(ctx)
	if err == nil && sink {
		err = undelivered(in)
	} else if err == nil {
		err = r.attempt(ctx, in)
	}
	outcome := accepted
	refused, ok := errors.AsType[*refusal](err)
	switch {
	case ok:
		outcome = dead
		if buried := r.bury(ctx, p.letter(req.URL.Path), in, refused); buried != nil {
			// Said twice is better than lost: the sender keeps it until we can.
			err, sink = fmt.Errorf("%s; %w", refused.Error(), buried), false
			outcome = retried
		}
	case err != nil:
		outcome = retried
	}
	r.report(ctx, settled{in, 0, outcome, time.Since(began), err})
	if sink {
		return nil
	}
	return err
}

// undelivered is why an event comes to a dead-letter sink, as Knative says in its extensions.
func undelivered(in event.Event) *refusal {
	said := func(name string) string { return clip(fmt.Sprint(in.Extensions()[name]), maxTermText) }
	return refuse(Exhausted, fmt.Errorf("%s answered %s", said("knativeerrordest"), said("knativeerrorcode")))
}

func (p part) letter(path string) letter {
	return letter{header: nats.Header(p.header), body: p.body, subject: clip(path, 320), deliveries: 1}
}

// decode reads the event. Its error is a *refusal.
func (p part) decode(ctx context.Context) (event.Event, error) {
	if p.err != nil {
		return event.Event{}, p.err
	}
	header := attributeHeaders(nats.Header(p.header))
	if n := size(header, p.body); n > model.MaxEventBytes {
		return event.Event{}, refuse(TooLarge, fmt.Errorf("%d bytes, the limit is %d", n, model.MaxEventBytes))
	}
	m := cehttp.NewMessage(canonical(header), io.NopCloser(bytes.NewReader(p.body)))
	if m.ReadEncoding() == binding.EncodingUnknown {
		return event.Event{}, unknownEncoding(p.header)
	}
	return toEvent(ctx, m)
}

func unknownEncoding(header http.Header) *refusal {
	if version := header.Get("Ce-Specversion"); version != "" {
		return refuse(Undecodable, fmt.Errorf("specversion: %q is not supported, 1.0 is", clip(version, 20)))
	}
	return refuse(Unsupported, fmt.Errorf("Content-Type %q without ce-… headers is no CloudEvent: send %s, or the attributes as headers",
		clip(header.Get("Content-Type"), 80), event.ApplicationCloudEventsJSON))
}

// canonical writes header names as net/http does. "ce-" alone names no attribute,
// and the SDK does not survive it.
func canonical(header nats.Header) http.Header {
	all := http.Header{}
	for name, values := range header {
		if name != "ce-" {
			all[http.CanonicalHeaderKey(name)] = values
		}
	}
	return all
}

// answer collects the verdicts on the events of a request.
type answer struct {
	refused []*refusal
	again   error
}

func (a *answer) add(err error) {
	refused, ok := errors.AsType[*refusal](err)
	switch {
	case err == nil:
	case ok:
		a.refused = append(a.refused, refused)
	case a.again == nil:
		a.again = err
	}
}

func (a *answer) write(w http.ResponseWriter) {
	switch {
	case a.again != nil:
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
		newProblem(notNow, a.again.Error()).write(w)
	case len(a.refused) > 0:
		problemOf(a.refused).write(w)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}
