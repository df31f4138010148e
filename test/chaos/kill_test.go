package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certloop/certloop/test/e2e/rig"
)

// odds are how often each victim is chosen, of a hundred.
var odds = []struct {
	victim string
	of100  int
}{{workerVictim, 70}, {brokerVictim, 14}, {apiVictim, 6}, {caVictim, 10}}

func choose(chance *rand.Rand, p *plant) string {
	n := chance.IntN(100)
	for _, o := range odds {
		if n -= o.of100; n < 0 && (o.victim != caVictim || p.ca.part != nil) {
			return o.victim
		}
	}
	return workerVictim
}

// Functions, NATS, the API server and the CA are killed at random moments while
// certificates are enrolled, renewed and put back.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	const hold = 100 * time.Millisecond
	scenarios := []struct {
		name  string
		share int // of the kills, in a hundred
		long  bool
		scenario
	}{
		{"one worker, OpenSSL", 40, false, scenario{ca: opensslCA, workers: alone(1), hold: hold, single: true}},
		{"two workers", 20, false, scenario{ca: mortalCA, workers: alone(2), hold: hold}},
		{"five workers", 20, true, scenario{ca: mortalCA, workers: alone(5), hold: hold}},
		{"a process for each function", 20, true, scenario{ca: mortalCA, workers: apart(), hold: hold}},
	}
	for _, s := range scenarios {
		if s.long && *kills < 100 {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			chance := dice(t)
			p := build(t, s.scenario, chance)
			killAtRandom(t, p, chance, max(1, *kills*s.share/100))
			t.Log(p.oracle.judge(t, p))
		})
	}
}

func killAtRandom(t *testing.T, p *plant, chance *rand.Rand, n int) {
	t.Helper()
	p.tick(t, 2*time.Second, 20*time.Second)
	var fresh []string
	for i := range n {
		fresh = append(fresh, fmt.Sprintf("c%04d-a", i), fmt.Sprintf("c%04d-b", i))
		p.declare(t, fresh[len(fresh)-2:]...)
		fresh = p.disturb(t, chance, fresh)
		time.Sleep(upTo(chance, 700*time.Millisecond))
		p.strike(t, choose(chance, p), chance)
	}
}

// disturb renews one of the certificates, if it is there, and spoils or deletes the
// output of another. It returns those that were not renewed.
func (p *plant) disturb(t *testing.T, chance *rand.Rand, fresh []string) []string {
	t.Helper()
	i := chance.IntN(len(fresh))
	if name := fresh[i]; p.there(t, name) {
		p.renew(t, name)
		fresh = slices.Delete(fresh, i, i+1)
	}
	if name := fresh[chance.IntN(len(fresh))]; p.there(t, name) {
		p.spoil(t, chance, name)
	}
	return fresh
}

// there tells whether a certificate was issued and delivered.
func (p *plant) there(t *testing.T, name string) bool {
	t.Helper()
	return p.Secret(t, rig.SecretName(name)) != nil && p.Certificate(t, name).Status.Revision > 0
}

// spoil changes an output without making a pair that does not match, which the oracle
// would hold against certloop. The sweep finds it.
func (p *plant) spoil(t *testing.T, chance *rand.Rand, name string) {
	t.Helper()
	if chance.IntN(2) == 0 {
		p.Delete(t, "Secret", rig.SecretName(name))
		return
	}
	p.Overwrite(t, rig.SecretName(name), "ca.crt", []byte("rubbish"))
}

// A worker dies at every step that it takes, and at the two moments of an exchange that
// only the CA's side sees.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, ca := range map[string]func(testing.TB) *authority{"responder": localCA, "OpenSSL": opensslCA} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := build(t, scenario{ca: ca, workers: alone(1), single: true}, dice(t))
			l := &lives{plant: p}
			steps := l.steps(t)
			for _, step := range steps {
				for range *each {
					l.dieAt(t, step)
				}
			}
			p.workers[0].start(t)
			t.Logf("%d kills at each of %d steps: %s", *each, len(steps), strings.Join(steps, ", "))
			t.Log(p.oracle.judge(t, p))
		})
	}
}

