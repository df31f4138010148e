package chart

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	common4 "helm.sh/helm/v4/pkg/chart/common"
	values4 "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
	engine4 "helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	yamlstream "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/kubetest"
)

var update = flag.Bool("update", false, "write what is generated, and the golden files")

const (
	root     = "../.."
	chartDir = root + "/charts/certloop"
	release  = "certloop"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "nc" {
		os.Exit(attempt(os.Args[1:]))
	}
	// Helm tells each time that the chart has a link to the definitions.
	log.SetOutput(io.Discard)
	// kubetest looks in the module, and this is one of its own.
	kubeapi, err := filepath.Abs(root + "/bin/kubeapi")
	if _, missing := os.Stat(kubeapi); err == nil && missing == nil && os.Getenv("CERTLOOP_KUBEAPI") == "" {
		_ = os.Setenv("CERTLOOP_KUBEAPI", kubeapi)
	}
	os.Exit(kubetest.Main(m))
}

// values parses YAML over what every render needs: a CA and the address of the API server.
func values(tb testing.TB, overlays ...string) map[string]any {
	tb.Helper()
	all := map[string]any{}
	for _, overlay := range append([]string{needed}, overlays...) {
		var v map[string]any
		if err := yaml.UnmarshalStrict([]byte(overlay), &v); err != nil {
			tb.Fatalf("%v in\n%s", err, overlay)
		}
		all = values4.CoalesceTables(v, all)
	}
	return all
}

const needed = `
networkPolicy:
  ca: [{name: operator-ca, cidrs: [192.0.2.10/32], port: 829}]
  apiServer: {cidrs: [198.51.100.1/32]}
`

// arrangement is a profile in a model.
type arrangement struct{ profile, model string }

func (a arrangement) String() string { return a.profile + "-" + a.model }

// home is the release's namespace, another one for each arrangement, so that all of them
// can be in one cluster.
func (a arrangement) home() string { return "certloop-" + a.String() }

// namespaces are those that it serves.
func (a arrangement) namespaces() []string {
	if a.model == "shared" {
		return []string{a.home() + "-core", a.home() + "-edge"}
	}
	return []string{a.home()}
}

// broker is the namespace of NATS.
func (a arrangement) broker() string { return a.home() + "-nats" }

func (a arrangement) values(tb testing.TB, overlays ...string) map[string]any {
	tb.Helper()
	own := fmt.Sprintf("profile: %s\nmodel: %s\nnetworkPolicy: {nats: {namespace: %s}}\n", a.profile, a.model, a.broker())
	if a.model == "shared" {
		own += fmt.Sprintf("accessedNamespaces: [%s]\n", strings.Join(a.namespaces(), ", "))
	}
	return values(tb, append([]string{own}, overlays...)...)
}

func arrangements() (all []arrangement) {
	for _, profile := range []string{"knative", "knative-direct", "plain"} {
		for _, model := range []string{"dedicated", "shared"} {
			all = append(all, arrangement{profile, model})
		}
	}
	return all
}

// render is what `helm template` prints, file by file. Helm 4 renders.
func render(namespace string, values map[string]any) (map[string]string, error) {
	c, err := loader4.Load(chartDir)
	if err != nil {
		return nil, err
	}
	options := common4.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	v, err := values4.ToRenderValues(c, values, options, nil)
	if err != nil {
		return nil, err
	}
	return engine4.Render(c, v)
}

// render3 is render, by Helm 3.
func render3(namespace string, values map[string]any) (map[string]string, error) {
	c, err := loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	v, err := chartutil.ToRenderValues(c, values, options, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, v)
}

// objects are all that is rendered, in the order of files. Those for `helm test` are left out.
func (a arrangement) objects(tb testing.TB, overlays ...string) []*unstructured.Unstructured {
	tb.Helper()
	files, err := render(a.home(), a.values(tb, overlays...))
	if err != nil {
		tb.Fatal(err)
	}
	return objects(tb, files)
}

func objects(tb testing.TB, files map[string]string) (all []*unstructured.Unstructured) {
	tb.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) == ".yaml" && !strings.Contains(name, "/tests/") {
			all = append(all, documents(tb, name, []byte(files[name]))...)
		}
	}
	return all
}

