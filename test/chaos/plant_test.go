package chaos

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/freeport"
)

// scenario is a plant to be built.
type scenario struct {
	ca      func(testing.TB) *authority
	workers [][]string    // the functions of each worker; nil is all of them
	hold    time.Duration // the longest time by which the CA's answers are held back
	single  bool          // each function of a worker handles one event at a time
}

// alone are workers that each run all functions.
func alone(n int) [][]string { return make([][]string, n) }

// apart is a worker for each function.
func apart() [][]string { return [][]string{{"enroll"}, {"renew"}, {"watch-secrets"}, {"expiry-scan"}} }

// Names of victims.
const (
	workerVictim = "worker"
	brokerVictim = "NATS"
	apiVictim    = "API server"
	caVictim     = "CA"
)

// kill is a process that was ended by SIGKILL, or frozen.
type kill struct {
	at     time.Time
	victim string
	asking int // requests for a certificate that were with the CA
}

// plant is everything that certloop needs, each part in a process of its own.
type plant struct {
	*rig.World
	*gate
	bus    *rig.Bus
	oracle *oracle

	ca      *authority
	broker  *part
	workers []*part
	env     []string // of workers
	hays    []string // directories that may hold no key
	quiet   func()   // ends the ticks

	out   *delivery.Bus
	mu    sync.Mutex
	kills []kill
}

// part is a process that can be started again with the same arguments.
type part struct {
	rig.Command
	*rig.Process
}

func (p *part) start(tb testing.TB) {
	tb.Helper()
	p.Process = rig.Start(tb, p.Command)
}

// self is this binary playing a part.
func self(tb testing.TB, kind string, env []string, args ...string) *part {
	tb.Helper()
	path, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	env = append(slices.Clone(env), partVariable+"="+kind)
	return &part{Command: rig.Command{Name: kind, Path: path, Args: args, Logs: tb.TempDir(), Env: env}}
}

// build starts a plant with an identity that is ready to sign requests.
func build(t *testing.T, s scenario, chance *rand.Rand) *plant {
	t.Helper()
	// Without a cache of Secrets a watch that was interrupted sees every version again.
	p := &plant{quiet: func() {}, World: rig.NewWorldOfItsOwn(t, "--watch-cache-sizes=secrets#0")}
	p.oracle = observe(t, p)
	p.broker = self(t, brokerPart, nil, t.TempDir(), freeport.Address(t))
	p.broker.start(t)
	p.bus = rig.OpenBus(t, p.broker.Ready["url"])
	p.bus.ApplyStreams(t)
	p.out = publisher(t, p.broker.Ready["url"])
	p.ca = s.ca(t)
	p.gate = openGate(t, p.ca.CA, holding(s.hold, chance))
	p.env = []string{"NATS_URL=" + p.broker.Ready["url"], "KUBECONFIG=" + p.Cluster.Kubeconfig(), "CERTLOOP_NAMESPACES=" + p.Namespace}
	if s.single {
		p.env = append(p.env, "CERTLOOP_CONCURRENCY=1")
	}
	p.hays = []string{p.broker.Args[0], p.broker.Logs}
	for _, functions := range s.workers {
		p.workers = append(p.workers, p.worker(t, "", functions...))
	}
	p.settle(t)
	return p
}

// settle declares the CA and the identity that signs requests to it, and waits until it is
// there.
func (p *plant) settle(t *testing.T) {
	t.Helper()
	p.Bootstrap(t, p.CA)
	p.publish(t, rig.Event(t, model.IssuerCreated, p.Key(rig.IssuerName), rig.Issuer(p.CA)))
	p.oracle.wants(rig.IdentityName)
	p.publish(t, rig.Event(t, model.ConfigCreated, p.Key(rig.IdentityName), rig.Identity()))
	p.WaitReady(t, rig.Patience, rig.IdentityName)
}

// holding is a random time up to most.
func holding(most time.Duration, chance *rand.Rand) func() time.Duration {
	var mu sync.Mutex
	own := rand.New(rand.NewPCG(chance.Uint64(), 0))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return upTo(own, most+1)
	}
}

// worker starts one more worker, which dies or freezes as the fuse says.
func (p *plant) worker(tb testing.TB, f fuse, functions ...string) *part {
	tb.Helper()
	w := self(tb, workerPart, append(slices.Clone(p.env), fuseVariable+"="+string(f)), functions...)
	w.start(tb)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hays = append(p.hays, w.Logs)
	return w
}

// authority is a CA with its ledger.
type authority struct {
	rig.CA

	part   *part                                // nil when it is not in a process of its own
	issued func(testing.TB) []*x509.Certificate // the ledger; may end the CA
	wait   func(polls int)                      // makes it answer "waiting" to new requests; nil when it cannot
}

