package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

// startNATS runs a server on a port, -1 for any.
func startNATS(t testing.TB, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("nats-server does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// newEnv connects to a NATS server; Kubernetes is of no interest here.
func newEnv(t testing.TB, url string) *Env {
	t.Helper()
	c := Config{
		NATSURL: url, Consume: true, Concurrency: 2, Cluster: "test",
		HandlerTimeout: time.Minute, DrainTimeout: patience,
	}
	log := slog.New(slog.NewJSONHandler(t.Output(), nil))
	conn, err := connectNATS(t.Context(), c, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	env := &Env{Config: c, Log: log, NATS: conn, Now: time.Now}
	if env.Bus, err = env.bus(""); err != nil {
		t.Fatal(err)
	}
	return env
}

func applyStreams(t testing.TB, env *Env) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(env.NATS)
	if err != nil {
		t.Fatal(err)
	}
	if err := delivery.Apply(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	return js
}

// function handles enrollment.requested.
func function(handle delivery.Handler) Function {
	return Function{Name: "enroll", Verb: model.Enroll, Wire: func(*Env) (delivery.Mux, error) {
		return delivery.Mux{model.EnrollmentRequested: {Handle: handle}}, nil
	}}
}

// running is a function under way.
type running struct {
	url  string
	stop context.CancelFunc
	done chan error
}

func run(t testing.TB, env *Env, f Function) *running {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{url: "http://" + listener.Addr().String(), stop: cancel, done: make(chan error, 1)}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		r.done <- Run(ctx, env, listener, f)
	}()
	t.Cleanup(func() { cancel(); <-finished })
	return r
}

// end waits for Run to return.
func (r *running) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("Run does not return")
		return nil
	}
}

// post sends one event and returns the status, 0 when nobody answers.
func (r *running) post(ctx context.Context, t testing.TB) int {
	t.Helper()
	e := model.NewEvent(model.EnrollmentRequested, web, nil)
	e.SetSource("/test")
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
	return status(t, req)
}

func status(t testing.TB, req *http.Request) int {
	t.Helper()
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}

