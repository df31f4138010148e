package chart

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/cmd/certloop/netpol"
)

// end is an end of a connection, and the ports that are tried when it is the far end.
type end struct {
	peer  netpol.Peer
	ports []netpol.Port
}

func tcp(numbers ...int32) (ports []netpol.Port) {
	for _, n := range numbers {
		ports = append(ports, netpol.Port{Protocol: corev1.ProtocolTCP, Number: n})
	}
	return ports
}

func pod(namespace string, labels map[string]string, ports ...netpol.Port) end {
	return end{netpol.Peer{Pod: &netpol.Pod{Namespace: namespace, Labels: labels}}, ports}
}

func address(addr string, ports ...netpol.Port) end {
	return end{netpol.Peer{Addr: netip.MustParseAddr(addr)}, ports}
}

// neighbours are the others: what certloop has to reach, what has to reach it, and what is
// none of its business.
func neighbours(a arrangement) map[string]end {
	dns := append(tcp(53), netpol.Port{Protocol: corev1.ProtocolUDP, Number: 53})
	return map[string]end{
		"ca":         address("192.0.2.10", tcp(829, 443)...),
		"api":        address("198.51.100.1", tcp(6443, 443)...),
		"internet":   address("203.0.113.7", tcp(80, 443, 829, 4222, 6443)...),
		"dns":        pod("kube-system", map[string]string{"k8s-app": "kube-dns"}, dns...),
		"nats":       pod(a.broker(), map[string]string{"app.kubernetes.io/name": "nats"}, tcp(4222, 6222, 8222, 7777)...),
		"nats-box":   pod(a.broker(), map[string]string{"app.kubernetes.io/name": "nats-box"}, tcp(8080)...),
		"gateway":    pod("kourier-system", map[string]string{"app": "3scale-kourier-gateway"}, tcp(8080, 8081, 8443, 8444)...),
		"activator":  pod("knative-serving", map[string]string{"app": "activator"}, tcp(8012)...),
		"autoscaler": pod("knative-serving", map[string]string{"app": "autoscaler"}, tcp(8080)...),
		"broker":     pod("knative-eventing", map[string]string{"eventing.knative.dev/brokerRole": "ingress"}, tcp(8080, 8443, 9092)...),
		"prometheus": pod("monitoring", map[string]string{"app": "prometheus"}, tcp(9090)...),
		"workload":   pod(a.namespaces()[0], map[string]string{"app": "amf"}, tcp(80, 443, 8080)...),
		"stranger":   pod("elsewhere", map[string]string{"app": "stranger"}, tcp(80, 443, 8080)...),
		"stray":      pod(a.home(), map[string]string{"app": "stray"}, tcp(8080)...),
	}
}

// ours are the Pods of the release, by component, and the adapters that Knative makes for
// its sources.
func ours(t *testing.T, a arrangement, all []*unstructured.Unstructured) map[string]end {
	t.Helper()
	ports := tcp(8080, 8012, 8013, 8022, 8081, 8112, 9090, 9091)
	found := map[string]end{}
	for _, u := range all {
		labels, ok, err := unstructured.NestedStringMap(u.Object, "spec", "template", "metadata", "labels")
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			found[labels["app.kubernetes.io/component"]] = pod(a.home(), labels, ports...)
		}
	}
	for _, source := range of(all, "ApiServerSource") {
		// The labels that Knative gives to a source's adapter.
		labels := map[string]string{"eventing.knative.dev/source": "apiserver-source-controller", "eventing.knative.dev/sourceName": source.GetName()}
		found[strings.TrimPrefix(source.GetName(), release+"-")+"-source"] = pod(a.home(), labels, ports...)
	}
	return found
}

