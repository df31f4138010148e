package netpol

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const root = "../../../"

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(root + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// told are the neighbours with what values say.
func told(t *testing.T, values ...string) *Neighbours {
	t.Helper()
	n := DefaultNeighbours()
	for _, v := range values {
		if err := n.Values([]byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// The defaults are those of the chart.
func TestDefaultNeighbours(t *testing.T) {
	got := told(t, string(read(t, "charts/certloop/values.yaml")))
	equal := diff.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := diff.Diff(DefaultNeighbours(), got, cmpopts.EquateEmpty(), equal); d != "" {
		t.Errorf("values.yaml says otherwise (-default +chart):\n%s", d)
	}
}

func TestValues(t *testing.T) {
	n := told(t, "networkPolicy: {dns: {namespace: openshift-dns, labels: {k8s-app: null, dns: x}, nodeLocalIP: 169.254.20.10}, ca: [{name: a, cidrs: [192.0.2.1/32], port: 829}]}", "networkPolicy: {nats: {port: 4223}}")
	if n.DNS.Namespace != "openshift-dns" || len(n.DNS.Labels) != 1 || n.DNS.Labels["dns"] != "x" || n.NATS.Port != 4223 || n.NATS.Namespace != "nats" || n.CA[0].Port != 829 {
		t.Errorf("%+v", n)
	}
	if i := told(t, "oci: {ingest: {enabled: true, subnets: [203.0.113.64/28]}}", "oci: {ingest: {enabled: false}}").Ingest; i.Enabled || len(i.Subnets) != 1 {
		t.Errorf("%+v", i)
	}
	for values, says := range map[string]string{
		"oci: {ingest: {subnets: [203.0.113.64]}}":         "203.0.113.64",
		"networkPolicy: {ca: [{cidrs: [192.0.2.300/32]}]}": "192.0.2.300",
		"networkPolicy: 7": "not values of certloop's chart",
		"a: [":             "yaml",
	} {
		if err := DefaultNeighbours().Values([]byte(values)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", values, err, says)
		}
	}
}

func TestInternet(t *testing.T) {
	for block, want := range map[string]bool{
		"0.0.0.0/0": true, "::/0": true, "0.0.0.0/1": true, "128.0.0.0/1": true, "8.0.0.0/8": true, "8.8.0.0/16": true, "2000::/3": true, "2a00::/12": true,
		"8.8.0.0/17": false, "10.0.0.0/8": false, "172.16.0.0/12": false, "169.254.0.0/16": false, "fd00::/8": false, "2001:db8::/32": false, "192.0.2.0/24": false,
		"0.0.0.0/0 but 203.0.113.0/24": true, "0.0.0.0/0 but 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16": true,
		"0.0.0.0/0 but 0.0.0.0/1 128.0.0.0/1": false, "8.0.0.0/15 but 8.0.0.0/17 8.1.0.0/17": false, "8.0.0.0/15 but 8.0.0.0/17": true, "nonsense": false,
	} {
		cidr, except, _ := strings.Cut(block, " but ")
		if got := internet(&networkingv1.IPBlock{CIDR: cidr, Except: strings.Fields(except)}); got != want {
			t.Errorf("%s: %v", block, got)
		}
	}
}

func TestPrivateRange(t *testing.T) {
	for block, want := range map[string]bool{
		"10.0.0.0/8": true, "10.244.0.0/16": true, "10.1.2.0/24": false, "192.168.1.5/32": false, "0.0.0.0/0": true, "0.0.0.0/0 but 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10": false,
		"fd00::/48": true, "fd00::/64": false, "8.0.0.0/8": false, "10.0.0.0/8 but 10.0.0.0/9": true, "10.0.0.0/16 but 10.0.0.0/17 10.0.128.0/17": false, "nonsense": false,
	} {
		cidr, except, _ := strings.Cut(block, " but ")
		if got := privateRange(&networkingv1.IPBlock{CIDR: cidr, Except: strings.Fields(except)}); got != want {
			t.Errorf("%s: %v", block, got)
		}
	}
}

// knowledge is what an audit may know of an installation: nothing, or its values.
func knowledge(t *testing.T) map[string]*Neighbours {
	return map[string]*Neighbours{"by default": told(t), "by values": told(t, string(read(t, "deploy/knative/values.yaml")))}
}

// installation are the manifests for kubectl, which are the chart's.
func installation(t *testing.T) *Cluster {
	t.Helper()
	return parse(t, string(read(t, "deploy/knative/certloop.yaml")))
}

func errorsOf(r *Report) (all []string) {
	for _, f := range r.Findings {
		if f.Severity == SeverityError {
			all = append(all, fmt.Sprintf("%s %s/%s %s [%s]", f.Level, f.Namespace, f.Object, f.Message, f.Edge))
		}
	}
	return all
}

// What the chart renders is as it should be, and without any of its policies it is not.
func TestEveryPolicyMatters(t *testing.T) {
	for known, n := range knowledge(t) {
		c := installation(t)
		if found := errorsOf(Audit(c, DefaultExclusions(), n)); len(found) > 0 {
			t.Errorf("%s, nothing should be found but\n%s", known, strings.Join(found, "\n"))
		}
		policies := c.Policies
		if len(policies) < 16 {
			t.Fatalf("%d policies, want all", len(policies))
		}
		for i, p := range policies {
			c.Policies = slices.Delete(slices.Clone(policies), i, i+1)
			r := Audit(c, DefaultExclusions(), n)
			judged := slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Level == L2 })
			monitoring := strings.HasSuffix(p.Name, "metrics") || strings.HasSuffix(p.Name, "monitoring")
			if len(judged) == 0 || r.Failed() == monitoring {
				t.Errorf("%s, without %s: failed %v, found %v", known, p.Name, r.Failed(), judged)
			}
		}
	}
}

// hole is a change to a policy of the chart, and the edge that it opens.
type hole struct {
	name, policy string
	change       func(*networkingv1.NetworkPolicySpec)
	edge         string
}

func components(names ...string) func(*networkingv1.NetworkPolicySpec) {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.PodSelector.MatchExpressions[0].Values = append(s.PodSelector.MatchExpressions[0].Values, names...)
	}
}

func ports(first, last int32) []networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(first))}
	if last > first {
		p.EndPort = &last
	}
	return []networkingv1.NetworkPolicyPort{p}
}

