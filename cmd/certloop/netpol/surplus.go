package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// surplus finds what is possible and must not be.
func (s *subject) surplus(d direction, edges []edge) {
	verb := "must not reach"
	if d == networkingv1.PolicyTypeIngress {
		verb = "must not be reached by"
	}
	if !s.cluster.Isolated(s.pod, d) {
		s.find(SeverityError, s.arrow(d, "anybody", Port{}), fmt.Sprintf("%s %s anybody, and no policy isolates it (%s)", s.name, verb, d), s.remedy(d))
		return
	}
	for _, g := range s.cluster.grants(s.pod, d) {
		whom, ports := s.beyond(d, &g, edges)
		for _, port := range ports {
			s.find(SeverityError, s.arrow(d, whom, port), fmt.Sprintf("%s %s %s on %s, and NetworkPolicy %s lets it (%s)", s.name, verb, whom, port, g.policy.Name, g.at), s.remedy(d))
		}
	}
}

func (s *subject) remedy(d direction) string {
	var names []string
	edges := s.role.out
	if d == networkingv1.PolicyTypeIngress {
		edges = s.role.in
	}
	for _, e := range edges {
		names = append(names, e.name)
	}
	if len(names) == 0 {
		names = append(names, "nobody")
	}
	return "allow " + strings.Join(names, ", ") + " alone; what you want besides is told by --values"
}

// beyond is what a grant allows that no edge does: whom, on which ports.
func (s *subject) beyond(d direction, g *grant, edges []edge) (whom string, ports []Port) {
	whom, ports = g.String(), numbers(g.ports)
	switch {
	case g.open():
		return whom, ports
	case s.tolerant:
		if b := g.block(); b != nil && d == networkingv1.PolicyTypeIngress && !s.cluster.Live && privateRange(b) {
			return whom + " (which may hold Pods)", ports
		}
		return "", nil
	case s.wanted(d, g):
		return "", nil
	}
	if b := g.block(); b != nil && d == networkingv1.PolicyTypeEgress {
		if pod := s.cluster.podIn(b, podsOf(edges)); pod != nil {
			return fmt.Sprintf("%s of %s (its address is in %s)", pod.Name, pod.Namespace, b.CIDR), ports
		}
	}
	return whom, slices.DeleteFunc(ports, func(p Port) bool {
		return slices.ContainsFunc(edges, func(e edge) bool { return e.permits(p) && s.accepts(&e, g) })
	})
}

func podsOf(edges []edge) (all []podSet) {
	for _, e := range edges {
		all = append(all, e.pods...)
	}
	return all
}

// wanted tells whether a grant is one of the extra rules of the values.
func (s *subject) wanted(d direction, g *grant) bool {
	extra := networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: s.neighbours.ExtraIngress, Egress: s.neighbours.ExtraEgress}}
	ports := numbers(g.ports)
	return slices.ContainsFunc(rules(&extra, d), func(r rule) bool {
		return equality.Semantic.DeepEqual(numbers(r.ports), ports) && slices.ContainsFunc(r.peers, func(p networkingv1.NetworkPolicyPeer) bool {
			return equality.Semantic.DeepEqual(&p, g.peer)
		})
	})
}

// accepts tells whether all that a grant names is of an edge's place.
func (s *subject) accepts(e *edge, g *grant) bool {
	b := g.block()
	if b == nil {
		return slices.ContainsFunc(e.pods, func(set podSet) bool { return s.cluster.allowsOnly(g, set) })
	}
	if !e.unknown() {
		return e.isAt(b)
	}
	// What all functions may reach on the API server's port is taken to be it, and no other
	// address there; what only those may reach that ask CAs, is a CA.
	return e.any || s.isEverybodys(g)
}

// isAt tells whether a block is of a place's addresses.
func (p *place) isAt(b *networkingv1.IPBlock) bool {
	block, err := netip.ParsePrefix(b.CIDR)
	return err == nil && slices.ContainsFunc(p.cidrs, func(c netip.Prefix) bool {
		return contains(c, block) || p.around && contains(block, c)
	})
}

// fellows are the first Pod of each of some functions in the same namespace.
func (s *subject) fellows(names []string) (all []*Pod) {
	for _, name := range names {
		for i := range s.cluster.Pods {
			if pod := &s.cluster.Pods[i]; pod.Namespace == s.pod.Namespace && component(pod) == name {
				all = append(all, pod)
				break
			}
		}
	}
	return all
}

func (s *subject) mayAlso(pod *Pod, g *grant) bool {
	return slices.ContainsFunc(s.cluster.grants(pod, networkingv1.PolicyTypeEgress), func(other grant) bool { return other.same(g) })
}

func (s *subject) isEverybodys(g *grant) bool {
	return !slices.ContainsFunc(s.fellows(functionNames()), func(pod *Pod) bool { return !s.mayAlso(pod, g) })
}

// towards tells whether a place that nobody knows can be reached: the API server by its port,
// a CA by what goes beyond what everybody may.
func (s *subject) towards(e *edge) bool {
	server := s.serverRule()
	return slices.ContainsFunc(s.outside(), func(g grant) bool {
		if !e.any {
			return g.policy.Name+g.rule == server
		}
		others := s.fellows([]string{componentWatch, componentScan})
		return g.policy.Name+g.rule != server && !slices.ContainsFunc(others, func(pod *Pod) bool { return s.mayAlso(pod, &g) })
	})
}

// outside are the grants of addresses that are those of no place that is known but the API
// server.
func (s *subject) outside() []grant {
	return slices.DeleteFunc(s.cluster.grants(s.pod, networkingv1.PolicyTypeEgress), func(g grant) bool {
		return g.block() == nil || g.open() || !slices.ContainsFunc(numbers(g.ports), func(p Port) bool {
			return !slices.ContainsFunc(s.role.out, func(e edge) bool { return !e.any && e.name != serverName && e.permits(p) })
		})
	})
}

// serverRule is the rule by which a Pod reaches the API server; that which all functions
// have, where nobody knows better.
func (s *subject) serverRule() string {
	i := slices.IndexFunc(s.role.out, func(e edge) bool { return e.name == serverName })
	if i < 0 {
		return ""
	}
	e := &s.role.out[i]
	all := slices.DeleteFunc(s.outside(), func(g grant) bool {
		return !slices.ContainsFunc(numbers(g.ports), e.permits) || !e.unknown() && !e.isAt(g.block())
	})
	for _, g := range all {
		if s.isEverybodys(&g) {
			return g.policy.Name + g.rule
		}
	}
	if len(all) > 0 {
		return all[0].policy.Name + all[0].rule
	}
	return ""
}
