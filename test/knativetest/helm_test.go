//go:build linux

package knativetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/test/e2e/rig"
)

// Ports of the webhooks, which share one network here. The API server looks for each at the
// port that the webhook's configuration names.
var webhookPorts = map[string]string{eventing: "8443", serving: "9443"}

// installWebhooks applies what Knative Eventing and Knative Serving have before an object
// of theirs is stored: definitions, configuration, and the webhooks with their rights.
func (i *installation) installWebhooks(tb testing.TB) {
	tb.Helper()
	events, serves := filepath.Join(moduleDir(tb, eventingModule), "config", "core"), filepath.Join(moduleDir(tb, servingModule), "config", "core")
	i.applyFiles(tb, reached, events+"/resources/*.yaml", serves+"/300-resources/*.yaml")
	i.mapper.Reset()
	i.applyFiles(tb, same, events+"/configmaps/*.yaml", events+"/2*.yaml", events+"/roles/*.yaml",
		serves+"/configmaps/*.yaml", serves+"/200-serviceaccount.yaml", serves+"/200-roles/*.yaml")
	// The rights of Serving's controller are gathered from labelled roles, by a controller that is not here.
	i.applyText(tb, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: knative-serving-core},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: knative-serving-core},
subjects: [{kind: ServiceAccount, name: controller, namespace: `+serving+`}]}`)
	i.applyFiles(tb, listening, events+"/deployments/webhook.yaml", serves+"/deployments/webhook.yaml")
	i.applyFiles(tb, reached, events+"/webhooks/*.yaml", serves+"/webhooks/*.yaml")
}

// reached says at which port the API server finds a webhook.
func reached(u *unstructured.Unstructured) *unstructured.Unstructured {
	hooks, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
	for _, hook := range hooks {
		setPort(hook.(map[string]any))
	}
	if len(hooks) > 0 {
		_ = unstructured.SetNestedSlice(u.Object, hooks, "webhooks")
	}
	if conversion, ok, _ := unstructured.NestedMap(u.Object, "spec", "conversion", "webhook"); ok {
		setPort(conversion)
		_ = unstructured.SetNestedMap(u.Object, conversion, "spec", "conversion", "webhook")
	}
	return u
}

func setPort(webhook map[string]any) {
	namespace, _, _ := unstructured.NestedString(webhook, "clientConfig", "service", "namespace")
	port := map[string]int64{eventing: 8443, serving: 9443}[namespace]
	_ = unstructured.SetNestedField(webhook, port, "clientConfig", "service", "port")
}

// listening has a webhook listen there.
func listening(u *unstructured.Unstructured) *unstructured.Unstructured {
	if u.GetKind() == "Deployment" {
		setEnv(u, map[string]string{"WEBHOOK_PORT": webhookPorts[u.GetNamespace()]})
	}
	return u
}

// waitWebhooks waits until the webhooks have told the API server what they judge, and by
// which certificate it knows them.
func (i *installation) waitWebhooks(tb testing.TB) {
	tb.Helper()
	for _, gvr := range []schema.GroupVersionResource{
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
	} {
		rig.Eventually(tb, rig.Patience, gvr.Resource, func() error {
			list, err := i.objects.Resource(gvr).List(tb.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			judged := 0
			for _, u := range list.Items {
				hooks, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
				for _, hook := range hooks {
					if ca, _, _ := unstructured.NestedString(hook.(map[string]any), "clientConfig", "caBundle"); ca == "" {
						return fmt.Errorf("%s has no certificate yet", u.GetName())
					}
					judged++
				}
			}
			if judged == 0 {
				return errors.New("there are none")
			}
			return nil
		})
	}
}

// watchEnded is what client-go notes now and then when Helm ends its own watch of a hook: no
// complaint, and not the API server's.
var watchEnded = regexp.MustCompile(`(?m)^I\d{4} .*reflector\.go:\d+\] "Warning: watch ended with error".*context canceled.*\n`)

// helm runs Helm as an administrator would, and returns what it wrote to standard output and
// to standard error, where warnings of the API server go.
func (i *installation) helm(t *testing.T, arguments ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), rig.Binary(t, i.helmProgram), arguments...)
	home := t.TempDir()
	cmd.Env = []string{"KUBECONFIG=" + i.cluster.Kubeconfig(), "HOME=" + home, "HELM_CACHE_HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_DATA_HOME=" + home}
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	began := time.Now()
	err = cmd.Run()
	t.Logf("%s %s took %s", i.helmProgram, arguments[0], time.Since(began).Round(100*time.Millisecond))
	return out.String(), watchEnded.ReplaceAllString(complaints.String(), ""), err
}

// silently runs Helm, which must have nothing to complain about.
func (i *installation) silently(t *testing.T, arguments ...string) string {
	t.Helper()
	stdout, stderr, err := i.helm(t, arguments...)
	if err != nil || stderr != "" {
		t.Fatalf("%s %s: %v\n%s", i.helmProgram, strings.Join(arguments, " "), err, stderr)
	}
	return stdout
}

// arrangement is a profile in a model.
type arrangement struct{ profile, model string }

// values are those that docs/install.md says have to be given. The API server's address is
// left to the chart, which asks the cluster.
func (a arrangement) values(t *testing.T) string {
	t.Helper()
	text := fmt.Sprintf("profile: %s\nmodel: %s\nnetworkPolicy: {ca: [{name: operator-ca, cidrs: [192.0.2.10/32], port: 829}]}\n", a.profile, a.model)
	if a.model == "shared" {
		text += "accessedNamespaces: [core, edge]\n"
	}
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// apiServer says where the API server is, as one does that is part of its cluster.
const apiServer = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}},
addressType: IPv4, endpoints: [{addresses: [198.51.100.1]}], ports: [{name: https, port: 6443, protocol: TCP}]}`

