package netpol

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Labels by which certloop's own Pods are known, and the functions among them.
const (
	partOfLabel    = "app.kubernetes.io/part-of"
	componentLabel = "app.kubernetes.io/component"
	certloop       = "certloop"
)

func component(pod *Pod) string {
	if pod.component != "" || pod.Labels[partOfLabel] != certloop {
		return pod.component
	}
	return pod.Labels[componentLabel]
}

func ours(pod *Pod) bool { return pod.component != "" || pod.Labels[partOfLabel] == certloop }

// functions holds certloop's Pods, and NATS where certloop guards it, against who must and
// may talk to whom (L3).
func (a *audit) functions() {
	roles := a.neighbours.roles(a.cluster.APIServer)
	seen := map[string]bool{}
	for i := range a.cluster.Pods {
		pod := &a.cluster.Pods[i]
		if !ours(pod) || !a.judged(pod.Namespace) {
			continue
		}
		s := &subject{audit: a, pod: pod, name: cmp.Or(pod.Labels[componentLabel], pod.Name), object: pod.Name}
		key := strings.Join([]string{pod.Namespace, s.name, pod.Labels["app.kubernetes.io/instance"]}, "/")
		if seen[key] {
			continue // a copy
		}
		seen[key] = true
		var known bool
		s.role, known = roles[component(pod)]
		s.tolerant = !known
		s.embedded()
		s.judge()
	}
	a.nats()
}

// subject is a Pod that is held against its role.
type subject struct {
	*audit
	pod    *Pod
	name   string // what findings call it
	object string
	role   role
	// Only rules that name nobody in particular are held against it.
	tolerant bool
}

// embedded takes away what goes without saying: a process that has a NATS of its own needs no
// other, and only Knative's Services have Knative's proxy.
func (s *subject) embedded() {
	if _, remote := s.pod.Env["NATS_URL"]; !remote && component(s.pod) == componentAll && s.pod.Env != nil {
		s.role.out = slices.DeleteFunc(slices.Clone(s.role.out), func(e edge) bool { return e.name == "NATS" })
	}
	if s.pod.Labels[serviceLabel] == "" {
		s.role.in = slices.DeleteFunc(slices.Clone(s.role.in), func(e edge) bool { return e.name != loadBalancerName })
	}
}

func (s *subject) judge() {
	for _, e := range s.role.out {
		s.needs(networkingv1.PolicyTypeEgress, &e)
	}
	for _, e := range s.role.in {
		s.needs(networkingv1.PolicyTypeIngress, &e)
	}
	s.surplus(networkingv1.PolicyTypeEgress, s.role.out)
	s.surplus(networkingv1.PolicyTypeIngress, s.role.in)
}

func (s *subject) find(severity, edge, message, remedy string) {
	s.audit.find(L3, severity, s.pod.Namespace, s.object, message, remedy)
	s.report.Findings[len(s.report.Findings)-1].Edge = edge
}

// arrow writes an edge as from → to.
func (s *subject) arrow(d direction, other string, port Port) string {
	if d == networkingv1.PolicyTypeIngress {
		return fmt.Sprintf("%s → %s, %s", other, s.name, port)
	}
	return fmt.Sprintf("%s → %s, %s", s.name, other, port)
}

// needs finds what has to be possible and is not.
func (s *subject) needs(d direction, e *edge) {
	severity := cmp.Or(e.severity, SeverityError)
	verb := map[direction]string{networkingv1.PolicyTypeIngress: "cannot be reached by", networkingv1.PolicyTypeEgress: "cannot reach"}[d]
	if e.unknown() {
		if !s.towards(e) && s.cluster.Isolated(s.pod, d) {
			s.find(severity, s.name+" → "+e.name, fmt.Sprintf("%s %s %s: no policy lets it out to an address for that", s.name, verb, e.name),
				"allow egress to its addresses and port, and tell of them by --values where they are known")
		}
		return
	}
	for _, port := range e.must {
		if blamed := s.reaches(d, &e.place, port); blamed != "" {
			s.find(severity, s.arrow(d, e.name, port), fmt.Sprintf("%s %s %s (%s) on %s: %s", s.name, verb, e.name, e.where(), port, blamed),
				"allow it in both directions, or tell by --values where else it is")
		}
	}
}

// where says what was tried.
func (p *place) where() string {
	for _, set := range p.pods {
		return fmt.Sprintf("%s in %s", podsWith(metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: set.labels})), set.namespace)
	}
	return fmt.Sprint(p.cidrs)
}

