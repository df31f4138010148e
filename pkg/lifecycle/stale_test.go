package lifecycle_test

import (
	"testing"
	"time"

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
