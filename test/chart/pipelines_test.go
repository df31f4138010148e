package chart

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/pkg/apis"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/kubetest"
)

// jsonata is the implementation that Knative's EventTransform runs.
const jsonata = "jsonata@2.0.6"

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "pipelines", name)) // #nosec G304 -- of this project
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exampleEvent(t *testing.T, name string) (e event.Event) {
	t.Helper()
	if err := json.Unmarshal([]byte(example(t, name)), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// eventTransform is what the example has of an EventTransform.
type eventTransform struct {
	Metadata struct{ Name string }
	Spec     struct {
		Jsonata struct{ Expression string }
		Sink    struct{ Ref struct{ Kind, Name string } }
	}
}

// transform is the EventTransform of the documents, the Trigger that leads to it, and both as
// objects.
func transform(t *testing.T) (et eventTransform, trigger eventingv1.Trigger, objects []*unstructured.Unstructured) {
	t.Helper()
	for document := range strings.SplitSeq(example(t, "event-transform.yaml"), "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), &u.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, u)
	}
	if len(objects) != 2 {
		t.Fatalf("%d objects, want 2", len(objects))
	}
	content, err := json.Marshal(objects[0])
	if err == nil {
		err = json.Unmarshal(content, &et)
	}
	if err != nil {
		t.Fatal(err)
	}
	return et, decode[eventingv1.Trigger](t, objects[1].Object), objects
}

// An API server that has Knative's definitions takes the example, and refuses it with a typo; its
// parts fit together and to the chart: the Trigger picks the foreign event, and what is sent goes
// to the Broker that the chart makes.
func TestEventTransform(t *testing.T) {
	i := newInstaller(t)
	et, trigger, objects := transform(t)
	namespace := kubetest.Start(t).Namespace(t)
	for _, u := range objects {
		u.SetNamespace(namespace)
		if err := i.apply(t.Context(), u); err != nil {
			t.Errorf("%s: %v", u.GetKind(), err)
		}
	}
	typo := objects[0].DeepCopy()
	if err := unstructured.SetNestedField(typo.Object, "x", "spec", "jsonata", "expresion"); err != nil {
		t.Fatal(err)
	}
	if err := i.apply(t.Context(), typo); err == nil {
		t.Error("a typo is accepted, so that this proves nothing")
	}
	ctx := apis.WithinCreate(asConfigured(t))
	trigger.SetDefaults(ctx)
	if err := trigger.Validate(ctx); err != nil {
		t.Error(err)
	}
	if from := exampleEvent(t, "service-deployed.json"); len(trigger.Spec.Filters) != 1 || trigger.Spec.Filters[0].Exact["type"] != from.Type() {
		t.Errorf("the Trigger picks %+v, and not %s", trigger.Spec.Filters, from.Type())
	}
	if to := trigger.Spec.Subscriber.Ref; to == nil || to.Kind != "EventTransform" || to.Name != et.Metadata.Name {
		t.Errorf("the Trigger leads to %+v", to)
	}
	broker := of(arrangement{"knative", "dedicated"}.objects(t), "Broker")[0].GetName()
	for _, name := range []string{trigger.Spec.Broker, et.Spec.Sink.Ref.Name} {
		if name != broker {
			t.Errorf("the Broker is %s, want %s", name, broker)
		}
	}
}

// What the example makes of an event is what is recorded, and a declaration that we accept.
func TestEventTransformDeclares(t *testing.T) {
	out := exampleEvent(t, "service-certificate.json")
	if err := model.CheckCertificateEvent(out); err != nil || out.Type() != model.ConfigCreated {
		t.Errorf("%s: %v", out.Type(), err)
	}
	node := rig.Tool(t, "node")
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), rig.Tool(t, "npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir, jsonata) // #nosec G204 -- a constant
	if text, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	et, _, _ := transform(t)
	const script = `require("jsonata")(process.argv[1]).evaluate(JSON.parse(process.argv[2])).then(r => console.log(JSON.stringify(r)))`
	cmd := exec.CommandContext(t.Context(), node, "-e", script, et.Spec.Jsonata.Expression, example(t, "service-deployed.json")) // #nosec G204 -- what the example shows
	cmd.Dir = dir
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := canonical(t, example(t, "service-certificate.json")); canonical(t, string(got)) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// canonical is JSON with its names in order.
func canonical(t *testing.T, text string) string {
	t.Helper()
	var object any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
