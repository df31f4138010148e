package chart

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/deploy/knative"
	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/functiontest"
)

// manifests is the namespace of deploy/knative.
const manifests = "certloop-system"

const doNotEdit = "# Generated: `make chart` writes it.\n"

// The chart's definitions are those of deploy/knative, but for a word to Helm that they stay.
func TestChartHoldsTheDefinitions(t *testing.T) {
	crds, err := knative.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	a := arrangement{"knative", "dedicated"}
	for _, content := range crds {
		want := documents(t, "crd", content)[0]
		got := named(t, a.objects(t), want.GetKind(), want.GetName())
		annotations := got.GetAnnotations()
		if annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s does not stay when the release goes", got.GetName())
		}
		delete(annotations, "helm.sh/resource-policy")
		got.SetAnnotations(annotations)
		if !reflect.DeepEqual(got.Object, want.Object) {
			t.Errorf("%s is not the one of deploy/knative/crds", got.GetName())
		}
	}
}

// golden compares with a file, or writes it.
func golden(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it should be: run `make chart` and look at the difference", path)
	}
}

// kind is a row of files/events.yaml.
type kind struct {
	Type      string   `json:"type"`
	Functions []string `json:"functions"`
	Doc       string   `json:"doc"`
}

// names of the functions, by verb.
func names() map[model.Verb]string {
	all := map[model.Verb]string{}
	for _, f := range functions.All(nil) {
		all[f.Verb] = f.Name
	}
	return all
}

// Triggers and EventTypes follow the table of events. Ticks go to their functions without
// a Broker.
func TestEvents(t *testing.T) {
	var kinds []kind
	for _, k := range model.Kinds() {
		if k.Type == model.Ping || len(k.Consumers) == 0 {
			continue
		}
		row := kind{Type: k.Type, Doc: k.Doc}
		for _, v := range k.Consumers {
			row.Functions = append(row.Functions, names()[v])
		}
		kinds = append(kinds, row)
	}
	golden(t, chartDir+"/files/events.yaml", generated(t, kinds))
}

func generated(t *testing.T, content any) []byte {
	t.Helper()
	out, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(doNotEdit), out...)
}

// subjects are what NATS users may publish to.
type subjects struct {
	Verbs     map[string]model.Verb `json:"verbs"`     // of each function
	Publish   map[string][]string   `json:"publish"`   // each function, for the events it tells
	Pull      map[string][]string   `json:"pull"`      // whoever pulls a function's work
	Sources   []string              `json:"sources"`   // whoever stands in for Knative's sources
	Setup     []string              `json:"setup"`     // whoever applies the streams
	Publisher []string              `json:"publisher"` // others, for NAMESPACE
	Operator  []string              `json:"operator"`  // people who look after it
}

// The subjects of a function follow from the events that its README says it tells.
func TestNATSSubjects(t *testing.T) {
	s := subjects{Verbs: map[string]model.Verb{}, Publish: map[string][]string{}, Pull: map[string][]string{}}
	for _, f := range functions.All(nil) {
		s.Verbs[f.Name] = f.Verb
		s.Publish[f.Name] = append(told(t, f.Name), "certloop.dead."+string(f.Verb)+".>")
		consumer := model.WorkStream + "." + string(f.Verb)
		s.Pull[f.Name] = []string{"$JS.API.CONSUMER.CREATE." + consumer + ".>", "$JS.API.CONSUMER.MSG.NEXT." + consumer, "$JS.ACK." + consumer + ".>"}
	}
	for _, stream := range []string{model.WorkStream, model.EventsStream, model.DeadStream} {
		for _, verb := range []string{"CREATE", "INFO", "UPDATE"} {
			s.Setup = append(s.Setup, "$JS.API.STREAM."+verb+"."+stream)
		}
	}
	for _, k := range model.Kinds() {
		if ofSources(k) {
			s.Sources = append(s.Sources, workSubjects(k)...)
		}
	}
	slices.Sort(s.Sources)
	s.Sources = slices.Compact(s.Sources)
	s.Publisher, s.Operator = publisher(), operator()
	golden(t, chartDir+"/files/nats.yaml", generated(t, s))
}

// ofSources says that Knative's sources tell an event, or with profile plain the process that stands in for them.
func ofSources(k model.Kind) bool { return strings.HasPrefix(k.Type, "dev.knative.") }

// workSubjects are those of the work that an event is, now and later.
func workSubjects(k model.Kind) (all []string) {
	for _, v := range k.Consumers {
		all = append(all, model.WorkFilter(v), strings.Replace(model.WorkFilter(v), ".work.", ".sched.", 1))
	}
	return all
}

