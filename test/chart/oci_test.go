package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/pkg/apis"
	servingconfig "knative.dev/serving/pkg/apis/config"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/cmd/certloop/netpol"
	"github.com/certloop/certloop/cmd/certloop/zpr"
)

// apart gives those who talk to CAs a node pool of their own.
const apart = `
pod:
  nodeSelector: {pool: general}
  tolerations: [{key: general, operator: Exists}]
caClients:
  nodeSelector: {pool: ca}
  tolerations: [{key: ca, operator: Exists}]
`

// Who talks to a CA runs in the node pool for that, and nobody else does.
func TestCAClientsHaveTheirOwnNodePool(t *testing.T) {
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			clients := 0
			for name, p := range pods(t, a.objects(t, apart)) {
				want := "general"
				if slices.Contains([]string{"certloop-enroll", "certloop-renew", "certloop-all"}, name) {
					want = "ca"
					clients++
				}
				if got := p.Spec.NodeSelector; !maps.Equal(got, map[string]string{"pool": want}) {
					t.Errorf("%s runs on %v, want the pool %s", name, got, want)
				}
				if got := p.Spec.Tolerations; len(got) != 1 || got[0].Key != want {
					t.Errorf("%s tolerates %v, want %s", name, got, want)
				}
			}
			if want := map[bool]int{true: 1, false: 2}[a.profile == "plain"]; clients != want {
				t.Errorf("%d Pods talk to CAs, want %d", clients, want)
			}
		})
	}
}

// Without a node pool of their own they run where all run.
func TestOneNodePoolForAll(t *testing.T) {
	for _, a := range arrangements() {
		for name, p := range pods(t, a.objects(t, "pod: {nodeSelector: {pool: general}}")) {
			if got := p.Spec.NodeSelector["pool"]; got != "general" || len(p.Spec.Tolerations) != 0 {
				t.Errorf("%s: %s runs on %q and tolerates %v", a, name, got, p.Spec.Tolerations)
			}
		}
		for name, p := range pods(t, a.objects(t)) {
			if p.Spec.NodeSelector != nil || p.Spec.Tolerations != nil {
				t.Errorf("%s: %s is bound to %v", a, name, p.Spec.NodeSelector)
			}
		}
	}
}

// Knative takes a node pool with the features that values.yaml names, and not without.
func TestKnativeTakesNodePoolsWithItsFeatures(t *testing.T) {
	on := map[string]string{"kubernetes.podspec-nodeselector": "enabled", "kubernetes.podspec-tolerations": "enabled"}
	features, err := servingconfig.NewFeaturesConfigFromMap(on)
	if err != nil {
		t.Fatal(err)
	}
	comments := strings.ReplaceAll(string(read(t, chartDir+"/values.yaml")), "\n# ", " ")
	for feature, state := range on {
		if !strings.Contains(comments, feature+": "+state) {
			t.Errorf("values.yaml does not say %s: %s", feature, state)
		}
	}
	for _, profile := range []string{"knative", "knative-direct"} {
		for _, u := range (arrangement{profile, "dedicated"}).objects(t, apart) {
			if u.GetAPIVersion() != "serving.knative.dev/v1" {
				continue
			}
			o, off := knativeObject(t, u), apis.WithinCreate(asConfigured(t))
			config := *servingconfig.FromContext(off)
			config.Features = features
			enabled := servingconfig.ToContext(off, &config)
			o.SetDefaults(enabled)
			if err := o.Validate(enabled); err != nil {
				t.Errorf("%s: with the features: %v", u.GetName(), err)
			}
			if err := o.Validate(off); err == nil || !strings.Contains(err.Error(), "nodeSelector") || !strings.Contains(err.Error(), "tolerations") {
				t.Errorf("%s: without the features it is said to be %v, want nodeSelector and tolerations refused", u.GetName(), err)
			}
		}
	}
}

const ingest = `
functions: {enroll: {minScale: 1}}
oci:
  ingest:
    enabled: true
    securityAttributes: ["certloop.lb:events", "certloop.stage:prod: \"x\"", "team.owner:pki"]
    subnets: [203.0.113.64/28]
    annotations: {oci.oraclecloud.com/load-balancer-type: lb}
    loadBalancer: {clients: [198.51.100.0/24]}
`

const nativeIngest = ingest + `
    by: NativeIngress
    nativeIngress: {parameters: {name: events}, host: events.example.org}
`

// ways are both ways in, with the overlay of each.
var ways = map[string]string{"LoadBalancer": ingest, "NativeIngress": nativeIngest}

