package chart

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const monitoringFiles = chartDir + "/files/monitoring/"

const monitored = `
monitoring:
  rules: {enabled: true, labels: {release: kube-prometheus-stack}}
  dashboard: {enabled: true, annotations: {grafana_folder: certloop}}
  kubeStateMetrics: {enabled: true, serviceAccount: {name: metrics, namespace: observing}}
`

// parsed is a file of the chart, or a text in one.
func parsed(t *testing.T, content []byte) (v map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal(content, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	a, errA := json.Marshal(got)
	b, errB := json.Marshal(want)
	if errA != nil || errB != nil || string(a) != string(b) || len(a) < 100 {
		t.Errorf("%s is not what the file says:\n%s\nwant\n%s", what, a, b)
	}
}

// Unless it is asked for, nothing of it is there, and what is there is what the files say.
func TestMonitoring(t *testing.T) {
	a := arrangement{"knative", "dedicated"}
	plain, all := a.objects(t), a.objects(t, monitored)
	four, err := render(a.home(), a.values(t, monitored))
	if err != nil {
		t.Fatal(err)
	}
	three, err := render3(a.home(), a.values(t, monitored))
	if err != nil {
		t.Fatal(err)
	}
	const file = "certloop/templates/monitoring.yaml"
	if three[file] != four[file] {
		t.Errorf("Helm 3 renders\n%s", three[file])
	}
	if got, want := len(all)-len(plain), 5; got != want {
		t.Errorf("%d objects more with monitoring, want %d", got, want)
	}
	if len(of(plain, "PrometheusRule"))+len(of(plain, "ConfigMap")) != len(of(plain, "ConfigMap")) {
		t.Error("there are rules that nobody asked for")
	}
	stack := parsed(t, read(t, monitoringFiles+"kube-prometheus-stack.yaml"))["kube-state-metrics"].(map[string]any)

	rules := named(t, all, "PrometheusRule", release)
	same(t, "the PrometheusRule", rules.Object["spec"], parsed(t, read(t, monitoringFiles+"rules.yaml")))
	if rules.GetLabels()["release"] != "kube-prometheus-stack" || rules.GetLabels()["app.kubernetes.io/name"] != "certloop" {
		t.Errorf("the labels of the PrometheusRule are %v", rules.GetLabels())
	}

	dashboard := named(t, all, "ConfigMap", release+"-dashboard")
	content := dashboard.Object["data"].(map[string]any)["certloop.json"].(string)
	same(t, "the dashboard", parsed(t, []byte(content)), parsed(t, read(t, monitoringFiles+"dashboard.json")))
	if dashboard.GetLabels()["grafana_dashboard"] != "1" || dashboard.GetAnnotations()["grafana_folder"] != "certloop" {
		t.Errorf("Grafana does not find labels %v, annotations %v", dashboard.GetLabels(), dashboard.GetAnnotations())
	}

	config := named(t, all, "ConfigMap", release+"-kube-state-metrics")
	content = config.Object["data"].(map[string]any)["config.yaml"].(string)
	same(t, "the configuration of kube-state-metrics", parsed(t, []byte(content)), stack["customResourceState"].(map[string]any)["config"])

	role := release + "-kube-state-metrics-" + a.home()
	same(t, "the ClusterRole", named(t, all, "ClusterRole", role).Object["rules"], stack["rbac"].(map[string]any)["extraRules"])
	binding := named(t, all, "ClusterRoleBinding", role)
	if ref, _, _ := unstructured.NestedString(binding.Object, "roleRef", "name"); ref != role {
		t.Errorf("the binding is of %s", ref)
	}
	want := []any{map[string]any{"kind": "ServiceAccount", "name": "metrics", "namespace": "observing"}}
	if !reflect.DeepEqual(binding.Object["subjects"], want) {
		t.Errorf("the binding is for %v", binding.Object["subjects"])
	}
}

// Whoever has no exporter of NATS does without its rules.
func TestMonitoringWithoutNATS(t *testing.T) {
	groups := func(overlays ...string) (names []string) {
		all := arrangement{"plain", "shared"}.objects(t, append([]string{monitored}, overlays...)...)
		spec := of(all, "PrometheusRule")[0].Object["spec"].(map[string]any)
		for _, g := range spec["groups"].([]any) {
			names = append(names, g.(map[string]any)["name"].(string))
		}
		return names
	}
	with, without := groups(), groups("monitoring: {rules: {nats: false}}")
	if !slices.Equal(with, append(slices.Clone(without), "certloop-nats")) {
		t.Errorf("groups with NATS %v, without %v", with, without)
	}
	if len(without) != 3 {
		t.Errorf("groups without NATS are %v, want 3", without)
	}
}

// What docs/monitoring.md has an operator type is right.
func TestMonitoringDocument(t *testing.T) {
	helm := 0
	for _, command := range commands(t, root+"/docs/monitoring.md") {
		switch line := strings.Join(command, " "); {
		case strings.HasPrefix(line, "helm upgrade certloop "):
			helm++
			shown(t, command[2:])
		case strings.HasPrefix(line, "helm upgrade kube-prometheus-stack "):
			helm++
			if i := slices.Index(command, "--values"); i < 0 || len(read(t, root+"/"+command[i+1])) == 0 {
				t.Errorf("%s gives no values", line)
			}
		default:
			t.Errorf("nobody has tried %q", line)
		}
	}
	if helm < 2 {
		t.Errorf("%d commands of helm, want 2", helm)
	}
}
