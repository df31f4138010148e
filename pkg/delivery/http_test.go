package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/certloop/certloop/pkg/model"
)

// send posts to the receiver and returns the answer with its body.
func send(t testing.TB, r *rig, method string, header map[string]string, body string) (int, string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, "/events", strings.NewReader(body))
	for name, value := range header {
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func TestHTTPAnswers(t *testing.T) {
	binary := binaryHeader(model.EnrollmentRequested, "shop/web")
	tests := map[string]struct {
		method string
		header map[string]string
		body   string
		want   int
		saying string
	}{
		"GET":                     {http.MethodGet, binary, "", 405, "POST"},
		"no CloudEvent at all":    {http.MethodPost, map[string]string{"Content-Type": "application/json"}, "{}", 415, "application/cloudevents+json"},
		"an encoding not read":    {http.MethodPost, map[string]string{"Content-Type": "application/cloudevents+avro"}, "x", 415, "avro"},
		"a version of the future": {http.MethodPost, with(binary, "ce-specversion", "2.0"), "", 400, `2.0`},
		"a header named ce-":      {http.MethodPost, with(binary, "ce-", "x"), "", 202, ""},
		"a bad extension name":    {http.MethodPost, with(binary, "ce-a-b", "x"), "", 400, ""},
		"huge attributes":         {http.MethodPost, with(binary, "ce-huge", strings.Repeat("x", model.MaxEventBytes)), "", 413, ""},
		"parameters of the type":  {http.MethodPost, map[string]string{"Content-Type": "application/cloudevents+json; charset=UTF-8"}, "{}", 400, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			collect(r, model.EnrollmentRequested)
			code, body := send(t, r, tt.method, tt.header, tt.body)
			if code != tt.want || !strings.Contains(body, tt.saying) {
				t.Errorf("answer %d %s, want %d and %q in it", code, body, tt.want, tt.saying)
			}
			buried := len(r.dead(t)) == 1
			if want := tt.want >= 400 && tt.want != http.StatusMethodNotAllowed; buried != want {
				t.Errorf("dead-lettered: %v, want %v", buried, want)
			}
		})
	}
}

func with(header map[string]string, name, value string) map[string]string {
	all := map[string]string{name: value}
	for n, v := range header {
		if n != name {
			all[n] = v
		}
	}
	return all
}

// A Broker's dead-letter sink takes everything and keeps it; while it cannot, it says so.
func TestDeadLetterSink(t *testing.T) {
	r := newRig(t)
	ran := collect(r, model.EnrollmentRequested)
	post := func(header map[string]string) int {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, DeadLettersPath, strings.NewReader(""))
		for name, value := range header {
			req.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w.Code
	}
	known := with(with(binaryHeader(model.EnrollmentRequested, "shop/web"), "ce-knativeerrorcode", "503"), "ce-knativeerrordest", "http://enroll")
	for name, header := range map[string]map[string]string{
		"a type it handles": known, "a type it does not": binaryHeader("com.example.other", "x"), "no CloudEvent": {"Content-Type": "text/plain"},
	} {
		if code := post(header); code != http.StatusAccepted {
			t.Errorf("%s: answer %d, want 202", name, code)
		}
	}
	if n := len(r.dead(t)); n != 3 {
		t.Errorf("%d dead letters, want 3", n)
	}
	if n := len(ran); n != 0 {
		t.Errorf("the handler ran %d times", n)
	}
	said := r.messages(t, model.DeadStream, model.DeadSubject(r.Verb, web))
	if len(said) != 1 || said[0].Header.Get(ReasonHeader) != string(Exhausted) || said[0].Header.Get(ErrorHeader) != "http://enroll answered 503" {
		t.Errorf("kept %v", said)
	}
	r.stop()
	if code := post(known); code != http.StatusServiceUnavailable {
		t.Errorf("answer %d without NATS, want 503", code)
	}
}

func TestBatch(t *testing.T) {
	const (
		good    = `{"specversion":"1.0","id":"1","source":"/test","type":"io.certloop.enrollment.requested.v1","subject":"shop/web"}`
		unheard = `{"specversion":"1.0","id":"2","source":"/test","type":"io.certloop.tea.served.v1","subject":"shop/web"}`
		busy    = `{"specversion":"1.0","id":"3","source":"/test","type":"io.certloop.enrollment.requested.v1","subject":"shop/busy"}`
	)
	tests := map[string]struct {
		body               string
		want, runs, buried int
		problems           int
	}{
		"empty":            {`[]`, 202, 0, 0, 0},
		"two good ones":    {`[` + good + `,` + good + `]`, 202, 2, 0, 0},
		"one is refused":   {`[` + good + `,` + unheard + `]`, 422, 1, 1, 1},
		"two are refused":  {`[null,` + good + `,` + unheard + `]`, 400, 1, 2, 2},
		"one is to return": {`[` + unheard + `,` + busy + `,` + good + `]`, 503, 2, 1, 0},
		"not an array":     {good, 400, 0, 1, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var runs counter
			r.Mux[model.EnrollmentRequested] = Route{Handle: func(_ context.Context, in event.Event) ([]event.Event, error) {
				runs.add()
				if in.Subject() == "shop/busy" {
					return nil, errors.New("not now")
				}
				return nil, nil
			}}
			code, body := send(t, r, http.MethodPost, map[string]string{"Content-Type": "application/cloudevents-batch+json"}, tt.body)
			if code != tt.want || runs.get() != tt.runs || len(r.dead(t)) != tt.buried {
				t.Errorf("answer %d %s, %d runs, %d dead; want %d, %d, %d", code, body, runs.get(), len(r.dead(t)), tt.want, tt.runs, tt.buried)
			}
			var p problem
			if err := json.Unmarshal([]byte(body), &p); err != nil && tt.want != 202 {
				t.Fatal(err)
			}
			if len(p.Errors) != tt.problems {
				t.Errorf("%d problems in %s, want %d", len(p.Errors), body, tt.problems)
			}
		})
	}
}

// What a sender writes beside the event is not ours to keep.
func TestADeadLetterKeepsNoForeignHeader(t *testing.T) {
	r := newRig(t)
	header := with(binaryHeader("io.certloop.tea.served.v1", "shop/web"), "Authorization", "Bearer hunter2")
	if code, body := send(t, r, http.MethodPost, with(header, "Nats-Rollup", "all"), "{}"); code != http.StatusUnprocessableEntity {
		t.Fatalf("answer %d %s", code, body)
	}
	letter := r.dead(t)[0]
	for _, name := range []string{"Authorization", "authorization", "Nats-Rollup", "nats-rollup"} {
		if got := letter.Header.Get(name); got != "" {
			t.Errorf("the dead letter has %s: %s", name, got)
		}
	}
	if got := letter.Header.Get("ce-type"); got != "io.certloop.tea.served.v1" {
		t.Errorf("ce-type is %q", got)
	}
}

// A body that stops in the middle says nothing about the event: it is to be sent again.
func TestABodyThatBreaksOff(t *testing.T) {
	r := newRig(t)
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.MultiReader(strings.NewReader("{"), broken{}))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if w.Code != http.StatusServiceUnavailable || len(r.dead(t)) != 0 {
		t.Errorf("answer %d and %d dead letters, want 503 and none", w.Code, len(r.dead(t)))
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