func cluster(t *testing.T, a arrangement, all []*unstructured.Unstructured) *netpol.Cluster {
	t.Helper()
	c := &netpol.Cluster{Namespaces: map[string]map[string]string{}}
	for _, ns := range append(a.namespaces(), a.home(), a.broker(), "kube-system", "kourier-system", "knative-serving", "knative-eventing", "monitoring", "elsewhere") {
		c.Namespaces[ns] = map[string]string{"kubernetes.io/metadata.name": ns}
	}
	for _, u := range of(all, "NetworkPolicy") {
		var p networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, &p, true); err != nil {
			t.Fatal(err)
		}
		c.Policies = append(c.Policies, p)
	}
	return c
}

// reachable is every connection that is let through, from or to certloop, NATS or a Pod that
// strayed into their namespaces.
func reachable(c *netpol.Cluster, mine, others map[string]end) map[string]bool {
	all := maps.Clone(others)
	maps.Copy(all, mine)
	guarded := func(name string) bool {
		_, own := mine[name]
		return own || name == "nats" || name == "nats-box" || name == "stray"
	}
	found := map[string]bool{}
	for from, src := range all {
		for to, dst := range all {
			if !guarded(from) && !guarded(to) || from == to && from != "nats" || src.peer.Pod == nil && dst.peer.Pod == nil {
				continue
			}
			for _, port := range dst.ports {
				if c.Allowed(src.peer, dst.peer, port) {
					found[fmt.Sprintf("%s > %s %s/%d", from, to, port.Protocol, port.Number)] = true
				}
			}
		}
	}
	return found
}

// want is what has to be reachable. Everything else must not be.
func want(a arrangement) map[string]bool {
	found := map[string]bool{}
	allow := func(to string, ports string, from ...string) {
		for _, f := range from {
			for port := range strings.FieldsSeq(ports) {
				found[f+" > "+to+" "+port] = true
			}
		}
	}
	functions := []string{"enroll", "renew", "watch-secrets", "expiry-scan"}
	clients := append(slices.Clone(functions), "setup")
	switch a.profile {
	case "knative":
		clients = append(clients, "dispatch")
		allow("gateway", "TCP/8081 TCP/8444", "dispatch")
	case "plain":
		functions, clients = []string{"all"}, []string{"all"}
	}
	allow("nats", "TCP/4222", clients...)
	allow("dns", "TCP/53 UDP/53", clients...)
	allow("api", "TCP/6443", functions...)
	if a.profile == "plain" {
		allow("ca", "TCP/829", "all")
	} else {
		allow("ca", "TCP/829", "enroll", "renew")
		for _, f := range functions {
			allow(f, "TCP/8012 TCP/8013 TCP/8112", "activator", "gateway")
			allow(f, "TCP/8012 TCP/9090", "autoscaler")
			allow(f, "TCP/9091", "prometheus")
		}
		sources := []string{"certificates-source", "secrets-source"}
		allow("api", "TCP/6443", sources...)
		allow("broker", "TCP/8080 TCP/8443", sources...)
		allow("dns", "TCP/53 UDP/53", sources...)
	}
	allow("nats", "TCP/6222", "nats")
	allow("nats", "TCP/8222 TCP/7777", "prometheus")
	allow("dns", "TCP/53 UDP/53", "nats")
	if a.model == "dedicated" {
		// The namespace is the workload's: its other Pods are its own business, and none of them
		// reaches certloop.
		for name, e := range neighbours(a) {
			if guarded := name == "nats" || name == "nats-box" || name == "stray"; guarded {
				continue
			}
			for _, port := range e.ports {
				allow(name, fmt.Sprintf("%s/%d", port.Protocol, port.Number), "stray")
			}
			allow("stray", "TCP/8080", name)
		}
	}
	return found
}

func TestReachability(t *testing.T) {
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			all := a.objects(t)
			got, want := reachable(cluster(t, a, all), ours(t, a, all), neighbours(a)), want(a)
			for _, connection := range slices.Sorted(maps.Keys(got)) {
				if !want[connection] {
					t.Errorf("let through, and should not be: %s", connection)
				}
			}
			for _, connection := range slices.Sorted(maps.Keys(want)) {
				if !got[connection] {
					t.Errorf("held up, and should not be: %s", connection)
				}
			}
		})
	}
}

