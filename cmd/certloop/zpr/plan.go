package zpr

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	utilversion "k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"
)

// Plan describes a cluster and who has to reach whom, as far as ZPR is concerned.
type Plan struct {
	// KubernetesVersion of the cluster.
	KubernetesVersion string `json:"kubernetesVersion"`
	// PodNetwork is vcn-native or flannel.
	PodNetwork string `json:"podNetwork"`
	// EndpointNetwork is vcn-native or public: where the API endpoint has its VNIC.
	EndpointNetwork string `json:"endpointNetwork"`
	// VCN is the security attribute of the virtual cloud network.
	VCN string `json:"vcn"`
	// Attributes that exist. Empty: those that the plan uses are generated.
	Attributes []string `json:"attributes,omitempty"`

	NodePools   []NodePool `json:"nodePools"`
	APIEndpoint APIServer  `json:"apiEndpoint"`
	CAs         []CA       `json:"cas"`
	// NATSPool is the node pool NATS runs on; empty when it runs beside the functions.
	NATSPool string `json:"natsPool,omitempty"`
	// FunctionsPool is the node pool of watch-secrets and expiry-scan; empty when all functions run on that of the CA clients.
	FunctionsPool string `json:"functionsPool,omitempty"`
	// CAClientsPool is the node pool of enroll and renew, the only ones that talk to a CA.
	CAClientsPool string `json:"caClientsPool"`

	LoadBalancer *LoadBalancer `json:"loadBalancer,omitempty"`
	// FileStorage is the attribute of a mount target, if any pool mounts one.
	FileStorage string `json:"fileStorage,omitempty"`
	// Operators are the blocks of addresses kubectl is used from.
	Operators []string `json:"operators,omitempty"`

	IAM IAM `json:"iam"`
}

// NodePool is a pool of nodes. All its Pods share the attributes of its secondary VNICs.
type NodePool struct {
	Name string `json:"name"`
	// Type is managed, self-managed or virtual.
	Type string `json:"type,omitempty"`
	// PodAttributes are on the secondary VNICs, which carry the traffic of Pods.
	PodAttributes []string `json:"podAttributes,omitempty"`
	// NodeAttributes are on the primary VNIC: the kubelet and Pods on the host's network.
	NodeAttributes []string `json:"nodeAttributes,omitempty"`
}

// APIServer is the Kubernetes API endpoint.
type APIServer struct {
	Attributes []string `json:"attributes,omitempty"`
	CIDR       string   `json:"cidr,omitempty"` // where it has no attribute
}

// CA is a certification authority: by its attribute when it is in the same VCN, by its addresses otherwise.
type CA struct {
	Name      string `json:"name"`
	Attribute string `json:"attribute,omitempty"`
	CIDR      string `json:"cidr,omitempty"`
	Port      int    `json:"port"`
}

// LoadBalancer takes events from outside of the cluster.
type LoadBalancer struct {
	Attributes []string `json:"attributes"`
	Clients    []string `json:"clients"` // blocks of addresses
	Port       int      `json:"port"`
	NodePort   int      `json:"nodePort"` // on the Pods behind it
}

// IAM says who may use the attributes.
type IAM struct {
	Group       string `json:"group"`
	Compartment string `json:"compartment"`
	// TenancyWide lets the group use every namespace of attributes, not only those of the plan.
	TenancyWide bool `json:"tenancyWide,omitempty"`
	// Console users need to list namespaces besides.
	Console bool `json:"console,omitempty"`
}

// Limits of ZPR for OKE.
const (
	minKubernetes     = "1.32.0"
	maxAttributes     = 5 // on one endpoint
	vcnNative         = "vcn-native"
	apiServerPort     = 6443
	nodeToAPIPort     = 12250
	natsPort          = 4222
	fileStoragePorts  = "tcp/2048-2051"
	kubeletPort       = 10250
	selfManaged       = "self-managed"
	managed           = "managed"
	virtual           = "virtual"
	nodesJoinProtocol = "tcp/443"
)

// ParsePlan reads a plan in YAML or JSON. Unknown fields are errors.
func ParsePlan(content []byte) (*Plan, error) {
	p := &Plan{}
	if err := yaml.UnmarshalStrict(content, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Check reports everything about a plan that ZPR or OKE would refuse, or that would
// block traffic silently.
func (p *Plan) Check() error {
	errs := []error{p.checkCluster(), p.checkPools(), p.checkEnds(), p.checkAttributes()}
	if errors.Join(errs...) == nil {
		errs = append(errs, p.checkStatements())
	}
	return errors.Join(errs...)
}

func (p *Plan) checkCluster() error {
	var errs []error
	v, err := utilversion.ParseGeneric(p.KubernetesVersion)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("kubernetesVersion: %w", err))
	case v.LessThan(utilversion.MustParseGeneric(minKubernetes)):
		errs = append(errs, fmt.Errorf("kubernetesVersion: %s is older than 1.32, the first that OKE supports with ZPR: upgrade the cluster", p.KubernetesVersion))
	}
	if p.PodNetwork != vcnNative {
		errs = append(errs, fmt.Errorf("podNetwork: %s: ZPR needs the OCI VCN-native Pod networking plugin in a version that knows it; flannel hides Pods behind their node", p.PodNetwork))
	}
	if p.EndpointNetwork != vcnNative {
		errs = append(errs, fmt.Errorf("endpointNetwork: %s: the API endpoint must be VCN-native, integrated into your own VCN", p.EndpointNetwork))
	}
	return errors.Join(errs...)
}