// The chart is installed, changed and taken away by Helm without a warning, while Knative's
// webhooks judge its objects.
func TestHelmInstall(t *testing.T) {
	i := newCluster(t)
	i.installWebhooks(t)
	i.waitWebhooks(t)
	i.applyText(t, apiServer)
	for _, name := range []string{"core", "edge", "second", "spare"} {
		i.applyText(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}")
	}
	chart := i.packaged(t, filepath.Join(rig.Root(t), "charts", "certloop"))
	for _, profile := range []string{"knative", "knative-direct", "plain"} {
		for _, model := range []string{"dedicated", "shared"} {
			t.Run(profile+"-"+model, func(t *testing.T) { i.release(t, chart, arrangement{profile, model}) })
		}
	}
	t.Run("a warning would be seen", i.warned)
	t.Run("Helm 3", func(t *testing.T) { i.helm3(t, chart) })
}

// helm3 leads the lives of a release that differ most, by the Helm that was before.
func (i *installation) helm3(t *testing.T, chart string) {
	defer func(program string) { i.helmProgram = program }(i.helmProgram)
	i.helmProgram = "helm3"
	if version := i.silently(t, "version", "--template", "{{.Version}}"); !strings.HasPrefix(version, "v3.") {
		t.Fatalf("this is %s, want a Helm 3", version)
	}
	for _, a := range []arrangement{{"knative", "dedicated"}, {"plain", "shared"}} {
		t.Run(a.profile+"-"+a.model, func(t *testing.T) { i.release(t, chart, a) })
	}
	t.Run("a warning would be seen", i.warned)
	t.Run("and Helm 4 after it", func(t *testing.T) { i.succeeded(t, chart) })
}

// succeeded has Helm 4 go on with a release of Helm 3's.
func (i *installation) succeeded(t *testing.T, chart string) {
	a := arrangement{"plain", "dedicated"}
	i.silently(t, "install", "certloop", chart, "--namespace", home, "-f", a.values(t), "--set", "pod.labels.team=pki")
	defer func(program string) { i.helmProgram = program }(i.helmProgram)
	i.helmProgram = "helm"
	i.upgraded(t, chart, a)
	i.silently(t, "uninstall", "certloop", "--namespace", home)
}

