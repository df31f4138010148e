package netpol

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
)

// nameLabel is on every namespace of a cluster (Kubernetes 1.22).
const nameLabel = "kubernetes.io/metadata.name"

// What Knative calls itself.
const (
	servingGroup = "serving.knative.dev"
	serviceLabel = "serving.knative.dev/service" // on the Pods of a Service
	sourceLabel  = "eventing.knative.dev/sourceName"
)

// MaxManifestBytes bounds what is read of manifests.
const MaxManifestBytes = 64 << 20

// listed is a kind of which Load takes all objects, or those that a selector names.
type listed struct {
	gvr      schema.GroupVersionResource
	selector string
	optional bool // part of Knative, which not every cluster has
}

// Services and sources of Knative stand for Pods that do not run at the moment.
func toList() []listed {
	return []listed{
		{gvr: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}},
		{gvr: schema.GroupVersionResource{Version: "v1", Resource: "pods"}},
		{gvr: schema.GroupVersionResource{Group: networkingv1.GroupName, Version: "v1", Resource: "networkpolicies"}},
		{gvr: schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}, selector: "kubernetes.io/service-name=kubernetes"},
		{schema.GroupVersionResource{Group: servingGroup, Version: "v1", Resource: "services"}, partOfLabel + "=" + certloop, true},
		{schema.GroupVersionResource{Group: "sources.knative.dev", Version: "v1", Resource: "apiserversources"}, partOfLabel + "=" + certloop, true},
	}
}

// Load reads a cluster. It needs the right to list namespaces, Pods, NetworkPolicies and
// EndpointSlices, and with Knative its Services and ApiServerSources.
func Load(ctx context.Context, name string, cfg *rest.Config) (*Cluster, error) {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: name, Namespaces: map[string]map[string]string{}, Live: true}
	for _, l := range toList() {
		if err := c.list(ctx, client, l); err != nil && (!l.optional || !apierrors.IsNotFound(err)) {
			return nil, fmt.Errorf("listing %s of %s: %w", l.gvr.GroupResource(), name, err)
		}
	}
	all := slices.Clone(c.Pods)
	c.Pods = slices.DeleteFunc(c.Pods, func(p Pod) bool { return runs(all, p) })
	return c, nil
}

func (c *Cluster) list(ctx context.Context, client dynamic.Interface, l listed) error {
	page := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return client.Resource(l.gvr).List(ctx, opts)
	})
	return page.EachListItem(ctx, metav1.ListOptions{LabelSelector: l.selector}, func(obj runtime.Object) error {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("unexpected %T", obj)
		}
		return c.add(u, "")
	})
}

// runs tells whether a Pod is the stand-in of a Knative Service that has Pods of its own.
func runs(all []Pod, standIn Pod) bool {
	service := standIn.Labels[serviceLabel]
	return service != "" && strings.HasPrefix(standIn.Name, "Service/") && slices.ContainsFunc(all, func(p Pod) bool {
		return p.Namespace == standIn.Namespace && p.Labels[serviceLabel] == service && p.Name != standIn.Name
	})
}

// Parse reads manifests, YAML documents or JSON. Objects without a namespace are taken
// to be in the given one. Namespaces that are only mentioned exist.
func Parse(name string, manifests io.Reader, namespace string) (*Cluster, error) {
	c := &Cluster{Name: name, Namespaces: map[string]map[string]string{}}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(io.LimitReader(manifests, MaxManifestBytes)))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s, document %d: %w", name, n, err)
		}
		if err := c.parse(document, namespace); err != nil {
			return nil, fmt.Errorf("%s, document %d: %w", name, n, err)
		}
	}
}

func (c *Cluster) parse(document []byte, namespace string) error {
	js, err := utilyaml.ToJSON(document)
	if err != nil {
		return err
	}
	if bytes.Equal(bytes.TrimSpace(js), []byte("null")) {
		return nil
	}
	obj, _, err := unstructured.UnstructuredJSONScheme.Decode(js, nil, nil)
	switch obj := obj.(type) {
	case *unstructured.Unstructured:
		return c.add(obj, namespace)
	case *unstructured.UnstructuredList:
		for i := range obj.Items {
			if err := c.add(&obj.Items[i], namespace); err != nil {
				return err
			}
		}
	}
	return err
}

// add takes what matters of an object, and nothing of others.
func (c *Cluster) add(u *unstructured.Unstructured, namespace string) error {
	if u.GetNamespace() != "" {
		namespace = u.GetNamespace()
	}
	switch kind := u.GroupVersionKind().GroupKind().String(); kind {
	case "Namespace":
		c.namespace(u.GetName(), u.GetLabels())
	case "NetworkPolicy." + networkingv1.GroupName:
		return c.addPolicy(u, namespace)
	case "EndpointSlice.discovery.k8s.io":
		return c.addAPIServer(u)
	case "ApiServerSource.sources.knative.dev":
		c.addSource(u, namespace)
	default:
		if path := podTemplatePath(kind); path != nil {
			return c.addPod(u, namespace, path)
		}
	}
	return nil
}

