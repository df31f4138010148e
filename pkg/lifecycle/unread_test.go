package lifecycle_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// unread is a namespace of which the API server lets nobody read anything, as when the RoleBinding
// there went with it.
const unread = "went-away"

// forbid answers 403 to what some requests ask for.
func (q *requests) forbid(match func(*http.Request) bool) *requests {
	q.fault = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if match(req) {
			return refusal(http.StatusForbidden, metav1.StatusReasonForbidden), nil
		}
		return next.RoundTrip(req)
	}
	return q
}

func inUnread(req *http.Request) bool {
	return strings.Contains(req.URL.Path, "/namespaces/"+unread+"/")
}

// scanned is what came of a scan, of all its pages.
func (r *rig) scanned(w *lifecycle.Watcher, kind string) (told []event.Event, fact model.ScanFact) {
	r.t.Helper()
	for queue := []event.Event{model.NewEvent(model.Ping, types.NamespacedName{}, map[string]string{"scan": kind})}; len(queue) > 0; queue = queue[1:] {
		handle := w.Sweep
		switch {
		case queue[0].Type() == model.ScanCompleted:
			if err := queue[0].DataAs(&fact); err != nil {
				r.t.Fatal(err)
			}
			continue
		case kind == "expiry" && queue[0].Type() == model.Ping:
			handle = w.Scan
		case queue[0].Type() != model.Ping && queue[0].Type() != model.SweepContinued:
			told = append(told, queue[0])
			continue
		}
		out, err := handle(r.t.Context(), queue[0])
		if err != nil {
			r.t.Fatal(err)
		}
		queue = append(queue, out...)
	}
	return told, fact
}

func mention(told []event.Event, eventType, subject string) bool {
	return slices.ContainsFunc(told, func(e event.Event) bool { return e.Type() == eventType && e.Subject() == subject })
}

// A namespace that may not be read keeps no other one from being looked into, and is named.
func TestUnreadNamespaceIsPassedOver(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
	r.edit("ca-trust", func(s *corev1.Secret) { s.Labels = map[string]string{"team": "security"} })
	q := new(requests).forbid(inUnread)
	r.through(q)
	r.advance(17 * time.Hour)
	for _, order := range [][]string{{unread, r.ns}, {r.ns, unread}} {
		w := &lifecycle.Watcher{Ledger: r.store, Namespaces: order, Now: r.now}
		for _, kind := range []string{"expiry", "sweep"} {
			told, fact := r.scanned(w, kind)
			if !mention(told, model.CertificateExpiring, r.ns+"/web") || !slices.Equal(fact.Unread, []string{unread}) {
				t.Errorf("%s of %q: got %v and %+v, want the due certificate and the other namespace named", kind, order, told, fact)
			}
			if kind == "sweep" && (!mention(told, model.SecretModified, r.ns+"/web") || !mention(told, model.InputChanged, r.ns+"/ca")) {
				t.Errorf("sweep of %q: got %v, want what has changed", order, told)
			}
		}
	}
	// Where nothing can be read at all that is a failure.
	q.forbid(func(*http.Request) bool { return true })
	w := &lifecycle.Watcher{Ledger: r.store, Now: r.now}
	if out, err := w.Scan(t.Context(), model.NewEvent(model.Ping, types.NamespacedName{}, nil)); err == nil {
		t.Errorf("got %v without a right to anything, want an error", out)
	}
}

// Where the Secrets of a namespace may not be read its certificates are still looked at, and the
// API server is not asked for each of them.
func TestSweepWithoutRightToSecrets(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	for _, name := range []string{"one", "two", "three"} {
		r.declare(model.ConfigCreated, name, certificate(name, 24*time.Hour))
	}
	secrets := func(s string) bool { return strings.Contains(s, "/secrets") }
	q := new(requests).forbid(func(req *http.Request) bool { return secrets(req.URL.Path) })
	r.through(q)
	r.advance(17 * time.Hour)
	told, fact := r.scanned(r.watcher(), "sweep")
	if !mention(told, model.CertificateExpiring, r.ns+"/three") || !slices.Equal(fact.Unread, []string{r.ns}) || fact.Looked != 4 {
		t.Errorf("got %v and %+v, want what is due, and the namespace named", told, fact)
	}
	if n := q.count(secrets); n != 1 {
		t.Errorf("%d requests for Secrets that may not be read, want 1", n)
	}
}

// A cluster issuer wakes the certificates of the namespaces that can be read, and is taken for used
// while there is one that cannot.
func TestClusterIssuerWithUnreadNamespace(t *testing.T) {
	r := newRig(t, nil)
	r.through(new(requests).forbid(inUnread))
	r.process = r.obtainer(nil)
	r.process.Namespaces = []string{unread, r.ns}
	issuer := types.NamespacedName{Name: r.ns} // unique
	spec := identity()
	spec.IssuerRef = model.IssuerReference{Kind: model.ClusterIssuerKind, Name: issuer.Name}
	r.declare(model.ConfigCreated, "identity", spec)
	r.wantReason("identity", model.ReasonIssuerNotFound)
	r.trustAndBootstrap()
	r.send(model.NewEvent(model.IssuerCreated, issuer, map[string]any{"kind": model.ClusterIssuerKind, "spec": r.issuer()}))
	r.wantReady("identity", true)
	r.declare(model.ConfigDeleted, "identity", nil)
	r.wantFinalizers(issuer, r.ns+".certloop.io/in-use")
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	if got := r.lastRejection(); got.Reason != model.ReasonIssuerInUse || !strings.Contains(got.Message, unread) {
		t.Errorf("got %+v, want IssuerInUse and the namespace", got)
	}
	r.process.Namespaces = []string{r.ns}
	r.send(model.NewEvent(model.IssuerDeleted, issuer, nil))
	if _, err := r.store.Issuer(t.Context(), issuer); err == nil {
		t.Error("an issuer that nobody uses was not deleted")
	}
}

// Others who write an issuer without a pause keep no attempt from coming to its end.
func TestHoldIsBounded(t *testing.T) {
	r := newRig(t, nil)
	r.trustAndBootstrap()
	r.declare(model.IssuerCreated, "ca", r.issuer())
	finalizing := func(s string) bool { return strings.HasPrefix(s, "PATCH") && strings.Contains(s, "/cmpissuers/ca") }
	q := &requests{}
	q.fault = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if q.count(func(string) bool { return true }) > 1000 {
			return nil, io.ErrUnexpectedEOF // rather than for ever
		}
		if finalizing(req.Method + " " + req.URL.Path) {
			return refusal(http.StatusConflict, metav1.StatusReasonConflict), nil
		}
		return next.RoundTrip(req)
	}
	r.through(q)
	out, err := r.handle(r.obtainer(nil), model.NewEvent(model.ConfigCreated, r.key("identity"), map[string]any{"spec": identity()}))
	if err == nil {
		t.Errorf("got %v, want the conflict", out)
	}
	if n := q.count(finalizing); n == 0 || n > 9 {
		t.Errorf("the issuer was written %d times, want a few", n)
	}
}
