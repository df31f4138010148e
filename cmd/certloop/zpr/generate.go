package zpr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Edition is an edition of Oracle's documentation, whose words the output uses.
type Edition string

// Editions differ in two words.
const (
	EditionCurrent Edition = "2026" // osn-services-ip-addresses, security-attribute-namespace
	EditionEarlier Edition = "2024" // osn-services-ip-endpoints, security-attribute-namespaces
)

// Editions are all of them, the current one first.
func Editions() []Edition { return []Edition{EditionCurrent, EditionEarlier} }

func (e Edition) osn() end {
	if e == EditionEarlier {
		return end{at: Endpoint{OSN: osnEndpoints}}
	}
	return end{at: Endpoint{OSN: osnAddresses}}
}

func (e Edition) noun() string {
	if e == EditionEarlier {
		return "security-attribute-namespaces"
	}
	return "security-attribute-namespace"
}

// Ports of the cluster's own parts, as OKE, Knative and NATS have them.
const (
	apiServer     = "tcp/6443"
	nodesToAPI    = "tcp/12250"
	kubelet       = "tcp/10250"
	https         = "tcp/443"
	webhook       = "tcp/8443"
	natsClients   = "tcp/4222"
	natsRoutes    = "tcp/6222"
	scraping      = "tcp/9090" // of Knative's proxy, by its autoscaler
	proxyMetrics  = "tcp/9091" // of the same, by anybody
	enrollInPlain = "tcp/8081"
	enrollsProxy  = "tcp/8012"
)

var (
	dnsPorts      = []string{"udp/53", "tcp/53"}
	proxyPorts    = []string{"tcp/8012-8013", "tcp/8112"} // of Knative's proxy beside a function
	gatewayPorts  = []string{"tcp/8081", "tcp/8444"}      // of Kourier, for what is cluster-local
	brokerPorts   = []string{"tcp/8080", "tcp/8443"}
	monitorsPorts = []string{"tcp/8222", "tcp/7777"} // of NATS, and of its exporter
	filePorts     = []string{"tcp/111", "tcp/2048-2051", "udp/111", "udp/2048"}
)

// reasoned is a statement and who needs it.
type reasoned struct {
	Statement
	Why string
}

// end is an end of a connection: where it is, or the field of the plan that would say so.
type end struct {
	at      Endpoint
	unknown string
}

// guarded ends bear an attribute, so that ZPR stops what no statement allows.
func (e end) guarded() bool { return e.at.Attribute != nil }

var everybody = end{at: Endpoint{All: true}}

func byAttribute(text string) end {
	a, _ := ParseAttribute(text) // has been checked
	return end{at: Endpoint{Attribute: &a}}
}

// byAttributes takes the first attribute, where a resource bears several, or else the addresses.
func byAttributes(attributes []string, cidr, field string) end {
	switch {
	case len(attributes) > 0:
		return byAttribute(attributes[0])
	case cidr != "":
		prefix, _ := netip.ParsePrefix(cidr) // has been checked
		return end{at: Endpoint{CIDR: prefix}}
	default:
		return end{unknown: field}
	}
}

// builder collects statements, and what the plan lacks for them.
type builder struct {
	plan  *Plan
	vcn   Attribute
	all   []reasoned
	lacks problems
}

// allow adds a statement for each protocol, or one for all of them where none is given.
// Between two ends without attributes ZPR stops nothing.
func (b *builder) allow(why string, from, to end, protocols ...string) {
	if !from.guarded() && !to.guarded() {
		return
	}
	if from.unknown != "" || to.unknown != "" {
		b.lack(from.unknown, why)
		b.lack(to.unknown, why)
		return
	}
	if len(protocols) == 0 {
		protocols = []string{""}
	}
	for _, protocol := range protocols {
		b.add(reasoned{Statement{b.vcn, from.at, to.at, protocol}, why})
	}
}

func (b *builder) add(s reasoned) {
	i := slices.IndexFunc(b.all, func(o reasoned) bool { return o.String() == s.String() })
	if i < 0 {
		b.all = append(b.all, s)
	} else if !strings.Contains(b.all[i].Why, s.Why) {
		b.all[i].Why += "; " + s.Why
	}
}

func (b *builder) lack(field, why string) {
	if field != "" && !slices.ContainsFunc(b.lacks, func(p Problem) bool { return p.Field == field }) {
		b.lacks.add(field, "is missing, and ZPR would cut this off: %s; say where it is, so that a statement allows it", why)
	}
}

// Ends that the plan names.

func (b *builder) pods(pool string) end {
	i := slices.IndexFunc(b.plan.NodePools, func(n NodePool) bool { return n.Name == pool })
	n := b.plan.NodePools[i]
	return byAttributes(n.PodAttributes, n.PodCIDR, poolField(i, "podCIDR"))
}

