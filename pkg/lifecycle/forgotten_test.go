package lifecycle_test

import (
	"slices"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
)

// An end that the CA holds up, and whose alarm is lost, goes on with the next sweep.
func TestSweepFindsEnds(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	spec.DeletionPolicy = model.DeletionRevokeAndDelete
	r.declare(model.ConfigCreated, "web", spec)
	r.ca.Behave(func(b *responder.Behaviour) { b.HTTPStatus = 503 })
	r.declare(model.ConfigDeleted, "web", nil)
	r.ca.Behave(func(b *responder.Behaviour) { b.HTTPStatus = 0 })
	r.later = nil
	r.tick("sweep")
	if r.gone("web") {
		t.Fatal("it was not waited for the next attempt")
	}
	r.advance(3 * time.Minute)
	r.tick("sweep")
	if !r.gone("web") || r.outputExists("web") {
		t.Errorf("gone %v, output %v", r.gone("web"), r.outputExists("web"))
	}
	r.wantTold(model.CertificateRevoked, 1)
	r.wantTold(model.SecretDeleted, 0)
}

// A certificate that is tried again and again is told of when it is near its end.
func TestScanTellsOfNearEnds(t *testing.T) {
	r := newRig(t, nil)
	now := r.now()
	for name, tc := range map[string]struct {
		left   time.Duration // of 48 hours
		reason string        // why it waits
		ready  bool
		want   string
	}{
		"early":      {12 * time.Hour, model.ReasonCAUnavailable, true, ""},
		"soon":       {4 * time.Hour, model.ReasonCAUnavailable, true, model.CertificateExpiring},
		"over":       {-time.Hour, model.ReasonCAUnavailable, true, model.CertificateExpired},
		"soon, held": {4 * time.Hour, model.ReasonCircuitOpen, true, model.CertificateExpiring},
		"was told":   {-time.Hour, model.ReasonCAUnavailable, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r.fleet(1, func(_ int, st *model.CMPCertificateStatus) {
				dueAt(now)(0, st)
				at := func(d time.Duration) *metav1.Time { t := metav1.NewTime(now.Add(d)); return &t }
				st.NotAfter, st.NotBefore, st.NextAttempt = at(tc.left), at(tc.left-48*time.Hour), at(time.Minute)
				if !tc.ready {
					st.Conditions[0].Status = metav1.ConditionFalse
				}
				st.Conditions = append(st.Conditions, metav1.Condition{Type: model.Reconciling, Status: metav1.ConditionTrue, Reason: tc.reason, LastTransitionTime: metav1.NewTime(now)})
			})
			out, err := r.watcher().Scan(t.Context(), model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": "expiry"}))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, e := range out {
				if e.Subject() == r.key("fleet-0000").String() {
					got += e.Type()
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// Who writes an issuer's readiness into its status and dies before telling it leaves that to the
// next delivery, which tells the same fact; later it is no news any more.
func TestReadinessIsToldAgain(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	in := model.NewEvent(model.IssuerCreated, r.key("ca"), map[string]any{"spec": r.issuer()})
	look := func() (facts []event.Event) {
		t.Helper()
		out, err := r.obtainer(nil).IssuerDeclared(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range out {
			if e.Type() == model.IssuerReady || e.Type() == model.IssuerFailed {
				facts = append(facts, e)
			}
		}
		return facts
	}
	first := look() // and its process dies
	again := look()
	if len(first) != 1 || !slices.ContainsFunc(again, func(e event.Event) bool { return e.ID() == first[0].ID() }) {
		t.Fatalf("got %v and then %v, want the first fact again", first, again)
	}
	ids := map[string]bool{}
	for _, change := range []func(){func() { r.delete("ca-trust") }, func() { r.secret("ca-trust", nil) }, func() { r.delete("ca-trust") }} {
		r.advance(time.Second)
		change()
		for _, e := range look() {
			if e.Type() == model.IssuerFailed {
				ids[e.ID()] = true
			}
		}
	}
	if len(ids) != 3 {
		t.Errorf("got %d facts for three changes", len(ids))
	}
	r.advance(time.Hour)
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantTold(model.IssuerFailed, 0)
}
