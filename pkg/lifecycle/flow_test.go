package lifecycle_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

// patch changes a configuration as kubectl does, and lets enroll see it as an
// ApiServerSource would show it.
func (r *rig) patch(name, body string) {
	r.t.Helper()
	r.patchUnseen(name, body)
	r.see(name)
}

// patchUnseen changes a configuration while nobody watches.
func (r *rig) patchUnseen(name, body string) {
	r.t.Helper()
	resource := r.dynamic.Resource(model.GroupVersion.WithResource(model.CertificateResource)).Namespace(r.ns)
	if _, err := resource.Patch(r.t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "kubectl"}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) annotate(name, annotation, value string) {
	r.t.Helper()
	r.patch(name, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, value))
}

// see shows enroll the object as it is.
func (r *rig) see(name string) {
	r.t.Helper()
	c, err := r.store.Certificate(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	e := model.NewEvent(model.ResourceUpdate, types.NamespacedName{}, c)
	e.SetExtension("kind", model.CertificateKind)
	e.SetExtension("namespace", r.ns)
	e.SetExtension("name", name)
	r.send(e)
}

func (r *rig) record(name string) *ledger.Record {
	r.t.Helper()
	c, err := r.store.Certificate(r.t.Context(), r.key(name))
	if err != nil {
		r.t.Fatal(err)
	}
	rec, err := r.store.Record(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// lastRequest is the kind of the request that the last certificate was issued for.
func (r *rig) lastRequest() cmp.BodyType {
	issued := r.ca.Issued()
	return issued[len(issued)-1].Request
}

// settle lets everything that is due later happen, for as long as a test may take.
func (r *rig) settle() { r.t.Helper(); r.settleWithin(200) }

// settleWithin does so with so many alarms at most.
func (r *rig) settleWithin(alarms int) {
	r.t.Helper()
	for range alarms {
		if len(r.later) == 0 {
			return
		}
		r.wait()
	}
	r.t.Fatalf("there is always something due later: %s", r.later[0])
}

func (r *rig) honest() { r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} }) }

// A recreation is an initial request for a new key, whatever there is; delivered twice it is one.
func TestRecreation(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	before := r.output("web").Data["tls.key"]
	in := model.NewEvent(model.RecreationRequested, r.key("web"), nil)
	r.send(in)
	r.send(in)
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	if got := r.lastRequest(); got != cmp.TypeIR {
		t.Errorf("got %s, want ir", got)
	}
	if bytes.Equal(before, r.output("web").Data["tls.key"]) {
		t.Error("the key is the former one")
	}
}

// What a person asked for by an event outlives refusals, processes and a missing issuer.
func TestDemandsStay(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   string
		data any
		want cmp.BodyType
	}{
		{"recreation", model.RecreationRequested, nil, cmp.TypeIR},
		{"renewal", model.RenewalRequested, model.Work{Reason: model.WorkManual}, cmp.TypeKUR},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.ready()
			r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
			trust, err := r.secrets.Get(t.Context(), "ca-trust", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.secrets.Delete(t.Context(), "ca-trust", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			r.send(model.NewEvent(tc.in, r.key("web"), tc.data))
			r.wantIssuances("web", 1)
			r.secret("ca-trust", trust.Data)
			r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailSystemUnavail) })
			r.wait()
			r.wait()
			r.wantIssuances("web", 1)
			r.honest()
			r.wait()
			r.wantReady("web", true)
			r.wantIssuances("web", 2)
			if got := r.lastRequest(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			r.settle()
			r.wantIssuances("web", 2)
		})
	}
}

