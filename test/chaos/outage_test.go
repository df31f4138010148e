package chaos

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"

	"k8s.io/apimachinery/pkg/types"
)

// The CA is away while many certificates are asked for: connections to it are accepted
// and closed, which the gate counts. All are issued when it returns, and no event is
// given up.
func TestOutage(t *testing.T) {
	t.Parallel()
	p := build(t, scenario{ca: localCA, workers: alone(1)}, dice(t))
	var attempts atomic.Int64
	p.on(func(*exchange) {
		attempts.Add(1)
		panic(http.ErrAbortHandler)
	}, nil)
	p.note(caVictim)
	pending := max(10, int(*down/time.Second))
	var names []string
	for i := range pending {
		names = append(names, fmt.Sprintf("c%04d", i))
	}
	began := time.Now()
	p.declare(t, names...)
	p.tick(t, 10*time.Second, time.Minute)
	rig.Eventually(t, rig.Patience, "a failure is told", func() error {
		if n := len(p.bus.Facts(t, model.CertificateFailed, types.NamespacedName{})); n == 0 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	time.Sleep(time.Until(began.Add(*down)))
	asked := attempts.Load()
	p.on(nil, nil)
	back := time.Now()
	rig.Eventually(t, settleTime, "the first certificate after the CA's return", func() error {
		if p.delivered() < 2 { // the identity is one
			return fmt.Errorf("%d are there", p.delivered())
		}
		return nil
	})
	first := time.Since(back)
	p.WaitReady(t, 2*settleTime, names...)
	t.Logf("%d certificates pending while the CA was away for %s: it was asked %d times meanwhile; after its return the first was there after %.1f s, the last after %.1f s",
		pending, *down, asked, first.Seconds(), time.Since(back).Seconds())
	t.Log(p.oracle.judge(t, p))
}
