package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
		w.WaitReason(t, rig.Patience, name, "CAUnreachable")
	}
	wide := w.Kubectl(t, "", "get", "cmpc", "-o", "wide")
	for _, want := range []string{"CAUnreachable", "connection refused", "127.0.0.1"} {
		if !strings.Contains(wide, want) {
			t.Errorf("kubectl get cmpc -o wide does not say %q:\n%s", want, wide)
		}
	}
	if got := w.Kubectl(t, "", "get", "cmpc", "first"); !strings.Contains(got, "False") || !strings.Contains(got, "CAUnreachable") {
		t.Errorf("kubectl get cmpc does not tell the reason:\n%s", got)
	}
	for _, name := range append(names, "served") {
		firstRetry(t, w, bus, name)
	}
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

// firstRetry checks that the second attempt was announced for 30 s after the first
// one and came then, a tenth of that being spread.
func firstRetry(t *testing.T, w *rig.World, bus *rig.Bus, name string) {
	t.Helper()
	var first, second time.Time
	var announced model.AttemptFact
	rig.Eventually(t, rig.Patience, name+" is tried again", func() error {
		failed := bus.Facts(t, model.CertificateFailed, w.Key(name))
		if len(failed) < 2 {
			return fmt.Errorf("%d attempts", len(failed))
		}
		first, second, announced = failed[0].Time(), failed[1].Time(), rig.Data[model.AttemptFact](t, failed[0])
		return nil
	})
	if announced.Reason != "CAUnreachable" || announced.Attempt != 1 || announced.NextAttempt == nil {
		t.Fatalf("%s: certificate.failed says %+v, want attempt 1, reason CAUnreachable and the next attempt", name, announced)
	}
	const spread = model.FirstRetry / 10
	// The fact is told a moment after the attempt failed, in whole seconds.
	if after := announced.NextAttempt.Sub(first); after < model.FirstRetry-2*time.Second || after > model.FirstRetry+spread+time.Second {
		t.Errorf("%s: first retry announced for %s later, want %s to %s", name, after, model.FirstRetry, model.FirstRetry+spread)
	}
	// An attempt dials three times; the schedule has whole seconds.
	if after := second.Sub(first); after < model.FirstRetry-2*time.Second || after > model.FirstRetry+spread+5*time.Second {
		t.Errorf("%s: first retry came %s later, want %s to %s", name, after, model.FirstRetry, model.FirstRetry+spread)
	}
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
