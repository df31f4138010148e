package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A range of more ports than this is as good as every port.
const maxPorts = 64

// A namespace that nobody has a reason to name.
const strangers = "certloop-audit-stranger"

// grant is what one peer of a rule allows a Pod.
type grant struct {
	policy *networkingv1.NetworkPolicy
	rule   string                          // egress[0]
	peer   *networkingv1.NetworkPolicyPeer // nil is everybody
	at     string                          // egress[0].to[1]
	ports  []networkingv1.NetworkPolicyPort
}

func (c *Cluster) grants(pod *Pod, d direction) (all []grant) {
	for i := range c.Policies {
		p := &c.Policies[i]
		if !selects(p, pod) || !slices.Contains(directions(p), d) {
			continue
		}
		for n, r := range rules(p, d) {
			rule := fmt.Sprintf("%s[%d]", strings.ToLower(string(d)), n)
			if len(r.peers) == 0 {
				all = append(all, grant{p, rule, nil, rule, r.ports})
			}
			for m := range r.peers {
				all = append(all, grant{p, rule, &r.peers[m], fmt.Sprintf("%s.%s[%d]", rule, peersField(d), m), r.ports})
			}
		}
	}
	return all
}

// numbers are the ports of a grant. Number 0 stands for all of them, and for what cannot be
// told, as a name.
func numbers(ports []networkingv1.NetworkPolicyPort) (all []Port) {
	if len(ports) == 0 {
		return tcp(0)
	}
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.Port == nil || p.Port.Type == intstr.String || p.EndPort != nil && *p.EndPort-p.Port.IntVal >= maxPorts {
			all = append(all, Port{protocol, 0})
			continue
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		for n := p.Port.IntVal; n <= last; n++ {
			all = append(all, Port{protocol, n})
		}
	}
	return all
}

// block is the ipBlock of a grant, or nil.
func (g *grant) block() *networkingv1.IPBlock {
	if g.peer == nil {
		return nil
	}
	return g.peer.IPBlock
}

// open tells whether a grant names nobody in particular.
func (g *grant) open() bool {
	return g.peer == nil || everyPod(g.peer) || g.block() != nil && internet(g.block())
}

// String says whom a grant is for.
func (g *grant) String() string {
	switch {
	case g.peer == nil:
		return "every peer, inside and outside the cluster"
	case g.open() && g.block() != nil:
		return "the internet (" + g.block().CIDR + ")"
	case g.block() != nil:
		return g.block().CIDR
	case everyPod(g.peer):
		return "every Pod of the cluster"
	case g.peer.NamespaceSelector == nil:
		return selected("Pod", g.peer.PodSelector) + " of " + g.policy.Namespace
	default:
		return selected("Pod", g.peer.PodSelector) + " of " + selected("namespace", g.peer.NamespaceSelector)
	}
}

func selected(what string, s *metav1.LabelSelector) string {
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return "every " + what
	}
	return what + "s " + metav1.FormatLabelSelector(s)
}

// same tells whether two grants name the same addresses and have a port in common.
func (g *grant) same(other *grant) bool {
	if g.block() == nil || !equality.Semantic.DeepEqual(g.block(), other.block()) {
		return false
	}
	ports := numbers(other.ports)
	return slices.ContainsFunc(numbers(g.ports), func(p Port) bool { return slices.Contains(ports, p) })
}

// allowsOnly tells whether all Pods that a grant selects are of a set.
func (c *Cluster) allowsOnly(g *grant, set podSet) bool {
	for key, value := range set.labels {
		if !requires(g.peer.PodSelector, key, value) {
			return false
		}
	}
	names := c.selectedNamespaces(g)
	return len(names) == 1 && (set.namespace == "" || names[0] == set.namespace)
}

// requires tells whether a selector selects only what has a label.
func requires(s *metav1.LabelSelector, key, value string) bool {
	return s != nil && (s.MatchLabels[key] == value || slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		return r.Key == key && r.Operator == metav1.LabelSelectorOpIn && slices.Equal(r.Values, []string{value})
	}))
}

// selectedNamespaces are the namespaces of a grant's peer, of those that are known, those
// that it names itself, and one that nobody knows.
func (c *Cluster) selectedNamespaces(g *grant) (all []string) {
	selector := g.peer.NamespaceSelector
	if selector == nil {
		return []string{g.policy.Namespace}
	}
	names := map[string]bool{strangers: true, selector.MatchLabels[nameLabel]: true}
	for _, r := range selector.MatchExpressions {
		if r.Key == nameLabel {
			for _, value := range r.Values {
				names[value] = true
			}
		}
	}
	for name := range c.Namespaces {
		names[name] = true
	}
	for name := range names {
		if name != "" && matches(selector, c.namespaceLabels(name)) {
			all = append(all, name)
		}
	}
	return all
}

// podIn is a Pod among the addresses of a block that is in none of the sets.
func (c *Cluster) podIn(b *networkingv1.IPBlock, sets []podSet) *Pod {
	for i := range c.Pods {
		pod := &c.Pods[i]
		if pod.HostNetwork || !slices.ContainsFunc(pod.Addrs, func(a netip.Addr) bool { return inBlock(b, a) }) {
			continue
		}
		if !slices.ContainsFunc(sets, func(s podSet) bool { return s.has(pod) }) {
			return pod
		}
	}
	return nil
}

func (s podSet) has(pod *Pod) bool {
	return pod.Namespace == s.namespace && matches(&metav1.LabelSelector{MatchLabels: s.labels}, pod.Labels)
}