func (b *builder) nodes(i int) end {
	n := b.plan.NodePools[i]
	return byAttributes(n.NodeAttributes, n.NodeCIDR, poolField(i, "nodeCIDR"))
}

func (b *builder) place(place *Place, field string) end {
	switch {
	case place == nil:
		return end{unknown: field}
	case place.Pool != "":
		return b.pods(place.Pool)
	case place.Attribute != "":
		return byAttribute(place.Attribute)
	default:
		return byAttributes(nil, place.CIDR, field)
	}
}

func (b *builder) api() end {
	return byAttributes(b.plan.APIEndpoint.Attributes, b.plan.APIEndpoint.CIDR, "apiEndpoint")
}

func (b *builder) clients() end { return b.pods(b.plan.CAClientsPool) }

// others is where watch-secrets, expiry-scan, dispatch and setup run.
func (b *builder) others() end {
	if b.plan.FunctionsPool == "" {
		return b.clients()
	}
	return b.pods(b.plan.FunctionsPool)
}

// functions are the pools that functions run on.
func (b *builder) functions() []end {
	if b.plan.FunctionsPool == "" || b.plan.FunctionsPool == b.plan.CAClientsPool || b.plan.Profile == plain {
		return []end{b.clients()}
	}
	return []end{b.clients(), b.others()}
}

// statements are what certloop and its cluster need, and nothing else; and what the plan
// lacks for more. All of the plan but this has been checked.
func (p *Plan) statements(edition Edition) ([]reasoned, []Problem) {
	vcn, _ := ParseAttribute(p.VCN)
	b := &builder{plan: p, vcn: vcn}
	b.allowCAs()
	b.allowFunctions()
	b.allowKnative()
	b.allowNATS()
	b.allowAPI(edition)
	b.allowPools(edition)
	b.allowLoadBalancer()
	return b.all, b.lacks
}

func (b *builder) allowCAs() {
	for i, ca := range b.plan.CAs {
		var attributes []string
		if ca.Attribute != "" {
			attributes = []string{ca.Attribute}
		}
		b.allow("enroll and renew ask the CA "+ca.Name, b.clients(), byAttributes(attributes, ca.CIDR, caField(i, "cidr")), fmt.Sprintf("tcp/%d", ca.Port))
	}
}

func (b *builder) allowFunctions() {
	nats, dns := b.place(b.plan.NATS, "nats"), b.place(b.plan.DNS, "dns")
	for _, from := range b.functions() {
		b.allow("the functions read and write Secrets and configurations", from, b.api(), apiServer)
		b.allow("the functions resolve names", from, dns, dnsPorts...)
		b.allow("the functions take and give work", from, nats, natsClients)
		if b.plan.Monitoring != nil && b.plan.Profile != plain {
			b.allow("metrics are scraped", b.place(b.plan.Monitoring, "monitoring"), from, proxyMetrics)
		}
	}
}

// allowKnative: requests come to a function from the activator or the gateway, never from
// who sent them.
func (b *builder) allowKnative() {
	if b.plan.Profile == plain {
		return
	}
	k := b.plan.Knative
	if k == nil {
		k = &Knative{}
	}
	serving := b.place(k.Serving, "knative.serving")
	part := func(place *Place, field string) end {
		if place == nil {
			return serving
		}
		return b.place(place, field)
	}
	gateway, eventing, sources := part(k.Gateway, "knative.gateway"), part(k.Eventing, "knative.eventing"), part(k.Sources, "knative.sources")
	for _, to := range b.functions() {
		b.allow("the activator hands requests on", serving, to, proxyPorts...)
		b.allow("the gateway hands requests on", gateway, to, proxyPorts...)
		b.allow("the autoscaler asks how much there is to do", serving, to, enrollsProxy, scraping)
	}
	if b.plan.Profile != knativeDirect {
		b.allow("dispatch wakes functions", b.others(), gateway, gatewayPorts...)
	}
	b.allow("the Broker and the PingSources send to functions", eventing, gateway, gatewayPorts...)
	b.allow("the adapters of ApiServerSources send to the Broker", sources, eventing, brokerPorts...)
	b.allow("the adapters of ApiServerSources watch", sources, b.api(), apiServer)
	b.allow("the adapters of ApiServerSources resolve names", sources, b.place(b.plan.DNS, "dns"), dnsPorts...)
	parts := []end{serving, gateway, eventing}
	for _, from := range parts {
		b.allow("Knative's webhooks judge objects", b.api(), from, webhook)
		for _, to := range parts {
			b.allow("Knative's parts talk to each other", from, to)
		}
	}
}

func (b *builder) allowNATS() {
	if b.plan.NATS == nil {
		return // which has been told
	}
	nats := b.place(b.plan.NATS, "nats")
	if b.plan.NATS.Pool != "" {
		b.allow("the servers of NATS find each other", nats, nats, natsRoutes)
	}
	if b.plan.Monitoring != nil {
		b.allow("metrics are scraped", b.place(b.plan.Monitoring, "monitoring"), nats, monitorsPorts...)
	}
}

