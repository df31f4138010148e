package lifecycle_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
)

func (r *rig) get(name string) *corev1.Secret {
	r.t.Helper()
	s, err := r.secrets.Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) delete(name string) {
	r.t.Helper()
	if err := r.secrets.Delete(r.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// edit changes a Secret as a person would.
func (r *rig) edit(name string, change func(*corev1.Secret)) {
	r.t.Helper()
	s := r.get(name)
	change(s)
	if _, err := r.secrets.Update(r.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) message(name, kind string) string {
	r.t.Helper()
	return condition(r.status(name), kind).Message
}

// Every part goes where the configuration says, in its encoding; the others of a Secret stay.
func TestOutputParts(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	spec.NetworkFunction, spec.Purpose = "AMF", "SBI"
	spec.Output = model.Output{
		SecretName:  "web-tls",
		PrivateKey:  &model.OutputPart{SecretName: "web-key", Key: "key.der", Encoding: model.DER},
		Certificate: &model.OutputPart{Key: "cert.der", Encoding: model.DER},
		Chain:       &model.OutputPart{SecretName: "web-chain", Key: "chain.pem"},
		CABundle:    &model.OutputPart{SecretName: "web-chain", Key: "roots.der", Encoding: model.DER},
	}
	r.declare(model.ConfigCreated, "web", spec)
	key, err := ledger.ParseKey(r.get("web-key").Data["key.der"])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(r.get("web-tls").Data["cert.der"])
	if err != nil {
		t.Fatal(err)
	}
	if !key.Fits(leaf) {
		t.Error("the key is not that of the certificate")
	}
	roots, err := x509.ParseCertificates(r.get("web-chain").Data["roots.der"])
	if err != nil || len(roots) != 1 || !roots[0].Equal(r.ca.CACertificate()) {
		t.Errorf("got %d roots, %v; want the CA's", len(roots), err)
	}
	if _, there := r.get("web-chain").Data["chain.pem"]; !there {
		t.Error("the chain is missing")
	}
	for _, name := range []string{"web-key", "web-tls", "web-chain"} {
		s := r.get(name)
		if s.Type != corev1.SecretTypeOpaque || s.Labels["certloop.io/network-function"] != "AMF" || s.Labels["certloop.io/purpose"] != "SBI" || s.Annotations["certloop.io/certificate-name"] != "web" {
			t.Errorf("%s: got type %s, labels %v", name, s.Type, s.Labels)
		}
	}
	if got := r.message("web", model.Ready); !strings.Contains(got, model.ReasonSplitOutput) {
		t.Errorf("got message %q, want a warning of %s", got, model.ReasonSplitOutput)
	}
	r.delete("web-key")
	r.send(r.ref(model.RefDelete, "web-key"))
	if again, err := ledger.ParseKey(r.get("web-key").Data["key.der"]); err != nil || !again.Fits(leaf) {
		t.Errorf("the key was not restored: %v", err)
	}
	r.wantIssuances("web", 1)
}

// Another output location: the new Secret is written without the CA, the former one is left
// alone and watched no more.
func TestOutputMoves(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	r.declare(model.ConfigCreated, "web", spec)
	former := r.get("web-tls")
	spec.Output.SecretName = "moved-tls"
	r.declare(model.ConfigUpdated, "web", spec)
	if !bytes.Equal(r.get("moved-tls").Data["tls.key"], former.Data["tls.key"]) {
		t.Error("another key was delivered")
	}
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
	r.send(r.ref(model.RefUpdate, "web-tls"))
	r.tick("sweep")
	if got := r.get("web-tls").Data["tls.crt"]; string(got) != "rubbish" {
		t.Error("the former output is still watched")
	}
	r.wantTold(model.SecretModified, 0)
	r.wantIssuances("web", 1)
}

// What workloads are to trust is copied, all of it; what does not fit is said; a missing
// Secret waits, and what it once held stays.
func TestCABundle(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	spec.CABundle = &model.CertificatesSource{SecretName: "bundle", Key: "roots.pem"}
	r.declare(model.ConfigCreated, "web", spec)
	r.wantReason("web", model.ReasonSecretNotFound)
	if _, err := r.secrets.Get(t.Context(), "web-tls", metav1.GetOptions{}); err == nil {
		t.Error("it was delivered without what it is to trust")
	}
	other := newRoot(t, "other")
	bundle := append(ledger.EncodeCertificates(other.cert), ledger.EncodeCertificates(r.ca.CACertificate())...)
	bundle = append(bundle, ledger.EncodeCertificates(newRoot(t, "third").cert)...)
	r.secret("bundle", map[string][]byte{"roots.pem": bundle})
	r.wait()
	r.wantReady("web", true)
	if got := r.get("web-tls").Data["ca.crt"]; !bytes.Equal(got, bundle) {
		t.Errorf("got a bundle of %d octets, want all three roots, %d", len(got), len(bundle))
	}
	if got := r.message("web", model.Ready); strings.Contains(got, model.ReasonCABundleInvalid) {
		t.Errorf("got %q although the certificate chains to the bundle", got)
	}
	r.edit("bundle", func(s *corev1.Secret) { s.Data["roots.pem"] = ledger.EncodeCertificates(other.cert) })
	r.tick("sweep")
	if got := r.get("web-tls").Data["ca.crt"]; !bytes.Equal(got, ledger.EncodeCertificates(other.cert)) {
		t.Error("the changed bundle was not copied")
	}
	if got := r.message("web", model.Ready); !strings.Contains(got, model.ReasonCABundleInvalid) {
		t.Errorf("got %q, want a warning of %s", got, model.ReasonCABundleInvalid)
	}
	r.delete("bundle")
	r.delete("web-tls")
	r.send(r.ref(model.RefDelete, "web-tls"))
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}

// A bundle that bears the label of inputs is copied as soon as it is there or changes, and a change that
// was seen is none.
func TestCABundleIsWatched(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	spec.CABundle = &model.CertificatesSource{SecretName: "bundle"}
	r.declare(model.ConfigCreated, "web", spec)
	r.wantReason("web", model.ReasonSecretNotFound)
	first, second := ledger.EncodeCertificates(r.ca.CACertificate()), ledger.EncodeCertificates(newRoot(t, "other").cert)
	want := func(bundle []byte) {
		t.Helper()
		if got := r.get("web-tls").Data["ca.crt"]; !bytes.Equal(got, bundle) {
			t.Errorf("the bundle was not copied: got %q", got)
		}
	}
	r.secret("bundle", map[string][]byte{"ca.crt": first})
	r.edit("bundle", func(s *corev1.Secret) { s.Labels = map[string]string{model.RoleLabel: model.RoleInput} })
	r.send(r.ref(model.RefAdd, "bundle"))
	want(first)
	r.edit("bundle", func(s *corev1.Secret) { s.Data["ca.crt"] = second })
	r.send(r.ref(model.RefUpdate, "bundle"))
	want(second)
	out, err := r.watcher().Changed(t.Context(), r.ref(model.RefUpdate, "bundle"))
	if err != nil || len(out) > 0 {
		t.Errorf("got %v and %v for a bundle that was seen, want nothing", out, err)
	}
	r.wantIssuances("web", 1)
}

// Without a second copy the key is in the output alone; a lost output means another certificate.
func TestKeyIsNotKept(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	no := false
	spec.Record.KeepKey = &no
	r.declare(model.ConfigCreated, "web", spec)
	r.wantReady("web", true)
	if _, there := r.get(model.RecordName("web")).Data["tls.key"]; there {
		t.Fatal("the record holds a copy of the key")
	}
	first := r.output("web").Data["tls.key"]
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
	r.send(r.ref(model.RefUpdate, "web-tls"))
	r.wantReady("web", true)
	if !bytes.Equal(first, r.output("web").Data["tls.key"]) {
		t.Error("the certificate could have been put back without another key")
	}
	r.wantIssuances("web", 1)

	r.advance(16*time.Hour + time.Minute) // renewed with the key of the output
	r.tick("expiry")
	issued := r.ca.Issued()
	if last := issued[len(issued)-1]; !strings.Contains(last.Authenticated, "CN=web") {
		t.Errorf("the renewal was authenticated by %s, want the current certificate", last.Authenticated)
	}
	r.wantIssuances("web", 2)

	r.delete("web-tls")
	r.send(r.ref(model.RefDelete, "web-tls"))
	r.wantReady("web", true)
	r.wantIssuances("web", 3)
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.key"] = []byte("rubbish") })
	r.send(r.ref(model.RefUpdate, "web-tls"))
	r.wantReady("web", true)
	r.wantIssuances("web", 4)
	if _, there := r.get(model.RecordName("web")).Data["tls.key"]; there {
		t.Error("the record holds a copy of the key")
	}
}

// Names that are the same in their first 63 characters are different names.
func TestLongNames(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	long := strings.Repeat("x", 63)
	one, two := certificate("web", 24*time.Hour), certificate("web", 24*time.Hour)
	r.declare(model.ConfigCreated, long+"-one", one)
	want := r.output("web").Data["tls.crt"]
	two.Output.SecretName = "else-tls"
	r.declare(model.ConfigCreated, long+"-two", two)
	two.Output.SecretName = "web-tls"
	r.declare(model.ConfigUpdated, long+"-two", two)
	r.wantReason(long+"-two", model.ReasonOutputTaken)
	if !bytes.Equal(want, r.output("web").Data["tls.crt"]) {
		t.Error("the output was taken by another configuration")
	}
}

// What is repaired by the event of something else, which came late, is told none the less.
func TestRepairByALateEvent(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
	r.send(model.NewEvent(model.SecretDeleted, r.key("web"), model.SecretFact{SecretName: "web-tls", Cause: ledger.Absent}))
	r.wantWhole("web")
	r.wantTold(model.SecretModified, 1)
	r.wantTold(model.CertificateRestored, 1)

	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.key"] = []byte("rubbish") })
	r.send(model.NewEvent(model.SecretModified, r.key("web"), model.SecretFact{SecretName: "web-tls", Cause: "an earlier change"}))
	r.wantWhole("web")
	r.wantTold(model.SecretModified, 2)
	r.wantTold(model.CertificateRestored, 2)
}

// A label that the configuration no longer asks for goes.
func TestLabelsAreSetAnew(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	spec := certificate("web", 24*time.Hour)
	spec.Purpose, spec.NetworkFunction = "SBI", "AMF"
	r.declare(model.ConfigCreated, "web", spec)
	r.edit("web-tls", func(s *corev1.Secret) { s.Labels["team"] = "" })
	spec.Purpose, spec.NetworkFunction = "", "SMF"
	r.declare(model.ConfigUpdated, "web", spec)
	r.wantReady("web", true)
	got := r.output("web").Labels
	if _, there := got[model.PurposeLabel]; there || got[model.NetworkFunctionLabel] != "SMF" {
		t.Errorf("got labels %v, want what the configuration says now", got)
	}
	if _, there := got["team"]; !there {
		t.Error("a label of others went")
	}
	r.wantIssuances("web", 1)
	facts := len(r.facts)
	r.tick("sweep")
	if n := len(r.facts) - facts; n > 2 { // the tick's own
		t.Errorf("a sweep told %v", r.facts[facts:])
	}
}
