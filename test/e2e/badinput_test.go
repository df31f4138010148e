package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

const structured = "application/cloudevents+json"

// Check 9, the part that senders see: what can never be handled is refused where it
// was sent, by HTTP as a problem document, over JetStream on the dead subject, and
// its neighbours are served.
func TestRefusedEvents(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Settle(t, ca.CA)
	key := w.Key("web")
	event := func(fields string) string {
		return `{"specversion":"1.0","id":"1","source":"/e2e","subject":"` + key.String() + `","type":"` + model.ConfigCreated + `"` + fields + `}`
	}
	tests := []struct {
		name   string
		header map[string]string
		body   string
		status int
		reason delivery.Reason
		says   []string // in the problem document and in the dead letter's reason
	}{
		{"malformed JSON", map[string]string{"Content-Type": structured}, `{"specversion":"1.0",`, http.StatusBadRequest, delivery.Undecodable, []string{"unexpected end of JSON"}},
		{"malformed data", map[string]string{"Content-Type": structured}, event(`,"data":{"spec":"yes"}`), http.StatusUnprocessableEntity, delivery.InvalidEvent, []string{"spec"}},
		{"no type", map[string]string{"Content-Type": structured}, `{"specversion":"1.0","id":"1","source":"/e2e"}`, http.StatusBadRequest, delivery.Undecodable, []string{"type"}},
		{"unknown type", map[string]string{"ce-specversion": "1.0", "ce-type": "com.example.unheard.of", "ce-source": "/e2e", "ce-id": "1", "ce-subject": key.String()},
			"", http.StatusUnprocessableEntity, delivery.UnknownType, []string{"com.example.unheard.of", model.ConfigCreated}},
		{"unknown field", map[string]string{"Content-Type": structured}, event(`,"data":{"spec":{"issuer":"ca"}}`), http.StatusUnprocessableEntity, delivery.InvalidEvent, []string{`"issuer"`}},
		{"rules broken", map[string]string{"Content-Type": structured},
			event(`,"data":{"spec":{"issuerRef":{"name":"ca"},"privateKey":{"algorithm":"secp256k1"},"subject":{"country":"Germany"},"output":{"secretName":"web_tls"}}}`),
			http.StatusUnprocessableEntity, delivery.InvalidEvent, []string{"spec.privateKey.algorithm", "P-256", "spec.subject.country", "two capital letters", "spec.output.secretName"}},
		{"other object", map[string]string{"Content-Type": structured}, event(`,"data":{"metadata":{"name":"other"},"spec":{"issuerRef":{"name":"ca"},"subject":{"commonName":"a"},"output":{"secretName":"a"}}}`),
			http.StatusUnprocessableEntity, delivery.InvalidEvent, []string{"metadata.name", "must equal"}},
		{"subject missing", map[string]string{"ce-specversion": "1.0", "ce-type": model.SecretDeleted, "ce-source": "/e2e", "ce-id": "1"}, "",
			http.StatusUnprocessableEntity, delivery.InvalidEvent, []string{"subject", "namespace/name"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h, n := http.Header{}, nats.Header{}
			for name, value := range test.header {
				h.Set(name, value)
				n[strings.ToLower(name)] = []string{value}
			}
			before := len(dead(t, bus))
			checkProblem(t, rig.Post(t, all.Ready["enroll"], h, test.body), test.status, test.says)
			bus.PublishRaw(t, model.WorkSubject(model.Enroll, key), n, []byte(test.body))
			var letters []*jetstream.RawStreamMsg
			rig.Eventually(t, rig.Patience, "two dead letters", func() error {
				if letters = dead(t, bus)[before:]; len(letters) < 2 {
					return fmt.Errorf("%d are there", len(letters))
				}
				return nil
			})
			for _, letter := range letters {
				checkLetter(t, letter, test.reason, test.body, test.says)
			}
		})
	}
	w.Apply(t, rig.EndEntity("neighbour"))
	w.WaitReady(t, rig.Patience, "neighbour")
	if left := bus.Messages(t, model.WorkStream, model.WorkSubject(model.Enroll, key)); len(left) != 0 {
		t.Errorf("%d refused messages are still in the work stream", len(left))
	}
}

