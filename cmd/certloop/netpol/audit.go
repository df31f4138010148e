package netpol

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// Level says what a finding is about.
type Level string

// Levels of findings, from coarse to fine.
const (
	L0 Level = "L0" // a namespace has no NetworkPolicy at all
	L1 Level = "L1" // a Pod is not isolated in a direction
	L2 Level = "L2" // a rule allows everything
	L3 Level = "L3" // a Pod of certloop reaches too much or too little, or is reached so
	L5 Level = "L5" // a namespace with certloop's certificates has no NetworkPolicy
)

// Severities of findings. Only errors make an audit fail.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Level     Level  `json:"level"`
	Severity  string `json:"severity"`
	Cluster   string `json:"cluster,omitempty"`
	Namespace string `json:"namespace"`
	Object    string `json:"object,omitempty"` // Kind/name
	Message   string `json:"message"`
	Remedy    string `json:"remedy"`
	Edge      string `json:"edge,omitempty"` // L3: the connection that is wrong, from → to, port
}

// Verdicts on the namespaces of a cluster.
const (
	VerdictAll  = "all namespaces have a NetworkPolicy"
	VerdictSome = "some namespaces lack a NetworkPolicy"
	VerdictNone = "no namespace has a NetworkPolicy"
)

// Report is the audit of one cluster.
type Report struct {
	Cluster    string    `json:"cluster,omitempty"`
	Verdict    string    `json:"verdict"`
	Namespaces int       `json:"namespaces"` // judged
	Pods       int       `json:"pods"`       // judged
	NotJudged  []string  `json:"notJudged,omitempty"`
	Findings   []Finding `json:"findings"`
}

// Failed tells whether there is an error among the findings.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == SeverityError })
}

// DefaultExclusions are the namespaces that belong to Kubernetes itself.
func DefaultExclusions() []string {
	return []string{"kube-system", "kube-public", "kube-node-lease", "default"}
}

// Audit judges a cluster. Excluded namespaces are not judged; those of them that run Pods
// are listed. Neighbours say where those are that certloop has to do with.
func Audit(c *Cluster, excluded []string, neighbours *Neighbours) *Report {
	a := &audit{cluster: c, excluded: excluded, neighbours: neighbours, report: &Report{Cluster: c.Name, Findings: []Finding{}}}
	a.namespaces()
	a.pods()
	a.holes()
	a.functions()
	a.served()
	slices.SortStableFunc(a.report.Findings, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Level, y.Level), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Object, y.Object))
	})
	return a.report
}

type audit struct {
	cluster    *Cluster
	excluded   []string
	neighbours *Neighbours
	report     *Report
}

func (a *audit) judged(namespace string) bool { return !slices.Contains(a.excluded, namespace) }

func (a *audit) find(level Level, severity, namespace, object, message, remedy string) {
	a.report.Findings = append(a.report.Findings, Finding{
		Level: level, Severity: severity, Cluster: a.cluster.Name, Namespace: namespace, Object: object, Message: message, Remedy: remedy,
	})
}

// namespaces is the question most rules ask (L0).
func (a *audit) namespaces() {
	lacking := 0
	for name := range a.cluster.Namespaces {
		if !a.judged(name) {
			continue
		}
		a.report.Namespaces++
		if !a.hasPolicy(name) {
			lacking++
			a.find(L0, SeverityError, name, "Namespace/"+name, "has no NetworkPolicy: every Pod may talk to every other",
				"add a policy that denies both directions for podSelector {}, and one for each connection that is needed")
		}
	}
	switch lacking {
	case 0:
		a.report.Verdict = VerdictAll
	case a.report.Namespaces:
		a.report.Verdict = VerdictNone
	default:
		a.report.Verdict = VerdictSome
	}
}

func (a *audit) hasPolicy(namespace string) bool {
	return slices.ContainsFunc(a.cluster.Policies, func(p networkingv1.NetworkPolicy) bool { return p.Namespace == namespace })
}

// served are the namespaces whose certificates certloop keeps (L5): they are other people's,
// who are to be told. Manifests of certloop know nothing of them.
func (a *audit) served() {
	if !a.cluster.Live {
		return
	}
	told := map[string]bool{}
	for i := range a.cluster.Pods {
		if !ours(&a.cluster.Pods[i]) {
			continue
		}
		for ns := range strings.SplitSeq(a.cluster.Pods[i].Env["CERTLOOP_NAMESPACES"], ",") {
			if ns != "" && !told[ns] && !a.hasPolicy(ns) {
				told[ns] = true
				a.find(L5, SeverityWarning, ns, "Namespace/"+ns, "has certificates that certloop keeps, and no NetworkPolicy", "tell the owner of the namespace")
			}
		}
	}
}