// probe asks a path and returns the status and what is missing.
func (r *running) probe(t testing.TB, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// left is how many messages a stream holds.
func left(t testing.TB, js jetstream.JetStream, stream string) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestOneHandlerForBothTransports(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	js := applyStreams(t, env)
	handled := make(chan event.Event, 10)
	r := run(t, env, function(func(_ context.Context, in event.Event) ([]event.Event, error) {
		handled <- in
		return []event.Event{model.NewEvent(model.CertificateIssued, web, nil)}, nil
	}))
	if got := r.post(t.Context(), t); got != http.StatusAccepted {
		t.Errorf("status %d, want 202", got)
	}
	if err := env.Bus.Publish(t.Context(), model.NewEvent(model.EnrollmentRequested, web, nil)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are handled and stored", func() bool {
		return len(handled) == 2 && left(t, js, model.WorkStream) == 0 && left(t, js, model.EventsStream) == 2
	})
	fact, err := js.Stream(t.Context(), model.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := fact.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := msg.Header.Get("ce-source"), "/clusters/test/certloop/enroll"; got != want {
		t.Errorf("source %q, want %q", got, want)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Errorf("draining: %v", err)
	}
}

func TestWithoutConsumeNothingIsPulled(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	env.Consume = false
	js := applyStreams(t, env)
	r := run(t, env, function(nil))
	eventually(t, "readiness", func() bool { code, _ := r.probe(t, readinessPath); return code == http.StatusOK })
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	stream, err := js.Stream(t.Context(), model.WorkStream)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Consumers; got != 0 {
		t.Errorf("%d consumers, want none", got)
	}
}

func TestDrainFinishesWhatIsAtWork(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	js := applyStreams(t, env)
	began, finish := make(chan struct{}, 10), make(chan struct{})
	r := run(t, env, function(func(ctx context.Context, _ event.Event) ([]event.Event, error) {
		began <- struct{}{}
		<-finish
		return []event.Event{model.NewEvent(model.CertificateIssued, web, nil)}, ctx.Err()
	}))
	answer := make(chan int, 1)
	go func() { answer <- r.post(context.WithoutCancel(t.Context()), t) }()
	// One more than may be handled at once: the last one stays where it is.
	for range env.Concurrency + 1 {
		if err := env.Bus.Publish(t.Context(), model.NewEvent(model.EnrollmentRequested, web, nil)); err != nil {
			t.Fatal(err)
		}
	}
	for range env.Concurrency + 1 {
		<-began
	}
	r.stop()
	eventually(t, "not ready", func() bool { code, _ := r.probe(t, readinessPath); return code != 200 })
	eventually(t, "the port is closed", func() bool { code, _ := r.probe(t, livenessPath); return code == 0 })
	close(finish)
	if got := <-answer; got != http.StatusAccepted {
		t.Errorf("the request at work is answered %d, want 202", got)
	}
	if err := r.end(t); err != nil {
		t.Errorf("draining: %v", err)
	}
	if got := left(t, js, model.WorkStream); got != 1 {
		t.Errorf("%d events are left, want the one that nobody had begun", got)
	}
	if got, want := left(t, js, model.EventsStream), uint64(env.Concurrency)+1; got != want {
		t.Errorf("%d facts, want %d", got, want)
	}
}

func TestDrainCutsOffWhatTakesTooLong(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	env.DrainTimeout = 100 * time.Millisecond
	js := applyStreams(t, env)
	began := make(chan struct{}, 10)
	r := run(t, env, function(func(ctx context.Context, _ event.Event) ([]event.Event, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	answer := make(chan int, 1)
	go func() { answer <- r.post(context.WithoutCancel(t.Context()), t) }()
	if err := env.Bus.Publish(t.Context(), model.NewEvent(model.EnrollmentRequested, web, nil)); err != nil {
		t.Fatal(err)
	}
	<-began
	<-began
	r.stop()
	err := r.end(t)
	if err == nil || !strings.Contains(err.Error(), "requests were cut off") || !strings.Contains(err.Error(), "handlers of enroll were cut off") {
		t.Errorf("error %v, want what was cut off", err)
	}
	if got := <-answer; got != http.StatusServiceUnavailable {
		t.Errorf("the request is answered %d, want 503", got)
	}
	if got := left(t, js, model.WorkStream); got != 1 {
		t.Errorf("%d events are left, want 1", got)
	}
}

func TestListeningDoesNotWaitForNATS(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	url := "nats://user:secret@" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	env := newEnv(t, url)
	r := run(t, env, function(func(context.Context, event.Event) ([]event.Event, error) {
		return []event.Event{model.NewEvent(model.CertificateIssued, web, nil)}, nil
	}))
	if code, _ := r.probe(t, livenessPath); code != http.StatusOK {
		t.Errorf("liveness %d, want 200", code)
	}
	code, body := r.probe(t, readinessPath)
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "NATS is not connected") || strings.Contains(body, "secret") {
		t.Errorf("readiness %d %s, want 503, NATS named and no password", code, body)
	}
	if got := r.post(t.Context(), t); got != http.StatusServiceUnavailable {
		t.Errorf("an event is answered %d, want 503", got)
	}
	startNATS(t, port)
	eventually(t, "readiness", func() bool { code, _ := r.probe(t, readinessPath); return code == http.StatusOK })
	applyStreams(t, env)
	if got := r.post(t.Context(), t); got != http.StatusAccepted {
		t.Errorf("an event is answered %d, want 202", got)
	}
}

func TestProbesOfKnative(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	r := run(t, env, function(nil))
	tests := map[string]struct {
		header map[string]string
		want   int
	}{
		"the kubelet":   {map[string]string{"User-Agent": "kube-probe/1.36"}, 200},
		"the activator": {map[string]string{"K-Network-Probe": "probe", "K-Network-Hash": "h"}, 200},
		"nobody":        {nil, 405},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
			if got := status(t, req); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

// A handler that has begun with a CA goes on when the sender has lost patience.
func TestASenderThatGoesAway(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	js := applyStreams(t, env)
	began, finish := make(chan struct{}), make(chan struct{})
	r := run(t, env, function(func(ctx context.Context, _ event.Event) ([]event.Event, error) {
		close(began)
		<-finish
		return []event.Event{model.NewEvent(model.CertificateIssued, web, nil)}, ctx.Err()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() { defer close(gone); r.post(ctx, t) }()
	<-began
	cancel()
	<-gone
	close(finish)
	eventually(t, "the fact is stored", func() bool { return left(t, js, model.EventsStream) == 1 })
}

func TestNoMoreRequestsAtOnceThanAllowed(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	h := limited(1, 10*time.Millisecond, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(began)
		<-finish
	}))
	request := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
		return w
	}
	done := make(chan struct{})
	go func() { defer close(done); request() }()
	<-began
	if w := request(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, want 503 with Retry-After", w.Code)
	}
	close(finish)
	<-done
}

func TestRunSaysWhyItCannot(t *testing.T) {
	env := newEnv(t, startNATS(t, -1).ClientURL())
	unwired := Function{Name: "enroll", Verb: model.Enroll, Wire: func(*Env) (delivery.Mux, error) { return nil, errors.New("no rights") }}
	if err := Run(t.Context(), env, nil, unwired); err == nil || !strings.Contains(err.Error(), "enroll: no rights") {
		t.Errorf("error %v, want what Wire says", err)
	}
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	env.Listen = taken.Addr().String()
	if err := Run(t.Context(), env, nil, function(nil)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v, want that the address is in use", err)
	}
}
