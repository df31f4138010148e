package zpr

import (
	"encoding/json"
	"fmt"
	"strings"
)

// order is the order to introduce it all in: what allows before what forbids.
func (p *Plan) order() []string {
	steps := []string{
		"Enable ZPR in the tenancy, in its home region, unless that has been done. It cuts nothing off.",
		"Create the namespaces of attributes and the attributes.",
		"Create the IAM statements.",
		fmt.Sprintf("Create ZPR policies with all statements, at most %d in each: they have no effect yet, because nothing bears an attribute.", maxStatements),
		fmt.Sprintf("Put the attribute %s on the VCN.", p.VCN),
	}
	if len(p.APIEndpoint.Attributes) > 0 {
		steps = append(steps, fmt.Sprintf("Put %s on the API endpoint. Check kubectl from an operator's address, and that all nodes stay Ready.", list(p.APIEndpoint.Attributes)))
	}
	for _, pool := range p.NodePools {
		steps = append(steps, pool.steps()...)
	}
	if p.LoadBalancer != nil {
		steps = append(steps, p.LoadBalancer.step())
	}
	if p.FileStorage != "" {
		steps = append(steps, fmt.Sprintf("Name %s in the parameter securityAttributes of the StorageClass: %s. Block volumes have no attributes.", p.FileStorage, annotation([]string{p.FileStorage})))
	}
	return append(steps,
		"Check every connection of the statements with Network Path Analyzer, and that a certificate is renewed: certloop get -A.",
		"Only now remove the security list and NSG rules that are no longer needed. Traffic must satisfy both ZPR and those.",
	)
}

func (n NodePool) steps() []string {
	switch {
	case len(n.NodeAttributes)+len(n.PodAttributes) == 0:
		return nil
	case n.Type == selfManaged:
		return []string{fmt.Sprintf("Replace the nodes of %s by new instances that have %s on their secondary VNICs (Pods) from their creation: an instance configuration cannot name attributes of secondary VNICs.", n.Name, list(n.PodAttributes))}
	default:
		return []string{
			fmt.Sprintf("Put attributes on the node pool %s: %s on secondary VNICs (Pods), all of them alike, and %s on the primary one (nodes).", n.Name, list(n.PodAttributes), list(n.NodeAttributes)),
			fmt.Sprintf("Replace the nodes of %s (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.", n.Name),
		}
	}
}

func (lb *LoadBalancer) step() string {
	if lb.By == byIngress {
		return fmt.Sprintf("Install the chart with oci.ingest.by=NativeIngress and %s in oci.ingest.securityAttributes: its IngressClass bears oci-native-ingress.oraclecloud.com/security-attributes: %s.", list(lb.Attributes), annotation(lb.Attributes))
	}
	return fmt.Sprintf("Install the chart with %s in oci.ingest.securityAttributes: its Service bears oci.oraclecloud.com/security-attributes: %s. Change attributes there, never on the load balancer.", list(lb.Attributes), annotation(lb.Attributes))
}

func list(attributes []string) string {
	if len(attributes) == 0 {
		return "nothing"
	}
	return strings.Join(attributes, ", ")
}

// annotation writes attributes as OCI's API does.
func annotation(attributes []string) string {
	type setting struct {
		Mode  string `json:"mode"`
		Value string `json:"value"`
	}
	all := map[string]map[string]setting{}
	for _, text := range attributes {
		a, _ := ParseAttribute(text) // has been checked
		if all[a.Namespace] == nil {
			all[a.Namespace] = map[string]setting{}
		}
		all[a.Namespace][a.Key] = setting{"enforce", a.Value}
	}
	content, _ := json.Marshal(all) // strings only
	return string(content)
}
