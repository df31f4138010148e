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

func (e Edition) osn() string {
	if e == EditionEarlier {
		return osnEndpoints
	}
	return osnAddresses
}

func (e Edition) noun() string {
	if e == EditionEarlier {
		return "security-attribute-namespaces"
	}
	return "security-attribute-namespace"
}

// reasoned is a statement and who needs it.
type reasoned struct {
	Statement
	Why string
}

// builder collects statements. Errors have been told by Check.
type builder struct {
	vcn Attribute
	all []reasoned
}

func (b *builder) allow(why string, from, to Endpoint, protocol string) {
	s := reasoned{Statement{b.vcn, from, to, protocol}, why}
	if !slices.ContainsFunc(b.all, func(o reasoned) bool { return o.String() == s.String() }) {
		b.all = append(b.all, s)
	}
}

func attribute(text string) Endpoint {
	a, _ := ParseAttribute(text)
	return Endpoint{Attribute: &a}
}

func block(cidr string) Endpoint {
	prefix, _ := netip.ParsePrefix(cidr)
	return Endpoint{CIDR: prefix}
}

func tcp(port int) string { return fmt.Sprintf("tcp/%d", port) }

// first is the attribute that statements use where a resource bears several.
func first(attributes []string) Endpoint { return attribute(attributes[0]) }

// statements are what certloop and its cluster need, and nothing else. The plan has
// passed all checks but that of the statements themselves.
func (p *Plan) statements(edition Edition) []reasoned {
	vcn, _ := ParseAttribute(p.VCN)
	b := &builder{vcn: vcn}
	p.allowCAs(b)
	p.allowAPI(b)
	p.allowNATS(b)
	p.allowNodes(b, edition)
	p.allowLoadBalancer(b)
	p.allowFileStorage(b)
	return b.all
}

func (p *Plan) clients() Endpoint { return first(p.pool(p.CAClientsPool).PodAttributes) }

// functionPools are the pools that functions of certloop run on.
func (p *Plan) functionPools() (all []Endpoint) {
	for _, name := range slices.Compact([]string{p.CAClientsPool, p.FunctionsPool}) {
		if name != "" {
			all = append(all, first(p.pool(name).PodAttributes))
		}
	}
	return all
}

func (p *Plan) allowCAs(b *builder) {
	for _, ca := range p.CAs {
		to := block(ca.CIDR)
		if ca.Attribute != "" {
			to = attribute(ca.Attribute)
		}
		b.allow("enroll and renew ask the CA "+ca.Name, p.clients(), to, tcp(ca.Port))
	}
}

func (p *Plan) apiServer() Endpoint {
	if len(p.APIEndpoint.Attributes) > 0 {
		return first(p.APIEndpoint.Attributes)
	}
	return block(p.APIEndpoint.CIDR)
}

func (p *Plan) allowAPI(b *builder) {
	for _, from := range p.functionPools() {
		b.allow("the functions read and write Secrets and configurations", from, p.apiServer(), tcp(apiServerPort))
	}
	for _, cidr := range p.Operators {
		b.allow("operators use kubectl", block(cidr), p.apiServer(), tcp(apiServerPort))
	}
}

func (p *Plan) allowNATS(b *builder) {
	if p.NATSPool == "" {
		return
	}
	nats := first(p.pool(p.NATSPool).PodAttributes)
	for _, from := range p.functionPools() {
		b.allow("the functions take and give work", from, nats, tcp(natsPort))
	}
	b.allow("the servers of NATS find each other", nats, nats, "tcp/6222")
}

