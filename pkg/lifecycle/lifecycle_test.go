package lifecycle_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

func TestEnroll(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
	r.wantTold(model.CertificateIssued, 2) // the identity and web

	chain, err := ledger.ParseCertificates(r.output("web").Data["tls.crt"])
	if err != nil {
		t.Fatal(err)
	}
	leaf := chain[0]
	if got, want := leaf.Subject.String(), "CN=web,O=Example"; got != want {
		t.Errorf("got subject %s, want %s", got, want)
	}
	if !slices.Equal(leaf.DNSNames, []string{"web.example.com"}) || len(leaf.IPAddresses) != 2 || !leaf.IPAddresses[1].Equal(net.ParseIP("2001:db8::1")) || len(leaf.URIs) != 1 {
		t.Errorf("got names %v %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) || leaf.IsCA {
		t.Errorf("got usages %v %v, CA %v", leaf.KeyUsage, leaf.ExtKeyUsage, leaf.IsCA)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.output("web").Data["ca.crt"])
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: r.now()}); err != nil {
		t.Errorf("tls.crt does not chain to ca.crt: %v", err)
	}
}

// The CA authenticates the identity by the shared secret, everything else by the identity.
func TestWhatProtectsRequests(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	for _, i := range r.ca.Issued() {
		want := "signature:"
		if strings.Contains(i.Subject, "identity") {
			want = "mac:ref"
		}
		if !strings.HasPrefix(i.Authenticated, want) {
			t.Errorf("%s was authenticated by %s, want %s", i.Subject, i.Authenticated, want)
		}
	}
}

// The same event ten times, at the same time: one CMP transaction.
func TestDuplicates(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	in := model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 50 { // a conflict means: deliver again
				if _, err := r.handle(r.obtainer(nil), in); err == nil {
					return
				}
			}
			t.Error("still refused after 50 deliveries")
		})
	}
	wg.Wait()
	for _, f := range r.facts {
		if due(f).After(r.now()) {
			r.schedule(f)
		}
	}
	for len(r.later) > 0 {
		r.wait()
	}
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
	ids := map[string]bool{}
	for _, i := range r.ca.Issued() {
		ids[i.TransactionID] = true
	}
	if len(ids) != 2 {
		t.Errorf("got %d transactions, want 2 (identity and web)", len(ids))
	}
}

// Certificate, then issuer, then Secrets, then identity: everything waits, visibly, and
// proceeds by itself.
func TestBackwardsOrder(t *testing.T) {
	r := newRig(t, nil)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", "IssuerNotFound")
	r.declare(model.IssuerCreated, "ca", r.issuer())
	r.wantReason("web", "SecretNotFound")
	r.trustAndBootstrap()
	r.wait()
	r.wantReason("web", "IdentityNotReady")
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}

// What a renewal lacks is told once, while the certificate in use stays ready, however often it is looked for.
func TestLackingIsToldOnce(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReady("web", true)
	r.delete("ca-trust")
	waited := r.told(model.CertificateWaiting)
	r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
	for range 3 {
		r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkDependency}))
	}
	r.wantReady("web", true)
	if got := r.message("web", model.Reconciling); !strings.Contains(got, "ca-trust") {
		t.Errorf("got message %q, want ca-trust in it", got)
	}
	r.wantTold(model.CertificateWaiting, waited+1)
}

// A process killed right after any step: the next delivery, one lease later, finishes
// the work with the same key; the CA issued one certificate.
func TestCrashAfterEveryStep(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, tc := range []struct {
		step string
		nth  int
		lost int64 // requests whose answer went with the process: this CA answers them again, another one issues again
	}{{"claim", 1, 1}, {"exchange", 1, 1}, {"stage", 1, 0}, {"exchange", 2, 0}, {"promote", 1, 0}, {"project", 1, 0}, {"report", 1, 0}} {
		name := fmt.Sprintf("crash-%s-%d", tc.step, tc.nth)
		t.Run(name, func(t *testing.T) {
			in := model.NewEvent(model.ConfigCreated, r.key(name), map[string]any{"spec": certificate(name, 24*time.Hour)})
			if !r.crash(in, tc.step, tc.nth) {
				t.Fatalf("the attempt never came to %s", tc.step)
			}
			r.send(in) // delivered again
			for len(r.later) > 0 {
				r.wait()
			}
			r.wantReady(name, true)
			r.wantIssuances(name, 1)
			if n := r.status(name).ExtraIssuances; n != tc.lost {
				t.Errorf("got %d extra issuances reported, want %d", n, tc.lost)
			}
		})
	}
	r.wantTold(model.CertificateIssued, 8)
}

