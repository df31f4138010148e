package zpr

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Formats of output.
const (
	FormatText      = "text"
	FormatTerraform = "terraform"
	FormatJSON      = "json"
	FormatYAML      = "yaml"
)

// Formats are those of what is generated.
func Formats() []string { return []string{FormatText, FormatTerraform, FormatJSON, FormatYAML} }

// ReportFormats are those of a report.
func ReportFormats() []string { return []string{FormatText, FormatJSON, FormatYAML} }

// Output is everything a plan needs.
type Output struct {
	Edition    Edition           `json:"edition"` // of Oracle's documentation
	Attributes []string          `json:"attributes"`
	IAM        []string          `json:"iam"`
	Statements []StatementOutput `json:"statements"`
	Order      []string          `json:"order"` // to introduce it in
}

// StatementOutput is a ZPR policy statement and who needs it.
type StatementOutput struct {
	Statement string `json:"statement"`
	Why       string `json:"why"`
}

func (p *Plan) output(edition Edition) Output {
	o := Output{Edition: edition, IAM: p.iam(edition), Order: p.order()}
	for _, a := range p.attributeSet() {
		o.Attributes = append(o.Attributes, a.String())
	}
	statements, _ := p.statements(edition)
	for _, s := range statements {
		o.Statements = append(o.Statements, StatementOutput{s.String(), s.Why})
	}
	return o
}

// Generate writes everything a plan needs. The plan has been checked.
func Generate(w io.Writer, p *Plan, format string, edition Edition) error {
	o := p.output(edition)
	out := &lines{}
	switch format {
	case FormatTerraform:
		p.terraform(out, o)
	case FormatText:
		o.text(out)
	default:
		return encode(w, format, o)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// Report writes what is wrong with a plan, in JSON or YAML.
func Report(w io.Writer, format string, found []Problem) error {
	if found == nil {
		found = []Problem{}
	}
	return encode(w, format, struct {
		Valid    bool      `json:"valid"`
		Problems []Problem `json:"problems"`
	}{len(found) == 0, found})
}

func encode(w io.Writer, format string, v any) error {
	var content bytes.Buffer
	e := json.NewEncoder(&content)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	text := content.Bytes()
	if format == FormatYAML {
		var err error
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
	}
	_, err := w.Write(text)
	return err
}

type lines struct{ strings.Builder }

func (l *lines) say(format string, args ...any) { _, _ = fmt.Fprintf(l, format+"\n", args...) }

func (o Output) text(out *lines) {
	out.say("# Words of Oracle's documentation, edition %s.", o.Edition)
	out.say("\n## Security attributes")
	for _, a := range o.Attributes {
		out.say("%s", a)
	}
	out.say("\n## IAM policy statements")
	for _, s := range o.IAM {
		out.say("%s", s)
	}
	out.say("\n## ZPR policy statements")
	for _, s := range o.Statements {
		out.say("# %s\n%s", s.Why, s.Statement)
	}
	out.say("\n## Order")
	for i, step := range o.Order {
		out.say("%d. %s", i+1, step)
	}
}

// enableZPR is once for a tenancy. What others rely on is not to go with this.
const enableZPR = `variable "zpr_is_enabled" {
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

// terraform writes the resources of Oracle's provider (oracle/oci).
func (p *Plan) terraform(out *lines, o Output) {
	out.say("# Words of Oracle's documentation, edition %s.", o.Edition)
	out.say("# For the provider oracle/oci 6.12 or later, in the tenancy's home region.")
	out.say("variable \"tenancy_ocid\" {\n  type = string\n}\n\n%s", enableZPR)
	// A policy may name an attribute only once that exists, and IAM's a namespace.
	attributes, namespaces := []string{"oci_zpr_configuration.tenancy"}, []string{"oci_zpr_configuration.tenancy"}
	for _, ns := range p.namespaces() {
		if ns == defaultNamespace {
			continue // exists
		}
		out.say("\nresource %q %q {", namespaceResource, identifier(ns))
		out.say("  compartment_id = var.tenancy_ocid\n  name           = %s\n  description    = \"certloop\"", quote(ns))
		out.say("  depends_on     = [oci_zpr_configuration.tenancy]\n}")
		namespaces = append(namespaces, namespaceResource+"."+identifier(ns))
	}
	if slices.ContainsFunc(p.keys(), func(a Attribute) bool { return a.Namespace == defaultNamespace }) {
		out.say("\ndata %q \"zpr\" {\n  compartment_id = var.tenancy_ocid\n  name           = %q", namespaceResource+"s", defaultNamespace)
		out.say("  depends_on     = [oci_zpr_configuration.tenancy]\n}")
	}
	for _, key := range p.keys() {
		name := identifier(key.Namespace + "_" + key.Key)
		out.say("\nresource %q %q {", attributeResource, name)
		if key.Namespace == defaultNamespace {
			out.say("  security_attribute_namespace_id = data.%ss.zpr.security_attribute_namespaces[0].id", namespaceResource)
		} else {
			out.say("  security_attribute_namespace_id = %s.%s.id", namespaceResource, identifier(key.Namespace))
		}
		out.say("  name                            = %s\n  description                     = \"certloop\"\n}", quote(key.Key))
		attributes = append(attributes, attributeResource+"."+name)
	}
	policy(out, "oci_identity_policy", o.IAM, namespaces)
	var statements []string
	for _, s := range o.Statements {
		statements = append(statements, s.Statement)
	}
	policy(out, "oci_zpr_zpr_policy", statements, attributes)
	out.say("\n# The whole order. Terraform does what comes before the VCN; attach nothing before it is done:")
	for i, step := range o.Order {
		out.say("# %d. %s", i+1, step)
	}
}

const (
	namespaceResource = "oci_security_attribute_security_attribute_namespace"
	attributeResource = "oci_security_attribute_security_attribute"
)

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
func policy(out *lines, kind string, statements, after []string) {
	out.say("\nresource %q \"certloop\" {", kind)
	out.say("  compartment_id = var.tenancy_ocid\n  name           = \"certloop\"\n  description    = \"certloop\"\n  statements = [")
	for _, s := range statements {
		out.say("    %s,", quote(s))
	}
	out.say("  ]\n  depends_on = [")
	for _, a := range after {
		out.say("    %s,", a)
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
