package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"knative.dev/pkg/network/handlers"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

const (
	// quietPeriod is how long nobody may have sent anything before a draining
	// process closes its port: routes to it may outlive the signal.
	quietPeriod = time.Second

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	writeSlack        = time.Minute     // for publishing and waiting, beside the handler
	slotTimeout       = 5 * time.Second // for a request to wait for its turn
	cutTimeout        = 5 * time.Second // for a handler to notice that it was cut off
)

// Function is one of the deployables: its name, whose work it consumes, and how
// its handlers are made.
type Function struct {
	Name string
	Verb model.Verb
	Wire func(*Env) (delivery.Mux, error)
}

// Run serves a function over HTTP, and from JetStream when env.Consume says so,
// until ctx ends; then it drains and returns nil, or says what had to be cut off.
// It listens on listener, or as env.Config says when that is nil, and closes it.
// Several functions may run in one process, on one Env.
func Run(ctx context.Context, env *Env, listener net.Listener, f Function) error {
	p, err := newProcess(ctx, env, f)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, errors.Join(err, closeListener(listener)))
	}
	defer p.cut()
	if listener, err = p.env.listen(ctx, listener); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	p.env.Log.InfoContext(ctx, "listening", "address", listener.Addr().String(), "consume", env.Consume, "version", version())
	if err := p.run(ctx, listener); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}

// listen gives back the listener it is given, or one as the configuration says.
func (e *Env) listen(ctx context.Context, given net.Listener) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", e.address())
}

func closeListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// process is a running function.
type process struct {
	env      *Env
	receiver *delivery.Receiver
	health   *health
	drainer  *handlers.Drainer
	server   *http.Server
	cut      context.CancelFunc // ends the handlers that serve HTTP
}

func newProcess(ctx context.Context, env *Env, f Function) (*process, error) {
	own, err := env.of(f)
	if err != nil {
		return nil, err
	}
	mux, err := f.Wire(own)
	if err != nil {
		return nil, err
	}
	p := &process{env: own, health: &health{function: f.Name, env: own}}
	p.receiver = &delivery.Receiver{
		Verb: f.Verb, Mux: mux, Bus: own.Bus, Log: own.Log,
		Concurrency: own.Concurrency, HandlerTimeout: own.HandlerTimeout, Grace: own.DrainTimeout,
	}
	var work context.Context
	work, p.cut = context.WithCancel(context.WithoutCancel(ctx))
	p.drainer = &handlers.Drainer{
		HealthCheck: p.health.ServeHTTP,
		Inner:       limited(own.Concurrency, slotTimeout, detached(work, p.receiver)),
		QuietPeriod: quietPeriod,
	}
	p.server = &http.Server{
		Handler:           p.routes(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      own.HandlerTimeout + writeSlack,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    model.MaxEventBytes,
		ErrorLog:          slog.NewLogLogger(own.Log.Handler(), slog.LevelWarn),
	}
	return p, nil
}

// routes keeps the paths of the probes out of the drainer, for which every other
// request is a sign that somebody still sends events.
func (p *process) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+readinessPath, p.health)
	mux.Handle("GET "+livenessPath, p.health)
	mux.Handle("/", p.drainer)
	return mux
}

// detached gives requests another context: a handler that has begun with a CA
// does not stop because the event's sender lost patience.
func detached(work context.Context, inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r.WithContext(work))
	})
}

// limited serves n requests at once. The others wait a little, and are then told
// to come again.
func limited(n int, wait time.Duration, inner http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timeout := time.NewTimer(wait)
		defer timeout.Stop()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			inner.ServeHTTP(w, r)
		case <-timeout.C:
			w.Header().Set("Retry-After", "5")
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case <-r.Context().Done():
		}
	})
}

// run serves until ctx ends or serving fails, and drains.
func (p *process) run(ctx context.Context, listener net.Listener) error {
	pulling, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	consumed := make(chan error, 1)
	go func() { served <- p.server.Serve(listener) }()
	go func() { consumed <- p.consume(pulling) }()

	var failed error
	select {
	case <-ctx.Done():
		p.env.Log.InfoContext(ctx, "draining", "timeout", p.env.DrainTimeout)
	case failed = <-served:
		served <- http.ErrServerClosed
	}
	stop()
	p.health.draining.Store(true)
	err := errors.Join(failed, p.drainHTTP(ctx), <-consumed, ended(<-served), p.flush())
	p.env.Log.InfoContext(ctx, "drained")
	return err
}

func (p *process) consume(ctx context.Context) error {
	if !p.env.Consume {
		return nil
	}
	return p.receiver.Consume(ctx)
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// drainHTTP serves until nobody asks any more, closes the port, and waits for the
// handlers at work. Those that do not finish in time are cut off.
func (p *process) drainHTTP(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.env.DrainTimeout)
	defer cancel()
	p.quiesce(ctx)
	if p.server.Shutdown(ctx) == nil {
		return nil
	}
	p.cut()
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), cutTimeout)
	defer cancel()
	err := fmt.Errorf("requests were cut off after %s", p.env.DrainTimeout)
	if p.server.Shutdown(ctx) != nil {
		err = errors.Join(err, p.server.Close())
	}
	return err
}

// quiesce waits for a quiet period, or for the end of ctx.
func (p *process) quiesce(ctx context.Context) {
	var wg sync.WaitGroup
	quiet := make(chan struct{})
	wg.Go(func() {
		defer close(quiet)
		p.drainer.Drain()
	})
	select {
	case <-quiet:
	case <-ctx.Done():
		p.drainer.Reset()
	}
	wg.Wait()
}

// flush sees the last acknowledgements on their way.
func (p *process) flush() error {
	if !p.env.NATS.IsConnected() {
		return nil
	}
	return p.env.NATS.FlushTimeout(flushTimeout)
}
