package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/service"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Environment of a part.
const (
	partVariable = "CERTLOOP_CHAOS_PART" // what this process is
	fuseVariable = "CERTLOOP_CHAOS_FUSE" // the step at which it dies
)

// Parts that this binary plays.
const (
	workerPart = "worker" // the functions named by its arguments; all four when there are none
	brokerPart = "broker" // a NATS server; arguments: directory, address
	caPart     = "ca"     // the CA of package responder; arguments: directory, address
)

// play is the main function of a part. It says READY on standard output and ends by a signal.
func play(part string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	parts := map[string]func(context.Context, *slog.Logger, []string) error{workerPart: playWorker, brokerPart: playBroker, caPart: playCA}
	if err := parts[part](ctx, log, args); err != nil {
		log.ErrorContext(ctx, "ended", "err", err)
		return 1
	}
	return 0
}

func playBroker(ctx context.Context, _ *slog.Logger, args []string) error {
	host, port, err := net.SplitHostPort(args[1])
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{Host: host, Port: number, JetStream: true, StoreDir: args[0], NoSigs: true})
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(rig.Patience) {
		return errors.New("the NATS server does not start")
	}
	fmt.Println("READY", "url="+s.ClientURL())
	<-ctx.Done()
	return nil
}

func playCA(ctx context.Context, log *slog.Logger, args []string) error {
	ca, err := responder.Start(responder.Config{Dir: args[0], SharedSecrets: map[string]string{rig.Reference: rig.Secret}, Log: log}, args[1]) //nolint:contextcheck // it listens until Close
	if err != nil {
		return err
	}
	fmt.Println("READY", "url="+ca.URL)
	<-ctx.Done()
	return ca.Close() //nolint:contextcheck // it ends what listens, without asking anybody
}

// playWorker runs functions as the all-in-one does, without a source of events: the
// test is one. On standard output it tells every step it takes.
func playWorker(ctx context.Context, log *slog.Logger, names []string) error {
	config, err := service.FromEnvironment()
	if err != nil {
		return err
	}
	env, err := service.Connect(ctx, config, log)
	if err != nil {
		return err
	}
	defer env.Close()
	f := fuse(os.Getenv(fuseVariable))
	if err := f.watch(env.NATS); err != nil {
		return err
	}
	serving, ctx := errgroup.WithContext(ctx)
	ready := []string{"READY"}
	for _, function := range functions.All(func(s lifecycle.Step) { f.reached(stepName(s)) }) {
		if len(names) > 0 && !slices.Contains(names, function.Name) {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ready = append(ready, function.Name+"=http://"+l.Addr().String())
		serving.Go(func() error { return service.Run(ctx, env, l, f.around(function)) })
	}
	fmt.Println(strings.Join(ready, " "))
	return serving.Wait()
}

// stepName is the name by which a worker can be told to die after a step. Exchanges are
// told apart by what was asked.
func stepName(s lifecycle.Step) string {
	if s.Name != "exchange" {
		return s.Name
	}
	asked, _, _ := strings.Cut(s.Detail, " → ")
	return s.Name + " " + asked
}

// Moments besides the steps that lifecycle traces.
const (
	looked    = "look"    // an event has come, nothing is done yet
	handled   = "handle"  // all is done, the events that follow are not published yet
	published = "publish" // an event that follows is stored, the incoming one not acknowledged
)

// fuse is the moment at which a worker kills itself, or with freezes before it stops
// itself until somebody wakes it; none when empty.
type fuse string

const freezes fuse = "freeze at "

// reached burns the fuse when the moment is the one.
func (f fuse) reached(moment string) {
	fmt.Println("STEP", moment)
	if f == fuse(moment) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	if f == freezes+fuse(moment) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}

// watch looks for what is published.
func (f fuse) watch(conn *nats.Conn) error {
	if f != published {
		return nil
	}
	for _, fact := range []string{"certloop.evt.certificate.issued.>", "certloop.evt.certificate.renewed.>"} {
		if _, err := conn.Subscribe(fact, func(*nats.Msg) { f.reached(published) }); err != nil {
			return err
		}
	}
	return nil
}

// around is a function whose handlers pass the moments before and after. Only work on
// certificates counts.
func (f fuse) around(in service.Function) service.Function {
	wire := in.Wire
	in.Wire = func(env *service.Env) (delivery.Mux, error) {
		mux, err := wire(env)
		for eventType, route := range mux {
			inner := route.Handle
			route.Handle = func(ctx context.Context, e event.Event) ([]event.Event, error) {
				if obtains(in.Name) {
					f.reached(looked)
				}
				out, err := inner(ctx, e)
				if obtains(in.Name) && err == nil && len(out) > 0 {
					f.reached(handled)
				}
				return out, err
			}
			mux[eventType] = route
		}
		return mux, err
	}
	return in
}

func obtains(function string) bool { return function == "enroll" || function == "renew" }
