package knative_test

import (
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/kubetest"
)

// inUse makes an issuer that bears the finalizer, and returns when the policy guards it.
func inUse(t *testing.T, issuers dynamic.ResourceInterface, kind, finalizer string) string {
	t.Helper()
	i := &unstructured.Unstructured{Object: map[string]any{"spec": read(t, goodIssuer)}}
	i.SetAPIVersion(model.GroupVersion.String())
	i.SetKind(kind)
	i.SetGenerateName("ca-")
	i.SetFinalizers([]string{finalizer})
	i, err := issuers.Create(t.Context(), i, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	guarded := func() bool {
		err := issuers.Delete(t.Context(), i.GetName(), metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(err)
	}
	for deadline := time.Now().Add(time.Minute); !guarded(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the policy is not enforced")
		}
	}
	return i.GetName()
}

func patch(t *testing.T, issuers dynamic.ResourceInterface, name, change string) error {
	t.Helper()
	_, err := issuers.Patch(t.Context(), name, types.MergePatchType, []byte(change), metav1.PatchOptions{})
	return err
}

// An issuer that certificates refer to keeps its identity; what authenticates us to it and
// how patient we are can change.
func TestIssuerInUse(t *testing.T) {
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "crds")
	cluster.ApplyPolicies(t, "policies")
	client := dynamic.NewForConfigOrDie(cluster.Config())
	ns := cluster.Namespace(t)
	ofCluster := client.Resource(model.GroupVersion.WithResource(model.ClusterIssuerResource))
	for name, tc := range map[string]struct {
		kind, finalizer string
		issuers         dynamic.ResourceInterface
	}{
		"issuer":            {model.IssuerKind, model.InUseFinalizer, client.Resource(model.GroupVersion.WithResource(model.IssuerResource)).Namespace(ns)},
		"of the cluster":    {model.ClusterIssuerKind, model.InUseFinalizer, ofCluster},
		"by some namespace": {model.ClusterIssuerKind, model.InUseFinalizerOf(ns), ofCluster},
	} {
		t.Run(name, func(t *testing.T) {
			issuers := tc.issuers
			name := inUse(t, issuers, tc.kind, tc.finalizer)
			for change, field := range map[string]string{
				`{"spec":{"server":"http://other.example.com/"}}`:                        "spec.server",
				`{"spec":{"recipient":"/CN=other"}}`:                                     "spec.recipient",
				`{"spec":{"issuer":"/CN=other"}}`:                                        "spec.issuer",
				`{"spec":{"trust":{"secretName":"other"}}}`:                              "spec.trust",
				`{"spec":{"trust":{"expectedSender":"/CN=other"}}}`:                      "spec.trust",
				`{"spec":{"chain":{"source":"manual","manual":{"secretName":"chain"}}}}`: "spec.chain",
				`{"spec":{"server":"http://other.example.com/","recipient":"/CN=b"}}`:    "spec.server, spec.recipient",
			} {
				err := patch(t, issuers, name, change)
				if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), field+" cannot be changed") {
					t.Errorf("%s: got %v, want it forbidden to change %s", change, err, field)
				}
			}
			for _, change := range []string{
				`{"spec":{"authentication":{"secretName":"identity-2"}}}`,
				`{"spec":{"initialAuthentication":{"mac":{"secretName":"psk-2"}}}}`,
				`{"spec":{"totalTimeout":"1h","messageTimeout":"10s","confirmation":"implicit","renewal":{"signedBy":"cmpIdentity"}}}`,
				`{"spec":{"policies":{"grantedModifications":"reject"},"retry":{"policy":"fixed30s"}}}`,
				`{"metadata":{"labels":{"a":"b"}}}`,
				`{"metadata":{"finalizers":null}}`,
			} {
				if err := patch(t, issuers, name, change); err != nil {
					t.Errorf("%s: got %v, want it allowed", change, err)
				}
			}
			// Without the finalizer nobody uses it.
			if err := patch(t, issuers, name, `{"spec":{"server":"http://other.example.com/"}}`); err != nil {
				t.Error(err)
			}
			if err := issuers.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// What kubectl prints says how to find the certificates, in a command that works.
func TestIssuerInUseAsKubectlSaysIt(t *testing.T) {
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "crds")
	cluster.ApplyPolicies(t, "policies")
	ns := cluster.Namespace(t)
	client := dynamic.NewForConfigOrDie(cluster.Config())
	issuers := client.Resource(model.GroupVersion.WithResource(model.IssuerResource)).Namespace(ns)
	name := inUse(t, issuers, model.IssuerKind, model.InUseFinalizer)
	said := cluster.KubectlRefused(t, "-n", ns, "delete", "cmpissuer", name)
	if !strings.Contains(said, "is in use and cannot be deleted: delete the certificates that refer to it") {
		t.Errorf("got %s", said)
	}
	_, command, _ := strings.Cut(said, "list them: kubectl ")
	certificate := &unstructured.Unstructured{Object: map[string]any{"spec": merge(read(t, goodCertificate), map[string]any{"issuerRef": map[string]any{"name": name}})}}
	certificate.SetAPIVersion(model.GroupVersion.String())
	certificate.SetKind(model.CertificateKind)
	certificate.SetName("amf")
	if _, err := client.Resource(model.GroupVersion.WithResource(model.CertificateResource)).Namespace(ns).Create(t.Context(), certificate, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if listed := cluster.Kubectl(t, strings.Fields(command)...); !strings.Contains(listed, "amf") {
		t.Errorf("%s: got %s, want the certificate amf", command, listed)
	}
}

// A namespace that is deleted takes its issuers with it: they may end.
func TestIssuerInUseOfAnEndingNamespace(t *testing.T) {
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "crds")
	cluster.ApplyPolicies(t, "policies")
	ns := cluster.Namespace(t)
	issuers := dynamic.NewForConfigOrDie(cluster.Config()).Resource(model.GroupVersion.WithResource(model.IssuerResource)).Namespace(ns)
	name := inUse(t, issuers, model.IssuerKind, model.InUseFinalizer)
	namespaces := kubernetes.NewForConfigOrDie(cluster.Config()).CoreV1().Namespaces()
	if err := namespaces.Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		i, err := issuers.Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && i.GetDeletionTimestamp() != nil {
			break
		}
		if err := issuers.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the issuer of a namespace that is deleted cannot be deleted: %v", issuers.Delete(t.Context(), name, metav1.DeleteOptions{}))
		}
	}
	if err := patch(t, issuers, name, `{"metadata":{"finalizers":null}}`); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
