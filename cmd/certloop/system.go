package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/service"
)

// system is the four functions in one process, with what they need beside a cluster
// and a CA: NATS JetStream, unless there is one, and the sources of events.
type system struct {
	config   service.Config
	natsDir  string // where an embedded NATS server stores; empty: use config.NATSURL
	natsPort int
	host     string         // that the functions listen on
	ports    map[string]int // by the function's name; free ones where it says nothing
	scan     time.Duration
	sweep    time.Duration
	// clusterIssuers are watched even if only some namespaces are.
	clusterIssuers bool
	log            *slog.Logger
	trace          func(lifecycle.Step)
}

// running is a system that works.
type running struct {
	*service.Env
	js        jetstream.JetStream
	functions []endpoint
}

// endpoint is where a function listens.
type endpoint struct{ name, url string }

// run starts everything, calls ready when all of it works, and drains when ctx ends.
func (s *system) run(ctx context.Context, ready func(*running)) (err error) {
	if s.natsDir != "" {
		b, err := startBroker(ctx, s.natsDir, s.natsPort, s.log)
		if err != nil {
			return err
		}
		defer b.stop()
		s.config.NATSURL = b.url()
	}
	env, err := service.Connect(ctx, s.config, s.log)
	if err != nil {
		return misused(err)
	}
	defer env.Close()
	r := &running{Env: env}
	if r.js, err = s.streams(ctx, env); err != nil {
		return err
	}
	return s.serve(ctx, r, ready)
}

// streams waits for NATS and applies the streams.
func (s *system) streams(ctx context.Context, env *service.Env) (jetstream.JetStream, error) {
	js, err := jetstream.New(env.NATS)
	if err != nil {
		return nil, err
	}
	for !env.NATS.IsConnected() {
		if !wait(ctx, firstPause) {
			return nil, ctx.Err()
		}
	}
	_, err = applyStreams(ctx, js, 0)
	return js, err
}

// serve runs the functions and the sources until ctx ends or one of them fails, and
// returns when all have drained.
func (s *system) serve(ctx context.Context, r *running, ready func(*running)) error {
	all := functions.All(s.trace)
	listeners, err := s.listen(ctx, all)
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	for i, f := range all {
		r.functions = append(r.functions, endpoint{f.Name, "http://" + listeners[i].Addr().String()})
		parts.Go(func() error { return service.Run(ctx, r.Env, listeners[i], f) })
	}
	src := &sources{
		Kube: r.Kube, Bus: r.Bus, Log: s.log, Namespaces: s.config.Namespaces, ClusterIssuers: s.clusterIssuers,
		Scan: s.scan, Sweep: s.sweep, Now: r.Now, Watching: func() { ready(r) },
	}
	parts.Go(func() error { return src.run(ctx) })
	return parts.Wait()
}

func (s *system) listen(ctx context.Context, all []service.Function) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, f := range all {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(s.host, strconv.Itoa(s.ports[f.Name])))
		if err != nil {
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("%s: %w: choose another port with --port, or 0 for any", f.Name, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// checkPorts refuses names that are no function's and numbers that are no port's.
func checkPorts(ports map[string]int) error {
	var names []string
	for _, f := range functions.All(nil) {
		names = append(names, f.Name)
	}
	for name, port := range ports {
		if !slices.Contains(names, name) {
			return fmt.Errorf("--port: %q is not one of %q", name, names)
		}
		if port < 0 || port > 65535 {
			return fmt.Errorf("--port: %s=%d is no port", name, port)
		}
	}
	return nil
}

// natsDir is where the embedded NATS server of a state directory stores.
func natsDir(st *state) string { return filepath.Join(st.dir, "nats") }
