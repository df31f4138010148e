package zpr

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
