package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Every event is delivered many times in any order, over JetStream and over HTTP, to
// several workers, with ids that no stream recognises: the CA is asked once for each certificate.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	chance := dice(t)
	certificates := max(3, *storm/5)
	p := build(t, scenario{ca: localCA, workers: alone(2 + *storm/50)}, chance)
	var all []event.Event
	for i := range certificates {
		name := fmt.Sprintf("c%03d", i)
		p.oracle.wants(name)
		all = append(all, eventsOf(t, p, name)...)
	}
	p.deliver(t, chance, all)
	for _, name := range p.oracle.names() {
		p.WaitReady(t, 2*rig.Patience, name)
	}
	if got, want := len(p.transactions()), certificates+1; got != want {
		t.Errorf("%d transactions for %d certificates", got, want)
	}
	var renewals []event.Event
	for i := range certificates {
		name := fmt.Sprintf("c%03d", i)
		p.oracle.wants(name)
		renewals = append(renewals, rig.Event(t, model.RenewalRequested, p.Key(name), "{reason: manual}"))
	}
	p.deliver(t, chance, renewals)
	v := p.oracle.judge(t, p)
	t.Logf("%d events, each delivered %d times, to %d workers", len(all)+len(renewals), *storm, len(p.workers))
	t.Log(v)
	if v.transactions != v.issuances || v.repetitions > 0 {
		t.Errorf("%d transactions and %d requests repeated, want %d and none", v.transactions, v.repetitions, v.issuances)
	}
}

// eventsOf are the events that certificates are enrolled, looked at and put back by.
func eventsOf(t *testing.T, p *plant, name string) []event.Event {
	t.Helper()
	key := p.Key(name)
	about := func(e event.Event, kind, object string) event.Event {
		e.SetSubject("/apis/" + kind + "/" + object)
		e.SetExtension("kind", kind)
		e.SetExtension("namespace", key.Namespace)
		e.SetExtension("name", object)
		return e
	}
	return []event.Event{
		rig.Event(t, model.ConfigCreated, key, rig.EndEntity(name)),
		rig.Event(t, model.EnrollmentRequested, key, "{reason: retry}"),
		rig.Event(t, model.SecretModified, key, "{secretName: "+rig.SecretName(name)+"}"),
		rig.Event(t, model.SecretDeleted, key, "{secretName: "+rig.SecretName(name)+"}"),
		rig.Event(t, model.CertificateExpiring, key, "{}"),
		about(rig.Event(t, model.ResourceAdd, key, "{}"), model.CertificateKind, name),
		about(rig.Event(t, model.ResourceUpdate, key, "{}"), model.CertificateKind, name),
		about(rig.Event(t, model.RefUpdate, key, "{}"), "Secret", rig.SecretName(name)),
	}
}

// deliver delivers events so often, shuffled, half of them over HTTP.
func (p *plant) deliver(t *testing.T, chance *rand.Rand, events []event.Event) {
	t.Helper()
	var all []event.Event
	for _, e := range events {
		for range *storm {
			again := e.Clone()
			again.SetID(uuid.NewString())
			again.SetExtension(model.CorrelationID, e.ID()) // it is the same request
			all = append(all, again)
		}
	}
	chance.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	const senders = 8
	queue := make(chan event.Event)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for e := range queue {
				p.send(t, e)
			}
		})
	}
	for _, e := range all {
		queue <- e
	}
	close(queue)
	sending.Wait()
}

// send delivers an event over the one or the other transport. A function that is busy
// says so, and is sent it again.
func (p *plant) send(t *testing.T, e event.Event) {
	kind, _ := model.KindOf(e.Type())
	url := p.workers[int(e.ID()[1])%len(p.workers)].Ready[map[model.Verb]string{model.Enroll: "enroll", model.Renew: "renew", model.Watch: "watch-secrets"}[kind.Consumers[0]]]
	if e.ID()[0] < '8' {
		p.publish(t, e)
		return
	}
	rig.Eventually(t, rig.Patience, "posting "+e.Type(), func() error {
		if got := rig.PostBinary(t, url, e); got.Status != http.StatusAccepted {
			return fmt.Errorf("answered %d %s", got.Status, got.Body)
		}
		return nil
	})
}