// allowNodes: attributes on primary VNICs cut nodes off from the control plane, from
// each other and from the images they pull, unless three statements let them join.
func (p *Plan) allowNodes(b *builder, edition Edition) {
	for _, pool := range p.NodePools {
		if len(pool.NodeAttributes) == 0 {
			continue
		}
		nodes := first(pool.NodeAttributes)
		b.allow("nodes of "+pool.Name+" join the cluster", nodes, Endpoint{All: true}, "")
		b.allow("the control plane reaches the nodes of "+pool.Name, Endpoint{All: true}, nodes, nodesJoinProtocol)
		b.allow("nodes of "+pool.Name+" pull images and log in", nodes, Endpoint{OSN: edition.osn()}, "")
		if len(p.APIEndpoint.Attributes) > 0 {
			b.allow("kubelets of "+pool.Name+" talk to the API endpoint", nodes, p.apiServer(), tcp(apiServerPort))
			b.allow("kubelets of "+pool.Name+" talk to the API endpoint", nodes, p.apiServer(), tcp(nodeToAPIPort))
			b.allow("the API endpoint talks to the kubelets of "+pool.Name, p.apiServer(), nodes, tcp(kubeletPort))
		}
	}
}

func (p *Plan) allowLoadBalancer(b *builder) {
	lb := p.LoadBalancer
	if lb == nil || len(lb.Attributes) == 0 {
		return
	}
	for _, cidr := range lb.Clients {
		b.allow("events come from outside", block(cidr), first(lb.Attributes), tcp(lb.Port))
	}
	b.allow("the load balancer hands events on", first(lb.Attributes), p.functionPools()[0], tcp(lb.NodePort))
}

func (p *Plan) allowFileStorage(b *builder) {
	if p.FileStorage == "" {
		return
	}
	for _, pool := range p.NodePools {
		if len(pool.NodeAttributes) > 0 {
			b.allow("nodes of "+pool.Name+" mount file systems", first(pool.NodeAttributes), attribute(p.FileStorage), fileStoragePorts)
		}
	}
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

// namespaces of the attributes, without ZPR's own, which exists.
func (p *Plan) namespaces() (all []string) {
	for _, a := range p.attributeSet() {
		if a.Namespace != defaultNamespace && !slices.Contains(all, a.Namespace) {
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

// runbook is the order to introduce it all in: what allows before what forbids.
func (p *Plan) runbook() []string {
	steps := []string{
		"Create the namespaces of attributes and the attributes.",
		"Create the IAM statements.",
		"Create the ZPR policy with all statements: it has no effect yet, because nothing bears an attribute.",
		fmt.Sprintf("Put the attribute %s on the VCN.", p.VCN),
	}
	if len(p.APIEndpoint.Attributes) > 0 {
		steps = append(steps, fmt.Sprintf("Put %s on the API endpoint. Check kubectl from an operator's address.", strings.Join(p.APIEndpoint.Attributes, ", ")))
	}
	for _, pool := range p.NodePools {
		steps = append(steps, pool.steps()...)
	}
	if p.LoadBalancer != nil {
		steps = append(steps, fmt.Sprintf("Annotate the LoadBalancer Service, before it is created, with oci.oraclecloud.com/security-attributes for %s.", strings.Join(p.LoadBalancer.Attributes, ", ")))
	}
	if p.FileStorage != "" {
		steps = append(steps, fmt.Sprintf("Name %s in the parameter securityAttributes of the StorageClass; block volumes have no attributes.", p.FileStorage))
	}
	return append(steps,
		"Check every connection of the statements with Network Path Analyzer, and that a certificate is renewed: certloop get -A.",
		"Only now remove the security list and NSG rules that are no longer needed. Traffic must satisfy both ZPR and those.",
	)
}

func (n NodePool) steps() []string {
	attributes := slices.Concat(n.NodeAttributes, n.PodAttributes)
	switch {
	case len(attributes) == 0:
		return nil
	case n.Type == selfManaged:
		return []string{fmt.Sprintf("Replace the nodes of %s by new instances that have %s on their secondary VNICs from their creation: an instance configuration cannot name them.", n.Name, strings.Join(attributes, ", "))}
	default:
		return []string{
			fmt.Sprintf("Put %s on the node pool %s: %s on secondary VNICs (Pods), %s on the primary one (nodes).", strings.Join(attributes, ", "), n.Name, orNone(n.PodAttributes), orNone(n.NodeAttributes)),
			fmt.Sprintf("Replace the nodes of %s (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.", n.Name),
		}
	}
}

func orNone(attributes []string) string {
	if len(attributes) == 0 {
		return "nothing"
	}
	return strings.Join(attributes, ", ")
}