func (c *Cluster) namespace(name string, labels map[string]string) {
	if c.Namespaces[name] == nil {
		c.Namespaces[name] = map[string]string{}
	}
	maps.Copy(c.Namespaces[name], labels)
}

func (c *Cluster) addPolicy(u *unstructured.Unstructured, namespace string) error {
	var p networkingv1.NetworkPolicy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, &p, true); err != nil {
		return fmt.Errorf("NetworkPolicy %s/%s: %w", namespace, u.GetName(), err)
	}
	p.Namespace = namespace
	c.namespace(namespace, nil)
	c.Policies = append(c.Policies, p)
	return nil
}

// podTemplatePath is where a kind has its Pod template; nil for kinds that make no Pods.
func podTemplatePath(kind string) []string {
	switch kind {
	case "Pod":
		return []string{}
	case "Deployment.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicaSet.apps", "Job.batch", "Service." + servingGroup:
		return []string{"spec", "template"}
	case "CronJob.batch":
		return []string{"spec", "jobTemplate", "spec", "template"}
	default:
		return nil
	}
}

// addAPIServer takes the addresses of the Service default/kubernetes.
func (c *Cluster) addAPIServer(u *unstructured.Unstructured) error {
	var slice discoveryv1.EndpointSlice
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &slice); err != nil {
		return fmt.Errorf("EndpointSlice %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	if slice.Namespace != metav1.NamespaceDefault || slice.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
		return nil
	}
	for _, endpoint := range slice.Endpoints {
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				if addr, err := netip.ParseAddr(address); err == nil && port.Port != nil {
					c.APIServer = append(c.APIServer, netip.AddrPortFrom(addr, uint16(*port.Port)))
				}
			}
		}
	}
	return nil
}

// addSource adds the adapter that Knative runs for a source of certloop's.
func (c *Cluster) addSource(u *unstructured.Unstructured, namespace string) {
	if u.GetLabels()[partOfLabel] != certloop {
		return
	}
	pod := Pod{Namespace: namespace, Name: u.GetKind() + "/" + u.GetName(), component: componentSource,
		Labels: map[string]string{"eventing.knative.dev/source": "apiserver-source-controller", sourceLabel: u.GetName()}}
	if kind, _, _ := unstructured.NestedString(u.Object, "spec", "sink", "ref", "kind"); kind == "Broker" {
		pod.component = componentBrokerSource
	}
	c.namespace(namespace, nil)
	c.Pods = append(c.Pods, pod)
}

// podTemplate is as much of a Pod template as matters.
type podTemplate struct {
	Metadata struct {
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		HostNetwork bool `json:"hostNetwork"`
		Containers  []struct {
			Ports []corev1.ContainerPort `json:"ports"`
			Env   []corev1.EnvVar        `json:"env"`
		} `json:"containers"`
	} `json:"spec"`
	Status struct {
		PodIPs []corev1.PodIP `json:"podIPs"`
	} `json:"status"`
}

func (t *podTemplate) pod(namespace, name string) Pod {
	pod := Pod{Namespace: namespace, Name: name, Labels: map[string]string{}, HostNetwork: t.Spec.HostNetwork, Env: map[string]string{}}
	maps.Copy(pod.Labels, t.Metadata.Labels)
	for _, container := range t.Spec.Containers {
		pod.Ports = append(pod.Ports, container.Ports...)
		for _, v := range container.Env {
			pod.Env[v.Name] = v.Value
		}
	}
	for _, ip := range t.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			pod.Addrs = append(pod.Addrs, addr)
		}
	}
	return pod
}

func (c *Cluster) addPod(u *unstructured.Unstructured, namespace string, path []string) error {
	object := u.GetKind() + "/" + u.GetName()
	if phase, _, _ := unstructured.NestedString(u.Object, "status", "phase"); phase == string(corev1.PodSucceeded) || phase == string(corev1.PodFailed) {
		return nil // it is over
	}
	raw, found, err := unstructured.NestedMap(u.Object, path...)
	if err != nil || !found {
		return fmt.Errorf("%s in %s has no Pod template", object, namespace)
	}
	var t podTemplate
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &t); err != nil {
		return fmt.Errorf("%s in %s: %w", object, namespace, err)
	}
	pod := t.pod(namespace, object)
	if u.GroupVersionKind().Group == servingGroup {
		pod.Labels[serviceLabel] = u.GetName() // as Knative labels its Pods
	}
	c.namespace(namespace, nil)
	c.Pods = append(c.Pods, pod)
	return nil
}
