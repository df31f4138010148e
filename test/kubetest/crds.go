package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	yamlstream "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// ApplyPolicies applies the admission policies in the *.yaml files of dir, server-side.
// The API server enforces them a moment later.
func (c *Cluster) ApplyPolicies(tb testing.TB, dir string) {
	tb.Helper()
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		tb.Fatal(err)
	}
	c.applyFiles(tb, dir, func(ctx context.Context, policy *unstructured.Unstructured) error {
		resource, _ := meta.UnsafeGuessKindToResource(policy.GroupVersionKind())
		_, err := client.Resource(resource).Apply(ctx, policy.GetName(), policy, metav1.ApplyOptions{FieldManager: "kubetest", Force: true})
		return err
	})
}

// ApplyCRDs applies the custom resource definitions in the *.yaml files of dir,
// server-side, and returns when the API server serves them all.
func (c *Cluster) ApplyCRDs(tb testing.TB, dir string) {
	tb.Helper()
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		tb.Fatal(err)
	}
	c.applyFiles(tb, dir, func(ctx context.Context, crd *unstructured.Unstructured) error {
		return applyCRD(ctx, client.Resource(crdResource), crd)
	})
}

// applyFiles applies each document in the *.yaml files of dir.
func (c *Cluster) applyFiles(tb testing.TB, dir string, apply func(context.Context, *unstructured.Unstructured) error) {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("%s/*.yaml: got no files (%v)", dir, err)
	}
	for _, file := range files {
		if err := applyFile(tb.Context(), file, apply); err != nil {
			tb.Fatalf("%s: %v", file, err)
		}
	}
}

func applyFile(ctx context.Context, file string, apply func(context.Context, *unstructured.Unstructured) error) error {
	content, err := os.ReadFile(file) //nolint:gosec // the test's own file
	if err != nil {
		return err
	}
	documents := yamlstream.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &obj.Object); err != nil {
			return err
		}
		if obj.Object == nil {
			continue // nothing but comments is no document
		}
		if err := apply(ctx, obj); err != nil {
			return err
		}
	}
}

func applyCRD(ctx context.Context, crds dynamic.ResourceInterface, crd *unstructured.Unstructured) error {
	if _, err := crds.Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: "kubetest", Force: true}); err != nil {
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		now, err := crds.Get(ctx, crd.GetName(), metav1.GetOptions{})
		return err == nil && established(now), err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be served: %w", crd.GetName(), err)
	}
	return nil
}

func established(crd *unstructured.Unstructured) bool {
	var status struct {
		Conditions []metav1.Condition `json:"conditions"`
	}
	raw, err := yaml.Marshal(crd.Object["status"])
	if err != nil || yaml.Unmarshal(raw, &status) != nil {
		return false
	}
	return meta.IsStatusConditionTrue(status.Conditions, "Established")
}
