package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

const outage = 2 * time.Minute

// Check 7: the CA is away for two minutes. Nothing is lost, people are told the
// reason, and everything is caught up with when it returns, by itself.
func TestCADownForTwoMinutes(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("served"))
	w.WaitReady(t, rig.Patience, "served")
	before := w.Secret(t, rig.SecretName("served"))

	ca.Down()
	down := time.Now()
	names := []string{"first", "second", "third"}
	for _, name := range names {
		w.Apply(t, rig.EndEntity(name))
	}
	bus.Publish(t, model.Renew, w.Key("served"), rig.Event(t, model.RenewalRequested, w.Key("served"), "{reason: manual}"))

	for _, name := range names {
		waitAway(t, w, name)
	}
	for _, name := range names {
		if got := w.Kubectl(t, "", "get", "cmpc", name, "-o", "wide"); !away(got) || !strings.Contains(got, "False") || !strings.Contains(got, "connection refused") || !strings.Contains(got, "127.0.0.1") {
			t.Errorf("kubectl get cmpc does not tell the reason:\n%s", got)
		}
	}
	bus.WaitFact(t, rig.Patience, model.IssuerUnavailable, w.Key(rig.IssuerName))
	firstRetry(t, w)
	// What is in use stays in use, whatever becomes of its renewal.
	w.WaitReady(t, 0, "served")
	if err := holds(w.Secret(t, rig.SecretName("served")), before.Data); err != nil {
		t.Errorf("during the outage: %v", err)
	}

	time.Sleep(time.Until(down.Add(outage)))
	ca.Up(t)
	up := time.Now()
	w.WaitReady(t, 3*rig.Patience, names...)
	waitRevision(t, w, "served", 2)
	t.Logf("all there %.0f s after the CA's return", time.Since(up).Seconds())
	bus.WaitFact(t, rig.Patience, model.IssuerAvailable, w.Key(rig.IssuerName))
	for _, name := range append(names, "served") {
		rig.Pair(t, w.Secret(t, rig.SecretName(name)))
		if got := w.Certificate(t, name).Status; got.Attempts != 0 || got.NextAttempt != nil || got.ExtraIssuances != 0 {
			t.Errorf("%s afterwards: %d attempts, next %v, %d extra issuances; want none", name, got.Attempts, got.NextAttempt, got.ExtraIssuances)
		}
	}
	if got, want := len(ca.Issued()), 1+len(names)+2; got != want {
		t.Errorf("the CA issued %d certificates, want %d", got, want)
	}
}

// away tells whether a text has one of the reasons for which a certificate waits for a
// CA that is away: its own attempt failed, or those of others did and it made none.
func away(text string) bool {
	return strings.Contains(text, model.ReasonCAUnreachable) || strings.Contains(text, model.ReasonCircuitOpen)
}

func waitAway(t *testing.T, w *rig.World, name string) {
	t.Helper()
	w.WaitFor(t, rig.Patience, name, func(c *model.CMPCertificate) error {
		if ready := rig.Condition(c.Status.Conditions, model.Ready); ready.Status != metav1.ConditionFalse || !away(ready.Reason) {
			return fmt.Errorf("condition Ready is %q, reason %q: %s", ready.Status, ready.Reason, ready.Message)
		}
		return nil
	})
}

// firstRetry checks that the CA is tried again 30 s after its circuit has opened, by
// whichever certificate probes for all, and again after that.
func firstRetry(t *testing.T, w *rig.World) {
	t.Helper()
	circuit := func() *model.Circuit { return w.Issuer(t).Status.Circuit }
	var opened *model.Circuit
	rig.Eventually(t, rig.Patience, "the circuit opens", func() error {
		if opened = circuit(); opened == nil {
			return errors.New("it is closed")
		}
		return nil
	})
	if after := opened.NextProbe.Sub(opened.OpenedAt.Time); after < model.FirstRetry-2*time.Second || after > model.FirstRetry+2*time.Second {
		t.Errorf("the first probe is %s after the CA was lost, want %s", after, model.FirstRetry)
	}
	rig.Eventually(t, rig.Patience, "the CA is tried again", func() error {
		if now := circuit(); now == nil || now.Failures <= opened.Failures || !now.NextProbe.After(opened.NextProbe.Time) {
			return fmt.Errorf("the circuit is %+v", now)
		}
		return nil
	})
}

// The broker and the functions are away while the CA is: both come back.
func TestRestartDuringOutage(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	ca.Down()
	w.Apply(t, rig.EndEntity("web"))
	w.WaitReason(t, rig.Patience, "web", "CAUnreachable")
	attempts := w.Certificate(t, "web").Status.Attempts
	all.Kill(t)
	ca.Up(t)
	all.Restart(t)
	w.WaitReady(t, rig.Patience, "web")
	rig.Pair(t, w.Secret(t, rig.SecretName("web")))
	if attempts != 1 {
		t.Errorf("%d attempts before the restart, want 1", attempts)
	}
}
