package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	corev1 "k8s.io/api/core/v1"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
)

// What was not told, because its teller died or the broker was away, is told when the same event
// comes again, under the same id and with the same data, although all is done by then.
func TestWhatWasNotToldIsToldAgain(t *testing.T) {
	reject := func(info cmp.FailureInfo) func(*rig) {
		return func(r *rig) {
			r.ca.Behave(func(b *responder.Behaviour) {
				b.Reject = &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: info}
			})
		}
	}
	spoil := func(r *rig, n int) (noticed event.Event) {
		r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = fmt.Appendf(nil, "theirs %d", n) })
		return r.delivered(r.ref(model.RefUpdate, "web-tls"))[0]
	}
	manual := func(r *rig) event.Event {
		return model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual})
	}
	for _, tc := range []struct {
		name  string
		cause func(*rig) event.Event
		want  []string
	}{
		{"a repair", func(r *rig) event.Event { return spoil(r, 1) }, []string{model.CertificateRestored}},
		{"a repair that was asked for", func(r *rig) event.Event {
			r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("theirs") })
			return model.NewEvent(model.EnrollmentRequested, r.key("web"), nil)
		}, []string{model.SecretModified, model.CertificateRestored}},
		{"a parking", func(r *rig) event.Event { reject(cmp.FailBadCertTemplate)(r); return manual(r) }, []string{model.CertificateParked}},
		{"a failure", func(r *rig) event.Event { reject(cmp.FailSystemUnavail)(r); return manual(r) }, []string{model.CertificateFailed}},
		{"a wait", func(r *rig) event.Event { r.ca.Wait(3, time.Minute); return manual(r) }, []string{model.CertificateWaiting}},
		{"an orphan", func(r *rig) event.Event {
			r.ca.Behave(func(b *responder.Behaviour) { b.WrongKey = true })
			return manual(r)
		}, []string{model.IssuanceMaybeOrphan, model.CertificateFailed}},
		{"a revocation", func(r *rig) event.Event {
			return model.NewEvent(model.RevocationRequested, r.key("web"), model.RevocationFact{Reason: "keyCompromise"})
		}, []string{model.CertificateRevoked}},
		{"a contest", func(r *rig) event.Event {
			for n := range 5 {
				r.send(spoil(r, n))
			}
			return spoil(r, 5)
		}, []string{model.SecretContended}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
			r.advance(20 * time.Minute) // nothing of it is told by itself any more
			in := tc.cause(r)
			first := told(r.delivered(in), tc.want)
			again := told(r.delivered(in), tc.want)
			if len(first) < len(tc.want) || !slices.Equal(first, again) {
				t.Errorf("told\n%s\nand when it came again\n%s", strings.Join(first, "\n"), strings.Join(again, "\n"))
			}
			if other := told(r.delivered(model.NewEvent(model.EnrollmentRequested, r.key("web"), nil)), tc.want); slices.ContainsFunc(other, func(fact string) bool { return slices.Contains(first, fact) }) {
				t.Errorf("another event led to %s", other)
			}
		})
	}
}

// delivered is what an event leads to, which is told to nobody.
func (r *rig) delivered(in event.Event) []event.Event {
	r.t.Helper()
	out, err := r.handle(r.obtainer(nil), in)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// told are the facts of some types, with their ids.
func told(all []event.Event, types []string) (facts []string) {
	for _, e := range all {
		if slices.Contains(types, e.Type()) {
			facts = append(facts, e.Type()+" "+e.ID()+" "+string(e.Data()))
		}
	}
	slices.Sort(facts)
	return facts
}