// The answer is lost and the CA does not remember the transaction: a new one begins,
// and the old one is told.
func TestOrphanIsReported(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	in := model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)})
	if !r.crash(in, "exchange", 1) {
		t.Fatal("no exchange")
	}
	used := r.ca.Issued()[1].TransactionID
	r.ca.Behave(func(b *responder.Behaviour) {
		b.Alter = func(m *cmp.Message) {
			if fmt.Sprintf("%x", m.Header.TransactionID) == used {
				m.Type, m.Body = cmp.TypeError, &cmp.ErrorMsg{Status: cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailTransactionIDInUse}}
			}
		}
	})
	r.send(in)
	for len(r.later) > 0 {
		r.wait()
	}
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	r.wantTold(model.IssuanceMaybeOrphan, 1)
	if n := r.status("web").ExtraIssuances; n != 1 {
		t.Errorf("got %d extra issuances reported, want 1", n)
	}
}

// The CA makes us wait: no handler blocks, every poll is another process, the
// transaction stays the same.
func TestWaiting(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Wait(4, 2*time.Second)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", "WaitingForCA")
	id := r.status("web").TransactionID
	polls := 0
	for ; r.status("web").Serial == ""; polls++ {
		if pause := r.wait(); pause > 3*time.Second {
			t.Errorf("poll %d came after %v, want about 2 s", polls, pause)
		}
	}
	if polls != 3 {
		t.Errorf("got %d alarms, want 3", polls)
	}
	r.wantReady("web", true)
	issued := r.ca.Issued()
	if got := issued[len(issued)-1].TransactionID; got != id {
		t.Errorf("issued in transaction %s, want %s", got, id)
	}
	r.wantTold(model.CertificateWaiting, 3)
}

func TestWaitingForConfirmation(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Behave(func(b *responder.Behaviour) { b.WaitConfirm, b.CheckAfter = 2, 2*time.Second })
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	for len(r.later) > 0 {
		r.wait()
	}
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}

// The CA is down: told, retried after 30 s and then less often, and never given up.
func TestCADown(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	address := strings.TrimPrefix(strings.TrimSuffix(r.ca.URL, "/.well-known/cmp"), "http://")
	server := r.ca.Server
	r.stopCA()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", "CAUnreachable")
	var pauses []time.Duration
	for range 3 {
		pauses = append(pauses, r.wait())
	}
	if pauses[0] < 29*time.Second || pauses[0] > 34*time.Second || pauses[2] < pauses[0] {
		t.Errorf("got pauses %v, want 30 s first and growing", pauses)
	}
	var err error
	if r.ca, err = server.Start(address); err != nil {
		t.Fatal(err)
	}
	r.wait()
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
	r.wantTold(model.CertificateFailed, 4)
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		behave func(*responder.Behaviour)
		reason string
		fact   string
	}{
		{"systemUnavail", func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailSystemUnavail) }, "CAUnavailable", model.CertificateFailed},
		{"badPOP", func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailBadPOP) }, "RejectedByCA", model.CertificateParked},
		{"not CMP", func(b *responder.Behaviour) { b.Garbage = true }, "ResponseInvalid", model.CertificateFailed},
		{"HTTP 503", func(b *responder.Behaviour) { b.HTTPStatus = 503 }, "CAUnreachable", model.CertificateFailed},
		{"signed by a stranger", func(b *responder.Behaviour) { b.WrongSignature = true }, "ResponseNotAuthentic", model.CertificateFailed},
		{"another nonce", func(b *responder.Behaviour) { b.BadNonce = true }, "ResponseNotAuthentic", model.CertificateFailed},
		{"for another key", func(b *responder.Behaviour) { b.WrongKey = true }, "CertificateRefused", model.CertificateFailed},
		{"from another CA", func(b *responder.Behaviour) { b.ForeignIssuer = true }, "CertificateRefused", model.CertificateFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.ready()
			r.ca.Behave(tc.behave)
			r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
			r.wantReason("web", tc.reason)
			r.wantTold(tc.fact, 1)
			if tc.fact == model.CertificateParked {
				r.wantParked("web")
				return
			}
			r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
			r.wait()
			r.wantReady("web", true)
		})
	}
}

