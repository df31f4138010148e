package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

// rig is a function on a NATS server of its own.
type rig struct {
	*Receiver
	nats *server.Server
	opts server.Options
	js   jetstream.JetStream
	logs *recorder
}

// newRig starts a server with the streams, and a receiver whose mux is empty.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{opts: server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	}}
	r.start(t)
	t.Cleanup(func() { r.stop() })
	conn, err := nats.Connect(r.nats.ClientURL(),
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	bus, err := NewBus(conn, "/clusters/test/certloop")
	if err != nil {
		t.Fatal(err)
	}
	r.js = bus.js
	if err := Apply(t.Context(), r.js, 1); err != nil {
		t.Fatal(err)
	}
	r.logs = &recorder{}
	r.Receiver = &Receiver{
		Verb: model.Enroll, Mux: Mux{}, Bus: bus, Log: slog.New(r.logs),
		Concurrency: 4, MinDelay: 10 * time.Millisecond, MaxDelay: 50 * time.Millisecond,
	}
	return r
}

func (r *rig) start(t testing.TB) {
	t.Helper()
	opts := r.opts
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("nats-server does not start")
	}
	r.nats = s
	r.opts.Port = opts.Port
}

func (r *rig) stop() {
	r.nats.Shutdown()
	r.nats.WaitForShutdown()
}

// consume runs the consumer until the test ends, or until the returned function is called.
func (r *rig) consume(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Consume(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// eventually waits until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// messages reads what a stream holds on a subject, oldest first.
func (r *rig) messages(t testing.TB, stream, subject string) []*jetstream.RawStreamMsg {
	t.Helper()
	s, err := r.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for seq := uint64(1); ; {
		m, err := s.GetMsg(t.Context(), seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
		seq = m.Sequence + 1
	}
}

func (r *rig) facts(t testing.TB) []*jetstream.RawStreamMsg {
	t.Helper()
	return r.messages(t, model.EventsStream, model.FactSubjects)
}

func (r *rig) dead(t testing.TB) []*jetstream.RawStreamMsg {
	t.Helper()
	return r.messages(t, model.DeadStream, model.DeadSubjects)
}

// settledAll reports whether no work is left, delivered or not.
func (r *rig) settledAll(t testing.TB) bool {
	t.Helper()
	return len(r.messages(t, model.WorkStream, model.WorkSubjects)) == 0
}

// put publishes a message as it stands, as a pipeline would.
func (r *rig) put(t testing.TB, subject string, header nats.Header, body string) {
	t.Helper()
	if _, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: header, Data: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) publish(t testing.TB, events ...event.Event) {
	t.Helper()
	if err := r.Bus.Publish(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

// counter counts the runs of a handler.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// recorder is a slog.Handler that keeps the attributes of every line.
type recorder struct {
	mu    sync.Mutex
	lines []map[string]string
}

func (*recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *recorder) WithGroup(string) slog.Handler          { return r }

func (r *recorder) Handle(_ context.Context, line slog.Record) error {
	attrs := map[string]string{slog.MessageKey: line.Message, slog.LevelKey: line.Level.String()}
	line.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, attrs)
	return nil
}

// events are the lines about deliveries.
func (r *recorder) events() []map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.lines), func(l map[string]string) bool { return l[slog.MessageKey] != "event" })
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.lines)
}