func (b *builder) allowAPI(edition Edition) {
	for i, cidr := range b.plan.Operators {
		b.allow("operators use kubectl", byAttributes(nil, cidr, fmt.Sprintf("operators[%d]", i)), b.api(), apiServer)
	}
	b.allow("the API endpoint talks to the services that run the cluster", b.api(), edition.osn(), https)
}

// allowPools: an attribute on the API endpoint or on primary VNICs cuts nodes off from the
// control plane, from each other and from the images they pull, and one on secondary VNICs
// the Pods from the API server and from names. That goes for all pools, also for those
// that have nothing to do with certloop.
func (b *builder) allowPools(edition Edition) {
	for i, pool := range b.plan.NodePools {
		nodes, pods := b.nodes(i), b.pods(pool.Name)
		if nodes.guarded() {
			b.allow("nodes of "+pool.Name+" join the cluster", nodes, everybody)
			b.allow("the control plane reaches the nodes of "+pool.Name, everybody, nodes, https)
			b.allow("nodes of "+pool.Name+" pull images and log in", nodes, edition.osn())
		}
		b.allow("kubelets of "+pool.Name+" talk to the API endpoint", nodes, b.api(), apiServer, nodesToAPI)
		b.allow("the API endpoint talks to the kubelets of "+pool.Name, b.api(), nodes, kubelet)
		b.allow("Pods of "+pool.Name+" talk to the API server", pods, b.api(), apiServer)
		b.allow("Pods of "+pool.Name+" resolve names", pods, b.place(b.plan.DNS, "dns"), dnsPorts...)
		if b.plan.FileStorage != "" {
			b.allow("nodes of "+pool.Name+" mount file systems", nodes, byAttribute(b.plan.FileStorage), filePorts...)
		}
	}
}

// allowLoadBalancer: that of a Service connects to a port of the nodes and stays on the
// node, that of a native ingress to Pods.
func (b *builder) allowLoadBalancer() {
	lb := b.plan.LoadBalancer
	if lb == nil {
		return
	}
	balancer := byAttribute(lb.Attributes[0])
	for i, cidr := range lb.Clients {
		b.allow("events come from outside", byAttributes(nil, cidr, fmt.Sprintf("loadBalancer.clients[%d]", i)), balancer, fmt.Sprintf("tcp/%d", lb.Port))
	}
	if lb.By == byIngress {
		port := enrollsProxy
		if b.plan.Profile == plain {
			port = enrollInPlain
		}
		b.allow("the load balancer hands events on", balancer, b.clients(), port)
		return
	}
	i := slices.IndexFunc(b.plan.NodePools, func(n NodePool) bool { return n.Name == b.plan.CAClientsPool })
	b.allow("the load balancer hands events on", balancer, b.nodes(i), fmt.Sprintf("tcp/%d", lb.NodePort))
	b.allow("the load balancer asks which node has enroll", balancer, b.nodes(i), fmt.Sprintf("tcp/%d", lb.HealthCheckNodePort))
}

// attributeSet are the attributes of the plan, each once, in order.
func (p *Plan) attributeSet() (all []Attribute) {
	texts := slices.Clone(p.Attributes)
	for _, u := range p.uses() {
		texts = append(texts, u.attributes...)
	}
	slices.Sort(texts)
	for _, text := range slices.Compact(texts) {
		if a, err := ParseAttribute(text); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// namespaces of the attributes.
func (p *Plan) namespaces() (all []string) {
	for _, a := range p.attributeSet() {
		if !slices.Contains(all, a.Namespace) {
			all = append(all, a.Namespace)
		}
	}
	return all
}

// iam are the IAM policy statements that let people, the cluster and its node pools
// attach the attributes.
func (p *Plan) iam(edition Edition) []string {
	noun, group, compartment := edition.noun(), p.IAM.Group, p.IAM.Compartment
	var all []string
	if p.IAM.TenancyWide {
		all = append(all, fmt.Sprintf("Allow group %s to use %s in tenancy", group, noun))
	} else {
		for _, ns := range p.namespaces() {
			all = append(all, fmt.Sprintf("Allow group %s to use %s in tenancy where target.security-attribute-namespace.name = '%s'", group, noun, ns))
		}
		if p.IAM.Console {
			all = append(all, fmt.Sprintf("Allow group %s to inspect %s in tenancy", group, noun))
		}
	}
	all = append(all,
		fmt.Sprintf("Allow any-user to use %s in compartment %s where request.principal.type = 'cluster'", noun, compartment),
		fmt.Sprintf("Allow any-user to manage %s in compartment %s where request.principal.type = 'nodepool'", noun, compartment))
	return all
}
