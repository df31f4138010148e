package main

import (
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/cmp"
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
	functiontest.Refusals(t, functiontest.Refusal{
		Name: "no subject", Header: map[string]string{"Content-Type": event.ApplicationCloudEventsJSON},
		Body:   `{"specversion":"1.0","id":"1","source":"/test","type":"` + model.RenewalRequested + `","data":{"reason":"manual"}}`,
		Status: http.StatusUnprocessableEntity, Reason: delivery.InvalidEvent, Says: "namespace/name",
	})
}

// The event of testdata leads to a new certificate with a new key.
func TestRenew(t *testing.T) {
	for _, mode := range functiontest.Modes() {
		t.Run(mode.Name, func(t *testing.T) {
			w := rig.NewWorld(t)
			ca := rig.StartResponder(t, responder.Config{})
			functiontest.Issue(t, w, ca.CA, rig.EndEntity("web"))
			former := rig.Pair(t, w.Secret(t, "web-tls"))
			before := len(ca.Messages())
			f := functiontest.Start(t, w)

			request := f.Testdata(t, "renewal-requested.json")
			f.Post(t, mode, request)
			f.WantFacts(t, model.CertificateRenewed)
			f.WantWork(t)
			leaf := rig.Pair(t, w.Secret(t, "web-tls"))
			if leaf.Equal(former) || slices.Equal(leaf.RawSubjectPublicKeyInfo, former.RawSubjectPublicKeyInfo) {
				t.Error("certificate or key is the former one")
			}
			fact := f.Facts(t, model.CertificateRenewed, w.Key("web"))[0]
			functiontest.WantCause(t, fact, request)
			if got := rig.Data[model.CertificateFact](t, fact); got.Revision != 2 || got.Fingerprint != rig.Fingerprint(leaf) {
				t.Errorf("certificate.renewed says %+v, want revision 2 of the certificate in the Secret", got)
			}
			if got := w.Certificate(t, "web").Status; got.Revision != 2 || got.Fingerprint != rig.Fingerprint(leaf) {
				t.Errorf("the status says %+v, want revision 2", got)
			}
			if got := ca.Messages()[before].Received; got != cmp.TypeKUR {
				t.Errorf("the CA was asked by %s, want kur", got)
			}

			// Delivered again: renewed once.
			f.Post(t, mode, request)
			f.WantFacts(t, model.CertificateRenewed)
			if got := len(ca.Issued()); got != 3 {
				t.Errorf("the CA issued %d certificates, want 3: the identity, web and its renewal", got)
			}
		})
	}
}

// A hint that a certificate is due, and it is not: nothing happens.
func TestNotDue(t *testing.T) {
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	functiontest.Issue(t, w, ca.CA, rig.EndEntity("web"))
	before := w.Secret(t, "web-tls")
	messages := len(ca.Messages())
	f := functiontest.Start(t, w)
	for _, eventType := range []string{model.CertificateExpiring, model.CertificateExpired} {
		f.Post(t, functiontest.Modes()[0], rig.Event(t, eventType, w.Key("web"), ""))
	}
	if got := w.Secret(t, "web-tls").ResourceVersion; got != before.ResourceVersion || len(ca.Messages()) != messages {
		t.Error("the Secret was written or the CA asked")
	}
	f.WantFacts(t, model.CertificateIssued) // a fresh certificate is told once more, in case that its fact was lost
	f.WantWork(t)
}

// A renewal that the CA refuses for good is parked, and what workloads have stays.
func TestRejected(t *testing.T) {
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	functiontest.Issue(t, w, ca.CA, rig.EndEntity("web"))
	before := w.Secret(t, "web-tls")
	ca.Reject(cmp.FailNotAuthorized, "not today")
	f := functiontest.Start(t, w)
	f.Post(t, functiontest.Modes()[0], f.Testdata(t, "renewal-requested.json"))
	f.WantFacts(t, model.CertificateParked)
	if got := w.Secret(t, "web-tls").ResourceVersion; got != before.ResourceVersion {
		t.Error("the Secret was written")
	}
	w.WaitReady(t, 0, "web")
}

// A renewal under way when SIGTERM comes is finished.
func TestDrain(t *testing.T) {
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	functiontest.Issue(t, w, ca.CA, rig.EndEntity("web"))
	before := len(ca.Messages())
	f := functiontest.Start(t, w)
	ca.Behave(func(b *responder.Behaviour) { b.Delay = 1500 * time.Millisecond })
	f.Drains(t, functiontest.Modes()[1], f.Testdata(t, "renewal-requested.json"), func() bool { return len(ca.Messages()) > before })
	f.WantFacts(t, model.CertificateRenewed)
	if got := w.Certificate(t, "web").Status.Revision; got != 2 {
		t.Errorf("revision %d, want 2", got)
	}
}
