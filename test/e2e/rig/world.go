package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/kubetest"
)

// World is a namespace of its own on the API server of the test binary.
type World struct {
	Namespace string
	Cluster   *kubetest.Cluster

	objects dynamic.Interface
	store   *ledger.Store
}

// NewWorld makes a namespace for this test alone.
func NewWorld(tb testing.TB) *World {
	tb.Helper()
	return worldOn(tb, kubetest.Start(tb))
}

// NewWorldOfItsOwn makes a namespace on an API server for this test alone, which it may
// stop. flags are further ones of kube-apiserver.
func NewWorldOfItsOwn(tb testing.TB, flags ...string) *World {
	tb.Helper()
	return worldOn(tb, kubetest.StartOwn(tb, flags...))
}

// WorldIn is a namespace that exists, on a cluster with everything of ours installed.
func WorldIn(tb testing.TB, cluster *kubetest.Cluster, namespace string) *World {
	tb.Helper()
	w := &World{Cluster: cluster, Namespace: namespace}
	w.connect(tb)
	return w
}

func worldOn(tb testing.TB, cluster *kubetest.Cluster) *World {
	tb.Helper()
	cluster.ApplyCRDs(tb, filepath.Join(Root(tb), "deploy", "knative", "crds")) // changes nothing when they are there
	cluster.ApplyPolicies(tb, filepath.Join(Root(tb), "deploy", "knative", "policies"))
	w := &World{Cluster: cluster, Namespace: cluster.Namespace(tb)}
	w.connect(tb)
	return w
}

func (w *World) connect(tb testing.TB) {
	tb.Helper()
	cfg := w.Cluster.Config()
	cfg.WarningHandler = rest.NoWarnings{} // of rubbish that tests write on purpose
	var err error
	if w.objects, err = dynamic.NewForConfig(cfg); err != nil {
		tb.Fatal(err)
	}
	if w.store, err = ledger.Open(cfg); err != nil {
		tb.Fatal(err)
	}
}

// Key is the key of an object in the namespace.
func (w *World) Key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: w.Namespace, Name: name}
}

// Kubectl runs the real kubectl in the namespace, with a document as its standard
// input, and returns what it wrote.
func (w *World) Kubectl(tb testing.TB, stdin string, args ...string) string {
	tb.Helper()
	return w.Cluster.KubectlInput(tb, stdin, append([]string{"--namespace", w.Namespace}, args...)...)
}

// resources are the collections that documents may be about.
var resources = map[string]schema.GroupVersionResource{
	"Secret":              corev1.SchemeGroupVersion.WithResource("secrets"),
	model.IssuerKind:      model.GroupVersion.WithResource(model.IssuerResource),
	model.CertificateKind: model.GroupVersion.WithResource(model.CertificateResource),
}

// Apply applies documents in YAML, server-side, as a deployment tool would.
func (w *World) Apply(tb testing.TB, documents ...string) {
	tb.Helper()
	for _, text := range documents {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &obj.Object); err != nil {
			tb.Fatal(err)
		}
		opts := metav1.ApplyOptions{FieldManager: "e2e", Force: true}
		_, err := w.objects.Resource(resources[obj.GetKind()]).Namespace(w.Namespace).Apply(tb.Context(), obj.GetName(), obj, opts)
		if err != nil {
			tb.Fatalf("applying %s %s: %v", obj.GetKind(), obj.GetName(), err)
		}
	}
}

// ApplySecret writes an Opaque Secret.
func (w *World) ApplySecret(tb testing.TB, name string, data map[string]string) {
	tb.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name}, "stringData": data,
	})
	if err != nil {
		tb.Fatal(err)
	}
	w.Apply(tb, string(text))
}

// Bootstrap makes the Secrets that [Issuer] names: what a new installation is given
// to begin with a CA.
func (w *World) Bootstrap(tb testing.TB, ca CA) {
	tb.Helper()
	w.ApplySecret(tb, "ca-bootstrap", map[string]string{"reference": Reference, "password": Secret})
	w.ApplySecret(tb, "ca-trust", map[string]string{"ca.crt": string(ca.Roots)})
}