// pods is what really matters (L1): a policy protects the Pods it selects, in the
// directions it names.
func (a *audit) pods() {
	for i := range a.cluster.Pods {
		pod := &a.cluster.Pods[i]
		if !a.judged(pod.Namespace) {
			if !slices.Contains(a.report.NotJudged, pod.Namespace) {
				a.report.NotJudged = append(a.report.NotJudged, pod.Namespace)
			}
			continue
		}
		a.report.Pods++
		if pod.HostNetwork {
			a.find(L1, SeverityWarning, pod.Namespace, pod.Name, "uses the network of its node, where no NetworkPolicy applies", "set hostNetwork: false, or protect the node by other means")
			continue
		}
		for _, d := range []direction{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
			if !a.cluster.Isolated(pod, d) {
				a.find(L1, SeverityError, pod.Namespace, pod.Name, fmt.Sprintf("is not isolated: no policy with policyTypes %s selects it", d),
					fmt.Sprintf("add a policy with podSelector {} and policyTypes [%s]", d))
			}
		}
	}
	slices.Sort(a.report.NotJudged)
}

// holes are rules that undo isolation (L2).
func (a *audit) holes() {
	for i := range a.cluster.Policies {
		p := &a.cluster.Policies[i]
		if !a.judged(p.Namespace) {
			continue
		}
		for _, d := range directions(p) {
			for n, r := range rules(p, d) {
				a.hole(p, fmt.Sprintf("%s[%d]", strings.ToLower(string(d)), n), peersField(d), r)
			}
		}
	}
}

func peersField(d direction) string {
	if d == networkingv1.PolicyTypeIngress {
		return "from"
	}
	return "to"
}

func (a *audit) hole(p *networkingv1.NetworkPolicy, path, field string, r rule) {
	object := "NetworkPolicy/" + p.Name
	if len(r.peers) == 0 {
		severity, what := SeverityWarning, "on these ports"
		if len(r.ports) == 0 {
			severity, what = SeverityError, "on every port"
		}
		a.find(L2, severity, p.Namespace, object, fmt.Sprintf("%s has no %q: it allows every peer, inside and outside the cluster, %s", path, field, what),
			"name the peers by namespaceSelector with kubernetes.io/metadata.name and podSelector, or by ipBlock")
	}
	for n, peer := range r.peers {
		at := fmt.Sprintf("%s.%s[%d]", path, field, n)
		switch {
		case everywhere(&peer) && len(r.ports) == 0:
			a.find(L2, SeverityError, p.Namespace, object, at+" is "+peer.IPBlock.CIDR+" without a port: it allows every address on every port", "name the addresses and the ports")
		case everyPod(&peer):
			a.find(L2, SeverityError, p.Namespace, object, at+" selects every Pod of every namespace", "select the namespace by kubernetes.io/metadata.name")
		case peer.IPBlock != nil && !a.cluster.Live && privateRange(peer.IPBlock):
			a.find(L2, SeverityWarning, p.Namespace, object, at+" is "+peer.IPBlock.CIDR+", which may hold the addresses of Pods: many networks then allow every one of them", "name the addresses, or large blocks with what Pods get under except")
		case len(r.ports) == 0:
			a.find(L2, SeverityWarning, p.Namespace, object, path+" names no ports: it allows all of them", "name the ports, which are those of the Pods and not of their Service")
		}
	}
}

func everywhere(p *networkingv1.NetworkPolicyPeer) bool {
	if p.IPBlock == nil || len(p.IPBlock.Except) > 0 {
		return false
	}
	prefix, err := netip.ParsePrefix(p.IPBlock.CIDR)
	return err == nil && prefix.Bits() == 0
}

func everyPod(p *networkingv1.NetworkPolicyPeer) bool {
	empty := func(s map[string]string, n int) bool { return len(s)+n == 0 }
	ns, pods := p.NamespaceSelector, p.PodSelector
	return ns != nil && empty(ns.MatchLabels, len(ns.MatchExpressions)) &&
		(pods == nil || empty(pods.MatchLabels, len(pods.MatchExpressions)))
}
