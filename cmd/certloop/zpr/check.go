package zpr

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	utilversion "k8s.io/apimachinery/pkg/util/version"
)

// Limits of ZPR for OKE.
const (
	minKubernetes = "1.32.0"
	maxAttributes = 5 // on one endpoint
)

// Problem is what makes a plan one that cannot be carried out.
type Problem struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func (p Problem) Error() string { return p.Field + ": " + p.Reason }

// problems are collected.
type problems []Problem

func (ps *problems) add(field, reason string, args ...any) {
	*ps = append(*ps, Problem{field, fmt.Sprintf(reason, args...)})
}

// Problems are everything about a plan that ZPR or OKE would refuse, or that would block
// traffic silently.
func (p *Plan) Problems() []Problem {
	var all problems
	p.checkCluster(&all)
	p.checkPools(&all)
	p.checkPlaces(&all)
	p.checkEnds(&all)
	p.checkLoadBalancer(&all)
	p.checkBlocks(&all)
	p.checkAttributes(&all)
	if len(all) == 0 {
		p.checkStatements(&all)
	}
	return all
}

// Check is Problems as an error.
func (p *Plan) Check() error {
	var errs []error
	for _, problem := range p.Problems() {
		errs = append(errs, problem)
	}
	return errors.Join(errs...)
}

func poolField(i int, field string) string { return fmt.Sprintf("nodePools[%d].%s", i, field) }
func caField(i int, field string) string   { return fmt.Sprintf("cas[%d].%s", i, field) }

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (p *Plan) checkCluster(all *problems) {
	v, err := utilversion.ParseGeneric(p.KubernetesVersion)
	switch {
	case err != nil:
		all.add("kubernetesVersion", "%v", err)
	case v.LessThan(utilversion.MustParseGeneric(minKubernetes)):
		all.add("kubernetesVersion", "%s is older than 1.32, the first that OKE supports with ZPR: upgrade the cluster", p.KubernetesVersion)
	}
	if p.PodNetwork != vcnNative {
		all.add("podNetwork", "%s: ZPR needs the OCI VCN-native Pod networking plugin in a version that knows it; flannel hides Pods behind their node", p.PodNetwork)
	}
	if p.EndpointNetwork != vcnNative {
		all.add("endpointNetwork", "%s: the API endpoint must be VCN-native, integrated into your own VCN", p.EndpointNetwork)
	}
}

func (p *Plan) checkPools(all *problems) {
	seen := map[string]bool{}
	for i, pool := range p.NodePools {
		field := fmt.Sprintf("nodePools[%d]", i)
		switch pool.Type {
		case "", managed:
		case selfManaged:
			if len(pool.NodeAttributes) > 0 {
				all.add(field+".nodeAttributes", "%s is self-managed: OKE takes attributes of such nodes on their secondary VNICs only, named when an instance is created: set nodeCIDR in their place", pool.Name)
			}
		case virtual:
			all.add(field, "%s is virtual: ZPR supports managed and self-managed nodes only", pool.Name)
		default:
			all.add(field+".type", "%s is neither managed nor self-managed", pool.Type)
		}
		if pool.Name == "" || seen[pool.Name] {
			all.add(field+".name", "%q: every node pool needs a name of its own", pool.Name)
		}
		seen[pool.Name] = true
	}
	p.checkCAClients(all)
	if p.FunctionsPool != "" && p.pool(p.FunctionsPool) == nil {
		all.add("functionsPool", "%q is no node pool of the plan", p.FunctionsPool)
	}
	if p.FunctionsPool != "" && p.Profile == plain {
		all.add("functionsPool", "with profile plain all functions run in one Pod, on caClientsPool: remove it")
	}
}

// checkCAClients: the fence is around a node pool, and only around that one.
func (p *Plan) checkCAClients(all *problems) {
	clients := p.pool(p.CAClientsPool)
	if clients == nil || len(clients.PodAttributes) == 0 {
		all.add("caClientsPool", "%q is no node pool of the plan with podAttributes", p.CAClientsPool)
		return
	}
	for i, pool := range p.NodePools {
		if pool.Name != clients.Name && slices.Contains(pool.PodAttributes, clients.PodAttributes[0]) {
			all.add(poolField(i, "podAttributes"), "%s bears %s, by which %s may talk to the CAs, and so could every Pod of %[1]s: give it another one", pool.Name, clients.PodAttributes[0], clients.Name)
		}
	}
}

// checkPlaces looks at what each place says. That one is missing is told by who needs it.
func (p *Plan) checkPlaces(all *problems) {
	if !slices.Contains([]string{"", knative, knativeDirect, plain}, p.Profile) {
		all.add("profile", "%s is not one of %s, %s, %s", p.Profile, knative, knativeDirect, plain)
	}
	if p.Profile == plain && p.Knative != nil {
		all.add("knative", "profile plain runs without Knative: remove it")
	}
	places := p.places()
	for _, field := range sorted(places) {
		place, set := places[field], 0
		for _, text := range []string{place.Pool, place.Attribute, place.CIDR} {
			if text != "" {
				set++
			}
		}
		if set != 1 {
			all.add(field, "set one of pool, attribute and cidr")
		}
		if place.Pool != "" && p.pool(place.Pool) == nil {
			all.add(field+".pool", "%q is no node pool of the plan", place.Pool)
		}
	}
}