func (p *Plan) checkPools() error {
	var errs []error
	for i, pool := range p.NodePools {
		switch pool.Type {
		case "", managed, selfManaged:
		case virtual:
			errs = append(errs, fmt.Errorf("nodePools[%d]: %s is virtual: ZPR supports managed and self-managed nodes only", i, pool.Name))
		default:
			errs = append(errs, fmt.Errorf("nodePools[%d].type: %s is neither managed nor self-managed", i, pool.Type))
		}
	}
	for field, name := range map[string]string{"caClientsPool": p.CAClientsPool, "natsPool": p.NATSPool, "functionsPool": p.FunctionsPool} {
		if name == "" && field != "caClientsPool" {
			continue
		}
		if pool := p.pool(name); pool == nil || len(pool.PodAttributes) == 0 {
			errs = append(errs, fmt.Errorf("%s: %q is no node pool of the plan with podAttributes", field, name))
		}
	}
	return errors.Join(errs...)
}

func (p *Plan) pool(name string) *NodePool {
	i := slices.IndexFunc(p.NodePools, func(n NodePool) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &p.NodePools[i]
}

// checkEnds looks at what is reached by address or attribute.
func (p *Plan) checkEnds() error {
	var errs []error
	if len(p.CAs) == 0 {
		errs = append(errs, errors.New("cas: name at least one: an empty list would mean that nobody reaches a CA, and never that everybody does"))
	}
	for i, ca := range p.CAs {
		if (ca.Attribute == "") == (ca.CIDR == "") {
			errs = append(errs, fmt.Errorf("cas[%d]: set attribute when %s is in the same VCN, cidr otherwise", i, ca.Name))
		}
		errs = append(errs, checkPort(fmt.Sprintf("cas[%d].port", i), ca.Port))
	}
	if (len(p.APIEndpoint.Attributes) == 0) == (p.APIEndpoint.CIDR == "") {
		errs = append(errs, errors.New("apiEndpoint: set attributes or cidr"))
	}
	if lb := p.LoadBalancer; lb != nil {
		errs = append(errs, checkPort("loadBalancer.port", lb.Port), checkPort("loadBalancer.nodePort", lb.NodePort))
		if len(lb.Clients) == 0 {
			errs = append(errs, errors.New("loadBalancer.clients: name the blocks of addresses that send events"))
		}
	}
	for field, cidr := range p.blocks() {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
	}
	if p.IAM.Group == "" || p.IAM.Compartment == "" {
		errs = append(errs, errors.New("iam: set group and compartment"))
	}
	return errors.Join(errs...)
}

func checkPort(field string, port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("%s: %d is not within 1 to 65535", field, port)
	}
	return nil
}

func (p *Plan) blocks() map[string]string {
	all := map[string]string{}
	for i, cidr := range p.Operators {
		all[fmt.Sprintf("operators[%d]", i)] = cidr
	}
	for i, ca := range p.CAs {
		if ca.CIDR != "" {
			all[fmt.Sprintf("cas[%d].cidr", i)] = ca.CIDR
		}
	}
	if p.APIEndpoint.CIDR != "" {
		all["apiEndpoint.cidr"] = p.APIEndpoint.CIDR
	}
	if p.LoadBalancer != nil {
		for i, cidr := range p.LoadBalancer.Clients {
			all[fmt.Sprintf("loadBalancer.clients[%d]", i)] = cidr
		}
	}
	return all
}

// use is where a plan attaches attributes.
type use struct {
	field      string
	attributes []string
}

func (p *Plan) uses() []use {
	all := []use{{"vcn", []string{p.VCN}}, {"apiEndpoint.attributes", p.APIEndpoint.Attributes}}
	for i, pool := range p.NodePools {
		all = append(all, use{fmt.Sprintf("nodePools[%d].podAttributes", i), pool.PodAttributes}, use{fmt.Sprintf("nodePools[%d].nodeAttributes", i), pool.NodeAttributes})
	}
	for i, ca := range p.CAs {
		if ca.Attribute != "" {
			all = append(all, use{fmt.Sprintf("cas[%d].attribute", i), []string{ca.Attribute}})
		}
	}
	if p.LoadBalancer != nil {
		all = append(all, use{"loadBalancer.attributes", p.LoadBalancer.Attributes})
	}
	if p.FileStorage != "" {
		all = append(all, use{"fileStorage", []string{p.FileStorage}})
	}
	return all
}

func (p *Plan) checkAttributes() error {
	var errs []error
	for _, u := range p.uses() {
		if len(u.attributes) > maxAttributes {
			errs = append(errs, fmt.Errorf("%s: %d attributes, at most %d fit on one resource", u.field, len(u.attributes), maxAttributes))
		}
		for _, text := range u.attributes {
			if _, err := ParseAttribute(text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", u.field, err))
			} else if len(p.Attributes) > 0 && !slices.Contains(p.Attributes, text) {
				errs = append(errs, fmt.Errorf("%s: attribute %s is not among the plan's attributes: define it, or correct it", u.field, text))
			}
		}
	}
	return errors.Join(errs...)
}

// checkStatements: a resource with an attribute that no statement mentions is cut off
// from everything.
func (p *Plan) checkStatements() error {
	var text []string
	for _, s := range p.statements(EditionCurrent) {
		text = append(text, s.String())
	}
	all := strings.Join(text, "\n")
	var errs []error
	for _, u := range p.uses() {
		mentioned := slices.ContainsFunc(u.attributes, func(a string) bool {
			parsed, err := ParseAttribute(a)
			return err == nil && strings.Contains(all, parsed.String())
		})
		if len(u.attributes) > 0 && !mentioned {
			errs = append(errs, fmt.Errorf("%s: no statement allows anything to or from %s: the resource would be cut off; remove the attribute, or say in the plan who talks to it", u.field, strings.Join(u.attributes, ", ")))
		}
	}
	return errors.Join(errs...)
}
