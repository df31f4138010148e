package netpol

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
)

// nameLabel is on every namespace of a cluster (Kubernetes 1.22), and so on those of
// manifests.
const nameLabel = "kubernetes.io/metadata.name"

// MaxManifestBytes bounds what is read of manifests.
const MaxManifestBytes = 64 << 20

// Load reads a cluster. It needs the right to list namespaces, pods and networkpolicies.
func Load(ctx context.Context, name string, cfg *rest.Config) (*Cluster, error) {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: name, Namespaces: map[string]map[string]string{}}
	for _, gvr := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "pods"},
		{Group: networkingv1.GroupName, Version: "v1", Resource: "networkpolicies"},
	} {
		list := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return client.Resource(gvr).List(ctx, opts)
		})
		err := list.EachListItem(ctx, metav1.ListOptions{}, func(obj runtime.Object) error {
			u, ok := obj.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("unexpected %T", obj)
			}
			return c.add(u, "")
		})
		if err != nil {
			return nil, fmt.Errorf("listing %s of %s: %w", gvr.Resource, name, err)
		}
	}
	return c, nil
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
	default:
		if path := podTemplatePath(kind); path != nil {
			return c.addPod(u, namespace, path)
		}
	}
	return nil
}

func (c *Cluster) namespace(name string, labels map[string]string) {
	if c.Namespaces[name] == nil {
		c.Namespaces[name] = map[string]string{nameLabel: name}
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
	case "Deployment.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicaSet.apps", "Job.batch", "Service.serving.knative.dev":
		return []string{"spec", "template"}
	case "CronJob.batch":
		return []string{"spec", "jobTemplate", "spec", "template"}
	default:
		return nil
	}
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
		} `json:"containers"`
	} `json:"spec"`
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
	pod := Pod{Namespace: namespace, Name: object, Labels: map[string]string{}, HostNetwork: t.Spec.HostNetwork}
	maps.Copy(pod.Labels, t.Metadata.Labels)
	if u.GroupVersionKind().Group == "serving.knative.dev" {
		pod.Labels["serving.knative.dev/service"] = u.GetName() // as Knative labels its Pods
	}
	for _, container := range t.Spec.Containers {
		pod.Ports = append(pod.Ports, container.Ports...)
	}
	c.namespace(namespace, nil)
	c.Pods = append(c.Pods, pod)
	return nil
}
