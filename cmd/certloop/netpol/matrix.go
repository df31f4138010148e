package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Components of certloop by their label, and the adapters that Knative runs for its sources.
const (
	componentAll          = "all"
	componentEnroll       = "enroll"
	componentRenew        = "renew"
	componentWatch        = "watch-secrets"
	componentScan         = "expiry-scan"
	componentDispatch     = "dispatch"
	componentSetup        = "setup"
	componentTestAllowed  = "test-allowed"
	componentTestBlocked  = "test-blocked"
	componentSource       = "source"
	componentBrokerSource = "source of a Broker"
)

func functionNames() []string {
	return []string{componentEnroll, componentRenew, componentWatch, componentScan}
}

const (
	serverName       = "the API server"
	loadBalancerName = "the load balancer"
)

// podSet are the Pods of a namespace that have some labels. Without a namespace it is one
// namespace, whichever.
type podSet struct {
	namespace string
	labels    map[string]string
}

// place is an end of connections: Pods, addresses outside the cluster, or either.
type place struct {
	name    string
	pods    []podSet
	outside bool
	cidrs   []netip.Prefix // where outside; unknown when empty
	around  bool           // a block around cidrs does as well
}

func (p *place) unknown() bool { return p.outside && len(p.cidrs) == 0 }

// edge is a kind of connection that there has to be, or may be.
type edge struct {
	place
	must     []Port // all of them; any of them where the place is unknown
	may      []Port
	any      bool   // every port may be
	severity string // of the lack of it; an error when empty
}

func (e *edge) permits(p Port) bool {
	return e.any || slices.Contains(e.must, p) || slices.Contains(e.may, p)
}

// role are the connections of a component, in and out. All others must not be.
type role struct{ in, out []edge }

func tcp(numbers ...int32) (ports []Port) {
	for _, n := range numbers {
		ports = append(ports, Port{corev1.ProtocolTCP, n})
	}
	return ports
}

func (n *Neighbour) pods() []podSet {
	if n.Namespace == "" {
		return nil
	}
	return []podSet{{n.Namespace, n.Labels}}
}

func (n *Neighbours) dns() edge {
	p := place{name: "the cluster's DNS", pods: n.DNS.pods(), outside: true, cidrs: prefixes("169.254.0.0/16")} // a cache on the node
	if n.DNS.NodeLocalIP.IsValid() {
		p.cidrs = append(p.cidrs, netip.PrefixFrom(n.DNS.NodeLocalIP, n.DNS.NodeLocalIP.BitLen()))
	}
	if n.DNS.Namespace == DefaultNeighbours().DNS.Namespace {
		p.pods = append(p.pods, podSet{"openshift-dns", map[string]string{"dns.operator.openshift.io/daemonset-dns": "default"}})
	}
	return edge{place: p, must: append(tcp(53), Port{corev1.ProtocolUDP, 53})}
}

func (n *Neighbours) nats() edge {
	return edge{place: place{name: "NATS", pods: n.NATS.pods(), outside: len(n.NATS.CIDRs) > 0, cidrs: n.NATS.CIDRs}, must: tcp(n.NATS.Port)}
}

// api is the API server: where the values say, where a live cluster says, or an unknown
// address on one of the usual ports.
func (n *Neighbours) api(live []netip.AddrPort) edge {
	e := edge{place: place{name: serverName, outside: true, cidrs: n.APIServer.CIDRs}, must: tcp(n.APIServer.Ports...)}
	switch {
	case len(e.cidrs) > 0:
	case len(live) > 0:
		e.around, e.must = true, nil
		for _, a := range live {
			e.cidrs = append(e.cidrs, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
			if port := tcp(int32(a.Port()))[0]; !slices.Contains(e.must, port) {
				e.must = append(e.must, port)
			}
		}
	default:
		e.must = append(e.must, tcp(443)...)
	}
	return e
}

func (n *Neighbours) cas() (all []edge) {
	for _, ca := range n.CA {
		all = append(all, edge{place: place{name: strings.TrimSpace("the CA " + ca.Name), outside: true, cidrs: ca.CIDRs}, must: tcp(ca.Port)})
	}
	if len(all) == 0 {
		all = append(all, edge{place: place{name: "a CA", outside: true}, any: true})
	}
	return all
}

// roles is who must and may talk to whom.
func (n *Neighbours) roles(api []netip.AddrPort) map[string]role {
	server, dns, nats, cas := n.api(api), n.dns(), n.nats(), n.cas()
	out := func(edges ...edge) []edge { return append(edges, dns) }
	in := n.functionsAreReachedBy()
	gateway := edge{place: place{name: "Knative's gateway", pods: n.Gateway.pods()}, must: tcp(n.Gateway.Ports...)}
	broker := edge{place: place{name: "the Broker's ingress", pods: []podSet{{n.KnativeEventing.Namespace, map[string]string{"eventing.knative.dev/brokerRole": "ingress"}}}}, must: tcp(8080, 8443)}
	client := role{out: out(nats)}
	return map[string]role{
		componentAll:          {n.publishers(8081), out(append(cas, nats, server)...)},
		componentEnroll:       {append(n.publishers(8012), in...), out(append(cas, nats, server)...)},
		componentRenew:        {in, out(append(cas, nats, server)...)},
		componentWatch:        {in, out(nats, server)},
		componentScan:         {in, out(nats, server)},
		componentDispatch:     {out: out(nats, gateway)},
		componentSetup:        client,
		componentTestAllowed:  client,
		componentTestBlocked:  {out: out()},
		componentSource:       {out: []edge{dns, server, gateway}},
		componentBrokerSource: {out: []edge{dns, server, broker}},
	}
}

// Requests come to Knative's proxy beside a function, never to the function's own port.
func (n *Neighbours) functionsAreReachedBy() []edge {
	serving := func(app string) []podSet {
		return []podSet{{n.KnativeServing.Namespace, map[string]string{"app": app}}}
	}
	return []edge{
		{place: place{name: "Knative's activator", pods: serving("activator")}, must: tcp(8012, 8013), may: tcp(8112)},
		{place: place{name: "Knative's gateway", pods: n.Gateway.pods()}, must: tcp(8012, 8013), may: tcp(8112)},
		{place: place{name: "Knative's autoscaler", pods: serving("autoscaler")}, must: tcp(9090), may: tcp(8012)},
		{place: place{name: "the monitoring", pods: n.Monitoring.pods()}, must: tcp(9091), may: tcp(9090), severity: SeverityWarning},
	}
}

// publishers come through a load balancer, where there is one, to Knative's proxy beside enroll or to
// what stands in for it.
func (n *Neighbours) publishers(port int32) []edge {
	if !n.Ingest.Enabled || len(n.Ingest.Subnets) == 0 {
		return nil
	}
	return []edge{{place: place{name: loadBalancerName, outside: true, cidrs: n.Ingest.Subnets}, must: tcp(port)}}
}

// server is the role of NATS itself, without its clients.
func (n *Neighbours) server() role {
	routes := edge{place: place{name: "NATS's other servers", pods: n.NATS.pods()}, must: tcp(6222)}
	monitoring := edge{place: place{name: "the monitoring", pods: n.Monitoring.pods()}, must: tcp(8222), may: tcp(7777), severity: SeverityWarning}
	return role{in: []edge{routes, monitoring}, out: []edge{n.dns(), routes}}
}

func (p Port) String() string {
	if p.Number == 0 {
		return "every port"
	}
	return fmt.Sprintf("%s %d", p.Protocol, p.Number)
}
