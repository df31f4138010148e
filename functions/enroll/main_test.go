package main

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
		Body:   `{"specversion":"1.0","id":"1","source":"/test","type":"` + model.EnrollmentRequested + `"}`,
		Status: http.StatusUnprocessableEntity, Reason: delivery.InvalidEvent, Says: "namespace/name",
	})
}

// What a configuration can be refused for is said field by field.
func TestInvalidPayload(t *testing.T) {
	f := functiontest.Start(t, rig.NewWorld(t))
	tests := map[string]struct {
		file, old, new string
		says           string
	}{
		"a field that is not known":  {"config-created.json", `"validity"`, `"validty"`, `unknown field "validty"`},
		"a duration that is none":    {"config-created.json", `"2160h"`, `"90d"`, "90d"},
		"too short":                  {"config-created.json", `"2160h"`, `"1s"`, "spec.validity"},
		"another object":             {"config-created.json", `"name": "web"`, `"name": "other"`, "metadata.name"},
		"another kind":               {"config-created.json", `"CMPCertificate"`, `"Certificate"`, "kind"},
		"an address that is none":    {"config-created.json", `"192.0.2.10"`, `"192.0.2.256"`, "spec.subjectAltNames.ipAddresses[0]"},
		"an issuer without a server": {"issuer-created.json", `"server": "http://127.0.0.1:8829/pkix/",`, ``, "spec.server"},
		"a server that is no URL":    {"issuer-created.json", `http://127.0.0.1:8829/pkix/`, `127.0.0.1:8829`, "spec.server"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := f.Testdata(t, tt.file, tt.old, tt.new)
			text, err := e.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			f.Refuses(t, functiontest.Refusal{
				Header: map[string]string{"Content-Type": event.ApplicationCloudEventsJSON}, Body: string(text),
				Status: http.StatusUnprocessableEntity, Reason: delivery.InvalidEvent, Says: tt.says,
			})
		})
	}
}

// The events of testdata lead to a certificate in a Secret.
func TestEnroll(t *testing.T) {
	for _, mode := range functiontest.Modes() {
		t.Run(mode.Name, func(t *testing.T) {
			w := rig.NewWorld(t)
			ca := rig.StartResponder(t, responder.Config{})
			w.Bootstrap(t, ca.CA)
			f := functiontest.Start(t, w)
			f.Post(t, mode, f.Testdata(t, "issuer-created.json", "http://127.0.0.1:8829/pkix/", ca.URL))
			wantUsable(t, w)
			told := []string{model.IssuerReady}
			f.WantFacts(t, told...)
			f.Post(t, mode, rig.Event(t, model.ConfigCreated, w.Key(rig.IdentityName), rig.Identity()))
			told = append(told, model.ConfigApplied, model.CertificateIssued)
			f.WantFacts(t, told...)

			config := f.Testdata(t, "config-created.json")
			f.Post(t, mode, config)
			told = append(told, model.ConfigApplied, model.CertificateIssued)
			f.WantFacts(t, told...)
			f.WantWork(t)
			wantIssued(t, f, config)
			wantSecret(t, w.Secret(t, "web-tls"))

			// The same event again, and the same configuration in another: each is answered once.
			f.Post(t, mode, config)
			f.Post(t, mode, config)
			config.SetID("another")
			f.Post(t, mode, config)
			f.WantFacts(t, append(told, model.CertificateReady, model.CertificateReady)...)
			f.WantWork(t)
			if got := len(ca.Issued()); got != 2 {
				t.Errorf("the CA issued %d certificates, want 2: the identity and web", got)
			}
		})
	}
}

func wantUsable(t *testing.T, w *rig.World) {
	t.Helper()
	issuer := w.Issuer(t)
	ready := rig.Condition(issuer.Status.Conditions, model.Ready)
	if ready.Status != metav1.ConditionTrue || ready.Reason != "Usable" || issuer.Spec.Recipient != "/CN=certloop demo CA" {
		t.Errorf("the issuer has recipient %q and is Ready %q for reason %q: %s", issuer.Spec.Recipient, ready.Status, ready.Reason, ready.Message)
	}
}

func wantIssued(t *testing.T, f *functiontest.Function, config event.Event) {
	t.Helper()
	cert := f.World.Certificate(t, "web")
	if ready := rig.Condition(cert.Status.Conditions, model.Ready); ready.Status != metav1.ConditionTrue {
		t.Errorf("web is Ready %q for reason %q: %s", ready.Status, ready.Reason, ready.Message)
	}
	if cert.Spec.Subject.Organization != "Example" || cert.Spec.Validity.Duration != 2160*time.Hour {
		t.Errorf("the configuration is %+v, want that of the event", cert.Spec)
	}
	facts := f.Facts(t, model.CertificateIssued, f.World.Key("web"))
	if len(facts) != 1 {
		t.Fatalf("certificate.issued is told %d times, want once", len(facts))
	}
	functiontest.WantCause(t, facts[0], config)
	got := rig.Data[model.CertificateFact](t, facts[0])
	if got.SecretName != "web-tls" || got.Revision != 1 || got.Serial != cert.Status.Serial || got.Fingerprint != cert.Status.Fingerprint {
		t.Errorf("certificate.issued says %+v, the status %+v", got, cert.Status)
	}
}

