package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/functiontest"
)

func TestMain(m *testing.M) { os.Exit(functiontest.Main(m)) }

func TestCommandLine(t *testing.T) { functiontest.CommandLine(t) }

func TestEnds(t *testing.T) { functiontest.Ends(t) }

func TestRefusals(t *testing.T) {
	structured := map[string]string{"Content-Type": event.ApplicationCloudEventsJSON}
	about := `{"specversion":"1.0","id":"1","source":"https://127.0.0.1:6443","subject":"/apis/v1/namespaces/demo/secrets/web-tls",`
	functiontest.Refusals(t,
		functiontest.Refusal{Name: "an event of no ApiServerSource", Header: structured, Body: about + `"type":"` + model.RefUpdate + `"}`,
			Status: http.StatusUnprocessableEntity, Reason: delivery.InvalidEvent, Says: "extensions namespace and name are required"},
		// Resource mode would put the Secret itself on the bus: that is not how to set it up, and is not kept.
		functiontest.Refusal{Name: "Resource mode", Header: structured, Body: about + `"type":"` + model.ResourceUpdate + `","kind":"Secret","namespace":"demo","name":"web-tls"}`,
			Status: http.StatusUnprocessableEntity, Reason: delivery.UnknownType, Says: model.RefUpdate, Withheld: true},
	)
}

// The event of testdata: an output that was changed is told, one that was not is not.
func TestChanged(t *testing.T) {
	for _, mode := range functiontest.Modes() {
		t.Run(mode.Name, func(t *testing.T) {
			w := rig.NewWorld(t)
			functiontest.Issue(t, w, rig.StartResponder(t, responder.Config{}).CA, rig.EndEntity("web"))
			f := functiontest.Start(t, w)
			changed := f.Testdata(t, "ref-update.json")
			f.Post(t, mode, changed)
			f.WantFacts(t)

			w.Overwrite(t, "web-tls", "tls.crt", []byte("rubbish"))
			f.Post(t, mode, changed)
			f.WantFacts(t, model.SecretModified)
			f.WantWork(t, "certloop.work.enroll.web")
			fact := f.Facts(t, model.SecretModified, w.Key("web"))[0]
			functiontest.WantCause(t, fact, changed)
			if got, want := rig.Data[model.SecretFact](t, fact), (model.SecretFact{SecretName: "web-tls", Cause: "tls.crt was changed"}); got != want {
				t.Errorf("secret.modified says %+v, want %+v", got, want)
			}
			f.Post(t, mode, changed) // the same change: told once
			f.WantFacts(t, model.SecretModified)

			w.Delete(t, "Secret", "web-tls")
			changed.SetType(model.RefDelete)
			changed.SetID("deleted")
			f.Post(t, mode, changed)
			f.WantFacts(t, model.SecretModified, model.SecretDeleted)
			f.WantWork(t, "certloop.work.enroll.web", "certloop.work.enroll.web")
			if w.Secret(t, "web-tls") != nil {
				t.Error("it wrote the Secret: that is enroll's part")
			}
		})
	}
}

// Secrets of others are nobody's concern.
func TestOthers(t *testing.T) {
	w := rig.NewWorld(t)
	w.ApplySecret(t, "theirs", map[string]string{"password": "hunter2"})
	f := functiontest.Start(t, w)
	for _, eventType := range []string{model.RefAdd, model.RefUpdate, model.RefDelete} {
		e := f.Testdata(t, "ref-update.json", "web-tls", "theirs")
		e.SetType(eventType)
		f.Post(t, functiontest.Modes()[0], e)
	}
	f.WantFacts(t)
}

// A sweep finds every output that differs, without any event about it.
func TestSweep(t *testing.T) {
	w := rig.NewWorld(t)
	functiontest.Issue(t, w, rig.StartResponder(t, responder.Config{}).CA, rig.EndEntity("gone"), rig.EndEntity("spoilt"), rig.EndEntity("well"))
	w.Delete(t, "Secret", "gone-tls")
	w.Overwrite(t, "spoilt-tls", "tls.key", []byte("rubbish"))
	f := functiontest.Start(t, w)
	tick := func(data string) {
		t.Helper()
		e := event.New()
		e.SetType(model.Ping)
		e.SetID(data)
		e.SetSource("/apis/v1/namespaces/certloop/pingsources/sweep")
		if err := e.SetData(event.ApplicationJSON, []byte(data)); err != nil {
			t.Fatal(err)
		}
		f.Post(t, functiontest.Modes()[1], e)
	}
	tick(`{"scan":"expiry"}`) // expiry-scan's
	f.WantFacts(t)
	tick(`{"scan":"sweep"}`)
	f.WantFacts(t, model.SecretDeleted, model.SecretModified, model.ScanCompleted)
	f.WantWork(t, "certloop.work.enroll.gone", "certloop.work.enroll.spoilt")
	done := f.Facts(t, model.ScanCompleted, types.NamespacedName{})
	if got := rig.Data[model.ScanFact](t, done[0]); got.Looked != 4 || got.Drifted != 2 || got.Pending+got.Expired+got.Expiring != 0 {
		t.Errorf("scan.completed says %+v, want 4 looked at and 2 drifted", got)
	}
	if strings.Contains(string(done[0].Data()), "rubbish") {
		t.Error("a fact holds what a Secret held")
	}
}