// opensslCA issues another certificate when a request is repeated: what a crash costs is
// seen in its ledger.
func opensslCA(tb testing.TB) *authority {
	tb.Helper()
	ca := rig.StartOpenSSL(tb)
	return &authority{CA: ca.CA, issued: ca.Issued}
}

// localCA is in the test itself: it never dies, and can be made to wait.
func localCA(tb testing.TB) *authority {
	tb.Helper()
	ca := rig.StartResponder(tb, responder.Config{})
	return &authority{CA: ca.CA, issued: func(tb testing.TB) []*x509.Certificate { return ledgerOf(tb, ca.Server) }, wait: func(polls int) { ca.Wait(polls, time.Second) }}
}

// mortalCA is in a process of its own and keeps its transactions in a directory.
func mortalCA(tb testing.TB) *authority {
	tb.Helper()
	dir := tb.TempDir()
	p := self(tb, caPart, nil, dir, freeport.Address(tb))
	p.start(tb)
	roots, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{CA: rig.CA{URL: p.Ready["url"], Roots: roots}, part: p, issued: func(tb testing.TB) []*x509.Certificate {
		p.Kill(tb) // one process at a time may use the directory
		ca, err := responder.New(responder.Config{Dir: dir, SharedSecrets: map[string]string{rig.Reference: rig.Secret}})
		if err != nil {
			tb.Fatal(err)
		}
		return ledgerOf(tb, ca)
	}}
}

func ledgerOf(tb testing.TB, ca *responder.Server) (all []*x509.Certificate) {
	tb.Helper()
	for _, i := range ca.Issued() {
		c, err := x509.ParseCertificate(i.Certificate)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// publisher publishes as the functions do, over a connection of its own.
func publisher(tb testing.TB, url string) *delivery.Bus {
	tb.Helper()
	conn, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	bus, err := delivery.NewBus(conn, "/pipelines/chaos")
	if err != nil {
		tb.Fatal(err)
	}
	return bus
}

// publish returns when an event is stored, through ends of the broker.
func (p *plant) publish(tb testing.TB, e event.Event) {
	tb.Helper()
	rig.Eventually(tb, rig.Patience, "publishing "+e.Type(), func() error { return p.out.Publish(tb.Context(), e) })
}

// declare asks for certificates, by event.
func (p *plant) declare(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		p.oracle.wants(name)
		p.publish(tb, rig.Event(tb, model.ConfigCreated, p.Key(name), rig.EndEntity(name)))
	}
}

// renew asks for the renewal of a certificate that is there.
func (p *plant) renew(tb testing.TB, name string) {
	tb.Helper()
	p.oracle.wants(name)
	p.publish(tb, rig.Event(tb, model.RenewalRequested, p.Key(name), "{reason: manual}"))
}

// tick sends the ticks of the two sources until quiet is called.
func (p *plant) tick(tb testing.TB, scan, sweep time.Duration) {
	tb.Helper()
	done := make(chan struct{})
	var ticking sync.WaitGroup
	for what, every := range map[string]time.Duration{"expiry": scan, "sweep": sweep} {
		ticking.Go(func() {
			clock := time.NewTicker(every)
			defer clock.Stop()
			for {
				select {
				case <-clock.C:
					// A tick that is lost is made up for by the next.
					_ = p.out.Publish(tb.Context(), model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": what}))
				case <-done:
					return
				}
			}
		})
	}
	p.quiet = sync.OnceFunc(func() { close(done); ticking.Wait() })
	tb.Cleanup(p.quiet)
}

// note writes down a kill before it happens.
func (p *plant) note(victim string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kills = append(p.kills, kill{time.Now(), victim, p.asking()})
}

// noted are the kills so far.
func (p *plant) noted() []kill {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]kill(nil), p.kills...)
}

// strike kills a victim, leaves it dead for a while, and starts it again.
func (p *plant) strike(tb testing.TB, victim string, chance *rand.Rand) {
	tb.Helper()
	rest := upTo(chance, 300*time.Millisecond)
	p.note(victim)
	if victim == apiVictim {
		p.Cluster.Stop(tb)
		time.Sleep(rest)
		p.Cluster.Restart(tb)
		return
	}
	dead := p.broker
	switch victim {
	case workerVictim:
		dead = p.workers[chance.IntN(len(p.workers))]
	case caVictim:
		dead = p.ca.part
	}
	dead.Kill(tb)
	time.Sleep(rest)
	dead.start(tb)
}

// send sends a signal to a process that lives.
func (p *part) send(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := syscall.Kill(p.PID(), s); err != nil {
		tb.Fatal(err)
	}
}

// frozen tells whether a process was stopped by a signal.
func (p *part) frozen(tb testing.TB) bool {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		tb.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(fields, "T")
}