func block(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

func podsOfNamespace(name string, labels map[string]string) networkingv1.NetworkPolicyPeer {
	peer := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{nameLabel: name}}}
	if labels != nil {
		peer.PodSelector = &metav1.LabelSelector{MatchLabels: labels}
	}
	return peer
}

func to(first, last int32, peers ...networkingv1.NetworkPolicyPeer) func(*networkingv1.NetworkPolicySpec) {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.Egress = append(s.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports(first, last)})
	}
}

func from(port int32, peers ...networkingv1.NetworkPolicyPeer) func(*networkingv1.NetworkPolicySpec) {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports(port, port)})
	}
}

func holes() []hole {
	everyPod := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}
	return []hole{
		{"expiry-scan asks the CA", "ca", components("expiry-scan"), "expiry-scan → 192.0.2.10/32, TCP 80"},
		{"watch-secrets asks the CA", "ca", components("watch-secrets"), "watch-secrets → 192.0.2.10/32, TCP 80"},
		{"dispatch asks the CA", "ca", components("dispatch"), "dispatch → 192.0.2.10/32, TCP 80"},
		{"all functions ask the CA", "ca", components("watch-secrets", "expiry-scan"), "expiry-scan → 192.0.2.10/32, TCP 80"},
		{"setup asks the API server", "api-server", components("setup"), "setup → 10.0.0.0/8, TCP 6443"},
		{"the internet on 8443", "dns", to(8443, 0, block("0.0.0.0/0")), "enroll → the internet (0.0.0.0/0), TCP 8443"},
		{"the internet but for a little", "dns", to(443, 0, block("0.0.0.0/0", "203.0.113.0/24")), "renew → the internet (0.0.0.0/0), TCP 443"},
		{"the internet in halves", "api-server", to(6443, 0, block("0.0.0.0/1"), block("128.0.0.0/1")), "expiry-scan → the internet (128.0.0.0/1), TCP 6443"},
		{"the other internet", "ca", to(443, 0, block("::/0")), "enroll → the internet (::/0), TCP 443"},
		{"everything", "dns", to(443, 0), "watch-secrets → every peer, inside and outside the cluster, TCP 443"},
		{"every port of the API server", "api-server", to(1, 65535, block("10.0.0.0/8")), "expiry-scan → 10.0.0.0/8, every port"},
		{"one address of another", "api-server", to(9443, 0, block("198.51.100.7/32")), "watch-secrets → 198.51.100.7/32, TCP 9443"},
		{"workloads", "dns", to(8080, 0, podsOfNamespace("shop", nil)), "enroll → every Pod of namespaces kubernetes.io/metadata.name=shop, TCP 8080"},
		{"each other", "dns", to(8080, 0, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}), "renew → every Pod of certloop-system, TCP 8080"},
		{"whatever is beside NATS", "nats", to(4222, 0, podsOfNamespace("nats", nil)), "enroll → every Pod of namespaces kubernetes.io/metadata.name=nats, TCP 4222"},
		{"NATS's monitoring", "nats", to(8222, 0, podsOfNamespace("nats", map[string]string{"app.kubernetes.io/name": "nats"})), "TCP 8222"},
		{"a source to the internet", "sources", to(443, 0, block("0.0.0.0/0")), "ApiServerSource/certloop-secrets → the internet (0.0.0.0/0), TCP 443"},
		{"anybody calls a function", "from-gateway", from(8012, everyPod), "every Pod of the cluster → enroll, TCP 8012"},
		{"private addresses call a function", "from-gateway", from(8012, block("10.0.0.0/8")), "10.0.0.0/8 → enroll, TCP 8012"},
		{"around Knative's proxy", "from-activator", from(8080, podsOfNamespace("knative-serving", map[string]string{"app": "activator"})), "→ renew, TCP 8080"},
		{"a workload calls a function", "from-gateway", from(8012, podsOfNamespace("shop", map[string]string{"app": "web"})), "Pods app=web of namespaces kubernetes.io/metadata.name=shop → enroll, TCP 8012"},
		{"anybody calls dispatch", "dispatch", from(8080, everyPod), "every Pod of the cluster → dispatch, TCP 8080"},
		{"anybody talks to NATS", "nats-clients", from(4222, everyPod), "any Pod of the cluster → NATS, TCP 4222"},
		{"all neighbours talk to NATS", "nats-clients", from(4222, podsOfNamespace("certloop-system", nil)), "any Pod of certloop-system → NATS, TCP 4222"},
		{"private addresses talk to NATS", "nats-clients", from(4222, block("10.0.0.0/8")), "10.0.0.0/8 (which may hold Pods) → NATS, TCP 4222"},
		{"NATS calls the internet", "nats-dns", to(443, 0, block("0.0.0.0/0")), "NATS → the internet (0.0.0.0/0), TCP 443"},
	}
}

