package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/certloop/certloop/pkg/model"
)

// The promises of a function do not depend on the transport: this table is run
// over HTTP, by a sender that tries again when it is told to, and over JetStream.
var conformance = []struct {
	name   string
	header map[string]string // ce-… and content-type
	body   string
	handle func(run int) ([]event.Event, error)

	runs   int    // of the handler
	facts  int    // stored in the end
	status int    // of the last answer over HTTP
	dead   Reason // "" for none
	saying string // in the answer and in the dead letter
	empty  bool   // the dead letter has no body
}{
	{
		name:   "binary mode, one fact follows",
		header: binaryHeader(model.EnrollmentRequested, "shop/web"),
		handle: issued, runs: 1, facts: 1, status: 202,
	},
	{
		name:   "structured mode",
		header: structured,
		body:   `{"specversion":"1.0","id":"1","source":"/test","type":"io.certloop.enrollment.requested.v1","subject":"shop/web"}`,
		handle: issued, runs: 1, facts: 1, status: 202,
	},
	{
		name:   "nothing follows",
		header: binaryHeader(model.EnrollmentRequested, "shop/web"),
		handle: func(int) ([]event.Event, error) { return nil, nil }, runs: 1, status: 202,
	},
	{
		name:   "a name with dots",
		header: binaryHeader(model.EnrollmentRequested, "shop/web.example.com"),
		handle: issued, runs: 1, facts: 1, status: 202,
	},
	{
		name:   "an error, then success",
		header: binaryHeader(model.EnrollmentRequested, "shop/web"),
		handle: func(run int) ([]event.Event, error) {
			out, _ := issued(run)
			if run < 3 {
				return out, errors.New("the API server is away") // what is returned beside an error is dropped
			}
			return out, nil
		}, runs: 3, facts: 1, status: 202,
	},
	{
		name:   "a panic, then success",
		header: binaryHeader(model.EnrollmentRequested, "shop/web"),
		handle: func(run int) ([]event.Event, error) {
			if run == 1 {
				panic("a bug")
			}
			return issued(run)
		}, runs: 2, facts: 1, status: 202,
	},
	{
		name:   "an event that cannot be published, then success",
		header: binaryHeader(model.EnrollmentRequested, "shop/web"),
		handle: func(run int) ([]event.Event, error) {
			if run == 1 {
				return []event.Event{model.NewEvent("io.certloop.unheard.of.v1", web, nil)}, nil
			}
			return issued(run)
		}, runs: 2, facts: 1, status: 202,
	},
	{
		name:   "unknown type",
		header: binaryHeader("io.certloop.tea.served.v1", "shop/web"), body: `{"cups":2}`,
		status: 422, dead: UnknownType, saying: "io.certloop.tea.served.v1",
	},
	{
		name:   "malformed structured JSON",
		header: structured, body: `{"specversion":"1.0","id":`,
		status: 400, dead: Undecodable,
	},
	{
		name:   "structured JSON without the required attributes",
		header: structured, body: `{"specversion":"1.0","type":"io.certloop.enrollment.requested.v1"}`,
		status: 400, dead: Undecodable, saying: "id: ",
	},
	{
		name:   "a line break in an attribute",
		header: structured,
		body:   `{"specversion":"1.0","id":"1\r\nNats-Rollup: all","source":"/test","type":"io.certloop.enrollment.requested.v1","subject":"shop/web"}`,
		status: 400, dead: Undecodable, saying: "control character",
	},
	{
		name:   "invalid payload",
		header: binaryHeader(model.ConfigCreated, "shop/web"), body: `{"spec":{}}`,
		status: 422, dead: InvalidEvent, saying: "spec.issuerRef",
	},
	{
		name:   "no subject",
		header: binaryHeader(model.EnrollmentRequested, ""),
		status: 422, dead: InvalidEvent, saying: "namespace/name",
	},
	{
		name:   "a subject that is a wildcard",
		header: binaryHeader(model.EnrollmentRequested, "shop/>"),
		status: 422, dead: InvalidEvent, saying: `name ">"`,
	},
	{
		name:   "too large",
		header: binaryHeader(model.EnrollmentRequested, "shop/web"), body: strings.Repeat("x", model.MaxEventBytes),
		status: 413, dead: TooLarge, saying: "65536", empty: true,
	},
	{
		name:   "a Secret by mistake, structured",
		header: structured,
		body: `{"specversion":"1.0","id":"1","source":"/test","type":"dev.knative.apiserver.resource.add","subject":"/x",` +
			`"data":{"kind":"Secret","data":{"password":"aHVudGVyMg=="}}}`,
		status: 422, dead: UnknownType, empty: true,
	},
	{
		name:   "a private key in an undecodable body",
		header: structured, body: "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ",
		status: 400, dead: Undecodable, empty: true,
	},
}

var structured = map[string]string{"content-type": "application/cloudevents+json"}

func binaryHeader(eventType, subject string) map[string]string {
	h := map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": eventType,
		"content-type": "application/json",
	}
	if subject != "" {
		h["ce-subject"] = subject
	}
	return h
}

// issued is a handler's success: one fact, the same every time it is told.
func issued(int) ([]event.Event, error) {
	fact := model.NewEvent(model.CertificateIssued, web, model.CertificateFact{Serial: "2a"})
	fact.SetID(model.DerivedID(model.CertificateIssued, "shop/web", "2a"))
	return []event.Event{fact}, nil
}

