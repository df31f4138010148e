package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/model"
)

// refusal is an answer of the API server that it did not give.
func refusal(code int32, reason metav1.StatusReason) *http.Response {
	js, err := json.Marshal(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: "injected"})
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: int(code), Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(js)))}
}

// A first enrollment costs the API server at most five writes, refused ones aside of which there
// are next to none, and one read; what the watch then tells of our own writes costs one more, of
// metadata, where the source does not keep it to itself.
func TestBudget(t *testing.T) {
	const n = 50
	r := newRig(t, nil)
	r.ready()
	for i := range n {
		name := fmt.Sprintf("web-%02d", i)
		if _, err := r.store.ApplyCertificate(t.Context(), r.key(name), certificate(name, 24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	var added []event.Event
	for i := range n {
		added = append(added, r.apiEvent(model.ResourceAdd, fmt.Sprintf("web-%02d", i)))
	}
	var q requests
	r.through(&q)
	write := func(s string) bool { return !strings.HasPrefix(s, "GET") }
	read := func(s string) bool { return strings.HasPrefix(s, "GET") }
	o := r.obtainer(nil)
	for _, e := range added {
		r.sendTo(o, e)
	}
	writes, reads, refused := q.count(write), q.count(read), q.status[http.StatusConflict]
	t.Log(q.kinds(r.ns))
	q.reset()
	for i := range n { // the echo
		name := fmt.Sprintf("web-%02d", i)
		e := r.apiEvent(model.ResourceUpdate, name)
		q.reset()
		r.sendTo(o, e)
		if echo := q.count(func(string) bool { return true }); echo > 0 {
			t.Errorf("the echo of our own status costs %d requests", echo)
		}
	}
	q.reset()
	for i := range n {
		r.sendTo(o, r.ref(model.RefAdd, fmt.Sprintf("web-%02d-tls", i)))
	}
	echo := q.count(func(string) bool { return true })
	t.Logf("for each of %d certificates: %.2f writes, %.2f reads, %.2f refused; echo %.2f", n, float64(writes)/n, float64(reads)/n, float64(refused)/n, float64(echo)/n)
	const shared = 10 // requests for what all of them have in common: the issuer, what it names, the namespace
	if writes > 5*n+shared || reads > n+shared || refused*20 > n || echo > n {
		t.Errorf("want at most 5 writes, 1 read, 0.05 refused and 1 read of the echo")
	}
	for i := range n {
		r.wantReady(fmt.Sprintf("web-%02d", i), true)
	}
	r.wantTold(model.SecretModified, 0)
	if got := len(r.ca.Issued()); got != n+1 {
		t.Errorf("the CA issued %d, want %d", got, n+1)
	}
}

// A scan that finds nothing to do is three lists for each namespace, however many certificates there are.
func TestScanBudget(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.fleet(20, dueAt(r.now().AddDate(0, 0, 5)))
	var q requests
	r.through(&q)
	if _, err := r.watcher().Scan(t.Context(), model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": "expiry"})); err != nil {
		t.Fatal(err)
	}
	lists := q.count(func(s string) bool {
		return strings.HasPrefix(s, "GET ") && strings.Contains(s, "fieldSelector=status.renewalDay%3D")
	})
	if all := q.count(func(string) bool { return true }); lists != 3 || all != 3 {
		t.Errorf("%d requests, %d of them lists by renewal day, want 3: %v", all, lists, q.kinds(r.ns))
	}
}

// kinds counts requests by their method and resource, names left out.
func (q *requests) kinds(ns string) map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	name := regexp.MustCompile(`(web-\d+|ca-[a-z]+)`)
	all := map[string]int{}
	for _, s := range q.seen {
		all[name.ReplaceAllString(strings.ReplaceAll(s, ns, "NS"), "NAME")]++
	}
	return all
}

// Every way in which writing the output can fail: the write alone is repeated, and in the end the
// output holds the first key, of which the CA issued one certificate.
func TestOutputWriteFaults(t *testing.T) {
	const rounds = 50
	cut := errors.New("connection reset by peer")
	for name, fault := range map[string]func(*http.Request, http.RoundTripper) (*http.Response, error){
		"403": func(*http.Request, http.RoundTripper) (*http.Response, error) {
			return refusal(http.StatusForbidden, metav1.StatusReasonForbidden), nil
		},
		"409": func(*http.Request, http.RoundTripper) (*http.Response, error) {
			return refusal(http.StatusConflict, metav1.StatusReasonConflict), nil
		},
		"500": func(*http.Request, http.RoundTripper) (*http.Response, error) {
			return refusal(http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
		},
		"timeout after commit": func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			res, err := next.RoundTrip(req)
			if err == nil {
				_ = res.Body.Close()
			}
			return nil, cut
		},
		"connection cut": func(*http.Request, http.RoundTripper) (*http.Response, error) { return nil, cut },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			var q requests
			r.through(&q)
			for i := range rounds {
				r.faulty(&q, fmt.Sprintf("web-%02d", i), 1+i%3, name == "403", fault)
			}
			if got := len(r.ca.Issued()); got != rounds+1 {
				t.Errorf("the CA issued %d certificates, want %d", got, rounds+1)
			}
		})
	}
}

// faulty enrolls one certificate while the first writes of its output fail.
func (r *rig) faulty(q *requests, name string, times int, visible bool, fault func(*http.Request, http.RoundTripper) (*http.Response, error)) {
	r.t.Helper()
	left := times
	q.fault = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		write := req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/secrets") || req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "-tls")
		if !write || left == 0 || !writesOutput(req) {
			return next.RoundTrip(req)
		}
		left--
		return fault(req, next)
	}
	in := model.NewEvent(model.ConfigCreated, r.key(name), map[string]any{"spec": certificate(name, 24*time.Hour)})
	for try := 0; ; try++ {
		if try > 20 {
			r.t.Fatalf("%s: not delivered after %d tries", name, try)
		}
		out, err := r.handle(r.obtainer(nil), in)
		if err != nil {
			continue // delivered again
		}
		if visible && left > 0 {
			r.wantReason(name, model.ReasonForbidden)
		}
		if _, err := r.secrets.Get(r.t.Context(), name+"-tls", metav1.GetOptions{}); err == nil && left == 0 {
			break
		}
		next := slices.IndexFunc(out, func(e event.Event) bool { return e.Type() == model.EnrollmentRequested })
		if next < 0 {
			r.t.Fatalf("%s: nothing follows, and it is not delivered", name)
		}
		in = out[next]
	}
	q.fault = nil
	r.send(model.NewEvent(model.EnrollmentRequested, r.key(name), nil))
	r.wantReady(name, true)
	r.wantIssuances(name, 1)
	rec := r.get(model.RecordName(name))
	if string(rec.Data["tls.key"]) != string(r.output(name).Data["tls.key"]) {
		r.t.Errorf("%s: the output holds another key than the record", name)
	}
}

// writesOutput tells a write of an output from one of a record, whose name differs, by the role it
// writes down; in protobuf a text stands as it is.
func writesOutput(req *http.Request) bool {
	body, err := req.GetBody()
	if err != nil {
		return false
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(body)
	return err == nil && regexp.MustCompile(`certloop\.io/role[^a-z]+output`).Match(text)
}
