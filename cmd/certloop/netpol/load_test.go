package netpol

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/certloop/certloop/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// A cluster without Knative: its Pods with their addresses, its policies, its API server.
func TestLoad(t *testing.T) {
	server := kubetest.Start(t)
	ns := server.Namespace(t)
	client, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "web", Env: []corev1.EnvVar{{Name: "CERTLOOP_NAMESPACES", Value: ns}}}},
	}}
	pod, err = client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.2.3", PodIPs: []corev1.PodIP{{IP: "10.1.2.3"}}}
	if _, err := client.CoreV1().Pods(ns).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deny"}}
	if _, err := client.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// As an API server writes it that does not listen on loopback.
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: "kubernetes-", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.5"}}},
		Ports: []discoveryv1.EndpointPort{{Port: new(int32(6443))}},
	}
	if _, err := client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(t.Context(), "live", server.Config())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.Pods, func(p Pod) bool { return p.Namespace == ns })
	if i < 0 || c.Pods[i].Name != "Pod/web" || !slices.Equal(c.Pods[i].Addrs, []netip.Addr{netip.MustParseAddr("10.1.2.3")}) || c.Pods[i].Env["CERTLOOP_NAMESPACES"] != ns {
		t.Errorf("Pods %+v", c.Pods)
	}
	if !slices.ContainsFunc(c.Policies, func(p networkingv1.NetworkPolicy) bool { return p.Namespace == ns && p.Name == "deny" }) || c.Namespaces[ns] == nil {
		t.Errorf("policies %+v", c.Policies)
	}
	if !c.Live || !slices.Contains(c.APIServer, netip.MustParseAddrPort("10.0.0.5:6443")) {
		t.Errorf("live %v, API server %v", c.Live, c.APIServer)
	}
}

// Services and sources of Knative stand for Pods that do not run, and not for those that do.
func TestStandIns(t *testing.T) {
	all := []Pod{
		{Namespace: "a", Name: "Service/enroll", Labels: map[string]string{serviceLabel: "enroll"}},
		{Namespace: "a", Name: "Service/renew", Labels: map[string]string{serviceLabel: "renew"}},
		{Namespace: "a", Name: "Pod/enroll-1", Labels: map[string]string{serviceLabel: "enroll"}},
		{Namespace: "b", Name: "Pod/renew-1", Labels: map[string]string{serviceLabel: "renew"}},
	}
	var kept []string
	for _, p := range all {
		if !runs(all, p) {
			kept = append(kept, p.Name)
		}
	}
	if !slices.Equal(kept, []string{"Service/renew", "Pod/enroll-1", "Pod/renew-1"}) {
		t.Errorf("kept %v", kept)
	}
}
