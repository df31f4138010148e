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

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
)

// forwardSlack is what dispatch leaves a function beside its own deadline: to be started,
// to wait for its turn, and to publish.
const forwardSlack = 90 * time.Second

// Dispatch pulls the work of functions that are started on demand, and POSTs it to
// where targets says each one listens, until ctx ends. An event is settled once its
// function has accepted it. Only probes are served, on listener or as env.Config says when
// that is nil; it is closed.
func Dispatch(ctx context.Context, env *Env, listener net.Listener, targets map[model.Verb]string) error {
	listener, err := env.listen(ctx, listener)
	if err != nil {
		return fmt.Errorf("dispatch: %w", err)
	}
	h := &health{function: "dispatch", env: env}
	mux := http.NewServeMux()
	mux.Handle("GET "+readinessPath, h)
	mux.Handle("GET "+livenessPath, h)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(env.Log.Handler(), slog.LevelWarn),
	}
	env.Log.InfoContext(ctx, "listening", "address", listener.Addr().String(), "targets", targets, "version", version())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	pulling, stop := context.WithCancel(ctx)
	defer stop()
	consumed := make(chan error, 1)
	go func() { consumed <- env.forward(pulling, targets) }()

	var failed error
	select {
	case <-ctx.Done():
		env.Log.InfoContext(ctx, "draining", "timeout", env.DrainTimeout)
	case failed = <-served:
		served <- http.ErrServerClosed
	}
	h.draining.Store(true)
	stop()
	return errors.Join(failed, <-consumed, server.Close(), ended(<-served))
}

// forward runs one consumer for each target.
func (e *Env) forward(ctx context.Context, targets map[model.Verb]string) error {
	client := &http.Client{
		Timeout: e.HandlerTimeout + forwardSlack,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: e.Concurrency, IdleConnTimeout: idleTimeout,
			DialContext: (&net.Dialer{Timeout: readHeaderTimeout}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	for verb, url := range targets {
		r := &delivery.Receiver{
			Verb: verb, Mux: delivery.Forward(verb, client, url), Bus: e.Bus, Log: e.Log.With("consumer", verb),
			Concurrency: e.Concurrency, HandlerTimeout: client.Timeout, Grace: e.DrainTimeout,
		}
		all.Go(func() {
			if err := r.Consume(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("dispatch: %w", err))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