func wantSecret(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	leaf := rig.Pair(t, secret)
	var names []string
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range leaf.URIs {
		names = append(names, uri.String())
	}
	names = append(names, leaf.DNSNames...)
	slices.Sort(names)
	want := []string{"192.0.2.10", "2001:db8::10", "urn:uuid:f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "web.demo.svc", "web.demo.svc.cluster.local"}
	if got := leaf.Subject.String(); got != "CN=web.demo.svc,O=Example" || !slices.Equal(names, want) {
		t.Errorf("the certificate is for %s, %q; want CN=web.demo.svc,O=Example, %q", got, names, want)
	}
}

// A configuration that comes before everything it needs waits, says so, and asks to be looked at again.
func TestTooEarly(t *testing.T) {
	w := rig.NewWorld(t)
	f := functiontest.Start(t, w)
	config := f.Testdata(t, "config-created.json")
	f.Post(t, functiontest.Modes()[0], config)
	w.WaitReason(t, 0, "web", "IssuerNotFound")
	f.WantFacts(t, model.ConfigApplied, model.CertificateWaiting)
	f.WantWork(t, "certloop.sched.enroll.web")
	functiontest.WantCause(t, f.Facts(t, model.CertificateWaiting, w.Key("web"))[0], config)
}

// Outputs are put back, and what an event declared an event withdraws.
func TestRestoreAndWithdraw(t *testing.T) {
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	w.Bootstrap(t, ca.CA)
	f := functiontest.Start(t, w)
	mode := functiontest.Modes()[1]
	f.Post(t, mode, f.Testdata(t, "issuer-created.json", "http://127.0.0.1:8829/pkix/", ca.URL))
	f.Post(t, mode, rig.Event(t, model.ConfigCreated, w.Key(rig.IdentityName), rig.Identity()))
	f.Post(t, mode, f.Testdata(t, "config-created.json"))
	ca.Down()
	delivered := w.Secret(t, "web-tls")

	w.Delete(t, "Secret", "web-tls")
	f.Post(t, mode, rig.Event(t, model.SecretDeleted, w.Key("web"), ""))
	if got := w.Secret(t, "web-tls"); got == nil || !slices.Equal(got.Data["tls.key"], delivered.Data["tls.key"]) || !slices.Equal(got.Data["tls.crt"], delivered.Data["tls.crt"]) {
		t.Error("the output is not what it was before it was deleted")
	}
	f.WantFacts(t, model.IssuerReady, model.ConfigApplied, model.CertificateIssued, model.ConfigApplied, model.CertificateIssued, model.CertificateRestored)

	f.Post(t, mode, rig.Event(t, model.ConfigDeleted, w.Key("web"), ""))
	f.Post(t, mode, rig.Event(t, model.ConfigDeleted, w.Key(rig.IdentityName), "")) // the last that uses the issuer
	f.Post(t, mode, rig.Event(t, model.IssuerDeleted, w.Key(rig.IssuerName), ""))
	for kind, resource := range map[string]string{model.CertificateKind: "cmpcertificate/web", model.IssuerKind: "cmpissuer/ca"} {
		if got := w.Kubectl(t, "", "get", "--ignore-not-found", resource); got != "" {
			t.Errorf("the %s is still there: %s", kind, got)
		}
	}
	rig.Eventually(t, rig.Patience, "the record goes with its configuration", func() error {
		if got := w.Secret(t, model.RecordName("web")); got != nil {
			return fmt.Errorf("%s is there", got.Name)
		}
		return nil
	})
	if w.Secret(t, "web-tls") == nil {
		t.Error("the output went with its configuration")
	}
}

// An enrollment under way when SIGTERM comes is finished.
func TestDrain(t *testing.T) {
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	w.Bootstrap(t, ca.CA)
	f := functiontest.Start(t, w)
	mode := functiontest.Modes()[0]
	slow := rig.Slow(t, ca.CA, 1500*time.Millisecond)
	f.Post(t, mode, f.Testdata(t, "issuer-created.json", "http://127.0.0.1:8829/pkix/", slow.URL))
	identity := rig.Event(t, model.ConfigCreated, w.Key(rig.IdentityName), rig.Identity())
	f.Drains(t, mode, identity, func() bool { return len(ca.Messages()) > 0 })
	w.WaitReady(t, 0, rig.IdentityName)
	f.WantFacts(t, model.IssuerReady, model.ConfigApplied, model.CertificateIssued)
	rig.Pair(t, w.Secret(t, rig.SecretName(rig.IdentityName)))
}
