package bench

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// installation is a certloop with an identity, ready to be given work.
type installation struct {
	world   *rig.World
	all     *rig.AllInOne
	bus     *rig.Bus
	outputs *rig.Outputs
}

func install(b *testing.B, ca *rig.Responder) installation {
	b.Helper()
	w := rig.NewWorld(b)
	// As in production, not as in tests.
	all := rig.StartAll(b, w, "--scan-interval", "1m", "--sweep-interval", "15m")
	i := installation{w, all, all.Bus(b), w.WatchOutputs(b)}
	w.Settle(b, ca.CA)
	return i
}

// order publishes the configurations of n certificates, one every interval, and
// waits for their Secrets. It returns how long each took, shortest first.
func (i installation) order(b *testing.B, prefix string, n int, interval time.Duration) []time.Duration {
	b.Helper()
	asked := make(map[string]time.Time, n)
	next := time.Now()
	for k := range n {
		name := fmt.Sprintf("%s-%04d", prefix, k)
		time.Sleep(time.Until(next))
		next = next.Add(interval)
		asked[rig.SecretName(name)] = time.Now()
		i.bus.Publish(b, model.Enroll, i.world.Key(name), rig.Event(b, model.ConfigCreated, i.world.Key(name), rig.EndEntity(name)))
	}
	var took []time.Duration
	rig.Eventually(b, 30*time.Minute, "all Secrets are there", func() error {
		took = took[:0]
		for name, seen := range i.outputs.Seen() {
			if began, ours := asked[name]; ours {
				took = append(took, seen.Sub(began))
			}
		}
		if len(took) < n {
			return fmt.Errorf("%d of %d", len(took), n)
		}
		return nil
	})
	slices.Sort(took)
	return took
}

func report(b *testing.B, took []time.Duration) {
	b.Helper()
	milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(took[len(took)/2]), "p50-ms")
	b.ReportMetric(milliseconds(took[len(took)*99/100]), "p99-ms")
}

// From the event to the Secret, over JetStream, the CA and the API server: 200
// certificates asked for one after the other, and 200 at once. API server, CA and
// this benchmark share the processors.
func BenchmarkEventToSecret(b *testing.B) {
	loads := []struct {
		name     string
		interval time.Duration
	}{{"every 200ms", 200 * time.Millisecond}, {"at once", 0}}
	for _, load := range loads {
		b.Run(load.name, func(b *testing.B) {
			i := install(b, rig.StartResponder(b, responder.Config{}))
			for b.Loop() {
				began, used := time.Now(), i.all.CPU(b)
				took := i.order(b, fmt.Sprint("c", b.N), 200, load.interval)
				report(b, took)
				b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "certificates/s")
				b.ReportMetric((i.all.CPU(b)-used).Seconds()*1000/float64(len(took)), "certloop-CPU-ms")
			}
		})
	}
}

// Resident memory of the all-in-one, its broker included: idle, after 1,000
// certificates, and how much each one costs.
func BenchmarkResidentMemory(b *testing.B) {
	const certificates, batch = 1000, 100
	const mebibyte = 1 << 20
	for b.Loop() {
		i := install(b, rig.StartResponder(b, responder.Config{}))
		settle()
		idle := i.all.ResidentBytes(b)
		for k := range certificates / batch {
			i.order(b, fmt.Sprint("batch", k), batch, 0)
		}
		settle()
		after := i.all.ResidentBytes(b)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(idle)/mebibyte, "idle-MiB")
		b.ReportMetric(float64(after)/mebibyte, "after-1000-MiB")
		b.ReportMetric(float64(after-idle)/certificates, "B/certificate")
	}
}

// settle waits until what was allocated for the work done has been given back.
func settle() { time.Sleep(15 * time.Second) }

// Sizes of the binaries.
func BenchmarkBinarySize(b *testing.B) {
	for _, name := range []string{"certloop", "enroll", "renew", "watch-secrets", "expiry-scan"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				info, err := os.Stat(rig.Binary(b, name))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(info.Size())/(1<<20), "MiB")
			}
		})
	}
}
