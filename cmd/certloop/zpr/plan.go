package zpr

import (
	"slices"

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

	// Profile is the chart's: knative, which is the default, knative-direct or plain.
	Profile string `json:"profile,omitempty"`
	// CAClientsPool is the node pool of enroll and renew, the only ones that talk to a CA; with plain that of everything.
	CAClientsPool string `json:"caClientsPool"`
	// FunctionsPool is the node pool of what else is certloop's; empty when that of the CA clients has all.
	FunctionsPool string `json:"functionsPool,omitempty"`

	// DNS is where CoreDNS runs.
	DNS *Place `json:"dns"`
	// NATS is where its servers run.
	NATS *Place `json:"nats"`
	// Knative has no meaning with plain.
	Knative *Knative `json:"knative,omitempty"`
	// Monitoring is where metrics are scraped from, if they are.
	Monitoring *Place `json:"monitoring,omitempty"`

	LoadBalancer *LoadBalancer `json:"loadBalancer,omitempty"`
	// FileStorage is the attribute of a mount target, if nodes mount one. certloop itself does not.
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
	// PodCIDR is the subnet of the secondary VNICs, for where these have no attributes and somebody else has.
	PodCIDR string `json:"podCIDR,omitempty"`
	// NodeAttributes are on the primary VNIC: the kubelet and Pods on the host's network.
	NodeAttributes []string `json:"nodeAttributes,omitempty"`
	// NodeCIDR is the subnet of the primary VNICs, for where these have no attributes and somebody else has.
	NodeCIDR string `json:"nodeCIDR,omitempty"`
}

// Place is where something runs. One field is set.
type Place struct {
	// Pool is the node pool of Pods.
	Pool string `json:"pool,omitempty"`
	// Attribute is that of something else in the VCN.
	Attribute string `json:"attribute,omitempty"`
	// CIDR is the block of addresses of something that has no attribute.
	CIDR string `json:"cidr,omitempty"`
}

// Knative is where its parts run.
type Knative struct {
	// Serving is where activator and autoscaler run.
	Serving *Place `json:"serving"`
	// Gateway is where that of Knative Serving runs. Default: where Serving does.
	Gateway *Place `json:"gateway,omitempty"`
	// Eventing is where the Broker and the adapter of PingSources run. Default: where Serving does.
	Eventing *Place `json:"eventing,omitempty"`
	// Sources is where Knative runs the adapters of ApiServerSources. Default: where Serving does.
	Sources *Place `json:"sources,omitempty"`
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

// LoadBalancer takes events from outside of the cluster to enroll.
type LoadBalancer struct {
	// By is the chart's oci.ingest.by: LoadBalancer, which is the default, or NativeIngress.
	By         string   `json:"by,omitempty"`
	Attributes []string `json:"attributes"`
	Clients    []string `json:"clients"` // blocks of addresses
	Port       int      `json:"port"`
	// NodePort and HealthCheckNodePort are ports of the nodes, to which a LoadBalancer connects. NativeIngress connects to Pods.
	NodePort            int `json:"nodePort,omitempty"`
	HealthCheckNodePort int `json:"healthCheckNodePort,omitempty"`
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

// Words of a plan.
const (
	vcnNative     = "vcn-native"
	selfManaged   = "self-managed"
	managed       = "managed"
	virtual       = "virtual"
	knative       = "knative"
	knativeDirect = "knative-direct"
	plain         = "plain"
	byService     = "LoadBalancer"
	byIngress     = "NativeIngress"
)

// ParsePlan reads a plan in YAML or JSON. Unknown fields are errors.
func ParsePlan(content []byte) (*Plan, error) {
	p := &Plan{}
	if err := yaml.UnmarshalStrict(content, p); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Plan) pool(name string) *NodePool {
	i := slices.IndexFunc(p.NodePools, func(n NodePool) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &p.NodePools[i]
}

// places are those that the plan names, by field.
func (p *Plan) places() map[string]*Place {
	all := map[string]*Place{"dns": p.DNS, "nats": p.NATS, "monitoring": p.Monitoring}
	if k := p.Knative; k != nil {
		all["knative.serving"], all["knative.gateway"] = k.Serving, k.Gateway
		all["knative.eventing"], all["knative.sources"] = k.Eventing, k.Sources
	}
	for field, place := range all {
		if place == nil {
			delete(all, field)
		}
	}
	return all
}

// use is where a plan attaches attributes.
type use struct {
	field      string
	attributes []string
}

// uses are the resources that bear attributes, the VCN first.
func (p *Plan) uses() []use {
	all := []use{{"vcn", []string{p.VCN}}, {"apiEndpoint.attributes", p.APIEndpoint.Attributes}}
	for i, pool := range p.NodePools {
		all = append(all, use{poolField(i, "podAttributes"), pool.PodAttributes}, use{poolField(i, "nodeAttributes"), pool.NodeAttributes})
	}
	one := func(field, attribute string) {
		if attribute != "" {
			all = append(all, use{field, []string{attribute}})
		}
	}
	for i, ca := range p.CAs {
		one(caField(i, "attribute"), ca.Attribute)
	}
	places := p.places()
	for _, field := range sorted(places) {
		one(field+".attribute", places[field].Attribute)
	}
	if p.LoadBalancer != nil {
		all = append(all, use{"loadBalancer.attributes", p.LoadBalancer.Attributes})
	}
	one("fileStorage", p.FileStorage)
	return all
}