func rejection(failure cmp.FailureInfo) *cmp.StatusInfo {
	return &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: failure}
}

// wantParked: nothing is asked of the CA until the issuer changes.
func (r *rig) wantParked(name string) {
	r.t.Helper()
	if len(r.later) != 0 {
		r.t.Errorf("%s is parked, but an alarm is set", name)
	}
	r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	r.send(model.NewEvent(model.EnrollmentRequested, r.key(name), model.Work{Reason: model.WorkDependency}))
	r.wantReady(name, false)
	spec := r.issuer()
	spec.TotalTimeout = &metav1.Duration{Duration: 12 * time.Hour}
	r.declare(model.IssuerUpdated, "ca", spec)
	r.wantReady(name, true)
}

// A CA that never issues what is asked for is left alone after three certificates.
func TestNoReissuanceLoop(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Behave(func(b *responder.Behaviour) { b.WrongKey = true })
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	for len(r.later) > 0 {
		r.wait()
	}
	r.wantReason("web", "CertificateRefused")
	r.wantTold(model.CertificateParked, 1)
	if n := r.issuances("web"); n != 3 {
		t.Errorf("the CA issued %d, want 3", n)
	}
}

// What is done to the output is undone from the record, without the CA.
func TestRepair(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	want := r.output("web").Data
	r.stopCA()
	for _, tc := range []struct {
		name, fact, ref string
		do              func() error
	}{
		{"deleted", model.SecretDeleted, model.RefDelete, func() error { return r.secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}) }},
		{"certificate overwritten", model.SecretModified, model.RefUpdate, func() error { return r.overwrite("web-tls", "tls.crt", "rubbish") }},
		{"key overwritten", model.SecretModified, model.RefUpdate, func() error { return r.overwrite("web-tls", "tls.key", "rubbish") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, restored := r.told(tc.fact), r.told(model.CertificateRestored)
			if err := tc.do(); err != nil {
				t.Fatal(err)
			}
			r.send(r.ref(tc.ref, "web-tls"))
			got := r.output("web").Data
			for k, v := range want {
				if !bytes.Equal(got[k], v) {
					t.Errorf("%s is not what it was", k)
				}
			}
			if r.told(tc.fact) != before+1 || r.told(model.CertificateRestored) != restored+1 {
				t.Errorf("got %d %s and %d restored, want one more of each", r.told(tc.fact)-before, tc.fact, r.told(model.CertificateRestored)-restored)
			}
			r.send(r.ref(model.RefUpdate, "web-tls")) // the echo of our own write
			if r.told(model.SecretModified)+r.told(model.SecretDeleted) > 3 {
				t.Error("our own write was taken for somebody else's")
			}
		})
	}
}

func (r *rig) overwrite(secret, key, value string) error {
	s, err := r.secrets.Get(r.t.Context(), secret, metav1.GetOptions{})
	if err != nil {
		return err
	}
	s.Data[key] = []byte(value)
	_, err = r.secrets.Update(r.t.Context(), s, metav1.UpdateOptions{})
	return err
}

func (r *rig) ref(eventType, secret string) event.Event {
	e := model.NewEvent(eventType, r.key(secret), model.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: r.ns, Name: secret})
	e.SetExtension("namespace", r.ns)
	e.SetExtension("name", secret)
	return e
}

// A change the watch has missed is found by the sweep.
func TestSweepFindsDrift(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	if err := r.secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.tick("sweep")
	r.wantReady("web", true)
	r.wantTold(model.CertificateRestored, 1)
}

// A new certificate that its obtainer did not live to deliver is delivered; that the
// output still holds the former one is nobody's doing.
func TestUndelivered(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	in := model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual})
	if !r.crash(in, "promote", 1) {
		t.Fatal("no promotion")
	}
	r.tick("sweep")
	r.wantReady("web", true)
	r.wantTold(model.SecretModified, 0)
	if st := r.status("web"); st.Revision != 2 {
		t.Errorf("got revision %d, want 2", st.Revision)
	}
}

