package functiontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
	"github.com/certloop/certloop/test/eventtest"
)

// Function is the function under test as a running process.
type Function struct {
	*rig.Process
	*rig.Bus
	Name  string
	URL   string
	World *rig.World
}

// Start starts the function for one namespace with the rights that its README lists,
// and a NATS server for it alone. It returns when the readiness probe says yes.
func Start(tb testing.TB, w *rig.World) *Function {
	tb.Helper()
	nats := rig.StartNATS(tb)
	f := &Function{Name: name(tb), World: w, Bus: rig.OpenBus(tb, nats.URL)}
	f.Process = rig.Launch(tb, rig.Command{Name: f.Name, Path: binary(tb), Logs: tb.TempDir(), Env: []string{
		"CERTLOOP_LISTEN=127.0.0.1:0", "NATS_URL=" + nats.URL, "CERTLOOP_NAMESPACES=" + w.Namespace,
		"KUBECONFIG=" + restricted(tb, w, Rights(tb, "README.md")),
	}})
	rig.Eventually(tb, rig.Patience, f.Name+" is ready", func() error { return f.ready(tb) })
	return f
}

// ready asks the readiness probe, at the address the function says it listens on.
func (f *Function) ready(tb testing.TB) error {
	tb.Helper()
	select {
	case <-f.Ended():
		tb.Fatalf("%s has ended: %v", f.Name, f.Wait())
	default:
	}
	line, ok := f.Logged(tb, "listening")
	if !ok {
		return errors.New("it does not say where it listens")
	}
	f.URL = fmt.Sprint("http://", line["address"])
	if status, _ := f.get(tb, "/health/readiness"); status != http.StatusOK {
		return fmt.Errorf("the probe is answered %d", status)
	}
	return nil
}

// Logged finds the first line of the log with a message.
func (f *Function) Logged(tb testing.TB, message string) (map[string]any, bool) {
	tb.Helper()
	text, err := os.ReadFile(f.Log)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var attrs map[string]any
		if json.Unmarshal([]byte(line), &attrs) == nil && attrs["msg"] == message {
			return attrs, true
		}
	}
	return nil, false
}

// get asks for a path.
func (f *Function) get(tb testing.TB, path string) (status int, header http.Header) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), rig.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		tb.Error(err)
	}
	return resp.StatusCode, resp.Header
}

// Mode is a way to put a CloudEvent into an HTTP request.
type Mode struct {
	Name string
	post func(testing.TB, string, event.Event) rig.Answer
}

// Modes are those of the HTTP protocol binding in which a Knative broker may deliver.
func Modes() []Mode {
	return []Mode{{"structured", rig.PostStructured}, {"binary", rig.PostBinary}}
}

// Testdata reads an event of the function's folder, testdata/FILE, for the test's own
// namespace in place of demo. replace are further pairs of old and new text.
func (f *Function) Testdata(tb testing.TB, file string, replace ...string) event.Event {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file)) // #nosec G304 -- of the package under test
	if err != nil {
		tb.Fatal(err)
	}
	own := strings.NewReplacer(append(replace, `"demo"`, `"`+f.World.Namespace+`"`, `"demo/`, `"`+f.World.Namespace+`/`, `/demo/`, `/`+f.World.Namespace+`/`)...)
	var e event.Event
	if err := json.Unmarshal([]byte(own.Replace(string(text))), &e); err != nil {
		tb.Fatalf("testdata/%s: %v", file, err)
	}
	return e
}

// Post sends an event and wants it accepted.
func (f *Function) Post(tb testing.TB, mode Mode, e event.Event) {
	tb.Helper()
	if got := mode.post(tb, f.URL, e); got.Status != http.StatusAccepted || got.Body != "" {
		tb.Fatalf("%s in %s mode: answered %d %q, want 202 and no body", e.Type(), mode.Name, got.Status, got.Body)
	}
}

// WantFacts compares the types of everything the history holds, in its order, and
// checks what every fact must say of its origin.
func (f *Function) WantFacts(tb testing.TB, want ...string) {
	tb.Helper()
	var got []string
	for _, fact := range f.Facts(tb, "", types.NamespacedName{}) {
		got = append(got, fact.Type())
		eventtest.Check(tb, fact)
		wantTold(tb, fact.Type())
		if want := "/clusters/default/certloop/" + f.Name; fact.Source() != want {
			tb.Errorf("%s has source %q, want %q", fact.Type(), fact.Source(), want)
		}
	}
	if !slices.Equal(got, want) {
		tb.Errorf("got the facts %q, want %q", got, want)
	}
}

// WantWork compares the subjects of the work that waits, the namespace left out.
func (f *Function) WantWork(tb testing.TB, want ...string) {
	tb.Helper()
	var got []string
	for _, m := range f.Messages(tb, model.WorkStream, ">") {
		got = append(got, strings.Replace(m.Subject, "."+f.World.Namespace+".", ".", 1))
		wantTold(tb, m.Header.Get("ce-type"))
	}
	if !slices.Equal(got, want) {
		tb.Errorf("got work on %q, want %q", got, want)
	}
}

// wantTold checks that the README says that the function tells an event.
func wantTold(tb testing.TB, eventType string) {
	tb.Helper()
	if !slices.Contains(Events(tb, "README.md", "events out"), eventType) {
		tb.Errorf("%s is not among the events out of the README", eventType)
	}
}

// WantCause checks that a fact says which event it follows from.
func WantCause(tb testing.TB, fact, cause event.Event) {
	tb.Helper()
	for name, want := range map[string]string{model.CorrelationID: cause.ID(), model.CausationID: cause.ID()} {
		if got := fact.Extensions()[name]; got != want {
			tb.Errorf("%s has %s %v, want the id of the event, %s", fact.Type(), name, got, want)
		}
	}
}
