package monitoringtest

import (
	"os"
	"path/filepath"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// shipped is a file that the chart has for operators.
func shipped(tb testing.TB, name string) string {
	tb.Helper()
	return filepath.Join(rig.Root(tb), "charts", "certloop", "files", "monitoring", name)
}

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return content
}

func decode(tb testing.TB, path string, into any) {
	tb.Helper()
	if err := yaml.Unmarshal(read(tb, path), into); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
}

// stack are the values for the chart kube-prometheus-stack.
type stack struct {
	KubeStateMetrics struct {
		RBAC struct {
			ExtraRules []rbacv1.PolicyRule `json:"extraRules"`
		} `json:"rbac"`
		CustomResourceState struct {
			Config customResourceState `json:"config"`
		} `json:"customResourceState"`
	} `json:"kube-state-metrics"`
}

// customResourceState is the configuration of kube-state-metrics.
type customResourceState struct {
	Kind string `json:"kind"`
	Spec struct {
		Resources []struct {
			GroupVersionKind struct{ Group, Version, Kind string } `json:"groupVersionKind"`
			MetricNamePrefix string                                `json:"metricNamePrefix"`
			Metrics          []struct{ Name, Help string }         `json:"metrics"`
		} `json:"resources"`
	} `json:"spec"`
}