// packaged is a chart as it is published.
func (i *installation) packaged(t *testing.T, chart string) string {
	t.Helper()
	dir := t.TempDir()
	_, stderr, err := i.helm(t, "package", chart, "--destination", dir) // tells of links
	archives, _ := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("helm package %s: %d archives, %v\n%s", chart, len(archives), err, stderr)
	}
	return archives[0]
}

// release is the life of a release.
func (i *installation) release(t *testing.T, chart string, a arrangement) {
	values := a.values(t)
	i.silently(t, "install", "certloop", chart, "--namespace", home, "--create-namespace", "-f", values)
	if a.profile != "plain" {
		i.judged(t)
		i.refused(t)
	}
	i.silently(t, "upgrade", "certloop", chart, "--namespace", home, "-f", values, "--set", "pod.labels.team=pki", "--set", "functions.enroll.concurrency=3")
	i.upgraded(t, chart, a)
	i.alone(t, chart, a)
	i.silently(t, "uninstall", "certloop", "--namespace", home)
	for _, resource := range knativeResources() {
		list, err := i.objects.Resource(resource).Namespace(home).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) > 0 {
			t.Errorf("%d %s stay, %v", len(list.Items), resource.Resource, err)
		}
	}
}

// alone is a release in its namespace, and in those that it serves.
func (i *installation) alone(t *testing.T, chart string, a arrangement) {
	t.Helper()
	served := home
	if a.model == "shared" {
		served = "edge"
	}
	for _, tt := range []struct{ namespace, model, want string }{
		{home, "{model: shared, accessedNamespaces: [spare]}", "release certloop is in namespace " + home + " already"},
		{"second", "{model: shared, accessedNamespaces: [spare, " + served + "]}", "namespace " + served + " is served by release certloop in namespace " + home + " already"},
		{"second", "{model: shared, accessedNamespaces: [spare]}", ""},
	} {
		path := filepath.Join(t.TempDir(), "second.yaml")
		if err := os.WriteFile(path, []byte(tt.model), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, err := i.helm(t, "install", "second", chart, "--namespace", tt.namespace, "--dry-run=server", "-f", a.values(t), "-f", path, "--set", "crds.install=false,policies.install=false")
		if (err == nil) != (tt.want == "") || !strings.Contains(stderr, tt.want) {
			t.Errorf("another release with %s in namespace %s: got %v, want %q\n%s", tt.model, tt.namespace, err, tt.want, stderr)
		}
	}
}

// releases are versions of certloop that follow the first, with images of their own.
func releases() []string { return []string{"second", "third"} }

// digest stands for the images of a version.
func digest(version string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(version))) }

