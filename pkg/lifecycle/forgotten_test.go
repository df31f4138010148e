package lifecycle_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// unwatched changes an object of ours while nobody watches: no event comes of it.
func (r *rig) unwatched(resource, name, patch string) {
	r.t.Helper()
	objects := r.dynamic.Resource(model.GroupVersion.WithResource(resource)).Namespace(r.ns)
	if patch == "" {
		if err := objects.Delete(r.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	if _, err := objects.Patch(r.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantFinalizers(issuer types.NamespacedName, want ...string) {
	r.t.Helper()
	i, err := r.store.Issuer(r.t.Context(), issuer)
	if err != nil {
		r.t.Fatal(err)
	}
	if !slices.Equal(i.Finalizers, want) {
		r.t.Errorf("issuer %s: got finalizers %q, want %q", issuer, i.Finalizers, want)
	}
}

// An issuer whose last certificate went unnoticed is let go by the next sweep, and one that is used is not
// looked at for that.
func TestSweepLetsIssuersGo(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.tick("sweep")
	r.wantTold(model.IssuerCheck, 0)
	r.wantFinalizers(r.key("ca"), model.InUseFinalizer)
	r.unwatched(model.CertificateResource, "identity", "")
	r.tick("sweep")
	r.wantTold(model.IssuerCheck, 1)
	r.wantFinalizers(r.key("ca"))
	r.tick("sweep")
	r.wantTold(model.IssuerCheck, 1)
}

// An installation that serves some namespaces keeps a CMPClusterIssuer by a finalizer of its own,
// and lets it go when nobody in them uses it: by the event of the last one, or by a sweep.
func TestClusterIssuerOfSomeNamespaces(t *testing.T) {
	r := newRig(t, nil)
	r.process = r.obtainer(nil)
	r.process.Namespaces = []string{r.ns}
	r.watch = &lifecycle.Watcher{Ledger: r.store, Namespaces: []string{r.ns}, Namespace: r.ns, Now: r.now}
	issuer := types.NamespacedName{Name: r.ns} // unique
	r.trustAndBootstrap()
	r.send(model.NewEvent(model.IssuerCreated, issuer, map[string]any{"kind": model.ClusterIssuerKind, "spec": r.issuer()}))
	spec := identity()
	spec.IssuerRef = model.IssuerReference{Kind: model.ClusterIssuerKind, Name: issuer.Name}
	enrol := func(name string) {
		t.Helper()
		spec.Output.SecretName = name + "-tls"
		r.declare(model.ConfigCreated, name, spec)
		r.wantReady(name, true)
		r.wantFinalizers(issuer, r.ns+".certloop.io/in-use")
	}
	enrol("identity")
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	if got := r.lastRejection(); got.Reason != model.ReasonIssuerInUse {
		t.Errorf("got %+v, want IssuerInUse", got)
	}
	r.declare(model.ConfigDeleted, "identity", nil)
	r.wantFinalizers(issuer)
	enrol("second")
	r.unwatched(model.CertificateResource, "second", "")
	r.tick("sweep")
	r.wantFinalizers(issuer)
	// Another installation keeps it: this one cannot delete it, and says so.
	i, err := r.store.Issuer(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	other := model.InUseFinalizerOf("somewhere-else")
	if err := r.store.KeepIssuer(t.Context(), i, other, true); err != nil {
		t.Fatal(err)
	}
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	if got := r.lastRejection(); got.Reason != model.ReasonIssuerInUse || !strings.Contains(got.Message, "not served here") {
		t.Errorf("got %+v, want IssuerInUse by others", got)
	}
	if err := r.store.KeepIssuer(t.Context(), i, other, false); err != nil {
		t.Fatal(err)
	}
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	if _, err := r.store.Issuer(t.Context(), issuer); err == nil {
		t.Error("an issuer that nobody uses was not deleted")
	}
}

// A change of an issuer that nobody has seen is looked at by the next sweep.
func TestSweepFindsChangedIssuers(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.unwatched(model.IssuerResource, "ca", `{"spec":{"messageTimeout":"20s"}}`)
	r.tick("sweep")
	r.wantTold(model.IssuerCheck, 1)
	i, err := r.store.Issuer(t.Context(), r.key("ca"))
	if err != nil {
		t.Fatal(err)
	}
	if i.Status.ObservedGeneration != i.Generation {
		t.Errorf("got generation %d observed, want %d", i.Status.ObservedGeneration, i.Generation)
	}
}

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
// next delivery of the same event, which tells the same fact; to others it is no news.
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
	if len(first) != 1 || len(again) != 1 || again[0].ID() != first[0].ID() {
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
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantTold(model.IssuerFailed, 0)
}

// A refusal is taken for that of the policy which guards issuers when it is, and not when the text
// happens to name it.
func TestRefusalOfThePolicy(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	const name = "certloop-issuers"
	r.declare(model.IssuerCreated, name, r.issuer())
	spec := identity()
	spec.IssuerRef.Name = name
	r.declare(model.ConfigCreated, "identity", spec)
	r.wantReady("identity", true)
	issuer := r.issuer()
	issuer.Server = "http://other.example.com/"
	r.declare(model.IssuerUpdated, name, issuer)
	if got := r.lastRejection(); got.Reason != model.ReasonIssuerInUse || !strings.Contains(got.Message, r.ns+"/identity") || !strings.Contains(got.Message, "spec.server") {
		t.Errorf("got %+v, want IssuerInUse, the user and the field", got)
	}
	issuer.Server = "rubbish"
	r.declare(model.IssuerUpdated, name, issuer)
	if got := r.lastRejection(); got.Reason != model.ReasonConfigInvalid {
		t.Errorf("got %+v, want ConfigInvalid", got)
	}
}
