package lifecycle_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
)

func (r *rig) gone(name string) bool {
	r.t.Helper()
	_, err := r.store.Certificate(r.t.Context(), r.key(name))
	return err != nil
}

func (r *rig) outputExists(name string) bool {
	r.t.Helper()
	_, err := r.secrets.Get(r.t.Context(), name+"-tls", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		r.t.Fatal(err)
	}
	return err == nil
}

// revoked counts the certificates of a subject that the CA has revoked at our request.
func (r *rig) revoked(name string) (reasons []string) {
	for _, i := range r.ca.Issued() {
		if i.Revoked && i.Subject != "" && bytes.Contains([]byte(i.Subject), []byte("CN="+name)) {
			reasons = append(reasons, i.Reason)
		}
	}
	return reasons
}

// What becomes of output and certificate when a configuration goes is what it says.
func TestDeletionPolicies(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for policy, want := range map[string]struct{ output, revoked bool }{
		model.DeletionKeep:            {true, false},
		model.DeletionDelete:          {false, false},
		model.DeletionRevokeAndDelete: {false, true},
	} {
		name := map[string]string{model.DeletionKeep: "kept", model.DeletionDelete: "deleted", model.DeletionRevokeAndDelete: "revoked"}[policy]
		t.Run(policy, func(t *testing.T) {
			spec := certificate(name, 24*time.Hour)
			spec.DeletionPolicy = policy
			r.declare(model.ConfigCreated, name, spec)
			r.wantReady(name, true)
			before, ended := r.output(name).Data, r.told(model.CertificateEnded)
			r.declare(model.ConfigDeleted, name, nil)
			if !r.gone(name) {
				t.Fatal("the configuration is still there")
			}
			if got := r.outputExists(name); got != want.output {
				t.Fatalf("the output exists: %v, want %v", got, want.output)
			}
			if want.output {
				for k, v := range r.output(name).Data {
					if !bytes.Equal(before[k], v) {
						t.Errorf("%s of the output has changed", k)
					}
				}
			}
			if got := r.told(model.CertificateEnded); got != ended+1 {
				t.Errorf("the end was told %d times", got-ended)
			}
			if got := len(r.revoked(name)) > 0; got != want.revoked {
				t.Errorf("revoked: %v, want %v", got, want.revoked)
			}
		})
	}
	r.wantTold(model.CertificateRevoked, 1)
	// Deleted by hand afterwards it stays deleted.
	if err := r.secrets.Delete(t.Context(), "kept-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.send(r.ref(model.RefDelete, "kept-tls"))
	r.tick("sweep")
	if r.outputExists("kept") {
		t.Error("the Secret of a configuration that is gone was put back")
	}
}

// The end of a configuration that keeps its output and was deleted with kubectl is told by who is shown it;
// that of one with another policy was told before it went.
func TestEndByKubectlIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for policy, told := range map[string]bool{"": true, model.DeletionKeep: true, model.DeletionDelete: false} {
		name := "web" + strings.ToLower(policy)
		spec := certificate(name, 24*time.Hour)
		spec.DeletionPolicy = policy
		r.declare(model.ConfigCreated, name, spec)
		shown, err := r.store.Certificate(t.Context(), r.key(name))
		if err != nil {
			t.Fatal(err)
		}
		in := model.NewEvent(model.ResourceDelete, r.key(name), shown)
		in.SetExtension("kind", model.CertificateKind)
		in.SetExtension("namespace", r.ns)
		in.SetExtension("name", name)
		out, err := r.obtainer(nil).Observed(t.Context(), in)
		if err != nil || mention(out, model.CertificateEnded, r.key(name).String()) != told {
			t.Errorf("policy %q: got %v and %v, want the end told: %v", policy, out, err, told)
		}
		for _, e := range out {
			if id := model.DerivedID(model.CertificateEnded, string(shown.UID)); e.ID() != id {
				t.Errorf("policy %q: got id %s, want that of every other telling, %s", policy, e.ID(), id)
			}
		}
	}
}

// A CA that does not answer holds up the end, visibly; it is asked again, or left out when
// somebody says so. Being paused holds up nothing.
func TestEndWithoutTheCA(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, name := range []string{"one", "two"} {
		spec := certificate(name, 24*time.Hour)
		spec.DeletionPolicy = model.DeletionRevokeAndDelete
		spec.Paused = name == "two"
		if spec.Paused {
			spec.Paused = false
			r.declare(model.ConfigCreated, name, spec)
			spec.Paused = true
		}
		r.declare(model.ConfigCreated, name, spec)
		r.wantReady(name, true)
	}
	r.ca.Behave(func(b *responder.Behaviour) { b.HTTPStatus = 503 })
	for _, name := range []string{"one", "two"} {
		r.declare(model.ConfigDeleted, name, nil)
		if r.gone(name) || !r.outputExists(name) {
			t.Fatalf("%s went although the CA did not revoke it", name)
		}
		c := meta.FindStatusCondition(r.status(name).Conditions, model.Reconciling)
		if c == nil || c.Reason != model.ReasonRevocationFailed {
			t.Errorf("%s: got condition %+v, want %s", name, c, model.ReasonRevocationFailed)
		}
	}
	r.kubectlApply(`{"apiVersion":"certloop.io/v1alpha1","kind":"CMPCertificate","metadata":{"name":"two"},"spec":{"issuerRef":{"name":"ca"},"subject":{"commonName":"two"},"output":{"secretName":"two-tls"},"deletionPolicy":"keep"}}`)
	r.observe(model.ResourceUpdate, model.CertificateKind, "two")
	if !r.gone("two") || !r.outputExists("two") {
		t.Error("with the policy keep it is still there, or its output is not")
	}
	r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	for len(r.later) > 0 && !r.gone("one") {
		r.wait()
	}
	if !r.gone("one") || r.outputExists("one") || len(r.revoked("one")) != 1 {
		t.Errorf("the CA is back: gone %v, output %v, revoked %d times", r.gone("one"), r.outputExists("one"), len(r.revoked("one")))
	}
}

