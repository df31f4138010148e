package functiontest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/delivery"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// CommandLine tests what a function does with arguments and with an environment it
// cannot run in, and its exit codes.
func CommandLine(t *testing.T) {
	path, function := binary(t), name(t)
	tests := []struct {
		name   string
		args   []string
		env    []string
		code   int
		stdout string
		stderr []string
	}{
		{name: "help", args: []string{"--help"}, code: 0, stdout: "usage: " + function + " "},
		{name: "help names the environment", args: []string{"-h"}, code: 0, stdout: "CERTLOOP_NAMESPACES"},
		{name: "version", args: []string{"--version"}, code: 0, stdout: function + " "},
		{name: "unknown flag", args: []string{"--fast"}, code: 2, stderr: []string{"-fast", "--help"}},
		{name: "an argument", args: []string{"now"}, code: 2, stderr: []string{`"now"`}},
		{name: "bad environment", env: []string{"PORT=http", "NATS_URL=http://user:hunter2@broker", "KUBECONFIG=/nowhere", "CERTLOOP_CONCURRENCY=0"},
			code: 2, stderr: []string{"PORT", "NATS_URL", "KUBECONFIG", "CERTLOOP_CONCURRENCY"}},
		{name: "no cluster", code: 2, stderr: []string{"KUBECONFIG is not set"}},
		{name: "a kubeconfig that is none", env: []string{"KUBECONFIG=README.md"}, code: 2, stderr: []string{"KUBECONFIG"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), path, tt.args...) // #nosec G204 -- the binary under test
			cmd.Env = append([]string{"HOME=" + t.TempDir(), "CERTLOOP_LISTEN=127.0.0.1:0"}, tt.env...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.code {
				t.Errorf("exit code %d, want %d\n%s%s", got, tt.code, &stdout, &stderr)
			}
			if !strings.Contains(stdout.String(), tt.stdout) || tt.code == 0 && stderr.Len() > 0 {
				t.Errorf("got standard output %q and error %q, want %q in the first alone", &stdout, &stderr, tt.stdout)
			}
			wantLines(t, function, stderr.String(), tt.stderr)
		})
	}
}

// wantLines wants a line for each problem, and nothing secret in any.
func wantLines(t *testing.T, function, stderr string, want []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, problem := range want {
		found := false
		for _, line := range lines {
			found = found || strings.HasPrefix(line, function+": ") && strings.Contains(line, problem)
		}
		if !found {
			t.Errorf("no line says %q:\n%s", problem, stderr)
		}
	}
	if strings.Contains(stderr, "hunter2") {
		t.Errorf("a password is printed:\n%s", stderr)
	}
}

// Refusal is an HTTP request that no function can do anything with, and its answer.
type Refusal struct {
	Name   string
	Header map[string]string
	Body   string
	Status int
	Reason delivery.Reason
	Says   string // in the problem document and in the dead letter
	// Withheld says that the body may hold what must not be kept.
	Withheld bool
}

// Refusals posts what can never be handled: each is answered with a problem document
// that says what is wrong, and kept as a dead letter. own are those of the function.
func Refusals(t *testing.T, own ...Refusal) {
	f := Start(t, rig.NewWorld(t))
	handled := Events(t, "README.md", "events in")[0]
	elsewhere := binaryHeader(handled, "kube-system/web")
	elsewhere["ce-namespace"], elsewhere["ce-name"], elsewhere["ce-kind"] = "kube-system", "web", "Secret"
	all := append([]Refusal{
		{Name: "malformed JSON", Header: structured(), Body: `{"specversion":"1.0",`,
			Status: http.StatusBadRequest, Reason: delivery.Undecodable, Says: "unexpected end of JSON input"},
		{Name: "no id", Header: structured(), Body: `{"specversion":"1.0","type":"a","source":"/b"}`,
			Status: http.StatusBadRequest, Reason: delivery.Undecodable, Says: "id: "},
		{Name: "wrong content type", Header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, Body: "a=b",
			Status: http.StatusUnsupportedMediaType, Reason: delivery.Unsupported, Says: event.ApplicationCloudEventsJSON},
		{Name: "no content type",
			Status: http.StatusUnsupportedMediaType, Reason: delivery.Unsupported, Says: event.ApplicationCloudEventsJSON},
		{Name: "unknown type", Header: binaryHeader("com.example.unheard.of", "demo/web"),
			Status: http.StatusUnprocessableEntity, Reason: delivery.UnknownType, Says: handled},
		{Name: "too large", Header: binaryHeader("com.example.unheard.of", "demo/web"), Body: strings.Repeat(" ", model.MaxEventBytes),
			Status: http.StatusRequestEntityTooLarge, Reason: delivery.TooLarge, Says: "65536", Withheld: true},
	}, own...)
	if handled != model.Ping { // a tick is about no namespace
		all = append(all, Refusal{Name: "another's namespace", Header: elsewhere,
			Status: http.StatusUnprocessableEntity, Reason: delivery.InvalidEvent, Says: "kube-system is not served here"})
	}
	for _, tt := range all {
		t.Run(tt.Name, func(t *testing.T) { f.Refuses(t, tt) })
	}
	t.Run("GET", f.allowsPOSTAlone)
	f.WantFacts(t)
	f.WantWork(t)
}