func TestEveryHoleIsFound(t *testing.T) {
	for known, n := range knowledge(t) {
		for _, h := range holes() {
			t.Run(h.name+" "+known, func(t *testing.T) {
				c := installation(t)
				i := slices.IndexFunc(c.Policies, func(p networkingv1.NetworkPolicy) bool { return strings.HasSuffix(p.Name, "certloop-"+h.policy) })
				// Rules of a direction count where the policy is for it.
				spec := &c.Policies[i].Spec
				h.change(spec)
				spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
				r := Audit(c, DefaultExclusions(), n)
				if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
					return f.Level == L3 && f.Severity == SeverityError && strings.Contains(f.Edge, h.edge)
				}) {
					t.Errorf("%q is not found, but\n%s", h.edge, strings.Join(errorsOf(r), "\n"))
				}
			})
		}
	}
}

// What the values tell of is wanted, but for the internet.
func TestExtraRules(t *testing.T) {
	const rule = "[{to: [{ipBlock: {cidr: %s}}], ports: [{port: 8200}]}]"
	for cidr, want := range map[string]bool{"198.51.100.7/32": true, "0.0.0.0/0": false} {
		c := installation(t)
		extra := fmt.Sprintf(rule, cidr)
		c.Policies = append(c.Policies, parse(t, policy("certloop-system", "{podSelector: {}, policyTypes: [Egress], egress: "+extra+"}")).Policies...)
		if !Audit(c, DefaultExclusions(), told(t)).Failed() {
			t.Errorf("%s is not found", cidr)
		}
		if r := Audit(c, DefaultExclusions(), told(t, "networkPolicy: {extraEgress: "+extra+"}")); r.Failed() == want {
			t.Errorf("%s, told: %v", cidr, errorsOf(r))
		}
	}
}

