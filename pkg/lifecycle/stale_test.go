package lifecycle_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/certloop/certloop/pkg/ledger"
	"github.com/certloop/certloop/pkg/lifecycle"
	"github.com/certloop/certloop/pkg/model"
)

// A holder that was stalled between delivering and reporting finds that its certificate
// has been replaced meanwhile, and does not put the status back.
func TestStalledHolderReportsNothingOld(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	stalled := r.obtainer(func(s lifecycle.Step) {
		if s.Name == "project" && r.status("web").Revision == 0 {
			r.send(model.NewEvent(model.EnrollmentRequested, r.key("web"), nil))
			r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
		}
	})
	r.sendTo(stalled, model.NewEvent(model.ConfigCreated, r.key("web"), map[string]any{"spec": certificate("web", time.Hour)}))
	r.wantReady("web", true)
	if got := r.status("web").Revision; got != 2 {
		t.Errorf("status tells of revision %d, want 2, which its successor delivered", got)
	}
}

// A repair is told even if the one who made it then finds that the certificate has been replaced:
// when it looks again there is nothing wrong any more.
func TestRepairIsToldAfterALostRace(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", time.Hour))
	r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
	repairs := 0
	raced := r.obtainer(func(s lifecycle.Step) {
		if s.Name == "project" {
			repairs++
			r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
		}
	})
	r.sendTo(raced, model.NewEvent(model.EnrollmentRequested, r.key("web"), nil))
	r.wantReady("web", true)
	r.wantTold(model.SecretModified, 1)
	r.wantTold(model.CertificateRestored, 1)
	if got := r.status("web").Revision; repairs != 1 || got != 2 {
		t.Errorf("%d repairs and revision %d, want 1 and 2", repairs, got)
	}
}

// Who has read the configuration before its certificate was delivered, and the output after
// somebody has overwritten it, does not take that for an output that was never delivered.
func TestRepairIsToldByWhoReadLongAgo(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", time.Hour))
	var once sync.Once
	config := rest.CopyConfig(r.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/namespaces/"+r.ns+"/secrets") {
				once.Do(func() {
					r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
					r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("rubbish") })
				})
			}
			return next.RoundTrip(req)
		})
	})
	store, err := ledger.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	slow := r.obtainer(func(lifecycle.Step) {})
	slow.Ledger = store
	r.sendTo(slow, model.NewEvent(model.EnrollmentRequested, r.key("web"), nil))
	r.wantReady("web", true)
	r.wantTold(model.SecretModified, 1)
	r.wantTold(model.CertificateRestored, 1)
	if got := r.status("web").Revision; got != 2 {
		t.Errorf("revision %d, want 2", got)
	}
}
