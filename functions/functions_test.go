package functions_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/functions"
	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/pkg/service"
	"github.com/certloop/certloop/test/functiontest"
)

// wire makes the routes of a function. Nothing is connected.
func wire(t *testing.T, f service.Function, namespaces ...string) delivery.Mux {
	t.Helper()
	env := &service.Env{
		Config: service.Config{Namespaces: namespaces},
		Kube:   &rest.Config{Host: "https://127.0.0.1:1"}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	mux, err := f.Wire(env)
	if err != nil {
		t.Fatal(err)
	}
	return mux
}

// The routes of the functions are the consumers of the table of events: what one says
// of an event's type, so does the other.
func TestWiringIsTheTableOfEvents(t *testing.T) {
	wired := map[model.Verb]string{}
	for _, f := range functions.All(nil) {
		t.Run(f.Name, func(t *testing.T) {
			var want []string
			for _, kind := range model.Kinds() {
				if slices.Contains(kind.Consumers, f.Verb) {
					want = append(want, kind.Type)
				}
			}
			mux := wire(t, f)
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(mux)); !slices.Equal(got, want) {
				t.Errorf("the function handles %q, the table says %q", got, want)
			}
			for eventType, route := range mux {
				if route.Check == nil || route.Handle == nil {
					t.Errorf("%s has no check or no handler", eventType)
				}
			}
		})
		if other, ok := wired[f.Verb]; ok {
			t.Errorf("%s and %s are both the consumer %q", f.Name, other, f.Verb)
		}
		wired[f.Verb] = f.Name
	}
	for _, kind := range model.Kinds() {
		for _, verb := range kind.Consumers {
			if wired[verb] == "" {
				t.Errorf("%s is for %q, which no function is", kind.Type, verb)
			}
		}
	}
}

// There is a folder for each function, named like it, and the all-in-one runs them all.
func TestEveryFolderIsAFunction(t *testing.T) {
	mains, err := filepath.Glob("*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var folders, names []string
	for _, path := range mains {
		folders = append(folders, filepath.Dir(path))
	}
	for _, f := range functions.All(nil) {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if !slices.Equal(folders, names) {
		t.Errorf("got the folders %q and the functions %q, want the same", folders, names)
	}
}

// The READMEs say what the functions handle, name no type that does not exist, and
// leave out none that may follow.
func TestREADMEs(t *testing.T) {
	told := map[string]bool{}
	for _, f := range functions.All(nil) {
		t.Run(f.Name, func(t *testing.T) {
			readme := filepath.Join(f.Name, "README.md")
			in := functiontest.Events(t, readme, "events in")
			slices.Sort(in)
			if want := slices.Sorted(maps.Keys(wire(t, f))); !slices.Equal(in, want) {
				t.Errorf("events in: got %q, want what is handled, %q", in, want)
			}
			for _, eventType := range functiontest.Events(t, readme, "events out") {
				if _, ok := model.KindOf(eventType); !ok {
					t.Errorf("events out: there is no %s", eventType)
				}
				told[eventType] = true
			}
			functiontest.Rights(t, readme)
		})
	}
	senders := []string{"io.certloop.revocation.requested.v1", "io.certloop.config.created.v1", "io.certloop.config.updated.v1", "io.certloop.config.deleted.v1",
		"io.certloop.issuer.created.v1", "io.certloop.issuer.updated.v1", "io.certloop.issuer.deleted.v1"}
	for _, kind := range model.Kinds() {
		if strings.HasPrefix(kind.Type, "io.certloop.") && !told[kind.Type] && !slices.Contains(senders, kind.Type) {
			t.Errorf("no README says who tells %s", kind.Type)
		}
	}
}

// Every event in testdata is one that its function takes.
func TestTestdataIsAccepted(t *testing.T) {
	for _, f := range functions.All(nil) {
		files, err := filepath.Glob(filepath.Join(f.Name, "testdata", "*.json"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no testdata: %v", f.Name, err)
		}
		for _, file := range files {
			t.Run(file, func(t *testing.T) {
				e := read(t, file)
				route, ok := wire(t, f)[e.Type()]
				if !ok {
					t.Fatalf("%s does not handle %s", f.Name, e.Type())
				}
				if err := route.Check(e); err != nil {
					t.Error(err)
				}
				if err := wire(t, f, "demo")[e.Type()].Check(e); err != nil {
					t.Errorf("where its namespace is served: %v", err)
				}
			})
		}
	}
}

// A declaration that breaks a rule is answered, where its namespace is served.
func TestRefusedDeclarationsAreTold(t *testing.T) {
	for eventType, want := range map[string]string{model.ConfigCreated: "spec.issuerRef.name", model.ConfigUpdated: "spec.issuerRef.name", model.IssuerCreated: "spec.server", model.IssuerUpdated: "spec.server"} {
		in := model.NewEvent(eventType, types.NamespacedName{Namespace: "shop", Name: "web"}, map[string]any{"spec": map[string]any{}})
		for served, told := range map[string]int{"shop": 1, "core": 0} {
			route := wire(t, functions.Enroll(nil), served)[eventType]
			out := route.Refused(in, route.Check(in))
			if len(out) != told {
				t.Errorf("%s: %d events where %s is served, want %d", eventType, len(out), served, told)
			}
			for _, e := range out {
				if e.Type() != model.ConfigRejected || e.Subject() != "shop/web" || e.Extensions()[model.CausationID] != in.ID() || !strings.Contains(string(e.Data()), want) {
					t.Errorf("%s: told %s", eventType, e)
				}
			}
		}
	}
}

func read(t *testing.T, file string) (e event.Event) {
	t.Helper()
	text, err := os.ReadFile(file) // #nosec G304 -- of this folder
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	return e
}

// An installation that serves some namespaces acts in no other.
func TestScope(t *testing.T) {
	for _, f := range functions.All(nil) {
		for eventType, route := range wire(t, f, "shop", "core") {
			t.Run(f.Name+" "+eventType, func(t *testing.T) {
				about := func(namespace string) error {
					e := event.New()
					e.SetType(eventType)
					e.SetSubject(namespace + "/web")
					e.SetExtension("namespace", namespace)
					e.SetExtension("name", "web")
					return route.Check(e)
				}
				refused := about("demo")
				switch {
				case eventType == model.Ping, eventType == model.SweepContinued: // about no namespace
					if refused != nil {
						t.Errorf("got error %v", refused)
					}
				case refused == nil || !strings.Contains(refused.Error(), "namespace demo is not served here"):
					t.Errorf("got error %v, want that the namespace is not served", refused)
				}
				if err := about("core"); err != nil && strings.Contains(err.Error(), "served") {
					t.Errorf("a namespace that is served: got error %v", err)
				}
			})
		}
	}
}

// A function that cannot be wired says why.
func TestWiringFails(t *testing.T) {
	for _, f := range functions.All(nil) {
		if _, err := f.Wire(&service.Env{Kube: &rest.Config{Host: "https://[::1"}}); err == nil {
			t.Errorf("%s: an address that is none is accepted", f.Name)
		}
	}
}
