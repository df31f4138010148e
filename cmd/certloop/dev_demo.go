package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/service"
)

// demo is a demonstration: its parts, from the API server up, and what was seen so far.
type demo struct {
	options devOptions
	root    string // of the source; empty when there is none
	state   *state
	log     *slog.Logger
	show    *display

	kubeconfig string
	api        *apiServer // nil when a cluster was given
	cfg        *rest.Config
	client     dynamic.Interface
	store      *ledger.Store
	ca         *responder.Running
	secret     string // that authenticates the first request to the CA
	system     *running
	facts      *facts
	stops      []func() error // end the parts, in the order of their start
	fail       context.CancelCauseFunc

	mu    sync.Mutex
	asked map[string][]string // by certificate: the exchanges with the CA
}

// scene is a part of the demonstration.
type scene struct {
	title string
	steps []step
}

// step is one thing to do or to see, and how long it may take.
type step struct {
	name   string
	doing  string // what is awaited meanwhile
	within time.Duration
	run    func(context.Context) (seen string, err error)
}

// errInterrupted ends a demonstration whose user has seen enough.
var errInterrupted = errors.New("interrupted")

// run shows everything, and keeps it running until ctx ends unless once is asked for.
func (d *demo) run(ctx context.Context) error {
	parts, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	defer context.AfterFunc(ctx, func() { fail(errInterrupted) })()
	d.fail, d.asked = fail, map[string][]string{}
	d.show.plain("State is kept in " + d.state.dir)
	err := d.perform(parts)
	if errors.Is(err, errInterrupted) {
		d.show.plain("\nEnding: what is under way is finished first.")
		if !d.options.once {
			err = nil
		}
	}
	return errors.Join(err, d.stop())
}

// perform returns when the demonstration is over, or a part of it has failed.
func (d *demo) perform(ctx context.Context) error {
	if err := d.play(ctx, d.parts()); err != nil {
		return d.remedy(err)
	}
	for _, s := range d.tour() {
		if err := d.play(ctx, s); err != nil {
			return err
		}
	}
	if err := d.epilogue(ctx); err != nil || d.options.once {
		return err
	}
	d.show.plain("\nEverything keeps running. Ctrl-C ends it; the next start continues from here.\n")
	<-ctx.Done()
	return context.Cause(ctx)
}

// remedy adds what to do about parts that do not start on what was kept.
func (d *demo) remedy(err error) error {
	if _, misuse := errors.AsType[*usageError](err); misuse || errors.Is(err, errInterrupted) {
		return err
	}
	return fmt.Errorf("%w: if what is kept is damaged, remove %s and start again", err, d.state.dir)
}

// stop ends what was started, the last part first.
func (d *demo) stop() (err error) {
	for _, stop := range slices.Backward(d.stops) {
		err = errors.Join(err, stop())
	}
	return err
}

func (d *demo) atEnd(stop func() error) { d.stops = append(d.stops, stop) }

func (d *demo) play(ctx context.Context, s scene) error {
	d.show.title(s.title)
	for _, s := range s.steps {
		seen, err := d.take(ctx, s)
		switch {
		case errors.Is(err, errInterrupted):
			return err
		case err != nil:
			d.show.failed(s.name, err.Error())
			return fmt.Errorf("%s: %w", s.name, err)
		}
		d.show.done(s.name, seen)
	}
	return nil
}

// take runs a step within its time.
func (d *demo) take(ctx context.Context, s step) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.within, fmt.Errorf("not within %s", s.within))
	defer cancel()
	stop := d.show.await(func() string { return s.doing })
	defer stop()
	seen, err := s.run(ctx)
	return seen, explainEnd(ctx, err)
}

// explainEnd makes the error of a step that was cut short say by what, and what was
// last seen.
func explainEnd(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil {
		return err
	}
	if v, ok := errors.AsType[*inVain](err); ok {
		return fmt.Errorf("%w: %s", cause, v.last)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return cause
	}
	return err
}

// parts starts everything, from the API server up.
func (d *demo) parts() scene {
	s := scene{title: "Starting the parts"}
	if d.options.embedded {
		s.steps = append(s.steps,
			step{"program", "looking for the API server", time.Hour, d.findAPIServer},
			step{"Kubernetes", "kube-apiserver is starting", 3 * time.Minute, d.startAPIServer})
	}
	s.steps = append(s.steps,
		step{"cluster", "asking the API server for its version", time.Minute, d.connect},
		step{"resources", "the custom resources are being established", time.Minute, d.applyResources},
		step{"CA", "the CA is starting", 10 * time.Second, d.startCA},
		step{"functions", "NATS and the functions are starting", 2 * time.Minute, d.startSystem})
	return s
}

func (d *demo) findAPIServer(ctx context.Context) (string, error) {
	path, err := apiServerProgram(d.options.program, d.root)
	if err != nil {
		return "", err
	}
	d.options.program = path
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	d.show.act("program", "building "+path+", the first time only: about five minutes on two cores")
	b := &build{root: d.root, began: time.Now()}
	stop := d.show.await(b.progress)
	err = b.run(ctx)
	stop()
	return fmt.Sprintf("%s, built in %s", path, time.Since(b.began).Round(time.Second)), err
}