func podsWith(selector string) string {
	if selector == "<none>" || selector == "" {
		return "any Pod"
	}
	return "Pods " + selector
}

// reaches is empty when a connection is possible, and otherwise says who is to blame. Of
// several sets of Pods one suffices; where there are only addresses, each counts.
func (s *subject) reaches(d direction, p *place, port Port) (blamed string) {
	for _, set := range p.pods {
		by := s.connects(d, Peer{Pod: s.cluster.podOf(set)}, port)
		if by == "" {
			return ""
		}
		blamed = cmp.Or(blamed, by)
	}
	if len(p.pods) > 0 {
		return blamed
	}
	for _, cidr := range p.cidrs {
		blamed = cmp.Or(blamed, s.connects(d, Peer{Addr: cidr.Masked().Addr()}, port))
	}
	return blamed
}

func (s *subject) connects(d direction, other Peer, port Port) (blamed string) {
	src, dst := Peer{Pod: s.pod}, other
	if d == networkingv1.PolicyTypeIngress {
		src, dst = dst, src
	}
	switch {
	case !s.cluster.passes(networkingv1.PolicyTypeEgress, src, dst, dst, port):
		return "no policy in " + src.Pod.Namespace + " lets that out"
	case !s.cluster.passes(networkingv1.PolicyTypeIngress, dst, src, dst, port):
		return "no policy in " + dst.Pod.Namespace + " lets that in"
	default:
		return ""
	}
}

// podOf is a Pod of a set, one that exists where there is one.
func (c *Cluster) podOf(set podSet) *Pod {
	for i := range c.Pods {
		if set.has(&c.Pods[i]) {
			return &c.Pods[i]
		}
	}
	return &Pod{Namespace: set.namespace, Name: "Pod", Labels: maps.Clone(set.labels)}
}

// nats judges the servers where certloop's policies guard them.
func (a *audit) nats() {
	ns := a.neighbours.NATS.Namespace
	if !a.judged(ns) || !slices.ContainsFunc(a.cluster.Policies, func(p networkingv1.NetworkPolicy) bool {
		return p.Namespace == ns && p.Labels[partOfLabel] == certloop && slices.ContainsFunc(a.neighbours.NATS.pods(), func(set podSet) bool {
			return selects(&p, a.cluster.podOf(set))
		})
	}) {
		return
	}
	server := a.cluster.podOf(a.neighbours.NATS.pods()[0])
	s := &subject{audit: a, pod: server, name: "NATS", object: "Namespace/" + ns, role: a.neighbours.server(), tolerant: true}
	s.judge()
	ports := tcp(a.neighbours.NATS.Port, 6222, 8222)
	s.isReachedBy("any Pod of the cluster", &Pod{Namespace: strangers}, ports)
	if homes := a.homes(); !slices.Contains(homes, ns) {
		for _, home := range homes {
			s.isReachedBy("any Pod of "+home, &Pod{Namespace: home}, ports)
		}
		s.hasNoStrays(ns)
	}
}

// homes are the namespaces of certloop's Pods.
func (a *audit) homes() (all []string) {
	for i := range a.cluster.Pods {
		if pod := &a.cluster.Pods[i]; ours(pod) && !slices.Contains(all, pod.Namespace) {
			all = append(all, pod.Namespace)
		}
	}
	return all
}

// isReachedBy finds what lets a stranger in, whether or not anything lets it out today.
func (s *subject) isReachedBy(who string, stranger *Pod, ports []Port) {
	self := Peer{Pod: s.pod}
	for _, port := range ports {
		if s.cluster.passes(networkingv1.PolicyTypeIngress, self, Peer{Pod: stranger}, self, port) {
			s.find(SeverityError, who+" → "+s.name+", "+port.String(), fmt.Sprintf("%s may reach %s on %s", who, s.name, port), "allow ingress from certloop's own Pods and NATS's alone")
		}
	}
}

// hasNoStrays wants a namespace of certloop's to deny by default, whatever comes to run there.
func (s *subject) hasNoStrays(ns string) {
	for _, d := range []direction{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
		if !s.cluster.Isolated(&Pod{Namespace: ns}, d) {
			s.find(SeverityError, "", fmt.Sprintf("a Pod beside %s would not be isolated: no policy with podSelector {} and policyTypes %s", s.name, d),
				"add one that denies both directions")
		}
	}
}