func documents(tb testing.TB, name string, content []byte) (all []*unstructured.Unstructured) {
	tb.Helper()
	reader := yamlstream.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(document, &u.Object); err != nil {
			tb.Fatalf("%s: %v in\n%s", name, err, document)
		}
		if len(u.Object) > 0 {
			all = append(all, u)
		}
	}
}

// of are the objects of one kind.
func of(all []*unstructured.Unstructured, kind string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(all), func(u *unstructured.Unstructured) bool { return u.GetKind() != kind })
}

// named finds one object.
func named(tb testing.TB, all []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	tb.Helper()
	for _, u := range of(all, kind) {
		if u.GetName() == name {
			return u
		}
	}
	tb.Fatalf("there is no %s %s", kind, name)
	return nil
}

// As few or as many objects as one expects: what is left out of a profile is left out, and
// what belongs to it is there.
func TestWhatIsRendered(t *testing.T) {
	want := map[string]map[string]int{
		"knative":        {"Service": 4, "Deployment": 1, "Job": 1, "PodDisruptionBudget": 1, "PingSource": 2, "ApiServerSource": 2, "Broker": 1, "Trigger": 3, "ServiceAccount": 8},
		"knative-direct": {"Service": 4, "Job": 1, "PingSource": 2, "ApiServerSource": 2, "Broker": 1, "Trigger": 3, "ServiceAccount": 7},
		"plain":          {"Deployment": 1, "PodDisruptionBudget": 1, "ServiceAccount": 1},
	}
	counted := []string{"Service", "Deployment", "Job", "PodDisruptionBudget", "PingSource", "ApiServerSource", "Broker", "Trigger", "ServiceAccount"}
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			all := a.objects(t)
			for _, kind := range counted {
				if got, want := len(of(all, kind)), want[a.profile][kind]; got != want {
					t.Errorf("%d objects of kind %s, want %d", got, kind, want)
				}
			}
			if got := len(of(all, "CustomResourceDefinition")); got != 3 {
				t.Errorf("%d CustomResourceDefinitions, want 3", got)
			}
			if got, want := len(of(all, "Role")), map[bool]int{true: 1, false: 6}[a.profile == "plain"]; got < want {
				t.Errorf("%d Roles, want %d at least", got, want)
			}
		})
	}
}

// Whoever has Helm 3 gets what Helm 4 gives.
func TestHelm3RendersTheSame(t *testing.T) {
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			four, err := render(a.home(), a.values(t))
			if err != nil {
				t.Fatal(err)
			}
			three, err := render3(a.home(), a.values(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(three) < 10 || !maps.Equal(three, four) {
				for name := range four {
					if three[name] != four[name] {
						t.Errorf("%s: Helm 3 renders\n%s\nHelm 4 renders\n%s", name, three[name], four[name])
					}
				}
				t.Errorf("Helm 3 renders %d files, Helm 4 %d", len(three), len(four))
			}
		})
	}
}

func TestLint(t *testing.T) {
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			result := lint.RunAll(chartDir, a.values(t), a.home())
			for _, m := range result.Messages {
				if m.Severity > support.InfoSev {
					t.Errorf("%v", m)
				}
			}
		})
	}
}

// The notes name commands that fit what was installed.
func TestNotes(t *testing.T) {
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			files, err := render(a.home(), a.values(t))
			if err != nil {
				t.Fatal(err)
			}
			notes := files["certloop/templates/NOTES.txt"]
			if n := strings.Count(notes, "\n  kubectl "); n != 3 {
				t.Errorf("%d commands, want 3:\n%s", n, notes)
			}
			if !strings.Contains(notes, "-n "+a.namespaces()[0]) || !strings.Contains(notes, a.profile) {
				t.Errorf("neither the namespace nor the profile is named:\n%s", notes)
			}
			wait := "ksvc,apiserversource -l " // ready when they watch: they tell nothing of what was there before
			if a.profile == "plain" {
				wait = "pod -l app.kubernetes.io/component=all,"
			}
			if !strings.Contains(notes, "-n "+a.home()+" wait --for=condition=Ready --timeout=3m "+wait+"app.kubernetes.io/instance="+release+"\n") {
				t.Errorf("what has to be ready is not waited for:\n%s", notes)
			}
		})
	}
}
