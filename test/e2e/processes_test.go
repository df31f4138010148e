package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// The four functions as processes, chained through JetStream and woken by HTTP as
// Knative's sources do it: a certificate is issued, put back and renewed. SIGTERM
// then ends each with exit code 0.
func TestFunctionsAsProcesses(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	nats := rig.StartNATS(t)
	bus := rig.OpenBus(t, nats.URL)
	processes, url := map[string]*rig.Process{}, map[string]string{}
	for _, name := range []string{"enroll", "renew", "watch-secrets", "expiry-scan"} {
		processes[name], url[name] = rig.StartFunction(t, w, name, nats.URL)
	}
	w.Bootstrap(t, ca.CA)
	for _, declared := range []struct{ eventType, name, document string }{
		{model.IssuerCreated, rig.IssuerName, rig.Issuer(ca.CA)},
		{model.ConfigCreated, rig.IdentityName, rig.Identity()},
		{model.ConfigCreated, "web", rig.EndEntity("web", "validity: 60s", "renewBefore: 40s")},
	} {
		accepted(t, rig.PostBinary(t, url["enroll"], rig.Event(t, declared.eventType, w.Key(declared.name), declared.document)))
	}
	w.WaitReady(t, rig.Patience, rig.IdentityName, "web")
	issued := w.Secret(t, rig.SecretName("web"))
	first := rig.Pair(t, issued)

	w.Delete(t, "Secret", rig.SecretName("web"))
	accepted(t, rig.PostStructured(t, url["watch-secrets"], sample(t, "watch-secrets/testdata/ref-update.json", w.Namespace)))
	rig.Eventually(t, rig.Patience, "the output is back", func() error { return holds(w.Secret(t, rig.SecretName("web")), issued.Data) })
	bus.WaitFact(t, rig.Patience, model.SecretDeleted, w.Key("web"))
	bus.WaitFact(t, rig.Patience, model.CertificateRestored, w.Key("web"))

	time.Sleep(time.Until(first.NotBefore.Add(21 * time.Second))) // it is due after 20 s
	accepted(t, rig.PostStructured(t, url["expiry-scan"], sample(t, "expiry-scan/testdata/ping.json", w.Namespace)))
	waitRevision(t, w, "web", 2)
	if second := rig.Pair(t, w.Secret(t, rig.SecretName("web"))); second.Equal(first) {
		t.Error("the output still holds the first certificate")
	}
	oneThread(t, bus, w)
	for name, p := range processes {
		t.Logf("%s drained in %.2f s", name, p.Stop(t).Seconds())
	}
}

// sample is one of the events that a function's documentation shows, moved to a namespace.
func sample(t *testing.T, path, namespace string) (e event.Event) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rig.Root(t), "functions", path))
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.NewReplacer(`"demo"`, `"`+namespace+`"`, "/demo/", "/"+namespace+"/").Replace(string(text))
	if err := e.UnmarshalJSON([]byte(moved)); err != nil {
		t.Fatal(err)
	}
	return e
}

// oneThread checks that the renewal tells what it came of: from the scan's tick to
// the new certificate every event has the tick's correlationid.
func oneThread(t *testing.T, bus *rig.Bus, w *rig.World) {
	t.Helper()
	correlation := func(eventType string) string {
		return fmt.Sprint(bus.WaitFact(t, rig.Patience, eventType, w.Key("web")).Extensions()[model.CorrelationID])
	}
	tick := sample(t, "expiry-scan/testdata/ping.json", w.Namespace).ID()
	for _, eventType := range []string{model.CertificateExpiring, model.CertificateRenewed} {
		if got := correlation(eventType); got != tick {
			t.Errorf("%s has correlationid %s, want that of the tick, %s", eventType, got, tick)
		}
	}
}
