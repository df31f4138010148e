package zpr

import (
	"fmt"
	"slices"
	"strings"
)

// Resources of Oracle's provider for Terraform. Types, arguments and limits are those of its
// documentation (github.com/oracle/terraform-provider-oci, website/docs), where each has a page:
//
//	oci_zpr_configuration              r/zpr_configuration: the tenancy's OCID; zpr_status is optional
//	…_security_attribute_namespace     r/security_attribute_security_attribute_namespace: compartment_id, name and description
//	                                   are required; names are compared without regard to case
//	…_security_attribute               r/security_attribute_security_attribute: security_attribute_namespace_id, name and
//	                                   description are required; any value fits without a validator
//	…_security_attribute_namespaces    d/security_attribute_security_attribute_namespaces: a list of the same name
//	oci_identity_policy                r/identity_policy: compartment_id, name, description, statements
//	oci_zpr_zpr_policy                 r/zpr_zpr_policy: likewise, the tenancy's OCID, and at most 25 statements
//
// They are there since version 6.12.0 (its CHANGELOG: "Support for Zero Trust Packet Routing", "Support for Security Attributes").
const (
	configurationResource = "oci_zpr_configuration"
	namespaceResource     = "oci_security_attribute_security_attribute_namespace"
	attributeResource     = "oci_security_attribute_security_attribute"
	iamPolicyResource     = "oci_identity_policy"
	zprPolicyResource     = "oci_zpr_zpr_policy"

	maxStatements = 25 // in one ZPR policy
)

// Configuration of the provider itself is left to who runs it. ZPR is enabled once for a
// tenancy, and what others rely on is not to go with this.
const preamble = `# For the provider oracle/oci 6.12 or later, in the tenancy's home region. A module that names its providers
# elsewhere does so once: leave the first block out there.
terraform {
  required_providers {
    oci = {
      source  = "oracle/oci"
      version = ">= 6.12.0"
    }
  }
}

variable "tenancy_ocid" {
  type = string
}

variable "zpr_is_enabled" {
  description = "Whether ZPR has been enabled in the tenancy before."
  type        = bool
  default     = false
}

resource "oci_zpr_configuration" "tenancy" {
  count          = var.zpr_is_enabled ? 0 : 1
  compartment_id = var.tenancy_ocid
  zpr_status     = "ENABLED"
  lifecycle {
    prevent_destroy = true
  }
}`

// terraform writes the resources of Oracle's provider (oracle/oci). Instances are known by the
// names of what they make, so that none takes the place of another one when the plan changes.
func (p *Plan) terraform(out *lines, o Output) {
	out.say("# Words of Oracle's documentation, edition %s.\n%s", o.Edition, preamble)
	// A policy may name an attribute only once that exists, and IAM's a namespace.
	namespaces := p.terraformNamespaces(out)
	attributes := p.terraformAttributes(out)
	policy(out, iamPolicyResource, "certloop", o.IAM, namespaces)
	var statements []string
	for _, s := range o.Statements {
		statements = append(statements, s.Statement)
	}
	for i, some := range slices.Collect(slices.Chunk(statements, maxStatements)) {
		name := "certloop"
		if i > 0 {
			name = fmt.Sprintf("certloop-%d", i+1)
		}
		policy(out, zprPolicyResource, name, some, attributes)
	}
	out.say("\n# The whole order. Terraform does what comes before the VCN; attach nothing before it is done:")
	for i, step := range o.Order {
		out.say("# %d. %s", i+1, step)
	}
}

// terraformNamespaces writes the namespaces of attributes, and returns what has to be there before
// somebody may use them.
func (p *Plan) terraformNamespaces(out *lines) (made []string) {
	made = []string{configurationResource + ".tenancy"}
	own := slices.DeleteFunc(p.namespaces(), func(ns string) bool { return ns == defaultNamespace }) // which exists
	if len(own) > 0 {
		out.say("\nresource %q \"certloop\" {\n  for_each       = toset([%s])", namespaceResource, quoted(own))
		out.say("  compartment_id = var.tenancy_ocid\n  name           = each.key\n  description    = \"certloop\"")
		out.say("  depends_on     = [%s.tenancy]\n}", configurationResource)
		made = append(made, namespaceResource+".certloop")
	}
	return made
}

// terraformAttributes does the same for attributes, in namespaces of the plan's own and in ZPR's.
func (p *Plan) terraformAttributes(out *lines) (made []string) {
	made = []string{configurationResource + ".tenancy"}
	var own, zprs []string
	for _, key := range p.keys() {
		if key.Namespace == defaultNamespace {
			zprs = append(zprs, key.Key)
		} else {
			own = append(own, fmt.Sprintf("    %s = { namespace = %s, name = %s }", quote(key.Namespace+"."+key.Key), quote(key.Namespace), quote(key.Key)))
		}
	}
	if len(own) > 0 {
		out.say("\nresource %q \"certloop\" {\n  for_each = {\n%s\n  }", attributeResource, strings.Join(own, "\n"))
		out.say("  security_attribute_namespace_id = %s.certloop[each.value.namespace].id", namespaceResource)
		out.say("  name                            = each.value.name\n  description                     = \"certloop\"\n}")
		made = append(made, attributeResource+".certloop")
	}
	if len(zprs) > 0 {
		out.say("\ndata %q \"zpr\" {\n  compartment_id = var.tenancy_ocid\n  name           = %s", namespaceResource+"s", quote(defaultNamespace))
		out.say("  depends_on     = [%s.tenancy]\n}", configurationResource)
		out.say("\nresource %q \"zpr\" {\n  for_each                        = toset([%s])", attributeResource, quoted(zprs))
		out.say("  security_attribute_namespace_id = data.%ss.zpr.security_attribute_namespaces[0].id", namespaceResource)
		out.say("  name                            = each.key\n  description                     = \"certloop\"\n}")
		made = append(made, attributeResource+".zpr")
	}
	return made
}

// keys are the attributes without their values. ZPR's own sensitivity exists.
func (p *Plan) keys() (all []Attribute) {
	for _, a := range p.attributeSet() {
		a.Value = ""
		if a != (Attribute{defaultNamespace, "sensitivity", ""}) && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// policy is one of either kind. Both stand in the root compartment: statements about the
// tenancy must, and so must every ZPR policy.
func policy(out *lines, kind, name string, statements, after []string) {
	out.say("\nresource %q %q {", kind, name)
	out.say("  compartment_id = var.tenancy_ocid\n  name           = %s\n  description    = \"certloop\"\n  statements = [", quote(name))
	for _, s := range statements {
		out.say("    %s,", quote(s))
	}
	out.say("  ]\n  depends_on = [")
	for _, a := range after {
		out.say("    %s,", a)
	}
	out.say("  ]\n}")
}

func quoted(all []string) string {
	var texts []string
	for _, s := range all {
		texts = append(texts, quote(s))
	}
	return strings.Join(texts, ", ")
}

// quote writes a string of HCL. "${" and "%{" would begin a template.
func quote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(s)
	return `"` + s + `"`
}
