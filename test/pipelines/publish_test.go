package pipelines

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// What is declared is followed to the certificate in the Secret; declared again, it is ready at
// once, and a change that needs no new certificate is ready as soon as it is seen to.
func TestReady(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	web := rig.EndEntity("web", "validity: 24h")
	got := s.publish(t, web, "--wait")
	s.want(t, done, got)
	first := got.results(t)[0]
	leaf := rig.Pair(t, s.world.Secret(t, "web-tls"))
	if first.Outcome != "ready" || first.Certificate.Fingerprint != rig.Fingerprint(leaf) || first.Certificate.SecretName != "web-tls" {
		t.Errorf("got %+v, and another certificate in the Secret", first)
	}
	for _, step := range []string{"stored io.certloop.config.created.v1", "applied: a certificate is obtained", "ready; Secret web-tls, serial "} {
		if !strings.Contains(got.stderr, step) {
			t.Errorf("%q is missing from the progress\n%s", step, got.stderr)
		}
	}
	for range 2 {
		again := s.publish(t, web, "--wait")
		s.want(t, done, again)
		if r := again.results(t)[0]; r.Outcome != "ready" || r.Certificate.Serial != first.Certificate.Serial {
			t.Errorf("declared again: got %+v", r)
		}
	}
	changed := s.publish(t, web+"  renewBefore: 2h\n", "--wait")
	s.want(t, done, changed)
	if r := changed.results(t)[0]; r.Outcome != "ready" || r.Generation != 2 || r.Certificate.Serial != first.Certificate.Serial {
		t.Errorf("changed: got %+v", r)
	}
	another := s.publish(t, rig.EndEntity("web", "validity: 48h"), "--wait")
	s.want(t, done, another)
	if r := another.results(t)[0]; r.Outcome != "ready" || r.Generation != 3 || r.Certificate.Revision != 2 {
		t.Errorf("another certificate: got %+v", r)
	}
	if n := len(s.ca.Issued()); n != 3 {
		t.Errorf("the CA issued %d certificates, want 3: the identity and web twice", n)
	}
}

// Who is refused is told why, field by field, whoever refuses.
func TestRejected(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	web := rig.EndEntity("web", "validity: 24h")
	s.world.Apply(t, web) // owned by another field manager
	got := s.publish(t, rig.EndEntity("web", "validity: 12h"), "--wait")
	s.want(t, rejected, got)
	if r := got.results(t)[0]; r.Outcome != "rejected" || r.Reason != model.ReasonOwnedByAnother || !strings.Contains(r.Message, "validity") {
		t.Errorf("got %+v", r)
	}
	if !strings.Contains(got.stderr, "rejected: OwnedByAnother: ") || !strings.Contains(got.stderr, "certloop: 1 of 1 rejected") {
		t.Errorf("the progress does not say why:\n%s", got.stderr)
	}
	// One that is fine beside it is not held up.
	both := s.publish(t, rig.EndEntity("web", "validity: 12h")+"---\n"+rig.EndEntity("db"), "--wait")
	s.want(t, rejected, both)
	outcomes := []string{}
	for _, r := range both.results(t) {
		outcomes = append(outcomes, r.Outcome)
	}
	if !slices.Equal(outcomes, []string{"rejected", "ready"}) {
		t.Errorf("got %q", outcomes)
	}
}

