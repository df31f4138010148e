package zpr

import (
	"fmt"
	"io"
	"strings"
)

// Formats of generated output.
const (
	FormatText      = "text"
	FormatTerraform = "terraform"
)

// Formats are all of them.
func Formats() []string { return []string{FormatText, FormatTerraform} }

// Generate writes everything a plan needs. The plan has been checked.
func Generate(w io.Writer, p *Plan, format string, edition Edition) error {
	out := &lines{}
	if format == FormatTerraform {
		p.terraform(out, edition)
	} else {
		p.text(out, edition)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

type lines struct{ strings.Builder }

func (l *lines) say(format string, args ...any) { _, _ = fmt.Fprintf(l, format+"\n", args...) }

func (p *Plan) text(out *lines, edition Edition) {
	out.say("# Words of Oracle's documentation, edition %s.", edition)
	out.say("\n## Security attributes")
	for _, a := range p.attributeSet() {
		out.say("%s", a)
	}
	out.say("\n## IAM policy statements")
	for _, s := range p.iam(edition) {
		out.say("%s", s)
	}
	out.say("\n## ZPR policy statements")
	for _, s := range p.statements(edition) {
		out.say("# %s\n%s", s.Why, s)
	}
	out.say("\n## Order")
	for i, step := range p.runbook() {
		out.say("%d. %s", i+1, step)
	}
}

// terraform writes the resources of Oracle's provider (oracle/oci).
func (p *Plan) terraform(out *lines, edition Edition) {
	out.say("# Words of Oracle's documentation, edition %s.", edition)
	out.say("variable \"tenancy_ocid\" {\n  type = string\n}")
	for _, ns := range p.namespaces() {
		out.say("\nresource \"oci_security_attribute_security_attribute_namespace\" %q {", identifier(ns))
		out.say("  compartment_id = var.tenancy_ocid\n  name           = %s\n  description    = \"certloop\"\n}", quote(ns))
	}
	for _, key := range p.keys() {
		out.say("\nresource \"oci_security_attribute_security_attribute\" %q {", identifier(key.Namespace+"_"+key.Key))
		out.say("  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.%s.id", identifier(key.Namespace))
		out.say("  name                            = %s\n  description                     = \"certloop\"\n}", quote(key.Key))
	}
	resource(out, "oci_identity_policy", p.iam(edition))
	var statements []string
	for _, s := range p.statements(edition) {
		statements = append(statements, s.String())
	}
	resource(out, "oci_zpr_zpr_policy", statements)
	out.say("\n# What Terraform cannot do in the right order:")
	for i, step := range p.runbook() {
		out.say("# %d. %s", i+1, step)
	}
}

// keys are the attributes without their values, those of ZPR's own namespace left out.
func (p *Plan) keys() (all []Attribute) {
	seen := map[Attribute]bool{}
	for _, a := range p.attributeSet() {
		a.Value = ""
		if a.Namespace != defaultNamespace && !seen[a] {
			seen[a] = true
			all = append(all, a)
		}
	}
	return all
}

// resource is a policy. Both kinds stand in the root compartment: statements about the
// tenancy must, and so must every ZPR policy.
func resource(out *lines, kind string, statements []string) {
	out.say("\nresource %q \"certloop\" {", kind)
	out.say("  compartment_id = var.tenancy_ocid\n  name           = \"certloop\"\n  description    = \"certloop\"\n  statements = [")
	for _, s := range statements {
		out.say("    %s,", quote(s))
	}
	out.say("  ]\n}")
}

// quote writes a string of HCL. "${" and "%{" would begin a template.
func quote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(s)
	return `"` + s + `"`
}

func identifier(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '.' {
			return '_'
		}
		return r
	}, s)
}
