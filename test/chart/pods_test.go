package chart

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/certloop/certloop/pkg/service"
)

// pods are the Pods that an arrangement leads to, by component.
func pods(t *testing.T, all []*unstructured.Unstructured) map[string]corev1.PodTemplateSpec {
	t.Helper()
	found := map[string]corev1.PodTemplateSpec{}
	for _, u := range all {
		template, ok, err := unstructured.NestedMap(u.Object, "spec", "template")
		if err != nil || !ok {
			continue
		}
		// What only a revision of Knative has.
		for _, field := range []string{"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds"} {
			unstructured.RemoveNestedField(template, "spec", field)
		}
		found[u.GetName()] = decode[corev1.PodTemplateSpec](t, template)
	}
	return found
}

// decode is strict: a field that the type has not is an error.
func decode[T any](t *testing.T, from any) (into T) {
	t.Helper()
	content, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(content)))
	d.DisallowUnknownFields()
	if err := d.Decode(&into); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
	return into
}

const everything = `
nats:
  urlSecret: nats-urls
  credentialsSecret: nats-credentials
  tls: {caSecret: nats-ca, clientSecret: nats-client}
pod:
  labels: {team: pki}
  annotations: {example.org/note: "yes"}
  nodeSelector: {pool: ca}
  tolerations: [{key: ca, operator: Exists}]
image: {pullSecrets: [{name: registry}]}
`

func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, a := range arrangements() {
		for name, overlay := range map[string]string{"": "{}", "-everything": everything} {
			t.Run(a.String()+name, func(t *testing.T) {
				files, err := render(a.home(), a.values(t, overlay))
				if err != nil {
					t.Fatal(err)
				}
				all := pods(t, objects(t, files))
				for _, u := range documents(t, "tests", []byte(files["certloop/templates/tests/enforcement.yaml"])) {
					p := decode[corev1.Pod](t, u.Object)
					all[p.Name] = corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
				}
				if len(all) < 3 {
					t.Fatalf("%d Pods were found, want more", len(all))
				}
				for name, p := range all {
					for _, r := range evaluator.EvaluatePod(restricted, &p.ObjectMeta, &p.Spec) {
						if !r.Allowed {
							t.Errorf("%s: %s: %s", name, r.ForbiddenReason, r.ForbiddenDetail)
						}
					}
					for _, c := range p.Spec.Containers {
						if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
							t.Errorf("%s: the root filesystem can be written", name)
						}
						if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || !c.Resources.Limits.Cpu().IsZero() {
							t.Errorf("%s: want a limit of memory, a request of CPU and no limit of CPU: %v", name, c.Resources)
						}
					}
				}
			})
		}
	}
}

// A variable that no process reads would be a setting that does nothing.
func TestEnvironment(t *testing.T) {
	known := map[string]bool{"GOMEMLIMIT": true, "CERTLOOP_TARGETS": true}
	for field := range reflect.TypeFor[service.Config]().Fields() {
		known[field.Tag.Get("envconfig")] = true
	}
	for _, a := range arrangements() {
		for name, p := range pods(t, a.objects(t, everything)) {
			set := map[string]corev1.EnvVar{}
			for _, e := range p.Spec.Containers[0].Env {
				if !known[e.Name] {
					t.Errorf("%s: %s sets %s, which nothing reads", a, name, e.Name)
				}
				set[e.Name] = e
			}
			component := strings.TrimPrefix(name, release+"-")
			if got := set["NATS_URL"].ValueFrom; got == nil || got.SecretKeyRef.Key != component+".url" {
				t.Errorf("%s: %s takes the URL of NATS from %v, want its own key", a, name, got)
			}
			for _, v := range p.Spec.Volumes {
				if v.Name == "nats-credentials" && (len(v.Secret.Items) != 1 || v.Secret.Items[0].Key != component+".creds") {
					t.Errorf("%s: %s sees the credentials %v, want its own only", a, name, v.Secret.Items)
				}
			}
		}
	}
}

// What a process would refuse at its start is refused here.
func TestConfigurationIsValid(t *testing.T) {
	checked := 0
	for _, a := range arrangements() {
		for name, p := range pods(t, a.objects(t)) {
			t.Run(a.String()+"/"+name, func(t *testing.T) {
				for _, e := range p.Spec.Containers[0].Env {
					t.Setenv(e.Name, e.Value)
				}
				c, err := service.FromEnvironment()
				if err != nil {
					t.Error(err)
				}
				if len(p.Spec.Containers[0].Args) == 0 && !slices.Equal(c.Namespaces, a.namespaces()) {
					t.Errorf("it serves %q, want %q", c.Namespaces, a.namespaces())
				}
				checked++
			})
		}
	}
	if checked < 12 {
		t.Errorf("%d Pods were looked at, want more", checked)
	}
}

