package lifecycle_test

import (
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
)

// answers are the facts that name an event as their cause, or its correlation.
func (r *rig) answers(in event.Event) (types []string, generation int64) {
	r.t.Helper()
	for _, f := range r.facts {
		if f.Subject() != in.Subject() || model.Correlation(f) != in.ID() {
			continue
		}
		types = append(types, f.Type())
		var data struct {
			Generation int64 `json:"generation"`
		}
		if err := f.DataAs(&data); err != nil {
			r.t.Fatal(err)
		}
		generation = data.Generation
	}
	return types, generation
}

func (r *rig) wantAnswer(in event.Event, eventType string, generation int64) {
	r.t.Helper()
	types, g := r.answers(in)
	if len(types) == 0 || types[len(types)-1] != eventType || g != generation {
		r.t.Errorf("answered by %q of generation %d, want %s at last, of generation %d", types, g, eventType, generation)
	}
}

// Whoever declares something hears how it stands, also when nothing changes and long after the
// certificate was issued.
func TestEachDeclarationIsAnswered(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 90*24*time.Hour)
	declare := func() event.Event {
		t.Helper()
		in := model.NewEvent(model.ConfigUpdated, r.key("web"), map[string]any{"spec": spec})
		r.send(in)
		return in
	}
	r.wantAnswer(declare(), model.CertificateIssued, 1)
	r.wantAnswer(declare(), model.CertificateReady, 1)
	r.advance(24 * time.Hour)
	r.wantAnswer(declare(), model.CertificateReady, 1)

	spec.RenewBefore = &metav1.Duration{Duration: 48 * time.Hour}
	r.wantAnswer(declare(), model.CertificateReady, 2)
	asked := model.NewEvent(model.EnrollmentRequested, r.key("web"), model.Work{Reason: model.WorkStatus})
	r.send(asked)
	r.wantAnswer(asked, model.CertificateReady, 2)
	r.wantIssuances("web", 1)

	r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailBadPOP) })
	spec.Subject.CommonName = "other"
	r.wantAnswer(declare(), model.CertificateParked, 3)
	r.wantAnswer(declare(), model.CertificateParked, 3)

	issuer := model.NewEvent(model.IssuerUpdated, r.key("ca"), map[string]any{"spec": r.issuer()})
	r.send(issuer)
	r.wantAnswer(issuer, model.IssuerReady, 1)
}

// Whoever changes an issuer hears how it stands, by an event or with kubectl, also when it is as ready as before.
func TestChangedIssuerIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := r.issuer()
	spec.MessageTimeout = &metav1.Duration{Duration: 20 * time.Second}
	in := model.NewEvent(model.IssuerUpdated, r.key("ca"), map[string]any{"spec": spec})
	r.send(in)
	r.wantAnswer(in, model.IssuerReady, 2)
	r.wantTold(model.IssuerFailed, 0)
	r.unwatched(model.IssuerResource, "ca", `{"spec":{"messageTimeout":"25s"}}`)
	change := model.NewEvent(model.ResourceUpdate, r.key("ca"), nil)
	change.SetExtension("kind", model.IssuerKind)
	change.SetExtension("namespace", r.ns)
	change.SetExtension("name", "ca")
	r.send(change)
	r.wantAnswer(change, model.IssuerReady, 3)
}

// Nothing is told to those who did not ask and to whom nothing is new.
func TestNothingIsToldUnasked(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 90*24*time.Hour))
	before := r.told(model.CertificateReady)
	r.advance(24 * time.Hour)
	r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), model.Work{Reason: model.WorkPoll}))
	r.send(r.apiEvent(model.ResourceAdd, "web"))
	r.wantTold(model.CertificateReady, before)
}
