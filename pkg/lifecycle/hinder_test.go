package lifecycle_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
)

// What the API server refuses stands in the status, and goes on by itself when it may be.
func TestHindered(t *testing.T) {
	reads := func(part string) func(*http.Request) bool {
		return func(req *http.Request) bool {
			return req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/secrets/"+part)
		}
	}
	outputs := func(req *http.Request) bool { return writes("web-tls")(req) && writesOutput(req) }
	for name, tc := range map[string]struct {
		code      int32
		reason    metav1.StatusReason
		match     func(*http.Request) bool
		issuances int // before it may be
	}{
		"the record may not be written":       {403, metav1.StatusReasonForbidden, writes("web.certloop-record"), 0},
		"the issuer's Secret may not be read": {403, metav1.StatusReasonForbidden, reads("ca-trust"), 0},
		"the output is not taken":             {422, metav1.StatusReasonInvalid, outputs, 1},
		"a webhook refuses the output":        {400, "", outputs, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			var q requests
			q.refuse(tc.code, tc.reason, tc.match)
			r.through(&q)
			r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
			r.wantReason("web", model.ReasonForbidden)
			r.wantIssuances("web", tc.issuances)
			if got := r.message("web", model.Ready); !strings.Contains(got, "injected") {
				t.Errorf("got message %q, want what the API server says", got)
			}
			r.wait()
			r.wantReason("web", model.ReasonForbidden)
			r.wantTold(model.CertificateWaiting, 1)
			q.fault = nil
			r.wait()
			r.wantReady("web", true)
			r.wantIssuances("web", 1)
		})
	}
}

// What a person asks for by an event is not lost while the record cannot be made to remember it.
func TestHinderedDemand(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.declare(model.ConfigCreated, "new", certificate("new", 24*time.Hour))
	var q requests
	q.refuse(403, metav1.StatusReasonForbidden, writes(".certloop-record"))
	r.through(&q)
	r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
	r.send(model.NewEvent(model.RecreationRequested, r.key("new"), nil))
	for _, name := range []string{"web", "new"} {
		r.wantReady(name, true)
		if c := condition(r.status(name), model.Reconciling); c.Reason != model.ReasonForbidden {
			t.Errorf("%s: got %+v, want Forbidden beside Ready", name, c)
		}
	}
	if _, err := r.handle(r.obtainer(nil), model.NewEvent(model.RevocationRequested, r.key("web"), nil)); err == nil {
		t.Error("a revocation that nothing remembers was settled")
	}
	q.fault = nil
	r.wait()
	r.wait()
	for _, name := range []string{"web", "new"} {
		r.wantReady(name, true)
		r.wantIssuances(name, 2)
	}
}

// A Secret that stands where the record should be is told of, and what was counted is not forgotten.
func TestForeignRecord(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.secret(model.RecordName("web"), map[string][]byte{"x": []byte("theirs")})
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.wantReason("web", model.ReasonRecordInvalid)
	r.wantTold(model.CertificateWaiting, 1)
	r.delete(model.RecordName("web"))
	r.wait()
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}

// A record that cannot be read does not make the count of extra issuances fall.
func TestSpoiltRecordKeepsTheCount(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.ca.Behave(func(b *responder.Behaviour) { b.WrongKey = true })
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	before := r.status("web").ExtraIssuances
	if before == 0 {
		t.Fatal("nothing was counted")
	}
	if err := r.overwrite(model.RecordName("web"), "state.json", "rubbish"); err != nil {
		t.Fatal(err)
	}
	r.wait()
	r.wantReason("web", model.ReasonRecordInvalid)
	if got := r.status("web").ExtraIssuances; got != before {
		t.Errorf("got %d extra issuances, want %d as before", got, before)
	}
}
