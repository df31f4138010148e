package chaos

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// interruptions are the steps after which a certificate is not finished.
var interruptions = []string{"claim", "exchange ir", "stage", "exchange certConf", "promote", "project", "report"}

// freezeAt starts a worker for each step that enrolls one certificate, and stops at the step.
func freezeAt(t *testing.T, p *plant, steps []string) (frozen []*part, names []string) {
	t.Helper()
	for i, step := range steps {
		w := p.worker(t, freezes+fuse(step), "enroll")
		names = append(names, fmt.Sprintf("c%d", i))
		p.declare(t, names[i])
		rig.Eventually(t, rig.Patience, "the worker stops at "+step, func() error {
			if !w.frozen(t) {
				return errors.New("it runs")
			}
			return nil
		})
		p.note(workerVictim)
		frozen = append(frozen, w)
	}
	return frozen, names
}

// Workers are frozen at every step, past their lease. Others finish what they had begun
// and renew it. When they wake up they overwrite nothing.
func TestFrozenHolder(t *testing.T) {
	t.Parallel()
	p := build(t, scenario{ca: localCA, workers: alone(1), single: true}, dice(t))
	p.workers[0].Kill(t)
	frozen, names := freezeAt(t, p, interruptions)
	p.workers[0].start(t)
	p.WaitReady(t, 2*rig.Patience, names...)
	for _, name := range names {
		p.renew(t, name)
		waitRevision(t, p, name, 2)
	}
	outputs := map[string]string{}
	for _, name := range names {
		outputs[name] = p.Secret(t, rig.SecretName(name)).ResourceVersion
	}
	for i, w := range frozen {
		settled := strings.Count(readLog(t, w), `"msg":"event"`)
		p.note(workerVictim) // it may send its request again
		w.send(t, syscall.SIGCONT)
		rig.Eventually(t, rig.Patience, "the worker that woke up at "+interruptions[i]+" is done", func() error {
			if strings.Count(readLog(t, w), `"msg":"event"`) == settled {
				return errors.New("it has not settled its event")
			}
			return nil
		})
	}
	v := p.oracle.judge(t, p)
	for i, name := range names {
		if got := p.Secret(t, rig.SecretName(name)).ResourceVersion; got != outputs[name] {
			t.Errorf("the worker that woke up at %s wrote the output: version %s, want %s as its successor left it", interruptions[i], got, outputs[name])
		}
	}
	if v.transactions != v.issuances {
		t.Errorf("%d transactions for %d issuances", v.transactions, v.issuances)
	}
	t.Log(v)
}

func waitRevision(t *testing.T, p *plant, name string, want int64) {
	t.Helper()
	p.WaitFor(t, 2*rig.Patience, name, func(c *model.CMPCertificate) error {
		if c.Status.Revision < want {
			return fmt.Errorf("revision %d, want %d", c.Status.Revision, want)
		}
		return nil
	})
}

// takeover is the longest time from the last sign of life of a worker until another has
// issued and delivered its certificate. It is generous: the figures are what counts.
const takeover = 20 * time.Second

// A worker dies at every step, another one finishes its work. Printed is the time from the
// last sign of life to the certificate, the start of the other worker included.
func TestReplacement(t *testing.T) {
	p := build(t, scenario{ca: localCA, workers: alone(1), single: true}, dice(t))
	p.workers[0].Kill(t)
	var took []time.Duration
	for i, step := range interruptions {
		name := fmt.Sprintf("c%d", i)
		w := p.worker(t, fuse(step))
		p.declare(t, name)
		<-w.Ended()
		last := time.Now()
		p.note(workerVictim)
		p.workers[0].start(t)
		p.WaitReady(t, 2*rig.Patience, name)
		took = append(took, time.Since(last))
		t.Logf("%-20s replaced after %4.1f s", step, took[i].Seconds())
		p.oracle.idle(t, p, []string{name})
		p.workers[0].Kill(t)
	}
	p.workers[0].start(t)
	t.Log(p.oracle.judge(t, p))
	if worst := slices.Max(took); worst > takeover {
		t.Errorf("it took up to %s to replace a worker, want at most %s", worst, takeover)
	}
}

// A worker that lives for a second at a time gets on with its work in every life.
func TestKilledEverySecond(t *testing.T) {
	t.Parallel()
	const life = time.Second
	p := build(t, scenario{ca: mortalCA, workers: alone(1)}, dice(t))
	lives := max(10, *kills/5)
	var names []string
	for i := range 10 * lives {
		names = append(names, fmt.Sprintf("c%04d", i))
	}
	p.declare(t, names...)
	var finished []int
	before := p.delivered()
	for before < len(names) && len(finished) < lives {
		born := p.delivered()
		time.Sleep(life)
		// On a machine that does much else a second may be over before the worker has begun.
		for deadline := time.Now().Add(rig.Patience); p.delivered() == born && time.Now().Before(deadline); {
			time.Sleep(life / 20)
		}
		p.note(workerVictim)
		p.workers[0].Kill(t)
		now := p.delivered()
		finished = append(finished, now-before)
		before = now
		p.workers[0].start(t)
	}
	t.Logf("%d lives of %s finished %d certificates, the worst life %d", len(finished), life, before, slices.Min(finished))
	t.Log(p.oracle.judge(t, p))
	if before < len(finished) {
		t.Errorf("%d lives finished %d certificates, want at least one for each", len(finished), before)
	}
}

// delivered is how many outputs there were.
func (p *plant) delivered() int {
	p.oracle.mu.Lock()
	defer p.oracle.mu.Unlock()
	return len(p.oracle.newest)
}

func readLog(t *testing.T, w *part) string {
	t.Helper()
	text, err := os.ReadFile(w.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
