package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Losing NATS, with every event and every alarm in it, loses nothing but history: a
// transaction in flight goes on, an output is repaired, a renewal comes.
func TestLosingNATSLosesNothing(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("deleted"), rig.EndEntity("brief", "validity: 60s", "renewBefore: 40s"))
	w.WaitReady(t, rig.Patience, "deleted", "brief")
	ca.Wait(polls, checkAfter)
	w.Apply(t, rig.EndEntity("patient"))
	waiting := waitForCA(t, w, bus, "patient")
	want := w.Secret(t, rig.SecretName("deleted")).Data

	all.Kill(t)
	if err := os.RemoveAll(all.StateDir); err != nil {
		t.Fatal(err)
	}
	w.Delete(t, "Secret", rig.SecretName("deleted"))
	all.Restart(t)
	took := rig.Eventually(t, rig.Patience, "the output is back", func() error { return holds(w.Secret(t, rig.SecretName("deleted")), want) })
	t.Logf("the output that was deleted meanwhile is back after %.1f s", took.Seconds())
	waitRevision(t, w, "brief", 2)
	took = w.WaitReady(t, 2*rig.Patience, "patient")
	t.Logf("the one in flight is Ready %.1f s after that", took.Seconds())
	rig.Pair(t, w.Secret(t, rig.SecretName("patient")))
	oneTransaction(t, ca, "patient", waiting.TransactionID)
	for _, name := range []string{rig.IdentityName, "deleted"} {
		if got := transactions(ca, "CN="+name); got != 1 {
			t.Errorf("%s took %d transactions, want 1", name, got)
		}
	}
}

// Two processes on one NATS and one cluster, one of them killed in the middle: leases
// keep them apart, and the other one finishes.
func TestTwoReplicas(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{Behaviour: responder.Behaviour{Delay: 100 * time.Millisecond}})
	nats := rig.StartNATS(t)
	outputs := w.WatchOutputs(t)
	replicas := []*rig.AllInOne{rig.StartAll(t, w, "--nats-url", nats.URL), rig.StartAll(t, w, "--nats-url", nats.URL)}
	w.Settle(t, ca.CA)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("c%02d", i))
		w.Apply(t, rig.EndEntity(names[i]))
	}
	replicas[0].Kill(t)
	w.WaitReady(t, 2*rig.Patience, names...)
	for _, name := range names {
		rig.Pair(t, w.Secret(t, rig.SecretName(name)))
		if got := transactions(ca, "CN="+name); got != 1 {
			t.Errorf("%s took %d transactions, want 1", name, got)
		}
	}
	if wrong, versions := outputs.Mismatched(); len(wrong) > 0 {
		t.Errorf("%d versions of Secrets were visible, in these key and certificate did not match: %q", versions, wrong)
	}
	if got, want := len(ca.Issued()), 1+len(names); got != want {
		t.Errorf("the CA issued %d certificates, want %d", got, want)
	}
}

// The API server goes and comes back: watches resume, and what happened in the
// first moment of its return is seen.
func TestAPIServerRestart(t *testing.T) {
	t.Parallel()
	w := rig.NewWorldOfItsOwn(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("web"))
	w.WaitReady(t, rig.Patience, "web")
	want := w.Secret(t, rig.SecretName("web")).Data

	w.Cluster.Stop(t)
	event := rig.Event(t, model.ConfigCreated, w.Key("late"), rig.EndEntity("late"))
	all.Bus(t).Publish(t, model.Enroll, w.Key("late"), event)
	if got := rig.PostBinary(t, all.Ready["enroll"], event); got.Status != 503 {
		t.Errorf("without an API server the event is answered %d %s, want 503: send it again", got.Status, got.Body)
	}
	w.Cluster.Restart(t)
	w.Delete(t, "Secret", rig.SecretName("web"))
	took := rig.Eventually(t, rig.Patience, "the output is back", func() error { return holds(w.Secret(t, rig.SecretName("web")), want) })
	t.Logf("the output is back after %.1f s", took.Seconds())
	took = w.WaitReady(t, rig.Patience, "late")
	t.Logf("the certificate asked for meanwhile is Ready %.1f s after that", took.Seconds())
	if got := len(ca.Issued()); got != 3 {
		t.Errorf("the CA issued %d certificates, want 3", got)
	}
}
