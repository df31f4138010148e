package netpol

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Cluster is what NetworkPolicies depend on.
type Cluster struct {
	Name       string
	Namespaces map[string]map[string]string // labels by name
	Pods       []Pod
	Policies   []networkingv1.NetworkPolicy
	// APIServer is where the API server listens; unknown in manifests.
	APIServer []netip.AddrPort
	// Live tells that all Pods that exist are known.
	Live bool
}

// Pod is a Pod, or the template of Pods that a workload makes.
type Pod struct {
	Namespace string
	Name      string // with its kind: Deployment/web
	Labels    map[string]string
	Ports     []corev1.ContainerPort
	// HostNetwork Pods are outside of every NetworkPolicy.
	HostNetwork bool
	// Addrs are the Pod's addresses; none where it is not running, as in manifests.
	Addrs []netip.Addr
	// Env are its containers' environment variables; those that come from elsewhere are empty.
	Env map[string]string

	component string // what a Pod of certloop is that has no label to tell
}

// Peer is one end of a connection: a Pod, or an address outside the cluster.
type Peer struct {
	Pod  *Pod
	Addr netip.Addr
}

// Port is the port of a connection's destination.
type Port struct {
	Protocol corev1.Protocol
	Number   int32
}

// direction is one of the two in which a policy isolates.
type direction = networkingv1.PolicyType

// Allowed tells whether the policies let src open a connection to dst.
func (c *Cluster) Allowed(src, dst Peer, port Port) bool {
	return c.passes(networkingv1.PolicyTypeEgress, src, dst, dst, port) && c.passes(networkingv1.PolicyTypeIngress, dst, src, dst, port)
}

// passes judges one end: self is the Pod whose policies count, other its peer.
func (c *Cluster) passes(d direction, self, other, dst Peer, port Port) bool {
	if self.Pod == nil || self.Pod.HostNetwork {
		return true
	}
	isolated := false
	for i := range c.Policies {
		p := &c.Policies[i]
		if !selects(p, self.Pod) || !slices.Contains(directions(p), d) {
			continue
		}
		isolated = true
		if slices.ContainsFunc(rules(p, d), func(r rule) bool { return r.allows(c, p.Namespace, other, dst, port) }) {
			return true
		}
	}
	return !isolated
}

// Isolated tells whether any policy isolates a Pod in a direction.
func (c *Cluster) Isolated(pod *Pod, d direction) bool {
	return slices.ContainsFunc(c.Policies, func(p networkingv1.NetworkPolicy) bool {
		return selects(&p, pod) && slices.Contains(directions(&p), d)
	})
}

func selects(p *networkingv1.NetworkPolicy, pod *Pod) bool {
	return p.Namespace == pod.Namespace && matches(&p.Spec.PodSelector, pod.Labels)
}

// matches treats a selector that cannot be parsed as one that selects nothing; the API
// server stores none.
func matches(selector *metav1.LabelSelector, of map[string]string) bool {
	for key, value := range selector.MatchLabels {
		if got, ok := of[key]; !ok || got != value {
			return false
		}
	}
	if len(selector.MatchExpressions) == 0 {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}

// directions are those a policy isolates in; the default is that of the API server.
func directions(p *networkingv1.NetworkPolicy) []direction {
	switch {
	case len(p.Spec.PolicyTypes) > 0:
		return p.Spec.PolicyTypes
	case len(p.Spec.Egress) > 0:
		return []direction{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	default:
		return []direction{networkingv1.PolicyTypeIngress}
	}
}

// rule is an ingress or an egress rule: no peers mean all, no ports mean all.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rules(p *networkingv1.NetworkPolicy, d direction) (all []rule) {
	if d == networkingv1.PolicyTypeIngress {
		for _, r := range p.Spec.Ingress {
			all = append(all, rule{r.From, r.Ports})
		}
		return all
	}
	for _, r := range p.Spec.Egress {
		all = append(all, rule{r.To, r.Ports})
	}
	return all
}

func (r rule) allows(c *Cluster, namespace string, other, dst Peer, port Port) bool {
	return r.allowsPort(dst, port) && (len(r.peers) == 0 || slices.ContainsFunc(r.peers, func(p networkingv1.NetworkPolicyPeer) bool {
		return c.isPeer(&p, namespace, other)
	}))
}

func (r rule) allowsPort(dst Peer, port Port) bool {
	return len(r.ports) == 0 || slices.ContainsFunc(r.ports, func(p networkingv1.NetworkPolicyPort) bool {
		return isPort(&p, dst, port)
	})
}

func isPort(p *networkingv1.NetworkPolicyPort, dst Peer, port Port) bool {
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	switch {
	case protocol != port.Protocol:
		return false
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.String:
		return dst.Pod != nil && slices.ContainsFunc(dst.Pod.Ports, func(c corev1.ContainerPort) bool {
			return c.Name == p.Port.StrVal && c.ContainerPort == port.Number
		})
	case p.EndPort != nil:
		return p.Port.IntVal <= port.Number && port.Number <= *p.EndPort
	default:
		return p.Port.IntVal == port.Number
	}
}

// isPeer takes an ipBlock to be for the addresses of Pods too, where those are known: the
// API leaves it open, and many networks do it. What addresses the Pods of manifests may
// get is judged apart (see privateRange).
func (c *Cluster) isPeer(p *networkingv1.NetworkPolicyPeer, namespace string, other Peer) bool {
	switch {
	case p.IPBlock != nil && other.Pod != nil:
		return slices.ContainsFunc(other.Pod.Addrs, func(a netip.Addr) bool { return inBlock(p.IPBlock, a) })
	case p.IPBlock != nil:
		return inBlock(p.IPBlock, other.Addr)
	case other.Pod == nil:
		return false
	case !c.inNamespace(p, namespace, other.Pod.Namespace):
		return false
	default:
		return p.PodSelector == nil || matches(p.PodSelector, other.Pod.Labels)
	}
}

// inNamespace tells whether a peer of a policy in one namespace is for the Pods of another.
func (c *Cluster) inNamespace(p *networkingv1.NetworkPolicyPeer, policy, pod string) bool {
	if p.NamespaceSelector == nil {
		return policy == pod
	}
	return matches(p.NamespaceSelector, c.namespaceLabels(pod))
}

// namespaceLabels are those of a namespace, known or not: each has its name among them
// (Kubernetes 1.22).
func (c *Cluster) namespaceLabels(name string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, c.Namespaces[name])
	all[nameLabel] = name
	return all
}

func inBlock(b *networkingv1.IPBlock, addr netip.Addr) bool {
	within := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(addr)
	}
	return within(b.CIDR) && !slices.ContainsFunc(b.Except, within)
}
