package lifecycle_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/certloop/certloop/pkg/model"
)

// Of two configurations that name one Secret, in whatever way, the second asks nothing of the
// CA, names the first, and goes on by itself when that is gone.
func TestOutputTaken(t *testing.T) {
	part := func(name string) *model.OutputPart { return &model.OutputPart{SecretName: name} }
	for name, outputs := range map[string][2]model.Output{
		"both by default":        {{SecretName: "shared"}, {SecretName: "shared"}},
		"the second by a part":   {{SecretName: "shared"}, {SecretName: "own", PrivateKey: part("shared")}},
		"the first by a part":    {{SecretName: "own", CABundle: part("shared")}, {SecretName: "shared"}},
		"both by parts":          {{SecretName: "own", Chain: part("shared")}, {SecretName: "else", Certificate: part("shared")}},
		"another data key of it": {{SecretName: "own", CABundle: part("shared")}, {SecretName: "else", CABundle: &model.OutputPart{SecretName: "shared", Key: "mine.crt"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			first, second := certificate("first", 24*time.Hour), certificate("second", 24*time.Hour)
			first.Output, second.Output = outputs[0], outputs[1]
			r.declare(model.ConfigCreated, "first", first)
			r.declare(model.ConfigCreated, "second", second)
			r.wantReason("second", model.ReasonOutputTaken)
			if got := r.message("second", model.Ready); !strings.Contains(got, "CMPCertificate first") || !strings.Contains(got, "shared") {
				t.Errorf("got message %q, want the first configuration and the Secret in it", got)
			}
			r.wait()
			r.wantReason("second", model.ReasonOutputTaken)
			r.wantIssuances("second", 0)
			r.send(model.NewEvent(model.ConfigDeleted, r.key("first"), nil))
			if _, tls := r.get("shared").Data["tls.key"]; tls != (outputs[1].SecretName == "shared") {
				r.delete("shared") // it stays of its type, and what it holds might be needed
			}
			r.wait()
			if c := condition(r.status("second"), model.Ready); c.Reason != model.ReasonIssued {
				t.Errorf("got %+v, want it issued", c)
			}
			r.wantIssuances("second", 1)
		})
	}
}

// Somebody who rewrites the output again and again gets it after five rounds, until it is quiet.
func TestContention(t *testing.T) {
	r := newRig(t, nil)
	r.ready()
	r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
	want := string(r.output("web").Data["tls.crt"])
	rewrite := func(i int) (restored bool) {
		t.Helper()
		r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = fmt.Appendf(nil, "theirs %d", i) })
		r.send(r.ref(model.RefUpdate, "web-tls"))
		return string(r.output("web").Data["tls.crt"]) == want
	}
	for i := range 5 {
		if !rewrite(i) {
			t.Fatalf("round %d was not repaired", i+1)
		}
	}
	for i := range 3 {
		if rewrite(5 + i) {
			t.Fatalf("round %d was repaired", 6+i)
		}
	}
	r.wantReason("web", model.ReasonSecretContended)
	r.wantTold(model.SecretContended, 1)
	if c := condition(r.status("web"), model.Stalled); c.Reason != model.ReasonSecretContended {
		t.Errorf("got Stalled %+v", c)
	}
	r.wait() // it has been rewritten since: not quiet yet
	r.wantReason("web", model.ReasonSecretContended)
	r.wait()
	r.wantReady("web", true)
	if string(r.output("web").Data["tls.crt"]) != want {
		t.Error("the output was not taken back after it had been quiet")
	}
	rewrite(8)
	if rewrite(9) {
		t.Error("after quiet, a fight goes on for as many rounds as before")
	}
	spec := certificate("web", 24*time.Hour)
	spec.Purpose = "SBI"
	r.declare(model.ConfigUpdated, "web", spec)
	r.wantReady("web", true)
	r.wantIssuances("web", 1)
}

// What a person asks for takes an output back that was left to others, in each way of asking.
func TestContentionEndsOnDemand(t *testing.T) {
	for name, ask := range map[string]func(r *rig){
		"the annotation recreate": func(r *rig) { r.annotate("web", model.RecreateAnnotation, "1"); r.see("web") },
		"the annotation renew":    func(r *rig) { r.annotate("web", model.RenewAnnotation, "1"); r.see("web") },
		"recreation.requested":    func(r *rig) { r.send(model.NewEvent(model.RecreationRequested, r.key("web"), nil)) },
		"renewal.requested": func(r *rig) {
			r.send(model.NewEvent(model.RenewalRequested, r.key("web"), model.Work{Reason: model.WorkManual}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.ready()
			r.declare(model.ConfigCreated, "web", certificate("web", 24*time.Hour))
			for i := range 6 {
				r.edit("web-tls", func(s *corev1.Secret) { s.Data["tls.crt"] = fmt.Appendf(nil, "theirs %d", i) })
				r.send(r.ref(model.RefUpdate, "web-tls"))
			}
			r.wantReason("web", model.ReasonSecretContended)
			ask(r)
			r.wantReady("web", true)
			r.wantIssuances("web", 2)
		})
	}
}