// There is no way in unless it is asked for.
func TestNoLoadBalancerByDefault(t *testing.T) {
	for _, a := range arrangements() {
		for _, u := range a.objects(t) {
			if u.GetKind() == "Ingress" || u.GetKind() == "IngressClass" || u.GetKind() == "Service" && u.GetAPIVersion() == "v1" {
				t.Errorf("%s: %s %s is there unasked", a, u.GetKind(), u.GetName())
			}
		}
	}
}

// The Service leads to enroll's Pods, to a port that they have, from the load balancer's
// subnets and from nowhere else.
func TestIngestReachesEnroll(t *testing.T) {
	for _, a := range arrangements() {
		for by, overlay := range ways {
			t.Run(a.String()+"-"+by, func(t *testing.T) {
				all := a.objects(t, overlay)
				service := decode[corev1.Service](t, coreService(t, all).Object)
				component, port := "enroll", int32(8012)
				if a.profile == "plain" {
					component, port = "all", 8081
				}
				for name, p := range pods(t, all) {
					if got, want := labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(p.Labels)), name == release+"-"+component; got != want {
						t.Errorf("the Service leads to %s: %t, want %t", name, got, want)
					}
				}
				if got := service.Spec.Ports; len(got) != 1 || got[0].Port != 80 || got[0].TargetPort.IntVal != port {
					t.Errorf("the ports are %v, want 80 to %d", got, port)
				}
				c := cluster(t, a, all)
				to := ours(t, a, all)[component].peer
				for from, want := range map[string]bool{"203.0.113.65": true, "203.0.113.63": false, "198.51.100.7": false} {
					for _, p := range []int32{port, 8080} {
						peer := netpol.Peer{Addr: netip.MustParseAddr(from)}
						if got := c.Allowed(peer, to, tcp(p)[0]); got != (want && p == port) {
							t.Errorf("%s reaches port %d: %t", from, p, got)
						}
					}
				}
			})
		}
	}
}

// coreService is the Service that is one of Kubernetes, not of Knative.
func coreService(t *testing.T, all []*unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	for _, u := range of(all, "Service") {
		if u.GetAPIVersion() == "v1" {
			return u
		}
	}
	t.Fatal("there is no Service")
	return nil
}

// The attributes are where OKE reads them, as its API writes them.
func TestIngestBearsSecurityAttributes(t *testing.T) {
	want := map[string]map[string]map[string]string{
		"certloop": {"lb": {"mode": "enforce", "value": "events"}, "stage": {"mode": "enforce", "value": `prod: "x"`}},
		"team":     {"owner": {"mode": "enforce", "value": "pki"}},
	}
	for _, a := range arrangements() {
		for by, tt := range map[string]struct{ kind, annotation string }{
			"LoadBalancer":  {"Service", "oci.oraclecloud.com/security-attributes"},
			"NativeIngress": {"IngressClass", "oci-native-ingress.oraclecloud.com/security-attributes"},
		} {
			all := a.objects(t, ways[by])
			u := coreService(t, all)
			if tt.kind != "Service" {
				u = of(all, tt.kind)[0]
			}
			var got map[string]map[string]map[string]string
			if err := json.Unmarshal([]byte(u.GetAnnotations()[tt.annotation]), &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %s bears %v, %v, want %v", a, tt.kind, got, err, want)
			}
		}
	}
}

func TestIngestByLoadBalancer(t *testing.T) {
	a := arrangement{"knative-direct", "dedicated"}
	s := decode[corev1.Service](t, coreService(t, a.objects(t, ingest)).Object)
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		t.Errorf("the Service is a %s with externalTrafficPolicy %s", s.Spec.Type, s.Spec.ExternalTrafficPolicy)
	}
	if s.Spec.Ports[0].NodePort != 30081 || s.Spec.HealthCheckNodePort != 30082 || !slices.Equal(s.Spec.LoadBalancerSourceRanges, []string{"198.51.100.0/24"}) {
		t.Errorf("node ports %d and %d, clients %v", s.Spec.Ports[0].NodePort, s.Spec.HealthCheckNodePort, s.Spec.LoadBalancerSourceRanges)
	}
	if got := s.Annotations; got["service.beta.kubernetes.io/oci-load-balancer-internal"] != "true" || got["oci.oraclecloud.com/load-balancer-type"] != "lb" {
		t.Errorf("the annotations are %v", got)
	}
	public := coreService(t, a.objects(t, ingest, "oci: {ingest: {securityAttributes: [], loadBalancer: {internal: false}}}"))
	if got := public.GetAnnotations(); len(got) != 1 {
		t.Errorf("without attributes and with a public address the annotations are %v", got)
	}
}