func dead(t *testing.T, bus *rig.Bus) []*jetstream.RawStreamMsg {
	t.Helper()
	return bus.Messages(t, model.DeadStream, model.DeadSubjects)
}

func checkProblem(t *testing.T, got rig.Answer, status int, says []string) {
	t.Helper()
	if got.Status != status || got.ContentType != "application/problem+json" {
		t.Errorf("answered %d %s, want %d application/problem+json", got.Status, got.ContentType, status)
	}
	var problem struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal([]byte(got.Body), &problem); err != nil {
		t.Fatalf("the problem document: %v\n%s", err, got.Body)
	}
	if problem.Status != status || problem.Title == "" || problem.Type == "" {
		t.Errorf("the problem document lacks status, title or type: %s", got.Body)
	}
	text := strings.ReplaceAll(got.Body, `\"`, `"`)
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("the problem document does not say %q: %s", want, text)
		}
	}
}

func checkLetter(t *testing.T, m *jetstream.RawStreamMsg, reason delivery.Reason, body string, says []string) {
	t.Helper()
	if got := m.Header.Get(delivery.ReasonHeader); got != string(reason) {
		t.Errorf("the dead letter on %s has reason %q, want %q", m.Subject, got, reason)
	}
	if string(m.Data) != body {
		t.Errorf("the dead letter holds %q, want what was sent, %q", m.Data, body)
	}
	for _, want := range says {
		if !strings.Contains(m.Header.Get(delivery.ErrorHeader), want) {
			t.Errorf("the dead letter's %s does not say %q: %s", delivery.ErrorHeader, want, m.Header.Get(delivery.ErrorHeader))
		}
	}
}

// A configuration names an issuer that does not exist: its condition says so, and
// the issuer's creation sets it going.
func TestMissingIssuer(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	w.Bootstrap(t, ca.CA)
	accepted(t, rig.PostBinary(t, all.Ready["enroll"], rig.Event(t, model.ConfigCreated, w.Key("web"), rig.EndEntity("web"))))
	message := w.WaitReason(t, rig.Patience, "web", "IssuerNotFound")
	wantText(t, message, w.Namespace+"/"+rig.IssuerName, "does not exist")
	w.Apply(t, rig.Identity())
	w.WaitReason(t, rig.Patience, rig.IdentityName, "IssuerNotFound")

	w.Apply(t, rig.Issuer(ca.CA))
	took := w.WaitReady(t, rig.Patience, rig.IdentityName, "web")
	t.Logf("Ready %.1f s after the issuer was created", took.Seconds())
	// By the event of its creation, not by the next look half a minute later.
	if took > 15*time.Second {
		t.Errorf("Ready %s after the issuer was created, want at once", took)
	}
}

// An issuer names Secrets that do not exist: it and its certificates say so; with the
// Secrets it proceeds by itself.
func TestMissingSecret(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	rig.StartAll(t, w)
	w.Apply(t, rig.Issuer(ca.CA), rig.Identity(), rig.EndEntity("web"))
	message := w.WaitReason(t, rig.Patience, rig.IdentityName, "SecretNotFound")
	wantText(t, message, w.Namespace+"/ca-trust", "spec.trust", rig.IssuerName, "does not exist")
	rig.Eventually(t, rig.Patience, "the issuer says so too", func() error {
		ready := rig.Condition(w.Issuer(t).Status.Conditions, model.Ready)
		if ready.Status != metav1.ConditionFalse || ready.Reason != "SecretNotFound" || !strings.Contains(ready.Message, "ca-trust") {
			return fmt.Errorf("condition Ready is %q, reason %q: %s", ready.Status, ready.Reason, ready.Message)
		}
		return nil
	})
	w.Bootstrap(t, ca.CA)
	took := w.WaitReady(t, 2*rig.Patience, rig.IdentityName, "web")
	t.Logf("Ready %.1f s after the Secrets were created", took.Seconds())
	rig.Eventually(t, rig.Patience, "the issuer is usable", func() error {
		if ready := rig.Condition(w.Issuer(t).Status.Conditions, model.Ready); ready.Status != metav1.ConditionTrue {
			return fmt.Errorf("condition Ready is %q, reason %q: %s", ready.Status, ready.Reason, ready.Message)
		}
		return nil
	})
}

