package monitoringtest

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"github.com/certloop/certloop/pkg/cmp"
	"github.com/certloop/certloop/pkg/cmp/responder"
	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Everything that happens to a certificate is seen: what kube-state-metrics shows, with the rights
// and the configuration of the chart, is what the objects say, each value of it and nothing else. The alerts that fire on them are those that an operator would expect.
func TestMetricsSayWhatObjectsSay(t *testing.T) {
	w := rig.NewWorldOfItsOwn(t)
	url, log := kubeStateMetrics(t, w.Cluster)
	certificates(t, w)
	var got, want series
	defer func() {
		if t.Failed() {
			t.Log(differences(got, want))
		}
	}()
	rig.Eventually(t, rig.Patience, "the metrics are those of the objects", func() (err error) {
		if got, err = scrape(t, url); err != nil {
			return err
		}
		if want = objects(t, w); !maps.Equal(got, want) {
			return errors.New(differences(got, want))
		}
		return nil
	})
	promtool(t, exposition(t, url), "check", "metrics")
	everyMetric(t, got)
	everyState(t, got)
	firing(t, got,
		`CertloopCertificateExpired ,name="expired",issuer="ca"`,
		`CertloopCertificateNotReady ,name="homeless",issuer="nobody"`,
		`CertloopCertificateNotReady ,name="waiting",issuer="ca"`,
		`CertloopCertificateNotReady ,name="stranded",issuer="ca"`,
		`CertloopCertificateNotReady ,name="another",issuer="ca"`,
		`CertloopCertificateNotReady ,name="third",issuer="ca"`,
		`CertloopCertificateParked ,name="refused",issuer="ca"`,
		`CertloopIssuerNotReady ,issuer="broken"`,
		`CertloopIssuerNotReady ,issuer="everybodys"`,
		`CertloopCAUnreachable ,issuer="ca"`,
		`CertloopOverlooked`,        // ready and unseen, whose configurations nobody has looked at
		`CertloopNATSMetricsAbsent`, // there are none in this test
	)
	if said := log(); strings.Contains(strings.ToLower(said), "forbidden") || strings.Contains(said, "\nE") {
		t.Errorf("kube-state-metrics complains:\n%s", said)
	}
}

// certificates makes a certificate and an issuer in each state that there is.
func certificates(t *testing.T, w *rig.World) {
	t.Helper()
	ca := rig.StartResponder(t, responder.Config{})
	w.Kubectl(t, strings.NewReplacer("kind: CMPIssuer", "kind: CMPClusterIssuer", "name: ca}", "name: everybodys}").Replace(rig.Issuer(ca.CA)), "apply", "-f", "-")
	all := rig.StartAll(t, w, "--cluster-issuers")
	w.Settle(t, ca.CA)
	w.Apply(t,
		rig.EndEntity("ready", "purpose: SBI", "networkFunction: AMF"),
		rig.EndEntity("leaving", "deletionPolicy: revokeAndDelete"),
		rig.EndEntity("expired", "validity: 10s"),
		strings.ReplaceAll(rig.EndEntity("homeless"), "issuerRef: {name: ca}", "issuerRef: {name: nobody}"),
		strings.NewReplacer("name: ca}", "name: broken}", "ca-trust", "nothing").Replace(rig.Issuer(ca.CA)),
	)
	w.WaitReady(t, rig.Patience, "ready", "leaving", "expired")
	w.Apply(t, rig.EndEntity("expired", "validity: 10s", "paused: true"))
	w.WaitReason(t, rig.Patience, "homeless", model.ReasonIssuerNotFound)
	ca.Reject(cmp.FailureInfo(0), "no such profile")
	w.Apply(t, rig.EndEntity("refused"))
	w.WaitReason(t, rig.Patience, "refused", model.ReasonRejectedByCA)
	ca.Behave(func(b *responder.Behaviour) { b.Reject = nil })
	ca.Wait(3, time.Hour)
	w.Apply(t, rig.EndEntity("waiting"))
	w.WaitReason(t, rig.Patience, "waiting", model.ReasonWaitingForCA)
	ca.Down()
	w.Apply(t, rig.EndEntity("stranded"), rig.EndEntity("another"), rig.EndEntity("third")) // three failures open it
	rig.Eventually(t, rig.Patience, "the circuit is open", func() error {
		if w.Issuer(t).Status.Circuit == nil {
			return errors.New("the issuer has none")
		}
		return nil
	})
	rig.Eventually(t, rig.Patience, "the issuers were looked at and a certificate has expired", func() error {
		for _, i := range list[model.CMPClusterIssuer](t, w, model.ClusterIssuerResource) {
			if len(i.Status.Conditions) == 0 {
				return errors.New("the cluster issuer has no condition")
			}
		}
		if c := w.Certificate(t, "expired"); !time.Now().After(c.Status.NotAfter.Time) || c.Status.ObservedGeneration != c.Generation {
			return fmt.Errorf("it expires at %v, and generation %d of %d was seen", c.Status.NotAfter, c.Status.ObservedGeneration, c.Generation)
		}
		return nil
	})
	all.Kill(t)
	// Nobody looks any more.
	w.Delete(t, model.CertificateKind, "leaving")
	w.Apply(t, rig.EndEntity("unseen"), rig.EndEntity("ready", "purpose: N2", "networkFunction: AMF"))
}