// checkEnds looks at what is reached by address or attribute.
func (p *Plan) checkEnds(all *problems) {
	if len(p.CAs) == 0 {
		all.add("cas", "name at least one: an empty list would mean that nobody reaches a CA, and never that everybody does")
	}
	for i, ca := range p.CAs {
		if (ca.Attribute == "") == (ca.CIDR == "") {
			all.add(fmt.Sprintf("cas[%d]", i), "set attribute when %s is in the same VCN, cidr otherwise", ca.Name)
		}
		all.port(caField(i, "port"), ca.Port)
	}
	if (len(p.APIEndpoint.Attributes) == 0) == (p.APIEndpoint.CIDR == "") {
		all.add("apiEndpoint", "set attributes or cidr")
	}
	if len(p.APIEndpoint.Attributes) > 0 && len(p.Operators) == 0 {
		all.add("operators", "name the blocks of addresses that kubectl is used from: the API endpoint bears attributes, and ZPR would cut them off")
	}
	if p.IAM.Group == "" || p.IAM.Compartment == "" {
		all.add("iam", "set group and compartment")
	}
}

func (p *Plan) checkLoadBalancer(all *problems) {
	lb := p.LoadBalancer
	if lb == nil {
		return
	}
	if len(lb.Attributes) == 0 {
		all.add("loadBalancer.attributes", "name at least one: ZPR guards nothing without, and the annotation would be empty; a load balancer without attributes is left out of the plan")
	}
	if len(lb.Clients) == 0 {
		all.add("loadBalancer.clients", "name the blocks of addresses that send events")
	}
	all.port("loadBalancer.port", lb.Port)
	switch lb.By {
	case "", byService:
		all.port("loadBalancer.nodePort", lb.NodePort)
		all.port("loadBalancer.healthCheckNodePort", lb.HealthCheckNodePort)
	case byIngress:
	default:
		all.add("loadBalancer.by", "%s is neither %s nor %s", lb.By, byService, byIngress)
	}
}

func (ps *problems) port(field string, port int) {
	if port < 1 || port > 65535 {
		ps.add(field, "%d is not within 1 to 65535", port)
	}
}

func (p *Plan) checkBlocks(all *problems) {
	blocks := p.blocks()
	for _, field := range sorted(blocks) {
		if prefix, err := netip.ParsePrefix(blocks[field]); err != nil {
			all.add(field, "%v", err)
		} else if prefix.Bits() == 0 {
			all.add(field, "%s is every address: name those that are meant", prefix)
		}
	}
}

// blocks are the blocks of addresses that the plan names, by field.
func (p *Plan) blocks() map[string]string {
	all := map[string]string{"apiEndpoint.cidr": p.APIEndpoint.CIDR}
	for i, cidr := range p.Operators {
		all[fmt.Sprintf("operators[%d]", i)] = cidr
	}
	for i, ca := range p.CAs {
		all[caField(i, "cidr")] = ca.CIDR
	}
	for i, pool := range p.NodePools {
		all[poolField(i, "podCIDR")], all[poolField(i, "nodeCIDR")] = pool.PodCIDR, pool.NodeCIDR
	}
	for field, place := range p.places() {
		all[field+".cidr"] = place.CIDR
	}
	if p.LoadBalancer != nil {
		for i, cidr := range p.LoadBalancer.Clients {
			all[fmt.Sprintf("loadBalancer.clients[%d]", i)] = cidr
		}
	}
	maps.DeleteFunc(all, func(_, cidr string) bool { return cidr == "" })
	return all
}

// checkNames: to ZPR, names that differ in case alone are one.
func (p *Plan) checkNames(all *problems) {
	seen := map[string]string{}
	for _, a := range p.attributeSet() {
		for _, name := range []string{a.Namespace, a.Namespace + "." + a.Key} {
			other, ok := seen[strings.ToLower(name)]
			if ok && other != name {
				all.add("attributes", "%s and %s: ZPR takes names that differ in case alone for one: write them alike", other, name)
			}
			seen[strings.ToLower(name)] = name
		}
	}
}

func (p *Plan) checkAttributes(all *problems) {
	p.checkNames(all)
	for _, u := range p.uses() {
		if len(u.attributes) > maxAttributes {
			all.add(u.field, "%d attributes, at most %d fit on one resource", len(u.attributes), maxAttributes)
		}
		keys := map[Attribute]bool{}
		for _, text := range u.attributes {
			a, err := ParseAttribute(text)
			if err != nil {
				all.add(u.field, "%v", err)
				continue
			}
			if len(p.Attributes) > 0 && !slices.Contains(p.Attributes, text) {
				all.add(u.field, "attribute %s is not among the plan's attributes: define it, or correct it", text)
			}
			key := Attribute{a.Namespace, a.Key, ""}
			if keys[key] {
				all.add(u.field, "%s.%s is there twice: a resource has one value of it", a.Namespace, a.Key)
			}
			keys[key] = true
		}
	}
}

// checkStatements tells who is cut off: a resource with an attribute that no statement is
// about, and who needs somebody of whom the plan does not say where he is.
func (p *Plan) checkStatements(all *problems) {
	statements, lacks := p.statements(EditionCurrent)
	*all = append(*all, lacks...)
	if len(lacks) == 0 {
		all.cutOff(p.uses()[1:], statements) // the VCN is no endpoint
	}
}

func (ps *problems) cutOff(uses []use, statements []reasoned) {
	for _, u := range uses {
		about := slices.ContainsFunc(statements, func(s reasoned) bool { return s.From.bears(u.attributes) || s.To.bears(u.attributes) })
		if len(u.attributes) > 0 && !about {
			ps.add(u.field, "no statement allows anything to or from %s: the resource would be cut off; remove the attribute, or say in the plan who talks to it", strings.Join(u.attributes, ", "))
		}
	}
}

// bears tells whether an endpoint is one by one of the attributes.
func (e Endpoint) bears(attributes []string) bool {
	return e.Attribute != nil && slices.ContainsFunc(attributes, func(text string) bool {
		a, err := ParseAttribute(text)
		return err == nil && a == *e.Attribute
	})
}