// A record that somebody has spoilt is told, stops nobody else's sweep, and makes way.
func TestSpoiltRecord(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.declare(model.ConfigCreated, "other", certificate("other", 24*time.Hour))
	if err := r.overwrite(model.RecordName("web"), "tls.key", "rubbish"); err != nil {
		t.Fatal(err)
	}
	if err := r.secrets.Delete(t.Context(), "other-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.tick("sweep")
	r.wantReady("other", true)
	r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), nil))
	r.wantReason("web", "RecordInvalid")
	if err := r.secrets.Delete(t.Context(), model.RecordName("web"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), nil))
	r.wantReady("web", true)
}

// Foreign labels and data keys are left alone; a Secret of something else is not touched.
func TestForeignOutput(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.secret("web-tls", map[string][]byte{"theirs": []byte("precious")})
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", "OutputConflict")
	if got := r.output("web").Data; len(got) != 1 || string(got["theirs"]) != "precious" {
		t.Errorf("a foreign Secret was changed: it has %d keys", len(got))
	}
	if err := r.secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wait()
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}

func TestRenewal(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	first := r.output("web").Data["tls.key"]
	r.tick("expiry")
	r.wantIssuances("web", 1)

	r.advance(16*time.Hour + time.Minute)
	r.tick("expiry")
	r.wantReady("web", true)
	if bytes.Equal(first, r.output("web").Data["tls.key"]) {
		t.Error("the key was not renewed")
	}
	if st := r.status("web"); st.Revision != 2 {
		t.Errorf("got revision %d, want 2", st.Revision)
	}
	issued := r.ca.Issued()
	if last := issued[len(issued)-1]; last.Request != cmp.TypeKUR || last.Replaces == "" {
		t.Errorf("got %s replacing %q, want a kur", last.Request, last.Replaces)
	}
	r.tick("expiry") // twice is harmless
	r.wantIssuances("web", 2)
	r.wantTold(model.CertificateRenewed, 1)
}

// After a long night even an expired certificate comes back by itself, by ir.
func TestExpiredRecovers(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.advance(5 * 24 * time.Hour)
	r.tick("expiry") // too long ago for a scan
	r.wantIssuances("web", 1)
	r.tick("sweep")
	r.wantReady("web", true)
	issued := r.ca.Issued()
	if last := issued[len(issued)-1]; last.Request != cmp.TypeIR {
		t.Errorf("got %s, want ir", last.Request)
	}
}

func TestManualRenewal(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	in := model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual})
	r.send(in)
	r.wantReady("web", true)
	r.wantIssuances("web", 2)
	r.send(in) // the same request, delivered again
	r.wantIssuances("web", 2)
	r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
	r.wantIssuances("web", 3)
}

// Renewal fails: what workloads have stays, Ready, and the reason is told.
func TestFailedRenewalLeavesTheOldOne(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	before := r.output("web").Data
	r.ca.Behave(func(b *responder.Behaviour) { b.Reject = rejection(cmp.FailSystemFailure) })
	r.advance(17 * time.Hour)
	r.tick("expiry")
	if c := condition(r.status("web"), model.Ready); c.Status != metav1.ConditionTrue {
		t.Errorf("got Ready %s, want True: the old certificate is still valid", c.Status)
	}
	if c := condition(r.status("web"), model.Reconciling); c.Reason != "CAUnavailable" {
		t.Errorf("got Reconciling %q, want CAUnavailable", c.Reason)
	}
	if !bytes.Equal(before["tls.key"], r.output("web").Data["tls.key"]) {
		t.Error("the key was changed although there is no new certificate")
	}
	r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	r.wait()
	if st := r.status("web"); st.Revision != 2 || len(st.Conditions) != 1 {
		t.Errorf("got revision %d and conditions %+v, want 2 and Ready alone", st.Revision, st.Conditions)
	}
}

func condition(st model.CMPCertificateStatus, kind string) metav1.Condition {
	for _, c := range st.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}