// A Secret that is there and holds nothing usable.
func TestUnusableSecret(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	rig.StartAll(t, w)
	w.Bootstrap(t, ca.CA)
	w.ApplySecret(t, "ca-trust", map[string]string{"ca.crt": "not a certificate"})
	w.Apply(t, rig.Issuer(ca.CA), rig.Identity())
	message := w.WaitReason(t, rig.Patience, rig.IdentityName, "SecretInvalid")
	wantText(t, message, "ca-trust", "ca.crt", "no certificate in PEM")
	if strings.Contains(message, "not a certificate") {
		t.Errorf("the message repeats what the Secret holds: %s", message)
	}
}

// The CA answers what is no CMP message.
func TestUndecodableAnswer(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	w.Settle(t, ca.CA)
	before := len(ca.Messages())
	ca.Behave(func(b *responder.Behaviour) { b.Garbage = true })
	w.Apply(t, rig.EndEntity("web"))
	message := w.WaitReason(t, rig.Patience, "web", "ResponseInvalid")
	t.Logf("the condition says: %s", message)
	if got := w.Kubectl(t, "", "get", "cmpc", "web"); !strings.Contains(got, "ResponseInvalid") {
		t.Errorf("kubectl get cmpc does not tell the reason:\n%s", got)
	}
	failed := all.Bus(t).WaitFact(t, rig.Patience, model.CertificateFailed, w.Key("web"))
	if got := rig.Data[model.AttemptFact](t, failed); got.Reason != "ResponseInvalid" {
		t.Errorf("certificate.failed has reason %s, want ResponseInvalid", got.Reason)
	}
	ca.Behave(func(b *responder.Behaviour) { b.Garbage = false })
	took := w.WaitReady(t, rig.Patience, "web")
	t.Logf("Ready %.1f s after the CA was repaired", took.Seconds())
	rig.Pair(t, w.Secret(t, rig.SecretName("web")))
	// This CA answers the same request with the same certificate; others would not.
	var asked int64
	for _, m := range ca.Messages()[before:] {
		if m.Received == cmp.TypeIR {
			asked++
		}
	}
	if got := w.Certificate(t, "web").Status.ExtraIssuances; asked < 2 || got != asked-1 {
		t.Errorf("%d extra issuances reported, want the %d that were answered with rubbish", got, asked-1)
	}
	if got := len(ca.Issued()); got != 2 {
		t.Errorf("the CA issued %d certificates, want 2", got)
	}
}

// A configuration that the API server refuses, sent as an event over JetStream: its
// sender finds config.rejected.
func TestConfigOwnedByAnother(t *testing.T) {
	t.Parallel()
	w := rig.NewWorld(t)
	ca := rig.StartResponder(t, responder.Config{})
	all := rig.StartAll(t, w)
	bus := all.Bus(t)
	w.Settle(t, ca.CA)
	w.Apply(t, rig.EndEntity("web", "validity: 1h"))
	w.WaitReady(t, rig.Patience, "web")
	e := rig.Event(t, model.ConfigUpdated, w.Key("web"), rig.EndEntity("web", "validity: 2h"))
	bus.Publish(t, model.Enroll, w.Key("web"), e)
	rejected := bus.WaitFact(t, rig.Patience, model.ConfigRejected, w.Key("web"))
	if got := rejected.Extensions()[model.CausationID]; got != e.ID() {
		t.Errorf("config.rejected has causationid %v, want the id of the event, %s", got, e.ID())
	}
	data := rig.Data[model.RejectedFact](t, rejected)
	if data.Reason != "OwnedByAnother" || !strings.Contains(data.Message, "validity") || !strings.Contains(data.Message, "e2e") {
		t.Errorf("config.rejected says %+v, want OwnedByAnother, the field and its owner", data)
	}
	if got := w.Certificate(t, "web").Spec.Validity.Duration; got != time.Hour {
		t.Errorf("validity is %s, want the owner's 1h", got)
	}
}

func wantText(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%q does not say %q", got, part)
		}
	}
}