func TestConformance(t *testing.T) {
	transports := map[string]func(testing.TB, *rig, map[string]string, string) *httptest.ResponseRecorder{
		"http":      overHTTP,
		"jetstream": overJetStream,
	}
	for transport, deliver := range transports {
		t.Run(transport, func(t *testing.T) {
			for _, tt := range conformance {
				t.Run(tt.name, func(t *testing.T) {
					r := newRig(t)
					var runs counter
					handle := func(context.Context, event.Event) ([]event.Event, error) { return tt.handle(runs.add()) }
					r.Mux[model.EnrollmentRequested] = Route{Handle: handle}
					r.Mux[model.ConfigCreated] = Route{Check: model.CheckCertificateEvent, Handle: handle}

					answer := deliver(t, r, tt.header, tt.body)

					if got := runs.get(); got != tt.runs {
						t.Errorf("the handler ran %d times, want %d", got, tt.runs)
					}
					if got := len(r.facts(t)); got != tt.facts {
						t.Errorf("%d facts are stored, want %d", got, tt.facts)
					}
					checkDead(t, r, tt.dead, tt.saying, tt.empty)
					if answer != nil {
						checkAnswer(t, answer, tt.status, tt.dead, tt.saying)
					}
					checkLog(t, r, tt.dead)
				})
			}
		})
	}
}

// overHTTP sends the event until it is settled, as Knative does: again after 503,
// never again after another answer.
func overHTTP(t testing.TB, r *rig, header map[string]string, body string) *httptest.ResponseRecorder {
	t.Helper()
	for range 10 {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
		for name, value := range header {
			req.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != http.StatusServiceUnavailable {
			return w
		}
		if w.Header().Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
	t.Fatal("the event is never settled")
	return nil
}

func overJetStream(t testing.TB, r *rig, header map[string]string, body string) *httptest.ResponseRecorder {
	t.Helper()
	h := nats.Header{}
	for name, value := range header {
		h.Set(name, value)
	}
	key, err := model.ParseKey(h.Get("ce-subject"))
	if err != nil || len(validation.IsDNS1123Subdomain(key.Name)) > 0 {
		key = web
	}
	r.put(t, model.WorkSubject(r.Verb, key), h, body)
	r.consume(t)
	eventually(t, "settlement", func() bool { return r.settledAll(t) && len(r.logs.events()) > 0 })
	return nil
}

func checkDead(t testing.TB, r *rig, want Reason, saying string, empty bool) {
	t.Helper()
	letters := r.dead(t)
	if want == "" {
		if len(letters) > 0 {
			t.Errorf("a dead letter that should not be: %v", letters[0].Header)
		}
		return
	}
	if len(letters) != 1 {
		t.Fatalf("%d dead letters, want 1", len(letters))
	}
	header := letters[0].Header
	if got := Reason(header.Get(ReasonHeader)); got != want {
		t.Errorf("dead for the reason %q, want %q", got, want)
	}
	if got := header.Get(ErrorHeader); !strings.Contains(got, saying) || got == "" {
		t.Errorf("the dead letter says %q, want %q in it", got, saying)
	}
	if header.Get(SubjectHeader) == "" || header.Get(DeliveriesHeader) != "1" {
		t.Errorf("headers %v, want former subject and one delivery", header)
	}
	withheld := header.Get(WithheldHeader) != ""
	if got := len(letters[0].Data) == 0 && withheld; empty != got {
		t.Errorf("body withheld: %v, want %v", got, empty)
	}
}

func checkAnswer(t testing.TB, answer *httptest.ResponseRecorder, status int, reason Reason, saying string) {
	t.Helper()
	body := answer.Body.Bytes()
	if answer.Code != status {
		t.Fatalf("status %d, want %d: %s", answer.Code, status, body)
	}
	if reason == "" {
		if len(body) > 0 {
			t.Errorf("an accepted event is answered with a body: %s", body)
		}
		return
	}
	if got, want := answer.Header().Get("Content-Type"), "application/problem+json"; got != want {
		t.Errorf("Content-Type %q, want %q", got, want)
	}
	var p problem
	decoder := json.NewDecoder(bytes.NewReader(body))
	if err := decoder.Decode(&p); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if !strings.HasSuffix(p.Type, "/"+string(reason)) || p.Title == "" || p.Status != status || len(p.Errors) == 0 {
		t.Errorf("problem %+v, want type %s, a title, status %d and the errors one by one", p, reason, status)
	}
	if !strings.Contains(p.Detail, saying) {
		t.Errorf("detail %q, want %q in it", p.Detail, saying)
	}
}

// checkLog wants one line for each delivery, the last one saying how it ended.
func checkLog(t testing.TB, r *rig, reason Reason) {
	t.Helper()
	lines := r.logs.events()
	for i, line := range lines {
		want := retried
		if i == len(lines)-1 {
			want = accepted
		}
		if reason != "" {
			want = dead
		}
		if got := line["outcome"]; got != want {
			t.Errorf("line %d says %s, want %s: %v", i, got, want, line)
		}
		if (line["err"] == "") != (want == accepted) {
			t.Errorf("line %d: err is %q", i, line["err"])
		}
	}
	if log := r.logs.String(); strings.Contains(log, "cups") || strings.Contains(log, "aHVudGVyMg") {
		t.Errorf("the log holds data: %s", log)
	}
}