// Each value of an annotation asks once; what was done of it is in the status.
func TestAnnotations(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	long := strings.Repeat("very ", 200)
	for i, tc := range []struct {
		annotation, value string
		want              cmp.BodyType
	}{
		{model.RenewAnnotation, "1", cmp.TypeKUR}, {model.RecreateAnnotation, "1", cmp.TypeIR},
		{model.RenewAnnotation, "2", cmp.TypeKUR}, {model.RecreateAnnotation, long, cmp.TypeIR},
	} {
		r.annotate("web", tc.annotation, tc.value)
		r.wantReady("web", true)
		r.wantIssuances("web", i+2)
		if got := r.lastRequest(); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.annotation, got, tc.want)
		}
		r.see("web")
		r.tick("sweep")
		r.wantIssuances("web", i+2)
	}
	st := r.status("web")
	if st.RenewRequest != "2" || !strings.HasPrefix(st.RecreateRequest, "sha256:") {
		t.Errorf("got %q and %q carried out", st.RenewRequest, st.RecreateRequest)
	}
}

// A process that dies anywhere carries out an annotation once.
func TestAnnotationCrash(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, step := range []string{"claim", "exchange", "stage", "promote", "project", "report"} {
		name := "crash-" + step
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
		resource := r.dynamic.Resource(model.GroupVersion.WithResource(model.CertificateResource)).Namespace(r.ns)
		body := fmt.Sprintf(`{"metadata":{"annotations":{%q:"now"}}}`, model.RecreateAnnotation)
		if _, err := resource.Patch(t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		in := model.NewEvent(model.EnrollmentRequested, r.key(name), nil)
		if !r.crash(in, step, 1) {
			t.Fatalf("the attempt never came to %s", step)
		}
		r.send(in)
		r.settle()
		r.see(name)
		r.wantReady(name, true)
		r.wantIssuances(name, 2)
		if got := r.status(name).RecreateRequest; got != "now" {
			t.Errorf("%s: got %q carried out, want now", step, got)
		}
	}
}

// An annotation that the CA refuses is not asked for again, until there is another value.
func TestAnnotationParked(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailBadPOP) })
	r.annotate("web", model.RecreateAnnotation, "1")
	r.wantTold(model.CertificateParked, 1)
	r.see("web")
	r.tick("sweep")
	r.wantTold(model.CertificateParked, 1)
	r.annotate("web", model.RecreateAnnotation, "2")
	r.wantTold(model.CertificateParked, 2)
	r.honest()
	r.annotate("web", model.RecreateAnnotation, "3")
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	if c := condition(r.status("web"), model.Stalled); c.Status != "" {
		t.Errorf("got %+v, want no condition Stalled", c)
	}
}