// told are the subjects of the events that a function tells.
func told(t *testing.T, function string) []string {
	t.Helper()
	all := map[string]bool{}
	for _, eventType := range functiontest.Events(t, filepath.Join(root, "functions", function, "README.md"), "events out") {
		k, ok := model.KindOf(eventType)
		if !ok {
			t.Fatalf("%s tells %s, which is no event", function, eventType)
		}
		for _, subject := range workSubjects(k) {
			all[subject] = true
		}
		if k.Fact {
			all[facts(eventType)+">"] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// facts is the subject of all facts of a type, up to the namespace.
func facts(eventType string) string {
	return strings.TrimSuffix(model.FactSubject(eventType, types.NamespacedName{}), "_._")
}

// publisher are the subjects of somebody who declares certificates and asks for renewals.
func publisher() []string {
	all := map[string]bool{}
	for _, eventType := range []string{
		model.ConfigCreated, model.ConfigUpdated, model.ConfigDeleted,
		model.IssuerCreated, model.IssuerUpdated, model.IssuerDeleted,
		model.RenewalRequested, model.RecreationRequested, model.RevocationRequested,
	} {
		k, ok := model.KindOf(eventType)
		if !ok {
			continue
		}
		for _, v := range k.Consumers {
			all[fmt.Sprintf("certloop.work.%s.NAMESPACE.>", v)] = true
		}
		all[facts(eventType)+"NAMESPACE.>"] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// operator are the subjects of somebody who reads the history and the dead letters, replays and drops these.
func operator() (all []string) {
	for _, stream := range []string{model.EventsStream, model.DeadStream} {
		all = append(all, "$JS.API.CONSUMER.CREATE."+stream+".>", "$JS.API.CONSUMER.MSG.NEXT."+stream+".>", "$JS.API.CONSUMER.DELETE."+stream+".>")
	}
	for _, verb := range []string{"INFO", "MSG.GET", "MSG.DELETE"} {
		all = append(all, "$JS.API.STREAM."+verb+"."+model.DeadStream)
	}
	return append(all, model.WorkSubjects)
}

// rights are what the components may do, in each namespace that is served and in the cluster.
type rights struct {
	Namespaced map[string][]rbacv1.PolicyRule `json:"namespaced"`
	Cluster    map[string][]rbacv1.PolicyRule `json:"cluster"`
}

// The rights are those that the functions' READMEs name and their tests show to be enough.
func TestRightsFollowTheREADMEs(t *testing.T) {
	r := rights{map[string][]rbacv1.PolicyRule{}, map[string][]rbacv1.PolicyRule{}}
	all := grants{}
	for _, f := range functions.All(nil) {
		own := grants{}
		for _, rule := range functiontest.Rights(t, filepath.Join(root, "functions", f.Name, "README.md")) {
			own.add(rule)
		}
		if own.has("secrets") && own.has(model.CertificateResource+"/status") {
			// Who makes a record is its owner's servant: clusters that check who may block the
			// deletion of an owner ask for this.
			own.add(rbacv1.PolicyRule{Resources: []string{model.CertificateResource + "/finalizers"}, Verbs: []string{"update"}})
		}
		r.Namespaced[f.Name], r.Cluster[f.Name] = own.rules()
		for resource, verbs := range own {
			all.add(rbacv1.PolicyRule{Resources: []string{resource}, Verbs: slices.Collect(maps.Keys(verbs))})
		}
	}
	// It watches itself what Knative's sources watch for the functions.
	for _, resource := range []string{"secrets", model.CertificateResource, model.IssuerResource, model.ClusterIssuerResource} {
		all.add(rbacv1.PolicyRule{Resources: []string{resource}, Verbs: []string{"list", "watch"}})
	}
	r.Namespaced["all"], r.Cluster["all"] = all.rules()
	golden(t, chartDir+"/files/rights.yaml", generated(t, r))
}

// grants are verbs by resource.
type grants map[string]map[string]bool

func (g grants) add(rule rbacv1.PolicyRule) {
	for _, resource := range rule.Resources {
		for _, verb := range rule.Verbs {
			if g[resource] == nil {
				g[resource] = map[string]bool{}
			}
			g[resource][verb] = true
		}
	}
}

func (g grants) has(resource string) bool { return g[resource] != nil }

// rules puts the resources of the cluster apart from those of namespaces.
func (g grants) rules() (namespaced, cluster []rbacv1.PolicyRule) {
	for _, resource := range slices.Sorted(maps.Keys(g)) {
		group := model.GroupVersion.Group
		if resource == "secrets" {
			group = ""
		}
		rule := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: slices.Sorted(maps.Keys(g[resource]))}
		if name, _, _ := strings.Cut(resource, "/"); name == model.ClusterIssuerResource {
			cluster = append(cluster, rule)
		} else {
			namespaced = append(namespaced, rule)
		}
	}
	return namespaced, cluster
}

// deploy/knative holds the chart rendered for those who have kubectl alone. Its values name
// addresses of documentation, which TestDocuments of the project finds explained.
func TestRendered(t *testing.T) {
	values, err := os.ReadFile(root + "/deploy/knative/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := yaml.UnmarshalStrict(values, &v); err != nil {
		t.Fatal(err)
	}
	files, err := render(manifests, v)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.WriteString(doNotEdit + "# The chart certloop with values.yaml, in the namespace " + manifests + ".\n")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) != ".yaml" || strings.Contains(name, "/tests/") || filepath.Base(name) == "crds.yaml" || filepath.Base(name) == "policies.yaml" {
			continue // the definitions are files of their own beside it
		}
		for _, u := range documents(t, name, []byte(files[name])) {
			content, err := yaml.Marshal(withoutHelm(u.Object))
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString("---\n")
			out.Write(content)
		}
	}
	golden(t, root+"/deploy/knative/certloop.yaml", out.Bytes())
}

// withoutHelm leaves out what means something to Helm only.
func withoutHelm(object map[string]any) map[string]any {
	metadata, _ := object["metadata"].(map[string]any)
	if annotations, ok := metadata["annotations"].(map[string]any); ok {
		maps.DeleteFunc(annotations, func(name string, _ any) bool { return strings.HasPrefix(name, "helm.sh/") })
		if len(annotations) == 0 {
			delete(metadata, "annotations")
		}
	}
	if labels, ok := metadata["labels"].(map[string]any); ok {
		delete(labels, "app.kubernetes.io/managed-by")
	}
	return object
}