// objects are the series that there have to be.
func objects(t *testing.T, w *rig.World) series {
	t.Helper()
	all := series{}
	for _, c := range list[model.CMPCertificate](t, w, model.CertificateResource) {
		all.certificate(&c)
	}
	for _, i := range list[model.CMPIssuer](t, w, model.IssuerResource) {
		all.issuer("certloop_issuer_", i.ObjectMeta, i.Spec, i.Status)
	}
	for _, i := range list[model.CMPClusterIssuer](t, w, model.ClusterIssuerResource) {
		all.issuer("certloop_clusterissuer_", i.ObjectMeta, i.Spec, i.Status)
	}
	return all
}

func list[T any](t *testing.T, w *rig.World, resource string) (all []T) {
	t.Helper()
	client, err := dynamic.NewForConfig(w.Cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.Resource(model.GroupVersion.WithResource(resource)).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range found.Items {
		var one T
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func (s series) certificate(c *model.CMPCertificate) {
	const prefix = "certloop_certificate_"
	labels := func(more ...string) map[string]string {
		return labelled(append(more, "namespace", c.Namespace, "name", c.Name, "issuer", c.Spec.IssuerRef.Name, "purpose", c.Spec.Purpose)...)
	}
	paused := ""
	if c.Spec.Paused {
		paused = "true"
	}
	s.add(prefix+"info", labels("type", c.Spec.Type, "issuer_kind", c.Spec.IssuerRef.Kind, "network_function", c.Spec.NetworkFunction,
		"secret", c.Spec.Output.SecretName, "paused", paused), 1)
	s.add(prefix+"generation", labels(), float64(c.Generation))
	s.add(prefix+"observed_generation", labels(), float64(c.Status.ObservedGeneration))
	s.conditions(prefix, c.Status.Conditions, labels)
	s.time(prefix+"not_after_timestamp_seconds", labels(), c.Status.NotAfter)
	s.time(prefix+"renewal_timestamp_seconds", labels(), c.Status.RenewalTime)
	s.time(prefix+"next_attempt_timestamp_seconds", labels(), c.Status.NextAttempt)
	s.time(prefix+"deletion_timestamp_seconds", labels(), c.DeletionTimestamp)
	if c.Status.Attempts > 0 {
		s.add(prefix+"failed_attempts", labels(), float64(c.Status.Attempts))
	}
	if c.Status.ExtraIssuances > 0 {
		s.add(prefix+"extra_issuances", labels(), float64(c.Status.ExtraIssuances))
	}
}

func (s series) issuer(prefix string, meta metav1.ObjectMeta, spec model.CMPIssuerSpec, status model.CMPIssuerStatus) {
	labels := func(more ...string) map[string]string {
		return labelled(append(more, "namespace", meta.Namespace, "issuer", meta.Name)...)
	}
	s.add(prefix+"info", labels("server", spec.Server), 1)
	s.time(prefix+"trust_not_after_timestamp_seconds", labels(), status.TrustNotAfter)
	s.conditions(prefix, status.Conditions, labels)
}

func (s series) conditions(prefix string, conditions []metav1.Condition, labels func(...string) map[string]string) {
	for _, c := range conditions {
		holds := 0.0
		if c.Status == metav1.ConditionTrue {
			holds = 1
		}
		s.add(prefix+"condition", labels("type", c.Type, "reason", c.Reason), holds)
		if c.Type == model.Ready {
			s.add(prefix+"ready", labels(), holds)
			s.time(prefix+"ready_transition_timestamp_seconds", labels(), &c.LastTransitionTime)
		}
	}
}

func (s series) time(name string, labels map[string]string, t *metav1.Time) {
	if t != nil {
		s.add(name, labels, float64(t.Unix()))
	}
}

// labelled pairs names and values. An empty label is none.
func labelled(pairs ...string) map[string]string {
	all := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			all[pairs[i]] = pairs[i+1]
		}
	}
	return all
}

// everyMetric: each metric of the configuration was there, so that its path was tried.
func everyMetric(t *testing.T, got series) {
	t.Helper()
	rare := []string{
		"certloop_certificate_extra_issuances",                     // it takes a crash at the right moment
		"certloop_clusterissuer_trust_not_after_timestamp_seconds", // nobody can read its trust here; an issuer has the same path
	}
	for name := range defined(t) {
		if !slices.Contains(rare, name) && !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(s string) bool { return strings.HasPrefix(s, name+"{") }) {
			t.Errorf("nothing has the metric %s", name)
		}
	}
}