// lives are workers that live one after the other. Each gets a new certificate to enroll
// and one to renew; where the CA can, it makes them wait.
type lives struct {
	*plant
	n      int
	issued []string // and not renewed
}

// work gives a life something to do.
func (l *lives) work(t *testing.T) {
	t.Helper()
	name := fmt.Sprintf("c%04d", l.n)
	l.n++
	l.declare(t, name)
	for i, old := range l.issued {
		if l.there(t, old) {
			l.renew(t, old)
			l.issued = slices.Delete(l.issued, i, i+1)
			break
		}
	}
	l.issued = append(l.issued, name)
}

// atRenewal is the step that nobody comes to who has nothing to renew.
const atRenewal = "exchange kur"

// waitForOld waits until there is a certificate that can be renewed. A worker that has died meanwhile found one: a
// renewal that a former life left behind.
func (l *lives) waitForOld(t *testing.T, w *part) {
	t.Helper()
	rig.Eventually(t, rig.Patience, "a certificate to renew", func() error {
		select {
		case <-w.Ended():
			return nil
		default:
		}
		if !slices.ContainsFunc(l.issued, func(name string) bool { return l.there(t, name) }) {
			return fmt.Errorf("none of %q is there", l.issued)
		}
		return nil
	})
}

// Moments that only the gate sees.
const (
	atRequest = "request on its way" // the CA never sees it
	atAnswer  = "answer on its way"  // the CA has issued, and nobody knows
)

// steps are all that are taken in the lives of certificates that nobody disturbs.
func (l *lives) steps(t *testing.T) []string {
	t.Helper()
	if l.ca.wait != nil {
		l.ca.wait(2)
	}
	for range 3 {
		l.work(t)
		l.WaitReady(t, rig.Patience, l.oracle.names()...)
	}
	l.oracle.idle(t, l.plant, l.oracle.names())
	l.workers[0].Kill(t)
	steps := []string{atRequest, atAnswer, published}
	for line := range strings.Lines(readLog(t, l.workers[0])) {
		if step, ok := strings.CutPrefix(strings.TrimSpace(line), "STEP "); ok && !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	for _, sure := range []string{"claim", "exchange ir", "exchange kur", "stage", "promote", "project", "report", looked, handled} {
		if !slices.Contains(steps, sure) {
			t.Errorf("nobody takes the step %q any more: got %q", sure, steps)
		}
	}
	return steps
}

// dieAt starts a worker, gives it work and waits until it is dead.
func (l *lives) dieAt(t *testing.T, step string) {
	t.Helper()
	f := fuse(step)
	if step == atRequest || step == atAnswer {
		f = ""
	}
	w := l.worker(t, f)
	var once sync.Once
	murder := func(e *exchange) {
		if e.asks() {
			once.Do(func() { l.note(workerVictim); w.send(t, syscall.SIGKILL) })
		}
	}
	switch step {
	case atRequest:
		l.on(func(e *exchange) { murder(e); panic(http.ErrAbortHandler) }, nil)
	case atAnswer:
		l.on(nil, murder)
	}
	if step == atRenewal {
		l.waitForOld(t, w)
	}
	l.work(t)
	select {
	case <-w.Ended():
	case <-time.After(rig.Patience):
		t.Fatalf("the worker did not come to %q", step)
	}
	l.on(nil, nil)
	if f != "" {
		l.note(workerVictim)
	}
	if err := w.Wait(); !killed(err) {
		t.Errorf("at %q the worker ended with %v, want SIGKILL", step, err)
	}
}

func killed(err error) bool {
	var exit interface{ ExitCode() int }
	return errors.As(err, &exit) && exit.ExitCode() == -1
}