func TestIngestByNativeIngress(t *testing.T) {
	all := arrangement{"plain", "dedicated"}.objects(t, nativeIngest)
	class := decode[networkingv1.IngressClass](t, of(all, "IngressClass")[0].Object)
	i := decode[networkingv1.Ingress](t, of(all, "Ingress")[0].Object)
	backend := i.Spec.Rules[0].HTTP.Paths[0].Backend.Service
	if *i.Spec.IngressClassName != class.Name || i.Spec.Rules[0].Host != "events.example.org" || backend.Name != coreService(t, all).GetName() || backend.Port.Number != 80 {
		t.Errorf("the Ingress is %+v", i.Spec)
	}
	if p := class.Spec.Parameters; class.Spec.Controller != "oci.oraclecloud.com/native-ingress-controller" || p.Name != "events" || *p.Namespace != "native-ingress-controller-system" {
		t.Errorf("the IngressClass is %+v", class.Spec)
	}
}

// What is wrong with a way in is refused, in words that say what to do.
func TestIngestRefused(t *testing.T) {
	for name, tt := range map[string]struct{ values, want string }{
		"typo":                       {"oci: {ingest: {enable: true}}", "enable"},
		"typo in a node pool":        {"caClients: {nodeselector: {}}", "nodeselector"},
		"another way":                {"oci: {ingest: {by: NodePort}}", "by"},
		"six attributes":             {`oci: {ingest: {securityAttributes: ["a.b:1", "a.b:2", "a.b:3", "a.b:4", "a.b:5", "a.b:6"]}}`, "securityAttributes"},
		"a space in a key":           {`oci: {ingest: {securityAttributes: ["a.b c:1"]}}`, "securityAttributes"},
		"no namespace":               {`oci: {ingest: {securityAttributes: ["b:1"]}}`, "securityAttributes"},
		"two values":                 {`oci: {ingest: {securityAttributes: ["a.b:1", "a.b:2"]}}`, "a.b is there twice"},
		"no clients":                 {"oci: {ingest: {loadBalancer: {clients: []}}}", "oci.ingest.loadBalancer.clients is empty"},
		"everybody":                  {"oci: {ingest: {loadBalancer: {clients: [0.0.0.0/0]}}}", "whole internet"},
		"no subnets":                 {"oci: {ingest: {subnets: []}}", "oci.ingest.subnets is empty"},
		"from everywhere":            {`oci: {ingest: {subnets: ["::/0"]}}`, "whole internet"},
		"a port below":               {"oci: {ingest: {loadBalancer: {nodePort: 8443}}}", "nodePort"},
		"one port for both":          {"oci: {ingest: {loadBalancer: {nodePort: 30082}}}", "have to differ"},
		"no parameters":              {"oci: {ingest: {by: NativeIngress}}", "parameters.name is empty"},
		"a function that is not up":  {"functions: {enroll: {minScale: 0}}", "a load balancer wakes nobody"},
		"a client that is a name":    {"oci: {ingest: {loadBalancer: {clients: [ci.example.org]}}}", "clients"},
		"an annotation not a string": {"oci: {ingest: {annotations: {a: 1}}}", "annotations"},
	} {
		t.Run(name, func(t *testing.T) {
			for helm, render := range map[string]func(string, map[string]any) (map[string]string, error){"3": render3, "4": render} {
				if _, err := render("certloop", values(t, ingest, tt.values)); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Helm %s: %v, want it to name %q", helm, err, tt.want)
				}
			}
		})
	}
}

// Kubernetes takes both ways in.
func TestKubernetesAcceptsIngest(t *testing.T) {
	i := newInstaller(t)
	for by, overlay := range ways {
		t.Run(by, func(t *testing.T) { i.install(t, arrangement{"knative-direct", "dedicated"}, overlay) })
	}
}

// The commands of docs/zpr.md render, and the values that it names exist.
func TestZPRDocument(t *testing.T) {
	document := string(read(t, root+"/docs/zpr.md"))
	tried := 0
	for line := range strings.Lines(document) {
		if command, ok := strings.CutPrefix(line, "$ helm upgrade "); ok {
			shown(t, strings.Fields(command))
			tried++
		}
	}
	var defaults map[string]any
	if err := yaml.Unmarshal(read(t, chartDir+"/values.yaml"), &defaults); err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, m := range valueName.FindAllStringSubmatch(document, -1) {
		path := strings.Split(m[1], ".")
		if _, ours := defaults[path[0]]; !ours || path[0] == "knative" {
			continue
		}
		named++
		if _, ok, err := unstructured.NestedFieldNoCopy(defaults, path...); err != nil || !ok {
			t.Errorf("docs/zpr.md names %s, which is no value", m[1])
		}
	}
	if tried < 3 || named < 10 {
		t.Errorf("%d commands and %d values were found, want more", tried, named)
	}
}