// No policy is superfluous, and the test above would notice the loss of any.
func TestEveryPolicyMatters(t *testing.T) {
	for _, a := range arrangements() {
		t.Run(a.String(), func(t *testing.T) {
			all := a.objects(t)
			c, mine, others, want := cluster(t, a, all), ours(t, a, all), neighbours(a), want(a)
			policies := c.Policies
			if len(policies) < 9 {
				t.Fatalf("%d policies, want more", len(policies))
			}
			for i, p := range policies {
				c.Policies = slices.Delete(slices.Clone(policies), i, i+1)
				if maps.Equal(reachable(c, mine, others), want) {
					t.Errorf("without %s/%s nothing changes", p.Namespace, p.Name)
				}
			}
		})
	}
}

// audited are the manifests that `helm template` prints, those for `helm test` among them, and
// what `certloop netpol audit --values` knows of them.
func audited(t *testing.T, a arrangement, overlays ...string) (*netpol.Cluster, *netpol.Neighbours) {
	t.Helper()
	files, err := render(a.home(), a.values(t, overlays...))
	if err != nil {
		t.Fatal(err)
	}
	var manifests strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			manifests.WriteString("---\n" + files[name] + "\n")
		}
	}
	c, err := netpol.Parse("", strings.NewReader(manifests.String()), a.home())
	if err != nil {
		t.Fatal(err)
	}
	values, err := yaml.Marshal(a.values(t, overlays...))
	if err != nil {
		t.Fatal(err)
	}
	n := netpol.DefaultNeighbours()
	if err := n.Values(values); err != nil {
		t.Fatal(err)
	}
	return c, n
}

// variants are arrangements, and values that change who talks to whom.
func variants() map[string]struct {
	arrangement
	values string
} {
	type variant = struct {
		arrangement
		values string
	}
	all := map[string]variant{}
	for _, a := range arrangements() {
		all[a.String()] = variant{a, ""}
	}
	dedicated := arrangement{"knative", "dedicated"}
	all["embedded NATS"] = variant{arrangement{"plain", "dedicated"}, "plain: {embeddedNATS: true, replicas: 1}"}
	all["no Broker"] = variant{dedicated, "broker: {enabled: false}"}
	all["another DNS"] = variant{dedicated, "networkPolicy: {dns: {namespace: dns, labels: {k8s-app: null, app: dns}, nodeLocalIP: 169.254.20.10}}"}
	all["NATS outside"] = variant{dedicated, "nats: {url: nats://nats.example.org:4222}\nnetworkPolicy: {nats: {namespace: \"\", cidrs: [198.51.100.20/32]}}"}
	all["two CAs"] = variant{dedicated, "networkPolicy: {ca: [{name: a, cidrs: [192.0.2.10/32], port: 829}, {name: b, cidrs: [192.0.2.11/32], port: 443}]}"}
	return all
}

// `certloop netpol audit` finds nothing to object to, and misses every policy.
func TestAudit(t *testing.T) {
	for name, v := range variants() {
		t.Run(name, func(t *testing.T) {
			c, n := audited(t, v.arrangement, v.values)
			report := netpol.Audit(c, netpol.DefaultExclusions(), n)
			for _, f := range report.Findings {
				t.Errorf("%s %s %s/%s %s", f.Level, f.Severity, f.Namespace, f.Object, f.Message)
			}
			if report.Pods != len(c.Pods) || report.Pods == 0 {
				t.Errorf("%d Pods were judged, want %d", report.Pods, len(c.Pods))
			}
			policies := c.Policies
			if len(policies) < 4 {
				t.Errorf("%d policies, want more", len(policies))
			}
			for i, p := range policies {
				c.Policies = slices.Delete(slices.Clone(policies), i, i+1)
				if len(netpol.Audit(c, netpol.DefaultExclusions(), n).Findings) == 0 {
					t.Errorf("without %s/%s nothing is found", p.Namespace, p.Name)
				}
			}
		})
	}
}