// The garbage collector is told of the memory limit.
func TestMemoryLimit(t *testing.T) {
	for limit, want := range map[string]string{"128Mi": "115MiB", "1Gi": "921MiB", "100M": "85MiB", "0.5Gi": "460MiB", "1.5Gi": "1382MiB", "134217728": "115MiB", "134217728.0": "115MiB"} {
		overlay := "functions: {enroll: {resources: {limits: {memory: " + limit + "}}}}"
		env := pods(t, arrangement{"knative", "dedicated"}.objects(t, overlay))["certloop-enroll"].Spec.Containers[0].Env
		got := ""
		for _, e := range env {
			if e.Name == "GOMEMLIMIT" {
				got = e.Value
			}
		}
		if got != want {
			t.Errorf("%s: GOMEMLIMIT %q, want %q", limit, got, want)
		}
	}
}

// Knative waits longer than a handler may take, and a handler longer than one exchange with a CA.
func TestTimeouts(t *testing.T) {
	const messageTimeout = 30 * time.Second // the default of a CMPIssuer
	for _, u := range of(arrangement{"knative", "dedicated"}.objects(t), "Service") {
		spec, _, err := unstructured.NestedMap(u.Object, "spec", "template", "spec")
		if err != nil {
			t.Fatal(err)
		}
		revision := decode[struct {
			TimeoutSeconds              int `json:"timeoutSeconds"`
			ResponseStartTimeoutSeconds int `json:"responseStartTimeoutSeconds"`
		}](t, map[string]any{"timeoutSeconds": spec["timeoutSeconds"], "responseStartTimeoutSeconds": spec["responseStartTimeoutSeconds"]})
		var handler time.Duration
		for _, e := range pods(t, []*unstructured.Unstructured{u})[u.GetName()].Spec.Containers[0].Env {
			if e.Name == "CERTLOOP_HANDLER_TIMEOUT" {
				if handler, err = time.ParseDuration(e.Value); err != nil {
					t.Fatal(err)
				}
			}
		}
		knative := time.Duration(revision.TimeoutSeconds) * time.Second
		if handler <= messageTimeout || knative < handler+90*time.Second || knative > 10*time.Minute || revision.ResponseStartTimeoutSeconds > revision.TimeoutSeconds {
			t.Errorf("%s: Knative waits %s, a handler may take %s", u.GetName(), knative, handler)
		}
	}
}

// Every image has a digest where one is given.
func TestDigests(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	overlay := "image: {repository: registry.example.org/pki, tag: v9, digests: {enroll: \"" + digest + "\"}}"
	got := map[string]string{}
	for name, p := range pods(t, arrangement{"knative", "dedicated"}.objects(t, overlay)) {
		got[name] = p.Spec.Containers[0].Image
	}
	want := map[string]string{
		"certloop-enroll": "registry.example.org/pki/enroll@" + digest, "certloop-renew": "registry.example.org/pki/renew:v9",
		"certloop-watch-secrets": "registry.example.org/pki/watch-secrets:v9", "certloop-expiry-scan": "registry.example.org/pki/expiry-scan:v9",
		"certloop-dispatch": "registry.example.org/pki/certloop:v9", "certloop-setup": "registry.example.org/pki/certloop:v9",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Whatever keeps running is probed.
func TestProbes(t *testing.T) {
	for _, a := range arrangements() {
		for name, p := range pods(t, a.objects(t)) {
			c := p.Spec.Containers[0]
			if strings.HasSuffix(name, "-setup") {
				continue // a Job ends by itself
			}
			for probe, got := range map[string]*corev1.Probe{"/health/readiness": c.ReadinessProbe, "/health/liveness": c.LivenessProbe} {
				if got == nil || got.HTTPGet == nil || got.HTTPGet.Path != probe {
					t.Errorf("%s: %s has no probe %s", a, name, probe)
				}
			}
		}
	}
}

// Replicas that are several are spread, and drained one after the other.
func TestReplicas(t *testing.T) {
	for profile, component := range map[string]string{"knative": "dispatch", "plain": "all"} {
		section := map[string]string{"dispatch": "dispatch", "all": "plain"}[component]
		a := arrangement{profile, "dedicated"}
		all := a.objects(t)
		budget := named(t, all, "PodDisruptionBudget", release+"-"+component)
		selector := decode[metav1.LabelSelector](t, budget.Object["spec"].(map[string]any)["selector"])
		p := pods(t, all)[release+"-"+component]
		s, err := metav1.LabelSelectorAsSelector(&selector)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Matches(labels.Set(p.Labels)) || len(p.Spec.TopologySpreadConstraints) != 1 {
			t.Errorf("%s: the Pods of %s are not guarded", profile, component)
		}
		one := a.objects(t, section+": {replicas: 1}")
		if n := len(of(one, "PodDisruptionBudget")); n != 0 {
			t.Errorf("%s: a single replica has %d budgets, and no node could be drained", profile, n)
		}
	}
}
