package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/deploy/knative"
)

// fieldManager owns what the commands write into a cluster.
const fieldManager = "certloop-cli"

const establishPause = 50 * time.Millisecond

// applyCRDs applies the custom resource definitions, waits until they are served, and
// applies the policies that guard them. It returns the names of the definitions.
func applyCRDs(ctx context.Context, client dynamic.Interface) ([]string, error) {
	docs, err := knative.CRDs()
	if err != nil {
		return nil, err
	}
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	var names []string
	for _, doc := range docs {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &crd.Object); err != nil {
			return nil, err
		}
		if _, err := crds.Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: fieldManager}); err != nil {
			return nil, fmt.Errorf("applying %s: %w", crd.GetName(), err)
		}
		names = append(names, crd.GetName())
	}
	for _, name := range names {
		if err := established(ctx, crds, name); err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", name, err)
		}
	}
	return names, applyPolicies(ctx, client)
}

// applyPolicies applies the admission policies that guard the custom resources.
func applyPolicies(ctx context.Context, client dynamic.Interface) error {
	docs, err := knative.Policies()
	if err != nil {
		return err
	}
	for _, doc := range docs {
		policy := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &policy.Object); err != nil {
			return err
		}
		resource, _ := meta.UnsafeGuessKindToResource(policy.GroupVersionKind())
		if _, err := client.Resource(resource).Apply(ctx, policy.GetName(), policy, metav1.ApplyOptions{FieldManager: fieldManager}); err != nil {
			return fmt.Errorf("applying %s %s: %w", policy.GetKind(), policy.GetName(), err)
		}
	}
	return nil
}

func established(ctx context.Context, crds dynamic.ResourceInterface, name string) error {
	for {
		crd, err := crds.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if conditionHolds(crd, "Established") {
			return nil
		}
		if !wait(ctx, establishPause) {
			return ctx.Err()
		}
	}
}

func conditionHolds(obj *unstructured.Unstructured, kind string) bool {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind && m["status"] == "True" {
			return true
		}
	}
	return false
}
