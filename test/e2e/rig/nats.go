package rig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// NATS is a server with JetStream and certloop's streams, in the test's process.
type NATS struct {
	URL string
	Dir string // of its store
}

// StartNATS starts a server for this test alone.
func StartNATS(tb testing.TB) *NATS {
	tb.Helper()
	n := &NATS{Dir: tb.TempDir()}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: n.Dir, NoSigs: true, NoLog: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	tb.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(Patience) {
		tb.Fatal("the NATS server does not start")
	}
	n.URL = s.ClientURL()
	OpenBus(tb, n.URL).ApplyStreams(tb)
	return n
}

// ApplyStreams makes certloop's streams.
func (b *Bus) ApplyStreams(tb testing.TB) {
	tb.Helper()
	if err := delivery.Apply(tb.Context(), b.js, 1); err != nil {
		tb.Fatal(err)
	}
}

// Bus reads and writes the streams as an outsider does: a pipeline, an operator.
type Bus struct {
	conn *nats.Conn
	js   jetstream.JetStream
}

// OpenBus connects to a server, which may go and come back.
func OpenBus(tb testing.TB, url string) *Bus {
	tb.Helper()
	conn, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		tb.Fatal(err)
	}
	return &Bus{conn, js}
}

// Tap keeps every message that is published below certloop.>, also what is consumed
// and deleted afterwards. The returned function gives those seen so far.
func (b *Bus) Tap(tb testing.TB) func() []*nats.Msg {
	tb.Helper()
	sub, err := b.conn.SubscribeSync("certloop.>")
	if err == nil {
		err = errors.Join(sub.SetPendingLimits(-1, -1), b.conn.Flush())
	}
	if err != nil {
		tb.Fatal(err)
	}
	var all []*nats.Msg
	return func() []*nats.Msg {
		for {
			m, err := sub.NextMsg(100 * time.Millisecond)
			if err != nil {
				return all
			}
			all = append(all, m)
		}
	}
}

// Publish puts an event on the work subject of a function, by the NATS protocol
// binding of CloudEvents in binary mode, as a pipeline would that knows the subject
// and nothing else of certloop. It returns when JetStream has stored it.
func (b *Bus) Publish(tb testing.TB, to model.Verb, key types.NamespacedName, e event.Event) {
	tb.Helper()
	b.PublishRaw(tb, model.WorkSubject(to, key), binary(e), e.Data())
}

// PublishRaw puts any bytes on a subject.
func (b *Bus) PublishRaw(tb testing.TB, subject string, header nats.Header, body []byte) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	if _, err := b.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: header, Data: body}); err != nil {
		tb.Fatalf("publishing to %s: %v", subject, err)
	}
}

// binary are the headers of an event in binary mode.
func binary(e event.Event) nats.Header {
	h := nats.Header{
		"ce-specversion": {e.SpecVersion()}, "ce-type": {e.Type()}, "ce-source": {e.Source()}, "ce-id": {e.ID()}, "ce-subject": {e.Subject()},
	}
	if e.DataContentType() != "" {
		h["content-type"] = []string{e.DataContentType()}
	}
	for name, value := range e.Extensions() {
		h["ce-"+name] = []string{fmt.Sprint(value)}
	}
	return h
}

// Facts are the events of a type about an object that the history holds, oldest
// first. A zero key stands for every object, an empty type for every type.
func (b *Bus) Facts(tb testing.TB, eventType string, key types.NamespacedName) []event.Event {
	tb.Helper()
	var out []event.Event
	for _, m := range b.Messages(tb, model.EventsStream, factFilter(eventType, key)) {
		e := event.New()
		e.SetType(m.Header.Get("ce-type"))
		e.SetID(m.Header.Get("ce-id"))
		e.SetSubject(m.Header.Get("ce-subject"))
		e.SetSource(m.Header.Get("ce-source"))
		e.SetTime(m.Time)
		for name, values := range m.Header {
			switch name = strings.TrimPrefix(name, "ce-"); name {
			case model.CorrelationID, model.CausationID:
				e.SetExtension(name, values[0])
			}
		}
		if len(m.Data) > 0 {
			if err := e.SetData(event.ApplicationJSON, m.Data); err != nil {
				tb.Fatal(err)
			}
		}
		out = append(out, e)
	}
	return out
}

func factFilter(eventType string, key types.NamespacedName) string {
	subject := model.FactSubjects
	if eventType == "" {
		return subject
	}
	subject = model.FactSubject(eventType, key)
	if key.Name == "" {
		subject = strings.TrimSuffix(subject, "_._") + "*.*"
	}
	return subject
}

// WaitFact waits for the first event of a type about an object.
func (b *Bus) WaitFact(tb testing.TB, within time.Duration, eventType string, key types.NamespacedName) event.Event {
	tb.Helper()
	var found []event.Event
	Eventually(tb, within, eventType+" of "+key.String(), func() error {
		if found = b.Facts(tb, eventType, key); len(found) == 0 {
			return errors.New("the history does not hold it")
		}
		return nil
	})
	return found[0]
}

// Data decodes the data of an event.
func Data[T any](tb testing.TB, e event.Event) (data T) {
	tb.Helper()
	if err := model.DecodeData(e, &data); err != nil {
		tb.Fatalf("%s of %s: %v", e.Type(), e.Subject(), err)
	}
	return data
}

// Messages are what a stream holds on the subjects of a filter, oldest first. It
// waits for a server that is away.
func (b *Bus) Messages(tb testing.TB, stream, filter string) []*jetstream.RawStreamMsg {
	tb.Helper()
	var out []*jetstream.RawStreamMsg
	Eventually(tb, Patience, "reading "+stream, func() (err error) {
		out, err = b.read(tb.Context(), stream, filter)
		return err
	})
	return out
}

func (b *Bus) read(ctx context.Context, stream, filter string) (all []*jetstream.RawStreamMsg, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	for seq := uint64(1); ; {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		seq = m.Sequence + 1
	}
}