// Settle makes a CA known and waits until the identity that signs requests to it is there.
func (w *World) Settle(tb testing.TB, ca CA) {
	tb.Helper()
	w.Bootstrap(tb, ca)
	w.Apply(tb, Issuer(ca), Identity())
	w.WaitReady(tb, Patience, IdentityName)
}

// Delete deletes an object.
func (w *World) Delete(tb testing.TB, kind, name string) {
	tb.Helper()
	if err := w.objects.Resource(resources[kind]).Namespace(w.Namespace).Delete(tb.Context(), name, metav1.DeleteOptions{}); err != nil {
		tb.Fatalf("deleting %s %s: %v", kind, name, err)
	}
}

// Overwrite replaces one data key of a Secret.
func (w *World) Overwrite(tb testing.TB, secret, key string, value []byte) {
	tb.Helper()
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{key: value}})
	if err != nil {
		tb.Fatal(err)
	}
	_, err = w.objects.Resource(resources["Secret"]).Namespace(w.Namespace).Patch(tb.Context(), secret, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "e2e"})
	if err != nil {
		tb.Fatalf("overwriting %s of Secret %s: %v", key, secret, err)
	}
}

// Certificate reads a CMPCertificate.
func (w *World) Certificate(tb testing.TB, name string) *model.CMPCertificate {
	tb.Helper()
	c, err := w.store.Certificate(tb.Context(), w.Key(name))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Issuer reads the CMPIssuer.
func (w *World) Issuer(tb testing.TB) *model.CMPIssuer {
	tb.Helper()
	i, err := w.store.Issuer(tb.Context(), w.Key(IssuerName))
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

// Secret reads a Secret; nil when there is none.
func (w *World) Secret(tb testing.TB, name string) *corev1.Secret {
	tb.Helper()
	s, err := w.store.Secret(tb.Context(), w.Key(name))
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// WaitReady waits until certificates are Ready for the configuration they have now,
// and returns how long that took.
func (w *World) WaitReady(tb testing.TB, within time.Duration, names ...string) time.Duration {
	tb.Helper()
	began := time.Now()
	for _, name := range names {
		w.WaitFor(tb, max(0, within-time.Since(began)), name, func(c *model.CMPCertificate) error {
			ready := Condition(c.Status.Conditions, model.Ready)
			if ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != c.Generation {
				return fmt.Errorf("condition Ready is %q, reason %q: %s", ready.Status, ready.Reason, ready.Message)
			}
			return nil
		})
	}
	return time.Since(began)
}

// WaitReason waits until a certificate is not Ready for a reason, and returns the message beside it.
func (w *World) WaitReason(tb testing.TB, within time.Duration, name, reason string) (message string) {
	tb.Helper()
	w.WaitFor(tb, within, name, func(c *model.CMPCertificate) error {
		ready := Condition(c.Status.Conditions, model.Ready)
		if ready.Status != metav1.ConditionFalse || ready.Reason != reason {
			return fmt.Errorf("condition Ready is %q, reason %q: %s; want reason %q", ready.Status, ready.Reason, ready.Message, reason)
		}
		message = ready.Message
		return nil
	})
	return message
}

// WaitFor waits until a certificate satisfies check, and returns how long that took.
func (w *World) WaitFor(tb testing.TB, within time.Duration, name string, check func(*model.CMPCertificate) error) time.Duration {
	tb.Helper()
	return Eventually(tb, within, "CMPCertificate "+name, func() error {
		c, err := w.store.Certificate(tb.Context(), w.Key(name))
		if err != nil {
			return err
		}
		return check(c)
	})
}

// Condition is a condition of a status; the zero value when it is not there.
func Condition(all []metav1.Condition, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(all, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}