// images is what `make images` writes for a version.
func images(t *testing.T, version string) (path string) {
	t.Helper()
	text := "image:\n  digests:\n"
	for _, name := range []string{"certloop", "enroll", "renew", "watch-secrets", "expiry-scan"} {
		text += "    " + name + ": " + digest(version) + "\n"
	}
	path = filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// upgraded does what docs/install.md says of an upgrade, twice: the images are the new ones, and
// what was set stays set.
func (i *installation) upgraded(t *testing.T, chart string, a arrangement) {
	t.Helper()
	for _, version := range releases() {
		i.silently(t, "upgrade", "certloop", chart, "--namespace", home, "--reset-then-reuse-values", "-f", images(t, version))
		resource, name := servingGVR(), "certloop-enroll"
		if a.profile == "plain" {
			resource, name = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, "certloop-all"
		}
		u, err := i.objects.Resource(resource).Namespace(home).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		if image := fmt.Sprint(containers[0].(map[string]any)["image"]); !strings.HasSuffix(image, "@"+digest(version)) {
			t.Errorf("after the upgrade to %s the image is %s, want %s", version, image, digest(version))
		}
		if team, _, _ := unstructured.NestedString(u.Object, "spec", "template", "metadata", "labels", "team"); team != "pki" {
			t.Errorf("after the upgrade to %s the label that was set is %q", version, team)
		}
	}
	i.lookedUp(t, 6443)
	i.silently(t, "upgrade", "certloop", chart, "--namespace", home, "--reset-then-reuse-values", "--set", "networkPolicy.apiServer.ports={6444}")
	i.lookedUp(t, 6444)
}

// lookedUp looks at the way to the API server, whose address the chart has asked the cluster for.
func (i *installation) lookedUp(t *testing.T, port int64) {
	t.Helper()
	policies := schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
	u, err := i.objects.Resource(policies).Namespace(home).Get(t.Context(), "certloop-api-server", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, _, _ := unstructured.NestedSlice(u.Object, "spec", "egress")
	want := []any{map[string]any{
		"to":    []any{map[string]any{"ipBlock": map[string]any{"cidr": "198.51.100.1/32"}}},
		"ports": []any{map[string]any{"protocol": "TCP", "port": port}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the way to the API server is %v, want %v", got, want)
	}
}

func knativeResources() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{servingGVR(), gvr("eventing", "brokers"), gvr("eventing", "triggers"), gvr("sources", "pingsources"), gvr("sources", "apiserversources")}
}

// Both webhooks have written their defaults into what was installed.
func (i *installation) judged(t *testing.T) {
	t.Helper()
	for _, tt := range []struct {
		resource schema.GroupVersionResource
		name     string
		path     []string
	}{
		{servingGVR(), "certloop-enroll", []string{"metadata", "annotations", "serving.knative.dev/creator"}},
		{gvr("eventing", "brokers"), "certloop", []string{"metadata", "annotations", "eventing.knative.dev/creator"}},
		{gvr("sources", "pingsources"), "certloop-scan", []string{"metadata", "annotations", "sources.knative.dev/creator"}},
	} {
		u, err := i.objects.Resource(tt.resource).Namespace(home).Get(t.Context(), tt.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if value, _, _ := unstructured.NestedFieldNoCopy(u.Object, tt.path...); value == nil {
			t.Errorf("%s %s: no webhook set %s", tt.resource.Resource, tt.name, strings.Join(tt.path, "."))
		}
	}
}

// And they would have refused what the definitions let pass.
func (i *installation) refused(t *testing.T) {
	t.Helper()
	for _, tt := range []struct {
		resource           schema.GroupVersionResource
		name, patch, judge string
	}{
		{servingGVR(), "certloop-enroll", `{"spec":{"template":{"spec":{"containerConcurrency":2000}}}}`, "validation.webhook.serving.knative.dev"},
		{gvr("sources", "pingsources"), "certloop-scan", `{"spec":{"schedule":"often"}}`, "validation.webhook.eventing.knative.dev"},
		{gvr("eventing", "brokers"), "certloop", `{"metadata":{"annotations":{"eventing.knative.dev/broker.class":"Other"}}}`, "validation.webhook.eventing.knative.dev"},
	} {
		_, err := i.objects.Resource(tt.resource).Namespace(home).Patch(t.Context(), tt.name, types.MergePatchType, []byte(tt.patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), tt.judge) {
			t.Errorf("%s %s with %s: got %v, want it refused by %s", tt.resource.Resource, tt.name, tt.patch, err, tt.judge)
		}
	}
}

// warned installs a chart that the API server warns of.
func (i *installation) warned(t *testing.T) {
	chart := t.TempDir()
	for name, content := range map[string]string{
		"Chart.yaml": "{apiVersion: v2, name: outdated, version: 0.1.0}",
		"templates/pingsource.yaml": `{apiVersion: sources.knative.dev/v1beta2, kind: PingSource, metadata: {name: outdated},
spec: {schedule: "0 0 1 1 *", sink: {uri: "https://sink.example.org/"}}}`,
	} {
		path := filepath.Join(chart, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	_, stderr, err := i.helm(t, "install", "outdated", chart, "--namespace", home, "--create-namespace")
	if err != nil || !strings.Contains(stderr, "v1beta2 PingSource is deprecated") {
		t.Errorf("got %v and %q, want a warning", err, stderr)
	}
	u, err := i.objects.Resource(gvr("sources", "pingsources")).Namespace(home).Get(t.Context(), "outdated", metav1.GetOptions{})
	if err != nil || u.GetAPIVersion() != "sources.knative.dev/v1" {
		t.Errorf("read in the other version: %v, %v", u, err)
	}
	if _, stderr, err := i.helm(t, "uninstall", "outdated", "--namespace", home); err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
}