// While the CA makes us wait for a key update, a renewal that is asked for is that one, and a
// recreation takes its place.
func TestDemandsMeetATransaction(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, tc := range []struct {
		annotation string
		issuances  int
		want       cmp.BodyType
	}{{model.RenewAnnotation, 2, cmp.TypeKUR}, {model.RecreateAnnotation, 2, cmp.TypeIR}} {
		name := "web-" + tc.want.String()
		r.honest()
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
		r.ca.Wait(3, 2*time.Second)
		r.send(model.NewEvent(model.RenewalRequested, r.key(name), model.Work{Reason: model.WorkManual}))
		r.wantFlight(name)
		r.annotate(name, tc.annotation, "now")
		r.settle()
		r.see(name)
		r.wantReady(name, true)
		r.wantIssuances(name, tc.issuances)
		if got := r.lastRequest(); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

func (r *rig) wantFlight(name string) {
	r.t.Helper()
	if r.record(name).Flight == nil {
		r.t.Fatalf("%s has no transaction in flight", name)
	}
}

// Nothing is done for a paused certificate: no renewal, no repair, no poll; and everything when
// the pause is over.
func TestPaused(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.ca.Wait(3, 2*time.Second)
	r.declare(model.ConfigCreated, "slow", certificate("slow", 24*time.Hour))
	r.wantFlight("slow")
	for _, name := range []string{"web", "slow"} {
		r.patch(name, `{"spec":{"paused":true}}`)
	}
	if c := condition(r.status("web"), model.Stalled); c.Reason != "Paused" {
		t.Errorf("got condition %+v, want Stalled with reason Paused", c)
	}
	r.wantReady("web", true)
	r.wantReason("slow", "Paused")
	r.settle()
	r.wantIssuances("slow", 0)
	r.wantFlight("slow")

	r.advance(17 * time.Hour)
	if err := r.secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.send(r.ref(model.RefDelete, "web-tls"))
	r.tick("expiry")
	r.tick("sweep")
	r.send(model.NewEvent(model.RecreationRequested, r.key("web"), nil))
	r.settle()
	r.wantIssuances("web", 1)
	if _, err := r.secrets.Get(t.Context(), "web-tls", metav1.GetOptions{}); err == nil {
		t.Error("the output was put back")
	}
	r.honest()
	for _, name := range []string{"web", "slow"} {
		r.patch(name, `{"spec":{"paused":false}}`)
	}
	r.settle()
	r.wantReady("web", true)
	r.wantReady("slow", true)
	r.wantIssuances("web", 2)
	r.wantIssuances("slow", 1)
	if st := r.status("web"); len(st.Conditions) != 1 {
		t.Errorf("got conditions %+v, want Ready alone", st.Conditions)
	}
}

// A key update that the CA refuses because of the certificate to be updated becomes an initial
// request; once, so that a refusal of that one counts.
func TestKeyUpdateFallsBack(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	onlyKUR := func(failure cmp.FailureInfo) func(*responder.Behaviour) {
		return func(b *responder.Behaviour) {
			b.Only = []cmp.BodyType{cmp.TypeKUP}
			b.Alter = func(m *cmp.Message) {
				m.Type, m.Body = cmp.TypeError, &cmp.ErrorMsg{Status: *rejection(failure)}
			}
		}
	}
	for _, failure := range []cmp.FailureInfo{cmp.FailBadCertID, cmp.FailCertRevoked, cmp.FailSignerNotTrusted, cmp.FailSignerNotTrusted | cmp.FailCertRevoked} {
		name := "web-" + strings.ToLower(strings.ReplaceAll(failure.String(), ",", "-"))
		r.honest()
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
		r.ca.Behave(onlyKUR(failure))
		r.send(model.NewEvent(model.RenewalRequested, r.key(name), model.Work{Reason: model.WorkManual}))
		r.wantReady(name, true)
		if st := r.status(name); st.Revision != 2 || r.lastRequest() != cmp.TypeIR {
			t.Errorf("%s: got revision %d by %s, want 2 by ir", failure, st.Revision, r.lastRequest())
		}
	}
	r.wantTold(model.CertificateFailed, 0)

	r.honest()
	r.declare(model.ConfigCreated, "plain", certificate("plain", 24*time.Hour))
	r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailCertRevoked) })
	r.send(model.NewEvent(model.RenewalRequested, r.key("plain"), model.Work{Reason: model.WorkManual}))
	r.wantTold(model.CertificateParked, 1)
	r.wantIssuances("plain", 1)
	if c := condition(r.status("plain"), model.Ready); c.Status != metav1.ConditionTrue {
		t.Errorf("got %+v, want Ready: the former certificate is as good as before", c)
	}
}

// What each bit of PKIFailureInfo leads to.
func TestFailureInfos(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	passing := []cmp.FailureInfo{cmp.FailBadTime, cmp.FailTimeNotAvailable, cmp.FailTransactionIDInUse, cmp.FailSystemUnavail, cmp.FailSystemFailure}
	for bit := range 27 {
		failure := cmp.FailureInfo(1) << bit
		t.Run(failure.String(), func(t *testing.T) {
			name := fmt.Sprintf("bit-%d", bit)
			r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(failure) })
			before := len(r.later)
			r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
			want, alarms := "RejectedByCA", 0
			if slices.Contains(passing, failure) {
				want, alarms = "CAUnavailable", 1
			}
			r.wantReason(name, want)
			if got := len(r.later) - before; got != alarms {
				t.Errorf("got %d alarms, want %d", got, alarms)
			}
			if message := condition(r.status(name), model.Ready).Message; !strings.Contains(message, failure.String()) {
				t.Errorf("got message %q, want it to say %s", message, failure)
			}
		})
	}
}

