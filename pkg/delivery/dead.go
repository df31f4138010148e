package delivery

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certloop/certloop/pkg/model"
)

// Headers of a dead letter, beside the CloudEvents headers it came with.
const (
	ReasonHeader     = "certloop-reason"     // a Reason
	ErrorHeader      = "certloop-error"      // what is wrong, in words
	SubjectHeader    = "certloop-subject"    // the NATS subject or HTTP path it was sent to
	DeliveriesHeader = "certloop-deliveries" // how often it was delivered; 1 over HTTP
	WithheldHeader   = "certloop-withheld"   // why the body is not kept
)

// maxErrorText bounds, in bytes, an error that is repeated in a header.
const maxErrorText = 1024

// letter is an event that will never be handled, as it arrived.
type letter struct {
	header     nats.Header
	body       []byte
	subject    string
	deliveries uint64
	id         string // of the dead letter, "" for none: the same id is stored once
}

// bury stores a dead letter with its reason, and returns when JetStream has it.
func (r *Receiver) bury(ctx context.Context, l letter, in event.Event, why *refusal) error {
	key, err := keyOf(in)
	if err != nil || why.reason == Misaddressed { // nor is it to be seen where it did not belong
		key.Namespace, key.Name = "", ""
	}
	msg := &nats.Msg{Subject: model.DeadSubject(r.Verb, key), Header: l.headers(why)}
	if cause := l.withhold(in, why); cause != "" {
		msg.Header.Set(WithheldHeader, cause)
	} else {
		msg.Data = l.body
	}
	return r.Bus.storeDead(ctx, msg, l.id)
}

func (b *Bus) storeDead(ctx context.Context, msg *nats.Msg, id string) error {
	if !b.conn.IsConnected() {
		return fmt.Errorf("dead-lettering: %w", errAway)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	// No expected stream: its header would stand in the way of a replay.
	var opts []jetstream.PublishOpt
	if id != "" {
		opts = append(opts, jetstream.WithMsgID(id))
	}
	if _, err := b.js.PublishMsg(ctx, msg, opts...); err != nil {
		return fmt.Errorf("dead-lettering to %s: %w", msg.Subject, err)
	}
	return nil
}

// headers are those of the event and the reason. The server's own (Nats-…) would
// be obeyed again, and what else a sender wrote (Authorization) is not ours to keep.
func (l letter) headers(why *refusal) nats.Header {
	header := attributeHeaders(l.header)
	if size(header, nil) > model.MaxEventBytes {
		header = nats.Header{}
	}
	header.Set(ReasonHeader, string(why.reason))
	header.Set(ErrorHeader, clip(why.Error(), maxErrorText))
	header.Set(SubjectHeader, l.subject)
	header.Set(DeliveriesHeader, strconv.FormatUint(l.deliveries, 10))
	return header
}

// withhold says why the body must not be stored, or "". A function may be sent a
// Secret by an ApiServerSource in the wrong mode; no key may reach the broker then.
func (l letter) withhold(in event.Event, why *refusal) string {
	switch {
	case why.reason == TooLarge:
		return "it is too large"
	case in.Context != nil && strings.HasPrefix(in.Type(), "dev.knative.apiserver.resource."):
		return "it is an object of the API server, which still has it"
	case slices.ContainsFunc(keyMarks(), func(mark []byte) bool { return bytes.Contains(l.body, mark) }):
		return "it may hold a private key"
	default:
		return ""
	}
}

// keyMarks are the words of a PEM private key, and the three ways they look in
// base64, by their distance to a multiple of three.
func keyMarks() [][]byte {
	const words = "PRIVATE KEY"
	marks := map[string]bool{words: true}
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + words + "  "))
		// Cut the characters that also depend on a neighbour of the words.
		marks[encoded[(shift*8+5)/6:(shift+len(words))*8/6]] = true
	}
	var all [][]byte
	for _, mark := range slices.Sorted(maps.Keys(marks)) {
		all = append(all, []byte(mark))
	}
	return all
}