// The other kinds of NATS and DNS, and what has no address, get policies too.
func TestOtherNetworks(t *testing.T) {
	a := arrangement{"knative", "dedicated"}
	all := a.objects(t, `
networkPolicy:
  nats: {namespace: "", cidrs: [198.51.100.20/32]}
  dns: {nodeLocalIP: "fd00::10"}
nats: {url: "nats://198.51.100.20:4222"}
`)
	c, mine := cluster(t, a, all), ours(t, a, all)
	for name, tt := range map[string]struct {
		to   netpol.Peer
		port netpol.Port
		want bool
	}{
		"nats outside":   {address("198.51.100.20").peer, tcp(4222)[0], true},
		"nats inside":    {neighbours(a)["nats"].peer, tcp(4222)[0], false},
		"node-local dns": {address("fd00::10").peer, netpol.Port{Protocol: corev1.ProtocolUDP, Number: 53}, true},
		"its neighbour":  {address("fd00::11").peer, netpol.Port{Protocol: corev1.ProtocolUDP, Number: 53}, false},
	} {
		if got := c.Allowed(mine["expiry-scan"].peer, tt.to, tt.port); got != tt.want {
			t.Errorf("%s: reached %v, want %v", name, got, tt.want)
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(c.Policies), func(p networkingv1.NetworkPolicy) bool { return p.Namespace == a.home() })); n != 0 {
		t.Errorf("%d policies are in other namespaces, want none where NATS is outside", n)
	}
}

// Several releases with one NATS let their own Pods in, and do not shut out each other's, whoever of
// them holds the policies that all share.
func TestTwoReleases(t *testing.T) {
	const broker = "messaging"
	first, second := arrangement{"knative", "dedicated"}, arrangement{"plain", "dedicated"}
	shared := func(nats string) string { return "networkPolicy: {nats: {namespace: " + broker + nats + "}}" }
	server := pod(broker, map[string]string{"app.kubernetes.io/name": "nats"}).peer
	stranger := pod(broker, map[string]string{"app": "stranger"}).peer
	for name, own := range map[string][2]string{
		"both hold them":  {"", ""},
		"the first does":  {"", ", policies: false"},
		"the second does": {", policies: false", ""},
	} {
		one, other := first.objects(t, shared(own[0])), second.objects(t, shared(own[1]))
		c := cluster(t, first, append(slices.Clone(one), other...))
		for _, ns := range []string{broker, second.home()} {
			c.Namespaces[ns] = map[string]string{"kubernetes.io/metadata.name": ns}
		}
		names := map[string]bool{}
		for _, p := range c.Policies {
			if id := p.Namespace + "/" + p.Name; names[id] || len(p.Name) > 253 {
				t.Errorf("%s: two policies are %s, or the name is too long", name, id)
			} else {
				names[id] = true
			}
		}
		for from, want := range map[netpol.Peer]bool{
			ours(t, first, one)["enroll"].peer: true, ours(t, second, other)["all"].peer: true, stranger: false,
			pod(first.home(), map[string]string{"app": "stray"}).peer: false,
		} {
			if got := c.Allowed(from, server, tcp(4222)[0]); got != want {
				t.Errorf("%s: %v reaches NATS: %v, want %v", name, from.Pod, got, want)
			}
		}
		if !c.Allowed(server, server, tcp(6222)[0]) {
			t.Errorf("%s: NATS's servers do not reach one another", name)
		}
	}
	for _, u := range of(first.objects(t, shared(", policies: false, clients: false")), "NetworkPolicy") {
		if u.GetNamespace() == broker {
			t.Errorf("%s is there all the same", u.GetName())
		}
	}
}

// The table in docs/network.md names every policy.
func TestNetworkIsDocumented(t *testing.T) {
	document, err := os.ReadFile(root + "/docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	a := arrangement{"knative", "shared"}
	for _, u := range of(a.objects(t), "NetworkPolicy") {
		name := strings.TrimPrefix(strings.TrimPrefix(u.GetName(), a.home()+"."), release+"-")
		if !strings.Contains(string(document), "| `"+name+"` |") {
			t.Errorf("docs/network.md does not explain %s", name)
		}
	}
}