// With the policy fixed30s everything is repeated after exactly 30 s, refusals too; but not
// certificates that are of no use.
func TestFixedRetry(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	spec := r.issuer()
	spec.Retry = model.RetryPolicy{Policy: model.RetryFixed30s, ReleasePerSecond: 10}
	r.declare(model.IssuerCreated, "ca", spec)
	r.declare(model.ConfigCreated, "identity", identity())
	for _, failure := range []cmp.FailureInfo{cmp.FailBadPOP, cmp.FailSystemUnavail} {
		r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(failure) })
		name := strings.ToLower(failure.String())
		began := r.now()
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
		for range 10 {
			r.wait()
		}
		if took := r.now().Sub(began); took < 300*time.Second || took > 310*time.Second {
			t.Errorf("%s: ten retries took %v, want 30 s each", failure, took)
		}
		r.wantTold(model.CertificateParked, 0)
		r.honest()
		r.wait()
		r.wantReady(name, true)
		r.wantIssuances(name, 1)
	}
	r.ca.Behave(func(b *responder.Behaviour) { b.WrongKey = true })
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.settle()
	r.wantIssuances("web", 3)
	r.wantTold(model.CertificateParked, 1)
}

// A CA whose certificates never satisfy is left alone after three, whatever happens in
// between and whoever asks: other failures, waits, dying processes, scans.
func TestNoReissuanceLoopAcrossEverything(t *testing.T) {
	shrunk := func(b *responder.Behaviour) {
		b.Modify = func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Second) }
	}
	for name, spoil := range map[string]func(*responder.Behaviour){
		"another key": func(b *responder.Behaviour) { b.WrongKey = true }, "a lifetime of nothing": shrunk,
		"over already": func(b *responder.Behaviour) {
			b.Modify = func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = c.NotBefore.Add(-2*time.Hour), c.NotBefore.Add(-time.Hour)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.ready()
			r.ca.Behave(spoil)
			in := model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)})
			if !r.crash(in, "release", 1) { // the first is refused, and the process dies
				t.Fatal("nothing was refused")
			}
			r.send(in)
			r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailSystemUnavail) })
			r.wait()
			r.ca.Behave(func(b *responder.Behaviour) { b.Reject = nil; b.Wait, b.CheckAfter = 2, 2*time.Second; spoil(b) })
			r.settle()
			r.wantIssuances("web", 3)
			r.wantTold(model.CertificateParked, 1)
			r.wantReason("web", "CertificateRefused")
			if n := r.status("web").ExtraIssuances; n != 3 {
				t.Errorf("got %d extra issuances reported, want 3", n)
			}
			for range 3 {
				r.advance(11 * time.Minute)
				r.tick("expiry")
				r.tick("sweep")
				r.see("web")
				r.send(in)
				r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), model.Work{Reason: model.WorkDependency}))
			}
			r.settle()
			r.wantIssuances("web", 3)
			r.honest()
			r.send(model.NewEvent(model.RecreationRequested, r.key("web"), nil))
			r.wantReady("web", true)
			r.wantIssuances("web", 4)
		})
	}
}