// While the CA is away one hears why and until when; the time one gives is kept to, and nothing is lost.
func TestTimedOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ca.Down()
	web := rig.EndEntity("web")
	began := time.Now()
	got := s.publish(t, web, "--wait", "--timeout", "8s")
	s.want(t, timedOut, got)
	if took := time.Since(began); took < 8*time.Second {
		t.Errorf("it gave up after %s", took)
	}
	r := got.results(t)[0]
	if r.Outcome != "waiting" || (r.Reason != model.ReasonCAUnreachable && r.Reason != model.ReasonCircuitOpen) || r.NextAttempt.Before(began) {
		t.Errorf("got %+v", r)
	}
	for _, text := range []string{"waiting: " + r.Reason, "; again at ", "1 of 1 not ready within 8s"} {
		if !strings.Contains(got.stderr, text) {
			t.Errorf("%q is missing from\n%s", text, got.stderr)
		}
	}
	cmd := s.command(t, web, "publish", "-f", "-", "-n", s.world.Namespace, "-o", "name", "--wait", "--nats-url", s.pipeline)
	stopped := interrupt(t, cmd, func(stderr string) bool { return strings.Contains(stderr, "waiting: ") })
	s.want(t, interrupted, stopped)
	if stopped.stdout != "cmpcertificate.certloop.io/web\n" || !strings.Contains(stopped.stderr, "interrupted: 1 of 1 not ready yet") {
		t.Errorf("got %+v", stopped)
	}
	s.ca.Up(t)
	s.want(t, done, s.publish(t, web, "--wait"))
}

// What the CA refuses for good is parked, and stays so for who asks again.
func TestParked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	paused := rig.EndEntity("web", "paused: true")
	for range 2 {
		got := s.publish(t, paused, "--wait")
		s.want(t, parked, got)
		if r := got.results(t)[0]; r.Outcome != "parked" || r.Reason != model.ReasonPaused {
			t.Errorf("got %+v", r)
		}
	}
	s.want(t, done, s.publish(t, rig.EndEntity("web"), "--wait"))

	s.ca.Behave(func(b *responder.Behaviour) {
		b.Reject = &cmp.StatusInfo{Status: cmp.StatusRejection, FailInfo: cmp.FailBadPOP, Text: []string{"not this one"}}
	})
	for range 2 {
		got := s.publish(t, rig.EndEntity("other"), "--wait")
		s.want(t, parked, got)
		if r := got.results(t)[0]; r.Reason != model.ReasonRejectedByCA || !strings.Contains(r.Message, "not this one") {
			t.Errorf("got %+v", r)
		}
	}
}

// Over HTTP what is declared is followed by NATS where there is one, or else by the cluster.
func TestOverHTTP(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, door := range map[string][]string{"nats": {"--nats-url", s.pipeline}, "cluster": {"--kubeconfig", s.world.Cluster.Kubeconfig()}} {
		document := rig.EndEntity("by-" + name)
		for range 2 {
			args := append([]string{"publish", "-f", "-", "-n", s.world.Namespace, "-o", "json", "--wait", "--http", s.function}, door...)
			got := run(t, s.command(t, document, args...))
			s.want(t, done, got)
			leaf := rig.Pair(t, s.world.Secret(t, "by-"+name+"-tls"))
			if r := got.results(t)[0]; r.Outcome != "ready" || r.Certificate.Fingerprint != rig.Fingerprint(leaf) {
				t.Errorf("%s: got %+v", name, r)
			}
		}
	}
	s.ca.Down()
	got := run(t, s.command(t, rig.EndEntity("late"), "publish", "-f", "-", "-n", s.world.Namespace, "-o", "json", "--wait", "--timeout", "5s", "--http", s.function, "--kubeconfig", s.world.Cluster.Kubeconfig()))
	s.want(t, timedOut, got)
	if r := got.results(t)[0]; r.Outcome != "waiting" || r.Reason == "" {
		t.Errorf("got %+v", r)
	}
	got = run(t, s.command(t, rig.EndEntity("web"), "publish", "-f", "-", "-n", s.world.Namespace, "--wait", "--http", s.function))
	if got.code != 2 || !strings.Contains(got.stderr, "--wait needs a NATS server (--nats-url, NATS_URL) or a cluster") {
		t.Errorf("with nothing to follow by: got %+v", got)
	}
}

// A publisher of another namespace hears nothing of this one, and is told what he lacks.
func TestOthersHearNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	got := run(t, s.command(t, rig.EndEntity("web"), "publish", "-f", "-", "-n", "other", "--wait", "--nats-url", s.pipeline))
	if got.code != failed || !strings.Contains(got.stderr, "--wait needs the right to subscribe to it") || strings.Contains(got.stderr, "of-pipeline") {
		t.Errorf("got %+v", got)
	}
}