// A process that dies in the middle of an end leaves an end that somebody else can finish.
func TestCrashInTheEnd(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	spec.DeletionPolicy = model.DeletionRevokeAndDelete
	r.declare(model.ConfigCreated, "web", spec)
	in := model.NewEvent(model.ConfigDeleted, r.key("web"), nil)
	if !r.crash(in, "revoke", 1) {
		t.Fatal("it was not revoked")
	}
	r.send(in) // delivered again
	if !r.gone("web") || r.outputExists("web") {
		t.Errorf("gone %v, output %v", r.gone("web"), r.outputExists("web"))
	}
	r.wantTold(model.CertificateRevoked, 1)
	r.wantTold(model.CertificateEnded, 1)
}

// Somebody has a certificate revoked: the CA does it, and another one comes, by an initial request.
func TestRevocationOnRequest(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	in := model.NewEvent(model.RevocationRequested, r.key("web"), model.RevocationFact{Reason: "keyCompromise"})
	r.ca.Behave(func(b *responder.Behaviour) { b.HTTPStatus = 503 })
	r.send(in)
	r.wantTold(model.CertificateRevoked, 0)
	r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	for len(r.later) > 0 {
		r.wait()
	}
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	if got := r.revoked("web"); len(got) != 1 {
		t.Errorf("got revocations %q, want one", got)
	}
	issued := r.ca.Issued()
	if last := issued[len(issued)-1]; last.Request != cmp.TypeIR {
		t.Errorf("the new one came by %s, want an initial request: what is revoked cannot sign", last.Request)
	}
	r.send(in) // delivered once more
	r.wantIssuances("web", 2)
	r.wantTold(model.CertificateRevoked, 1)
}

// What a change leads to is told before it happens.
func TestConfigApplied(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	r.declare(model.ConfigCreated, "web", spec)
	changes := func() (all []model.ChangeFact, order []string) {
		for _, f := range r.facts {
			if f.Subject() != r.key("web").String() {
				continue
			}
			switch f.Type() {
			case model.ConfigApplied:
				var c model.ChangeFact
				if err := f.DataAs(&c); err != nil {
					t.Fatal(err)
				}
				all = append(all, c)
				order = append(order, f.Type())
			case model.CertificateRenewed:
				order = append(order, f.Type())
			}
		}
		return all, order
	}
	if all, _ := changes(); len(all) != 1 || all[0].Effect != model.EffectReissue {
		t.Fatalf("declared: got %+v", all)
	}
	spec.RenewBefore = &metav1.Duration{Duration: time.Hour}
	r.declare(model.ConfigUpdated, "web", spec)
	r.wantIssuances("web", 1)
	spec.SubjectAltNames.DNSNames = []string{"other.example.com"}
	r.declare(model.ConfigUpdated, "web", spec)
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	r.declare(model.ConfigUpdated, "web", spec) // the same once more
	all, order := changes()
	if len(all) != 3 || all[1].Effect != model.EffectNextRenewal || all[2].Effect != model.EffectReissue ||
		!slices.Equal(all[2].Fields, []string{"spec.subjectAltNames.dnsNames"}) || all[2].Generation != 3 {
		t.Errorf("got %+v", all)
	}
	if want := []string{model.ConfigApplied, model.CertificateRenewed}; !slices.Equal(slices.Compact(order[2:]), want) {
		t.Errorf("got the order %q, want %q", order, want)
	}
	// Another issuer: the former one is free.
	other := r.issuer()
	other.Recipient = "/CN=the same CA"
	r.declare(model.IssuerCreated, "other", other)
	spec.IssuerRef.Name = "other"
	r.declare(model.ConfigUpdated, "web", spec)
	identity := identity()
	identity.IssuerRef.Name = "other"
	r.declare(model.ConfigUpdated, "identity", identity)
	r.wantReady("web", true)
	for name, want := range map[string]int{"ca": 0, "other": 1} {
		i, err := r.store.Issuer(t.Context(), r.key(name))
		if err != nil {
			t.Fatal(err)
		}
		if len(i.Finalizers) != want {
			t.Errorf("issuer %s: got finalizers %q, want %d", name, i.Finalizers, want)
		}
	}
}
