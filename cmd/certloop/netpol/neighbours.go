package netpol

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// Neighbours says where those are that certloop has to do with. It is networkPolicy of the
// values of certloop's chart, as far as that matters.
type Neighbours struct {
	DNS             Neighbour   `json:"dns"`
	APIServer       Neighbour   `json:"apiServer"` // unknown without CIDRs
	CA              []Neighbour `json:"ca"`        // unknown when empty
	NATS            Neighbour   `json:"nats"`
	Gateway         Neighbour   `json:"gateway"`
	KnativeServing  Neighbour   `json:"knativeServing"`
	KnativeEventing Neighbour   `json:"knativeEventing"`
	Monitoring      Neighbour   `json:"monitoring"`
	Ingest          Ingest      `json:"-"` // it is oci.ingest of the values
	// Rules that somebody wants besides.
	ExtraIngress []networkingv1.NetworkPolicyIngressRule `json:"extraIngress"`
	ExtraEgress  []networkingv1.NetworkPolicyEgressRule  `json:"extraEgress"`
}

// Neighbour is where one of them is: Pods of a namespace, or addresses. Not every field is
// of use for each.
type Neighbour struct {
	Name        string            `json:"name"`
	Enabled     bool              `json:"enabled"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels"`
	CIDRs       []netip.Prefix    `json:"cidrs"`
	NodeLocalIP netip.Addr        `json:"nodeLocalIP"`
	Port        int32             `json:"port"`
	Ports       []int32           `json:"ports"`
}

// DefaultNeighbours are those of the chart's values.yaml.
func DefaultNeighbours() *Neighbours {
	return &Neighbours{
		DNS:             Neighbour{Namespace: "kube-system", Labels: map[string]string{"k8s-app": "kube-dns"}},
		APIServer:       Neighbour{Ports: []int32{6443}},
		NATS:            Neighbour{Namespace: "nats", Labels: map[string]string{"app.kubernetes.io/name": "nats"}, Port: 4222},
		Gateway:         Neighbour{Namespace: "kourier-system", Labels: map[string]string{"app": "3scale-kourier-gateway"}, Ports: []int32{8081, 8444}},
		KnativeServing:  Neighbour{Namespace: "knative-serving"},
		KnativeEventing: Neighbour{Namespace: "knative-eventing"},
		Monitoring:      Neighbour{Namespace: "monitoring"},
	}
}

// Values takes what values of certloop's chart say over what n says. As with Helm, lists take
// the place of lists, and a label that is null goes away.
func (n *Neighbours) Values(content []byte) error {
	js, err := yaml.YAMLToJSON(content)
	if err != nil {
		return err
	}
	values := struct {
		NetworkPolicy *Neighbours `json:"networkPolicy"`
		OCI           struct {
			Ingest *Ingest `json:"ingest"`
		} `json:"oci"`
	}{NetworkPolicy: n}
	values.OCI.Ingest = &n.Ingest
	if err := json.Unmarshal(js, &values); err != nil {
		return fmt.Errorf("not values of certloop's chart: %w", err)
	}
	if len(n.APIServer.Ports) == 0 { // the chart asks the cluster, and takes this where it cannot
		n.APIServer.Ports = DefaultNeighbours().APIServer.Ports
	}
	for _, place := range []*Neighbour{&n.DNS, &n.NATS, &n.Gateway} {
		maps.DeleteFunc(place.Labels, func(_, value string) bool { return value == "" })
	}
	return nil
}

// Ingest is the chart's way in for publishers: a load balancer before enroll.
type Ingest struct {
	Enabled bool           `json:"enabled"`
	Subnets []netip.Prefix `json:"subnets"` // of the load balancer
}