// With implicit confirmation there is no certConf.
func TestImplicitConfirmation(t *testing.T) {
	var mu sync.Mutex
	seen := map[cmp.BodyType]int{}
	r := newRig(t, func(c *responder.Config) {
		c.OnMessage = func(e responder.Event) { mu.Lock(); seen[e.Received]++; mu.Unlock() }
	})
	r.trustAndBootstrap()
	spec := r.issuer()
	spec.Confirmation = "implicit"
	r.declare(model.IssuerCreated, "ca", spec)
	r.declare(model.ConfigCreated, "identity", identity())
	r.wantReady("identity", true)
	mu.Lock()
	defer mu.Unlock()
	if seen[cmp.TypeIR] != 1 || seen[cmp.TypeCertConf] != 0 {
		t.Errorf("got %v, want one ir and no certConf", seen)
	}
}

// Keys of every kind that may be asked for, through the whole life.
func TestKeyAlgorithms(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, key := range []model.PrivateKey{{Algorithm: model.ECDSA, Size: 384}, {Algorithm: model.ECDSA, Size: 521}, {Algorithm: model.RSA}, {Algorithm: model.RSA, Size: 3072}} {
		name := strings.ToLower(fmt.Sprintf("%s-%d", key.Algorithm, key.Size))
		t.Run(name, func(t *testing.T) {
			spec := certificate(name, 24*time.Hour)
			spec.PrivateKey = key
			r.declare(model.ConfigCreated, name, spec)
			r.send(model.NewEvent(model.RenewalRequested, r.key(name), model.Work{Reason: model.WorkManual}))
			r.wantReady(name, true)
			r.wantIssuances(name, 2)
		})
	}
}

// Deleting a configuration leaves its output; the record goes with it.
func TestWithdrawn(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	want := r.output("web").Data["tls.crt"]
	r.send(model.NewEvent(model.ConfigDeleted, r.key("web"), nil))
	r.send(r.ref(model.RefUpdate, "web-tls"))
	r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), nil))
	if !bytes.Equal(want, r.output("web").Data["tls.crt"]) {
		t.Error("the output was changed")
	}
	r.wantIssuances("web", 1)
	if _, err := r.store.Certificate(t.Context(), r.key("web")); err == nil {
		t.Error("the configuration is still there")
	}
}

// A field that kubectl owns is not changed by an event.
func TestOwnedByAnother(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	r.declare(model.ConfigCreated, "web", spec)
	r.takeOver("web")
	spec.Subject.CommonName = "changed"
	r.declare(model.ConfigUpdated, "web", spec)
	r.wantTold(model.ConfigRejected, 1)
	r.wantIssuances("changed", 0)
}

// takeOver makes another field manager own the subject.
func (r *rig) takeOver(name string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"certloop.io/v1alpha1","kind":"CMPCertificate","metadata":{"name":%q},"spec":{"subject":{"commonName":%q,"organization":"Example"}}}`, name, name)
	r.kubectlApply(body)
}

// A slow CA does not cost the lease: a second delivery meanwhile comes back later and
// finds the work done.
func TestSlowCAKeepsTheLease(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Behave(func(b *responder.Behaviour) { b.Delay = 1500 * time.Millisecond })
	in := model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)})
	claimed := make(chan struct{})
	first := r.obtainer(func(s lifecycle.Step) {
		if s.Name == "claim" {
			close(claimed)
		}
	})
	first.Lease = 300 * time.Millisecond
	done := make(chan error, 1)
	go func() { _, err := r.handle(first, in); done <- err }()
	<-claimed
	second := r.obtainer(func(s lifecycle.Step) { t.Errorf("a second holder did %s", s.Name) })
	second.Lease = first.Lease
	out, err := r.handle(second, in)
	if err != nil || len(out) != 2 || out[1].Type() != model.CertificateWaiting {
		t.Fatalf("got %v, %v, want one alarm, and the answer that it is being seen to", out, err)
	}
	time.Sleep(2 * first.Lease) //nolint:forbidigo // the lease is a real time here
	woken := out[0]
	if out, err = r.handle(second, woken); err != nil || len(out) != 1 {
		t.Fatalf("got %v, %v, want one alarm: the holder lives", out, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}