// A CA that takes days: polls outlive every process, in one transaction.
func TestPollingForDays(t *testing.T) {
	r := newRig(t, func(c *responder.Config) { c.PollWait = 30 * 24 * time.Hour })
	r.trustAndBootstrap()
	spec := r.issuer()
	spec.TotalTimeout = &metav1.Duration{Duration: 8 * 24 * time.Hour}
	r.declare(model.IssuerCreated, "ca", spec)
	r.declare(model.ConfigCreated, "identity", identity())
	r.ca.Wait(50, time.Hour)
	r.declare(model.ConfigCreated, "web", certificate("web", 60*24*time.Hour))
	id := r.status("web").TransactionID
	began := r.now()
	for r.status("web").Serial == "" {
		if len(r.later) != 1 {
			t.Fatalf("got %d alarms, want 1: %+v", len(r.later), r.status("web").Conditions)
		}
		r.wantReason("web", "WaitingForCA")
		r.wait()
	}
	if took := r.now().Sub(began); took < 2*24*time.Hour {
		t.Errorf("it took %v, want days", took)
	}
	r.wantReady("web", true)
	issued := r.ca.Issued()
	if got := issued[len(issued)-1].TransactionID; got != id {
		t.Errorf("issued in transaction %s, want %s", got, id)
	}
	r.wantIssuances("web", 1)
}

// A CA that never decides: the transaction ends when its total time is over, and another one begins.
func TestTotalTimeout(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Wait(-1, time.Hour)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	first := r.status("web").TransactionID
	for began := r.now(); r.status("web").TransactionID == first; {
		if r.now().Sub(began) > 25*time.Hour {
			t.Fatal("the transaction goes on although its total time is over")
		}
		r.wait()
	}
	r.wantTold(model.IssuanceMaybeOrphan, 1)
	r.honest()
	r.settle()
	r.wantReady("web", true)
	if n := r.status("web").ExtraIssuances; n != 1 {
		t.Errorf("got %d extra issuances reported, want 1", n)
	}
}

// A transaction that another version of the program has stored, in a form this one does not
// know, is given up, counted, and begun anew.
func TestTransactionOfAnotherVersion(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Wait(2, 2*time.Second)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	secret, err := r.secrets.Get(context.Background(), model.RecordName("web"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]any
	if err := json.Unmarshal(secret.Data["transaction"], &state); err != nil {
		t.Fatal(err)
	}
	state["version"] = 0
	if secret.Data["transaction"], err = json.Marshal(state); err != nil {
		t.Fatal(err)
	}
	if _, err := r.secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.settle()
	r.wantReady("web", true)
	r.wantTold(model.IssuanceMaybeOrphan, 1)
	if n := r.status("web").ExtraIssuances; n != 1 {
		t.Errorf("got %d extra issuances reported, want 1", n)
	}
}

// A CA that has lost the transaction it made us wait for is asked anew, which is counted.
func TestForgottenTransaction(t *testing.T) {
	r := newRig(t, func(c *responder.Config) { c.PollWait = time.Minute })
	r.ready()
	r.ca.Wait(-1, 10*time.Minute)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", "WaitingForCA")
	r.honest()
	r.settle()
	r.wantReady("web", true)
	r.wantTold(model.CertificateParked, 0)
	if n := r.status("web").ExtraIssuances; n != 1 {
		t.Errorf("got %d extra issuances reported, want 1", n)
	}
}

// The confirmation is made to wait too, for a day and across processes; the certificate is
// staged meanwhile and told only in the end.
func TestConfirmationWaits(t *testing.T) {
	r := newRig(t, func(c *responder.Config) { c.ConfirmWait = 30 * 24 * time.Hour })
	r.ready()
	r.ca.Behave(func(b *responder.Behaviour) { b.WaitConfirm, b.CheckAfter = 20, time.Hour })
	r.declare(model.ConfigCreated, "web", certificate("web", 60*24*time.Hour))
	r.wantReason("web", "WaitingForCA")
	if f := r.record("web").Flight; f == nil || f.Chain == nil {
		t.Fatal("the certificate is not staged")
	}
	r.wantTold(model.CertificateIssued, 1) // the identity
	r.settle()
	r.wantTold(model.CertificateIssued, 2)
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
	if st := r.status("web"); st.ExtraIssuances != 0 || meta.IsStatusConditionTrue(st.Conditions, model.Reconciling) {
		t.Errorf("got %d extra issuances and conditions %+v, want none and Ready alone", st.ExtraIssuances, st.Conditions)
	}
}
