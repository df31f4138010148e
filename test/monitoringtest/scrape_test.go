package monitoringtest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/freeport"
	"github.com/certloop/certloop/test/kubetest"
)

// kubeStateMetrics runs the program with the configuration and the rights that the chart has for
// it, and returns where it answers and its log.
func kubeStateMetrics(tb testing.TB, cluster *kubetest.Cluster) (url string, log func() string) {
	tb.Helper()
	var values struct {
		KubeStateMetrics struct {
			CustomResourceState struct {
				Config any `json:"config"`
			} `json:"customResourceState"`
		} `json:"kube-state-metrics"`
	}
	decode(tb, shipped(tb, "kube-prometheus-stack.yaml"), &values)
	config, err := yaml.Marshal(values.KubeStateMetrics.CustomResourceState.Config)
	if err != nil {
		tb.Fatal(err)
	}
	metrics, telemetry := freeport.Address(tb), freeport.Address(tb)
	p := rig.Launch(tb, rig.Command{
		Name: "kube-state-metrics", Path: rig.Program(tb, "kube-state-metrics"), Logs: tb.TempDir(),
		Args: []string{
			"--kubeconfig", restricted(tb, cluster), "--custom-resource-state-only", "--custom-resource-state-config", string(config),
			"--host", host(tb, metrics), "--port", port(tb, metrics), "--telemetry-host", host(tb, telemetry), "--telemetry-port", port(tb, telemetry),
		},
	})
	return "http://" + metrics + "/metrics", func() string { return string(read(tb, p.Log)) }
}

func host(tb testing.TB, address string) string { return split(tb, address)[0] }

func port(tb testing.TB, address string) string { return split(tb, address)[1] }

func split(tb testing.TB, address string) [2]string {
	tb.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	return [2]string{host, port}
}

// restricted makes a kubeconfig for somebody with the rights that the chart has for kube-state-metrics.
func restricted(tb testing.TB, cluster *kubetest.Cluster) string {
	tb.Helper()
	client, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		tb.Fatal(err)
	}
	var values stack
	decode(tb, shipped(tb, "kube-prometheus-stack.yaml"), &values)
	const user = "kube-state-metrics"
	meta := metav1.ObjectMeta{Name: user}
	role := &rbacv1.ClusterRole{ObjectMeta: meta, Rules: values.KubeStateMetrics.RBAC.ExtraRules}
	if _, err := client.RbacV1().ClusterRoles().Create(tb.Context(), role, metav1.CreateOptions{}); err != nil {
		tb.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(tb.Context(), binding, metav1.CreateOptions{}); err != nil {
		tb.Fatal(err)
	}
	return cluster.KubeconfigAs(tb, user)
}

// series are values by name and labels, as name{a="1",b="2"} with the labels in order.
type series map[string]float64

func (s series) add(name string, labels map[string]string, value float64) {
	var all []string
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, fmt.Sprintf("%s=%q", label, labels[label]))
	}
	s[name+"{"+strings.Join(all, ",")+"}"] = value
}

var (
	sample = regexp.MustCompile(`^([a-z_]+)\{(.*)\} (\S+)$`)
	pair   = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// scrape reads what a Prometheus would.
func scrape(tb testing.TB, url string) (series, error) {
	tb.Helper()
	text, err := get(tb, url)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

func exposition(tb testing.TB, url string) string {
	tb.Helper()
	text, err := get(tb, url)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func get(tb testing.TB, url string) (string, error) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(text), err
}

// parse reads samples of certloop's objects. What is said of each metric is said once.
func parse(text string) (series, error) {
	all, described := series{}, map[string]int{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if words := strings.Fields(line); len(words) > 2 && words[0] == "#" {
			described[words[1]+" "+words[2]]++
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("no sample: %q", line)
		}
		labels := map[string]string{}
		for _, p := range pair.FindAllStringSubmatch(m[2], -1) {
			labels[p[1]] = p[2]
		}
		if labels["customresource_group"] != "certloop.io" || labels["customresource_version"] != "v1alpha1" || labels["customresource_kind"] == "" {
			return nil, fmt.Errorf("of another API: %q", line)
		}
		maps.DeleteFunc(labels, func(name, _ string) bool { return strings.HasPrefix(name, "customresource_") })
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all.add(m[1], labels, value)
	}
	for what, times := range described {
		if times != 1 {
			return nil, fmt.Errorf("# %s is there %d times", what, times)
		}
	}
	return all, nil
}
