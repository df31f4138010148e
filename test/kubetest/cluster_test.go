package kubetest_test

import (
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/certloop/certloop/test/kubetest"
)

// patience bounds every wait for the cluster to do something.
const patience = time.Minute

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

func TestStartIsShared(t *testing.T) {
	if first, second := kubetest.Start(t), kubetest.Start(t); first != second {
		t.Errorf("got servers at %s and %s, want one", first.Config().Host, second.Config().Host)
	}
}

func TestConfigIsACopy(t *testing.T) {
	cluster := kubetest.Start(t)
	cluster.Config().Host = "https://changed.invalid"
	if got := cluster.Config().Host; !strings.HasPrefix(got, "https://127.0.0.1:") {
		t.Errorf("got host %s, want loopback", got)
	}
}

// A client library that compares versions must find the one that was built.
func TestServerVersion(t *testing.T) {
	got, err := client(t, kubetest.Start(t)).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.GitVersion, "v1.") || got.Major != "1" || got.Minor == "" {
		t.Errorf("got %s (major %q, minor %q), want v1.x", got.GitVersion, got.Major, got.Minor)
	}
}

// The reason for all this: client-go's fake takes the second update too.
func TestServerRefusesStaleUpdate(t *testing.T) {
	cluster := kubetest.Start(t)
	secrets := client(t, cluster).CoreV1().Secrets(cluster.Namespace(t))
	first, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second := first.DeepCopy()
	first.StringData = map[string]string{"by": "first"}
	if _, err := secrets.Update(t.Context(), first, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	second.StringData = map[string]string{"by": "second"}
	if _, err := secrets.Update(t.Context(), second, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("update of an old version: got %v, want a conflict", err)
	}
}

func TestServerCollectsGarbage(t *testing.T) {
	cluster := kubetest.Start(t)
	core := client(t, cluster).CoreV1()
	ns := cluster.Namespace(t)
	owner, err := core.ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}}}
	if _, err := core.Secrets(ns).Create(t.Context(), owned, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := core.ConfigMaps(ns).Delete(t.Context(), owner.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the owned Secret is deleted", func() bool {
		_, err := core.Secrets(ns).Get(t.Context(), "owned", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestNamespace(t *testing.T) {
	cluster := kubetest.Start(t)
	namespaces := client(t, cluster).CoreV1().Namespaces()
	var name string
	t.Run("lives as long as its test, Ünïcode/and all", func(t *testing.T) {
		name = cluster.Namespace(t)
		if other := cluster.Namespace(t); other == name {
			t.Errorf("got %s twice", name)
		}
		if !strings.HasPrefix(name, "namespace-lives-as-long") {
			t.Errorf("got %s, want the test's name in it", name)
		}
	})
	if name == "" {
		t.FailNow()
	}
	eventually(t, "the namespace is deleted", func() bool {
		ns, err := namespaces.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err) || err == nil && ns.DeletionTimestamp != nil
	})
}

func TestKubectl(t *testing.T) {
	cluster := kubetest.Start(t)
	ns := cluster.Namespace(t)
	cluster.KubectlInput(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"v"}}`, "apply", "--namespace", ns, "--filename", "-")
	got := cluster.Kubectl(t, "get", "configmap", "c", "--namespace", ns, "--output", "jsonpath={.data.k}")
	if got != "v" {
		t.Errorf("got %q, want %q", got, "v")
	}
}

func TestApplyCRDs(t *testing.T) {
	cluster := kubetest.Start(t)
	cluster.ApplyCRDs(t, "testdata")
	cluster.ApplyCRDs(t, "testdata") // changes nothing

	ns := cluster.Namespace(t)
	widget := `{"apiVersion":"kubetest.certloop.io/v1","kind":"Widget","metadata":{"name":"NAME"},"spec":{"size":SIZE}}`
	cluster.KubectlInput(t, strings.NewReplacer("NAME", "small", "SIZE", "9").Replace(widget), "create", "--namespace", ns, "--filename", "-")
	r := record(t, func(tb testing.TB) {
		cluster.KubectlInput(tb, strings.NewReplacer("NAME", "large", "SIZE", "10").Replace(widget), "create", "--namespace", ns, "--filename", "-")
	})
	if !strings.Contains(r.failed, "no widget is that large") {
		t.Errorf("a widget that breaks the schema's rule: got %q, want the rule's message", r.failed)
	}
	cluster.KubectlInput(t, `{"apiVersion":"kubetest.certloop.io/v1","kind":"Gadget","metadata":{"name":"g"}}`, "create", "--filename", "-")
}

func TestStopAndRestart(t *testing.T) {
	cluster := kubetest.StartOwn(t)
	secrets := client(t, cluster).CoreV1().Secrets(cluster.Namespace(t))
	before, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cluster.Stop(t)
		cluster.Stop(t) // a dead server may be stopped
		if _, err := secrets.Get(t.Context(), "s", metav1.GetOptions{}); err == nil {
			t.Fatal("got an answer from a stopped server")
		}
		cluster.Restart(t)
		after, err := secrets.Get(t.Context(), "s", metav1.GetOptions{})
		if err != nil {
			t.Fatalf("the same client after the restart: %v", err)
		}
		if after.UID != before.UID || after.ResourceVersion != before.ResourceVersion {
			t.Errorf("after the restart: got %s at %s, want %s at %s", after.UID, after.ResourceVersion, before.UID, before.ResourceVersion)
		}
	}
}

func client(tb testing.TB, c *kubetest.Cluster) *kubernetes.Clientset {
	tb.Helper()
	k, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not after %v: %s", patience, what)
		}
	}
}
