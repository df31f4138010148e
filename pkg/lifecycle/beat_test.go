package lifecycle_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
)

// refuse makes the API server refuse some requests.
func (q *requests) refuse(code int32, reason metav1.StatusReason, match func(*http.Request) bool) {
	q.fault = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if match(req) {
			return refusal(code, reason), nil
		}
		return next.RoundTrip(req)
	}
}

// writes matches what writes a Secret, by a part of its name.
func writes(part string) func(*http.Request) bool {
	return func(req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/secrets") || req.Method != http.MethodPost && req.Method != http.MethodPut {
			return false
		}
		body, err := req.GetBody()
		if err != nil {
			return false
		}
		sent, err := io.ReadAll(body)
		return err == nil && bytes.Contains(sent, []byte(part))
	}
}

// A heartbeat that fails once costs nothing; more of them are no fault of the CA.
func TestHeartbeatsThatFail(t *testing.T) {
	for name, fails := range map[string]int32{"once": 1, "always": 1000} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			var failed atomic.Int32
			record := writes("web.certloop-record")
			var q requests
			q.refuse(500, metav1.StatusReasonInternalError, func(req *http.Request) bool {
				return req.Method == http.MethodPut && record(req) && failed.Add(1) <= fails // the first one is a beat
			})
			r.through(&q)
			r.ca.Behave(func(b *responder.Behaviour) { b.Delay = 2 * time.Second })
			o := r.obtainer(nil)
			o.Lease = 600 * time.Millisecond
			in := model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)})
			_, err := r.handle(o, in)
			if once := fails == 1; once != (err == nil) {
				t.Errorf("got error %v", err)
			}
			if fails == 1 {
				r.wantReady("web", true)
				r.wantIssuances("web", 1)
			}
			if n := r.told(model.CertificateFailed); n != 0 {
				t.Errorf("%d failures were told: %+v", n, condition(r.status("web"), model.Reconciling))
			}
			if failed.Load() == 0 {
				t.Error("no heartbeat failed")
			}
		})
	}
}

// A CA that is slower than the time of a handler is an outage, which says what to do.
func TestMessageTimeoutBeyondTheHandler(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	issuer := r.issuer()
	issuer.MessageTimeout = &metav1.Duration{Duration: 5 * time.Minute}
	r.declare(model.IssuerUpdated, "ca", issuer)
	r.ca.Behave(func(b *responder.Behaviour) { b.Delay = time.Hour })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // in place of two minutes
	defer cancel()
	in := model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", 24*time.Hour)})
	out, err := r.obtainer(nil).ConfigDeclared(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	r.wantReason("web", model.ReasonCAUnreachable)
	if got := r.message("web", model.Ready); !strings.Contains(got, "CERTLOOP_HANDLER_TIMEOUT") {
		t.Errorf("got message %q, want what to raise", got)
	}
	if !slices.ContainsFunc(out, func(e event.Event) bool { return e.Type() == model.EnrollmentRequested }) {
		t.Errorf("got %v, want another attempt", out)
	}
}

// The last word of a transaction that failed is waited for no longer than it is worth, and the record
// stays ours meanwhile: nobody takes over what is ending.
func TestGoodbyeToASilentCA(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	issuer := r.issuer()
	issuer.MessageTimeout = &metav1.Duration{Duration: time.Hour}
	r.declare(model.IssuerUpdated, "ca", issuer)
	r.ca.Behave(func(b *responder.Behaviour) {
		b.WrongKey, b.Delay, b.Only = true, 2*time.Hour, []cmp.BodyType{cmp.TypePKIConf}
	})
	var kept atomic.Int32
	record := writes("web.certloop-record")
	var q requests
	q.refuse(500, metav1.StatusReasonInternalError, func(req *http.Request) bool {
		if req.Method == http.MethodPut && record(req) {
			kept.Add(1)
		}
		return false
	})
	r.through(&q)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", model.ReasonCertificateRefused)
	if n := kept.Load(); n < 3 { // the outcome is one
		t.Errorf("the record was written %d times while the CA was told, want one in every third of a lease", n)
	}
	r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	r.wait()
	r.wantReady("web", true)
}

// A CA that falls silent shortly before the total timeout is not waited for beyond it, and that is
// no outage of the CA.
func TestSilenceAtTheTotalTimeout(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	issuer := r.issuer()
	issuer.MessageTimeout = &metav1.Duration{Duration: time.Hour}
	r.declare(model.IssuerUpdated, "ca", issuer)
	r.ca.Wait(-1, time.Hour)
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	first := r.status("web").TransactionID
	if first == "" {
		t.Fatal("no transaction is in flight")
	}
	began := r.now()
	for r.later[0].due.Before(began.Add(23 * time.Hour)) {
		r.wait()
	}
	r.advance(began.Add(24*time.Hour - 3*time.Second).Sub(r.now()))
	r.ca.Behave(func(b *responder.Behaviour) { b.Delay = 2 * time.Hour })
	r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), model.Work{Reason: model.WorkPoll}))
	r.wantReason("web", model.ReasonTransactionTimeout)
	r.wantTold(model.IssuanceMaybeOrphan, 1)
	r.ca.Behave(func(b *responder.Behaviour) { *b = responder.Behaviour{} })
	r.wait()
	r.wantReady("web", true)
	if r.status("web").TransactionID == first {
		t.Error("the transaction goes on although its total time is over")
	}
}
