package lifecycle_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/model"
)

// A record that is lost while nobody watches is found missing by the next sweep: what was delivered is
// tracked again where it is still there, without the CA, and its life goes on; where it is not another one is obtained.
func TestSweepFindsLostRecords(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(*model.CMPCertificateSpec)
		lose     []string
		issued   int
		reason   string
		told     string
		revision int64
	}{
		"record":             {nil, []string{"web.certloop-record"}, 1, model.ReasonAdopted, model.CertificateAdopted, 2},
		"record and output":  {nil, []string{"web-tls", "web.certloop-record"}, 2, model.ReasonIssued, model.CertificateRenewed, 2},
		"record without key": {func(s *model.CMPCertificateSpec) { s.Record.KeepKey = new(bool) }, []string{"web.certloop-record"}, 1, model.ReasonAdopted, model.CertificateAdopted, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			spec := certificate("web", 24*time.Hour)
			if tc.change != nil {
				tc.change(&spec)
			}
			r.declare(model.ConfigCreated, "web", spec)
			before := r.output("web").Data
			for _, secret := range tc.lose {
				r.delete(secret)
			}
			facts := len(r.facts)
			r.tick("sweep")
			r.wantReady("web", true)
			r.wantReason("web", tc.reason)
			r.wantIssuances("web", tc.issued)
			if !mention(r.facts[facts:], tc.told, r.key("web").String()) {
				t.Errorf("got %v, want %s", r.facts[facts:], tc.told)
			}
			if got := r.status("web").Revision; got != tc.revision {
				t.Errorf("got revision %d, want %d", got, tc.revision)
			}
			if same := bytes.Equal(before["tls.crt"], r.output("web").Data["tls.crt"]); same != (tc.issued == 1) {
				t.Errorf("the output holds the same certificate: %v", same)
			}
			facts = len(r.facts)
			r.tick("sweep")
			if told := r.facts[facts:]; len(told) != 1 {
				t.Errorf("a second sweep told %v, want scan.completed alone", told)
			}
			r.advance(17 * time.Hour)
			r.tick("expiry")
			if got := r.status("web").Revision; got != tc.revision+1 {
				t.Errorf("got revision %d after its renewal, want %d", got, tc.revision+1)
			}
			r.wantIssuances("web", tc.issued+1)
		})
	}
}

// A certificate whose record and output are lost is not Ready while the CA is down, and what was changed
// meanwhile is not covered up by what the output holds.
func TestLostRecordAndTheStatus(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.declare(model.ConfigCreated, "changed", certificate("changed", 24*time.Hour))
	r.delete(model.RecordName("changed"))
	spec := certificate("changed", 24*time.Hour)
	spec.Subject.Organization = "Other"
	r.declare(model.ConfigUpdated, "changed", spec)
	r.wantReady("changed", true)
	r.wantIssuances("changed", 2)

	r.delete("web-tls")
	r.delete(model.RecordName("web"))
	r.stopCA()
	r.send(r.ref(model.RefDelete, "web-tls"))
	r.wantReason("web", model.ReasonCAUnreachable)
	r.wantReady("web", false)
}

// The record of a configuration that has gone is missed by nobody, and one of a paused
// configuration not until the pause is over.
func TestRecordIsNotMissed(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	r.declare(model.ConfigCreated, "paused", certificate("paused", 24*time.Hour))
	r.patch("paused", `{"spec":{"paused":true}}`)
	r.declare(model.ConfigDeleted, "web", nil)
	r.delete(model.RecordName("paused"))
	facts := len(r.facts)
	r.send(r.ref(model.RefDelete, model.RecordName("web")))
	r.send(r.ref(model.RefDelete, model.RecordName("paused")))
	if len(r.facts) != facts {
		t.Errorf("got %v", r.facts[facts:])
	}
}