// Where the cluster's DNS is elsewhere, values say where.
func TestDNSElsewhere(t *testing.T) {
	for _, namespace := range []string{"openshift-dns", "dns"} {
		labels := map[string]string{"dns.operator.openshift.io/daemonset-dns": "default"}
		c := installation(t)
		for i := range c.Policies {
			for j := range c.Policies[i].Spec.Egress {
				rule := &c.Policies[i].Spec.Egress[j]
				if rule.Ports[0].Port.IntVal == 53 {
					rule.To = []networkingv1.NetworkPolicyPeer{podsOfNamespace(namespace, labels)}
				}
			}
		}
		if found := errorsOf(Audit(c, DefaultExclusions(), told(t))); len(found) == 0 == (namespace == "dns") {
			t.Errorf("%s, not told: %v", namespace, found)
		}
		values := "networkPolicy: {dns: {namespace: " + namespace + ", labels: {k8s-app: null, dns.operator.openshift.io/daemonset-dns: default}}}"
		if found := errorsOf(Audit(c, DefaultExclusions(), told(t, values))); len(found) > 0 {
			t.Errorf("%s, told: %v", namespace, found)
		}
	}
}

// A live cluster knows its API server, and what addresses Pods have.
func TestLiveCluster(t *testing.T) {
	c := installation(t)
	c.Live = true
	c.APIServer = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.5:6443")}
	narrow := func(cidrs ...string) {
		for i := range c.Policies {
			for j := range c.Policies[i].Spec.Egress {
				if rule := &c.Policies[i].Spec.Egress[j]; rule.To[0].IPBlock != nil && rule.Ports[0].Port.IntVal == 6443 {
					rule.To = nil
					for _, cidr := range cidrs {
						rule.To = append(rule.To, block(cidr))
					}
				}
			}
		}
	}
	edges := func() (all []string) {
		for _, f := range Audit(c, DefaultExclusions(), told(t)).Findings {
			if f.Level == L3 {
				all = append(all, f.Edge)
			}
		}
		return all
	}
	narrow("10.0.0.5/32")
	if found := edges(); len(found) > 0 {
		t.Errorf("found %v", found)
	}
	narrow("10.0.0.6/32")
	if found := edges(); !slices.Contains(found, "expiry-scan → the API server, TCP 6443") || !slices.Contains(found, "expiry-scan → 10.0.0.6/32, TCP 6443") {
		t.Errorf("found %v", found)
	}
	narrow("10.0.0.0/16")
	c.Pods = append(c.Pods, Pod{Namespace: "kube-system", Name: "Pod/web", Addrs: []netip.Addr{netip.MustParseAddr("10.0.7.7")}})
	if found := edges(); !slices.Contains(found, "expiry-scan → Pod/web of kube-system (its address is in 10.0.0.0/16), TCP 6443") {
		t.Errorf("found %v", found)
	}
}

// A process with a NATS of its own takes nothing from the role of one without.
func TestEmbeddedNATS(t *testing.T) {
	const pod = "kind: Pod\napiVersion: v1\nmetadata: {name: all, namespace: %s, labels: {app.kubernetes.io/part-of: certloop, app.kubernetes.io/component: all}}\nspec: {containers: [{%s}]}\n---\n"
	const deny = "{podSelector: {}, policyTypes: [Ingress, Egress]}"
	c := parse(t, fmt.Sprintf(pod, "a", "")+fmt.Sprintf(pod, "b", "env: [{name: NATS_URL, value: nats://nats}]")+policy("a", deny)+policy("b", deny))
	found := errorsOf(Audit(c, nil, told(t)))
	for namespace, want := range map[string]bool{"a": false, "b": true} {
		if slices.ContainsFunc(found, func(f string) bool {
			return strings.HasPrefix(f, "L3 "+namespace+"/") && strings.Contains(f, "all → NATS, TCP 4222")
		}) != want {
			t.Errorf("in %s, found %v", namespace, found)
		}
	}
}

// Owners of namespaces learn that certloop keeps certificates where no policy is.
func TestServedNamespaces(t *testing.T) {
	c := installation(t)
	c.Live = true
	c.Namespaces["default"] = nil
	for i := range c.Pods {
		c.Pods[i].Env = map[string]string{"CERTLOOP_NAMESPACES": "certloop-system,default"}
	}
	r := Audit(c, DefaultExclusions(), told(t))
	var found []string
	for _, f := range r.Findings {
		if f.Level == L5 {
			found = append(found, f.Severity+" "+f.Object)
		}
	}
	if !slices.Equal(found, []string{"warning Namespace/default"}) {
		t.Errorf("found %v", found)
	}
}