func structured() map[string]string {
	return map[string]string{"Content-Type": event.ApplicationCloudEventsJSON}
}

func binaryHeader(eventType, subject string) map[string]string {
	return map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": eventType, "ce-subject": subject, "Content-Type": event.ApplicationJSON,
	}
}

// Refuses posts one request that can never be handled.
func (f *Function) Refuses(t *testing.T, r Refusal) {
	t.Helper()
	before := len(f.Messages(t, model.DeadStream, model.DeadSubjects))
	header := http.Header{}
	for name, value := range r.Header {
		header.Set(name, value)
	}
	got := rig.Post(t, f.URL, header, r.Body)
	var problem struct {
		Type, Title, Detail string
		Status              int
		Errors              []struct{ Detail string }
	}
	if err := json.Unmarshal([]byte(got.Body), &problem); err != nil {
		t.Fatalf("answered %d with no problem document: %v\n%s", got.Status, err, got.Body)
	}
	if got.Status != r.Status || problem.Status != r.Status || got.ContentType != "application/problem+json" {
		t.Errorf("answered %d %s: %s, want %d", got.Status, got.ContentType, got.Body, r.Status)
	}
	if !strings.HasSuffix(problem.Type, "/"+string(r.Reason)) || problem.Title == "" || len(problem.Errors) == 0 || !strings.Contains(problem.Detail, r.Says) {
		t.Errorf("got the problem %+v, want reason %s, a title, each error, and %q said", problem, r.Reason, r.Says)
	}
	letters := f.Messages(t, model.DeadStream, model.DeadSubjects)[before:]
	if len(letters) != 1 {
		t.Fatalf("%d dead letters, want 1", len(letters))
	}
	if got := letters[0].Header.Get(delivery.ReasonHeader); got != string(r.Reason) || !strings.Contains(letters[0].Header.Get(delivery.ErrorHeader), r.Says) {
		t.Errorf("the dead letter has headers %v, want reason %s and %q said", letters[0].Header, r.Reason, r.Says)
	}
	want := r.Body
	if r.Withheld {
		want = ""
	}
	if kept := string(letters[0].Data); kept != want {
		t.Errorf("the dead letter holds %q, want %q", kept, want)
	}
	if !strings.HasPrefix(letters[0].Subject, "certloop.dead.") {
		t.Errorf("the dead letter is on %s", letters[0].Subject)
	}
}

func (f *Function) allowsPOSTAlone(t *testing.T) {
	before := len(f.Messages(t, model.DeadStream, model.DeadSubjects))
	status, header := f.get(t, "/")
	if status != http.StatusMethodNotAllowed || header.Get("Allow") != http.MethodPost || header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("answered %d with %v, want 405, Allow: POST and a problem document", status, header)
	}
	if n := len(f.Messages(t, model.DeadStream, model.DeadSubjects)) - before; n != 0 {
		t.Errorf("%d dead letters, want none: nothing was sent", n)
	}
}

// Ends tests that SIGTERM ends an idle function with exit code 0, after the quiet
// period in which late requests are still served.
func Ends(t *testing.T) {
	f := Start(t, rig.NewWorld(t))
	if status, _ := f.get(t, "/health/liveness"); status != http.StatusOK {
		t.Errorf("liveness: %d, want 200", status)
	}
	t.Logf("ended %.1f s after SIGTERM", f.Stop(t).Seconds())
	f.wantDrained(t)
}

// Drains tests that an event whose handler is at work when SIGTERM comes is finished.
// begun says when it is being handled.
func (f *Function) Drains(t *testing.T, mode Mode, e event.Event, begun func() bool) {
	t.Helper()
	answer := make(chan rig.Answer, 1)
	go func() {
		defer close(answer) // also when it is given up
		answer <- mode.post(t, f.URL, e)
	}()
	rig.Eventually(t, rig.Patience, "the event is being handled", func() error {
		if begun() {
			return nil
		}
		return errors.New("not yet")
	})
	took := f.Stop(t)
	if got := <-answer; got.Status != http.StatusAccepted {
		t.Errorf("the event at work was answered %d %s, want 202", got.Status, got.Body)
	}
	t.Logf("ended %.1f s after SIGTERM", took.Seconds())
	f.wantDrained(t)
}

func (f *Function) wantDrained(t *testing.T) {
	t.Helper()
	for _, message := range []string{"draining", "drained"} {
		if _, ok := f.Logged(t, message); !ok {
			t.Errorf("the log does not say %q", message)
		}
	}
	text, err := os.ReadFile(f.Log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is not JSON: %s", line)
		}
	}
}