func (d *demo) startAPIServer(ctx context.Context) (seen string, err error) {
	began := time.Now()
	if d.api, err = startAPIServer(ctx, d.options.program, d.state.path("kubeapi")); err != nil {
		return "", err
	}
	stopping := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-d.api.ended:
			d.fail(fmt.Errorf("the Kubernetes API server has ended: %w", d.api.why()))
		case <-stopping:
		}
	})
	d.atEnd(func() error { close(stopping); watch.Wait(); d.api.stop(); return nil })
	d.kubeconfig = d.api.kubeconfig
	return fmt.Sprintf("a real kube-apiserver, ready after %.1f s", time.Since(began).Seconds()), nil
}

// connect makes the clients, and looks whether the cluster answers.
func (d *demo) connect(ctx context.Context) (string, error) {
	if d.kubeconfig == "" {
		d.kubeconfig = d.options.kubeconfig
	}
	c := cluster{kubeconfig: d.kubeconfig}
	var err error
	if d.cfg, err = c.config(); err != nil {
		return "", err
	}
	if d.client, err = dynamic.NewForConfig(d.cfg); err != nil {
		return "", err
	}
	if d.store, err = ledger.Open(d.cfg); err != nil {
		return "", err
	}
	version, err := serverVersion(ctx, d.cfg)
	if err != nil {
		return "", fmt.Errorf("%s: %w", d.cfg.Host, err)
	}
	return d.cfg.Host + ", Kubernetes " + version, nil
}

func (d *demo) applyResources(ctx context.Context) (string, error) {
	names, err := applyCRDs(ctx, d.client)
	return fmt.Sprintf("%d custom resource definitions are established", len(names)), err
}

// Names of the demonstration's CA.
const (
	demoCAName    = "certloop demo CA"
	demoReference = "demo"
)

// startCA starts the CA, where it was the last time if possible.
func (d *demo) startCA(ctx context.Context) (string, error) {
	dir := d.state.path("ca")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var err error
	if d.secret, err = keptSecret(filepath.Join(dir, "bootstrap-secret")); err != nil {
		return "", err
	}
	port := filepath.Join(dir, "port")
	config := responder.Config{
		Name: demoCAName, Dir: dir, Log: d.log.With("part", "ca"),
		SharedSecrets: map[string]string{demoReference: d.secret},
	}
	d.ca, err = responder.Start(config, fmt.Sprintf("%s:%d", loopback, lastPort(ctx, port))) //nolint:contextcheck // it listens until Close
	if err != nil {
		return "", err
	}
	d.atEnd(d.ca.Close)
	return d.ca.URL + ", signs as " + demoCAName, notePort(port, strings.TrimPrefix(strings.TrimSuffix(d.ca.URL, "/.well-known/cmp"), "http://"))
}

// keptSecret is the secret in a file, made up when there is none yet.
func keptSecret(path string) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // in our own state directory
	if err == nil && len(text) > 0 {
		return string(text), nil
	}
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	text = []byte(hex.EncodeToString(secret))
	return string(text), os.WriteFile(path, text, 0o600)
}

// Intervals of the demonstration, shorter than in earnest.
const (
	demoScan  = 2 * time.Second
	demoSweep = time.Minute
)

// startSystem starts NATS, the functions and the sources, and returns when all work.
func (d *demo) startSystem(ctx context.Context) (string, error) {
	s := &system{
		config: service.Config{
			Consume: true, Concurrency: 16, HandlerTimeout: 2 * time.Minute, DrainTimeout: 20 * time.Second,
			Kubeconfig: d.kubeconfig, Cluster: "demo", Namespace: "certloop-system",
		},
		natsDir: natsDir(d.state), host: loopback, scan: demoScan, sweep: demoSweep, log: d.log, trace: d.trace,
	}
	if !d.options.embedded {
		s.config.Namespaces = []string{d.options.namespace} // the rest of the cluster is not ours
	}
	if s.config.Kubeconfig == "" {
		s.config.Kubeconfig = os.Getenv("KUBECONFIG")
	}
	if err := d.runSystem(ctx, s); err != nil {
		return "", err
	}
	d.show.detail("NATS", d.system.NATS.ConnectedUrlRedacted()+", with JetStream")
	for _, f := range d.system.functions {
		d.show.detail(f.name, f.url)
	}
	var stop func()
	var err error
	d.facts, stop, err = followFacts(context.WithoutCancel(ctx), d.system.js, d.tell)
	if err != nil {
		return "", err
	}
	d.atEnd(func() error { stop(); return nil })
	return "enroll, renew, watch-secrets and expiry-scan consume from JetStream", nil
}

// runSystem runs s until the demonstration ends, and returns when it is ready.
func (d *demo) runSystem(ctx context.Context, s *system) error {
	life, drain := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan *running, 1), make(chan struct{})
	var err error // once ended is closed
	go func() {
		defer close(ended)
		err = s.run(life, func(r *running) { ready <- r })
		if life.Err() == nil {
			d.fail(fmt.Errorf("the functions have ended: %w", err))
		}
	}()
	d.atEnd(func() error { drain(); <-ended; return err })
	select {
	case d.system = <-ready:
		return nil
	case <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
