package ledger_test

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/kubetest"
)

// rig is a namespace of the real API server, a store on it, and a CA.
type rig struct {
	t       testing.TB
	ns      string
	config  *rest.Config
	store   *ledger.Store
	secrets typed.SecretInterface
	dynamic dynamic.Interface
	root    *authority
	issuing *authority
}

func newRig(t testing.TB) *rig {
	t.Helper()
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "../../deploy/knative/crds")
	r := &rig{t: t, ns: cluster.Namespace(t), config: cluster.Config()}
	r.config.WarningHandler = rest.NoWarnings{} // of the rubbish that tests write
	r.store = r.open(r.config)
	client, err := kubernetes.NewForConfig(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.secrets = client.CoreV1().Secrets(r.ns)
	if r.dynamic, err = dynamic.NewForConfig(r.config); err != nil {
		t.Fatal(err)
	}
	r.root = newAuthority(t, "root", nil)
	r.issuing = newAuthority(t, "issuing", r.root)
	return r
}

func (r *rig) open(cfg *rest.Config) *ledger.Store {
	r.t.Helper()
	store, err := ledger.Open(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return store
}

// watched is a store whose requests are seen, and may be preceded, by the test.
func (r *rig) watched(before func(*http.Request)) *ledger.Store {
	r.t.Helper()
	cfg := rest.CopyConfig(r.config)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			before(req)
			return next.RoundTrip(req)
		})
	})
	return r.open(cfg)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// in is the same rig for a subtest.
func (r *rig) in(t testing.TB) *rig {
	sub := *r
	sub.t = t
	return &sub
}

// objectName makes the name of an object of that of a test.
func objectName(test string) string {
	return strings.ToLower(strings.Map(func(c rune) rune {
		if c == ' ' {
			return '-'
		}
		if c == ',' || c == '\'' {
			return -1
		}
		return c
	}, test))
}

func (r *rig) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.ns, Name: name}
}

func spec(name string) model.CMPCertificateSpec {
	return model.CMPCertificateSpec{
		IssuerRef: model.IssuerReference{Name: "ca"}, Subject: &model.Subject{CommonName: name},
		Output: model.Output{SecretName: name + "-tls"},
	}
}

// declare makes a configuration as an event would.
func (r *rig) declare(name string, s model.CMPCertificateSpec) *model.CMPCertificate {
	r.t.Helper()
	cert, err := r.store.ApplyCertificate(r.t.Context(), r.key(name), s)
	if err != nil {
		r.t.Fatal(err)
	}
	return cert
}

// apply writes an object as another field manager.
func (r *rig) apply(manager, kind, resource, name string, spec any) {
	r.t.Helper()
	js, err := json.Marshal(map[string]any{
		"apiVersion": model.GroupVersion.String(), "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var obj unstructured.Unstructured
	if err := json.Unmarshal(js, &obj.Object); err != nil {
		r.t.Fatal(err)
	}
	_, err = r.resource(resource).Apply(r.t.Context(), name, &obj, metav1.ApplyOptions{FieldManager: manager})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) resource(resource string) dynamic.ResourceInterface {
	return r.dynamic.Resource(schema.GroupVersionResource{Group: model.GroupVersion.Group, Version: model.GroupVersion.Version, Resource: resource}).Namespace(r.ns)
}

func (r *rig) record(cert *model.CMPCertificate) *ledger.Record {
	r.t.Helper()
	rec, err := r.store.Record(r.t.Context(), cert)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

func (r *rig) save(rec *ledger.Record) {
	r.t.Helper()
	if err := r.store.Save(r.t.Context(), rec); err != nil {
		r.t.Fatal(err)
	}
}

// flight is a transaction that has got its certificate.
func (r *rig) flight(name string) *ledger.Flight {
	r.t.Helper()
	key := generate(r.t, model.PrivateKey{})
	leaf := r.issuing.sign(r.t, name, key.Signer().Public(), &x509.Certificate{DNSNames: []string{name + ".example.com"}})
	return &ledger.Flight{
		Purpose: ledger.ForEnrollment, Config: "digest of " + name, ID: "00112233445566778899aabbccddeeff", Key: key,
		Transaction: []byte("what package cmp marshals\x00\xff"), Chain: []*x509.Certificate{leaf, r.issuing.cert},
		Begun: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC), Cause: "correlation of " + name,
	}
}

// issue gives a record a new certificate, as an issuance does, without saving it.
func (r *rig) issue(rec *ledger.Record, name string) {
	r.t.Helper()
	rec.Flight = r.flight(name)
	rec.Promote([]*x509.Certificate{r.root.cert}, time.Now().UTC())
}

// issued is a configuration with a record that holds a certificate, and no output.
func (r *rig) issued(name string) (*model.CMPCertificate, *ledger.Record) {
	r.t.Helper()
	cert := r.declare(name, spec(name))
	rec := r.record(cert)
	r.issue(rec, name)
	r.save(rec)
	return cert, rec
}

// deliver brings the outputs up to date and tells what was wrong with them.
func (r *rig) deliver(store *ledger.Store, cert *model.CMPCertificate, rec *ledger.Record) (string, error) {
	r.t.Helper()
	found, err := store.Outputs(r.t.Context(), cert)
	if err != nil {
		return "", err
	}
	deviations, err := rec.Deviations(found)
	if err != nil {
		return "", err
	}
	if err := store.Project(r.t.Context(), rec, found); err != nil {
		return "", err
	}
	return causes(deviations), nil
}

func causes(deviations []ledger.Deviation) string {
	var all []string
	for _, d := range deviations {
		all = append(all, d.Cause)
	}
	return strings.Join(all, "; ")
}

// drift tells how a Secret, nil for none, differs from what a record holds.
func (r *rig) drift(rec *ledger.Record, s *corev1.Secret) (string, error) {
	found := ledger.Outputs{}
	if s != nil {
		found[s.Name] = s
	}
	deviations, err := rec.Deviations(found)
	return causes(deviations), err
}

// outputOf is the Secret of an output that has one; nil when it does not exist.
func (r *rig) outputOf(cert *model.CMPCertificate) (*corev1.Secret, error) {
	found, err := r.store.Outputs(r.t.Context(), cert)
	return found[cert.Spec.Output.SecretName], err
}

func (r *rig) project(cert *model.CMPCertificate, rec *ledger.Record, wantWrote bool) {
	r.t.Helper()
	wrote, err := r.deliver(r.store, cert, rec)
	if err != nil {
		r.t.Fatal(err)
	}
	if (wrote != "") != wantWrote {
		r.t.Errorf("wrote the output: %v, want %v", wrote, wantWrote)
	}
}

func (r *rig) secret(name string) *corev1.Secret {
	r.t.Helper()
	s, err := r.secrets.Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) create(s *corev1.Secret) *corev1.Secret {
	r.t.Helper()
	s, err := r.secrets.Create(r.t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// edit changes a Secret as somebody else would.
func (r *rig) edit(name string, change func(*corev1.Secret)) {
	r.t.Helper()
	s := r.secret(name)
	change(s)
	if _, err := r.secrets.Update(r.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(secret string) {
	r.t.Helper()
	if err := r.secrets.Delete(r.t.Context(), secret, metav1.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}