// A plan and the chart's defaults go together: what `certloop zpr` says that a load balancer
// bears and connects to is what is rendered.
func TestPlansAreOfThisChart(t *testing.T) {
	for by, scenario := range map[string]string{"LoadBalancer": "load-balancer", "NativeIngress": "native-ingress"} {
		plan, err := zpr.ParsePlan(read(t, root+"/cmd/certloop/zpr/testdata/"+scenario+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		attributes, err := json.Marshal(plan.LoadBalancer.Attributes)
		if err != nil {
			t.Fatal(err)
		}
		all := (arrangement{plan.Profile, "dedicated"}).objects(t, ways[by], fmt.Sprintf("oci: {ingest: {securityAttributes: %s}}", attributes))
		bearer, service := coreService(t, all), decode[corev1.Service](t, coreService(t, all).Object)
		if by == "NativeIngress" {
			bearer = of(all, "IngressClass")[0]
		}
		var out strings.Builder
		if err := zpr.Generate(&out, plan, zpr.FormatText, zpr.EditionCurrent); err != nil {
			t.Fatal(err)
		}
		found := 0
		for name, value := range bearer.GetAnnotations() {
			if strings.HasSuffix(name, "/security-attributes") && strings.Contains(out.String(), name+": "+value+".") {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: the plan does not name the annotations %v:\n%s", by, bearer.GetAnnotations(), out.String())
		}
		if got := service.Spec.Ports[0].NodePort; got != int32(plan.LoadBalancer.NodePort) || service.Spec.HealthCheckNodePort != int32(plan.LoadBalancer.HealthCheckNodePort) {
			t.Errorf("%s: node ports %d and %d, want those of the plan", by, got, service.Spec.HealthCheckNodePort)
		}
	}
}

// `certloop netpol audit` knows the way in, and objects to any other.
func TestAuditOfIngest(t *testing.T) {
	for _, a := range arrangements() {
		c, n := audited(t, a, ingest)
		for _, f := range netpol.Audit(c, netpol.DefaultExclusions(), n).Findings {
			t.Errorf("%s: %s %s/%s %s", a, f.Level, f.Namespace, f.Object, f.Message)
		}
		if n := netpol.DefaultNeighbours(); len(netpol.Audit(c, netpol.DefaultExclusions(), n).Findings) == 0 {
			t.Errorf("%s: without the values nothing is found", a)
		}
		who, port, elsewhere := "enroll", "8012", "renew"
		if a.profile == "plain" {
			who, port, elsewhere = "all", "8081", "test-allowed"
		}
		for name, tt := range map[string]struct {
			change func(*networkingv1.NetworkPolicySpec)
			edge   string
		}{
			"another function": {func(s *networkingv1.NetworkPolicySpec) {
				s.PodSelector.MatchExpressions[0].Values = append(s.PodSelector.MatchExpressions[0].Values, elsewhere)
			}, "203.0.113.64/28 → " + elsewhere + ", TCP " + port},
			"another port": {func(s *networkingv1.NetworkPolicySpec) {
				more := s.Ingress[0].Ports[0]
				more.Port = new(intstr.FromInt32(8080))
				s.Ingress[0].Ports = append(s.Ingress[0].Ports, more)
			}, "203.0.113.64/28 → " + who + ", TCP 8080"},
			"more subnets":   {func(s *networkingv1.NetworkPolicySpec) { s.Ingress[0].From[0].IPBlock.CIDR = "203.0.113.64/27" }, "203.0.113.64/27 → " + who + ", TCP " + port},
			"another subnet": {func(s *networkingv1.NetworkPolicySpec) { s.Ingress[0].From[0].IPBlock.CIDR = "203.0.113.80/28" }, "the load balancer → " + who + ", TCP " + port},
			"nobody":         {func(s *networkingv1.NetworkPolicySpec) { s.Ingress = nil }, "the load balancer → " + who + ", TCP " + port},
		} {
			c, n := audited(t, a, ingest)
			i := slices.IndexFunc(c.Policies, func(p networkingv1.NetworkPolicy) bool { return strings.HasSuffix(p.Name, "-from-load-balancer") })
			tt.change(&c.Policies[i].Spec)
			if found := netpol.Audit(c, netpol.DefaultExclusions(), n).Findings; !slices.ContainsFunc(found, func(f netpol.Finding) bool { return f.Edge == tt.edge }) {
				t.Errorf("%s, %s: %q is not found, but %v", a, name, tt.edge, found)
			}
		}
	}
}