// defined are the metrics that the chart defines.
func defined(t testing.TB) map[string]bool {
	t.Helper()
	var values stack
	decode(t, shipped(t, "kube-prometheus-stack.yaml"), &values)
	all := map[string]bool{}
	for _, r := range values.KubeStateMetrics.CustomResourceState.Config.Spec.Resources {
		for _, m := range r.Metrics {
			all[r.MetricNamePrefix+"_"+m.Name] = true
		}
	}
	return all
}

// everyState: what the alerts ask for is there.
func everyState(t *testing.T, got series) {
	t.Helper()
	for what, want := range map[string]string{
		"ready":               `certloop_certificate_ready\{issuer="ca",name="ready",.*purpose="N2"\}=1`,
		"waiting":             `certloop_certificate_condition\{.*name="waiting",.*reason="WaitingForCA",type="Ready"\}=0`,
		"parked":              `certloop_certificate_condition\{.*name="refused",.*reason="RejectedByCA",type="Stalled"\}=1`,
		"paused":              `certloop_certificate_info\{.*name="expired",.*paused="true"`,
		"issuer not found":    `certloop_certificate_condition\{.*name="homeless",.*reason="IssuerNotFound",type="Reconciling"\}=1`,
		"never looked at":     `certloop_certificate_observed_generation\{.*name="unseen",.*\}=0`,
		"not looked at again": `certloop_certificate_generation\{.*name="ready",.*\}=2`,
		"withdrawn":           `certloop_certificate_deletion_timestamp_seconds\{.*name="leaving"`,
		"CA away":             `certloop_issuer_condition\{issuer="ca",.*reason="CircuitOpen",type="Reconciling"\}=1`,
		"issuer not ready":    `certloop_issuer_ready\{issuer="broken",.*\}=0`,
		"cluster issuer":      `certloop_clusterissuer_info\{issuer="everybodys",server=`,
	} {
		pattern := regexp.MustCompile("^" + want)
		if !slices.ContainsFunc(lines(got), pattern.MatchString) {
			t.Errorf("%s: no series is like %s", what, want)
		}
	}
	for line, value := range got {
		if strings.HasPrefix(line, "certloop_certificate_not_after_timestamp_seconds") && strings.Contains(line, `name="expired"`) && value > float64(time.Now().Unix()) {
			t.Errorf("%s is %v, which is not past", line, value)
		}
	}
}

func lines(s series) (all []string) {
	for name, value := range s {
		all = append(all, fmt.Sprintf("%s=%v", name, value))
	}
	return all
}

// differences are the series that only one of the two has, or with another value.
func differences(got, want series) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[name]; !ok || v != want[name] {
			fmt.Fprintf(&b, "\nwant %s %v", name, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if v, ok := want[name]; !ok || v != got[name] {
			fmt.Fprintf(&b, "\ngot  %s %v", name, got[name])
		}
	}
	return b.String()
}
