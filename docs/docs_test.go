package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/pkg/model"
	"github.com/certloop/certloop/test/e2e/rig"
)

// Every command in a document is tried by a test, and here is which: a new one must be
// added, and a test for it.
func TestEveryCommandIsTried(t *testing.T) {
	tried := map[string]string{
		"make run":                           "bin/certloop dev, in TestDevOnce of test/e2e",
		"make test":                          "is how this is run",
		one(t, "README.md", "kubectl get"):   "TestExamples",
		one(t, "README.md", "certloop get"):  "TestExamples",
		one(t, "docs/events.md", "curl"):     "TestExamples",
		one(t, "docs/events.md", "nats pub"): "TestExamples",
		one(t, "docs/issuers.md", bootstrap): "TestExamples",
		one(t, "docs/issuers.md", trust):     "TestExamples",

		one(t, "docs/certificates.md", roots): "TestExamples",
	}
	for _, command := range commands(t, of(t, blocks(t, "sh"), operations)) {
		tried[command] = "TestExamples, which counts them"
	}
	for _, command := range commands(t, blocks(t, "sh")) {
		if tried[command] == "" {
			t.Errorf("no test tries %q", command)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)

// Links between documents lead somewhere.
func TestLinks(t *testing.T) {
	links := 0
	for _, document := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, document), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(document), m[1])); err != nil {
				t.Errorf("%s: a link leads nowhere: %v", document, err)
			}
		}
	}
	if links == 0 {
		t.Error("no links were found")
	}
}

var (
	reason = regexp.MustCompile(`^([A-Z][A-Za-z]*[a-z][A-Z][A-Za-z]*|[A-Z]{2,}[a-z]+[A-Za-z]*)$`)
	quoted = regexp.MustCompile("`([^`]+)`")
)

// The reasons in docs/lifecycle.md are in the source, and docs/reasons.md has them all.
func TestReasons(t *testing.T) {
	const document = "docs/lifecycle.md"
	inSource := literals(t, filepath.Join(root, "pkg", "lifecycle"))
	table := column(t, document, "| what happened | reason | what follows |", 1)
	for _, r := range table {
		if !inSource[r] {
			t.Errorf("%s has the reason %s, which pkg/lifecycle does not", document, r)
		}
	}
	catalogue := map[string]bool{}
	for _, r := range model.Reasons() {
		catalogue[r.Code] = true
	}
	for _, r := range slices.Sorted(maps.Keys(inSource)) {
		if !catalogue[r] {
			t.Errorf("pkg/lifecycle has the reason %s, which docs/reasons.md does not", r)
		}
	}
	if len(table) < 10 || len(inSource) < len(table) {
		t.Errorf("%d reasons in the table and %d in the source were found", len(table), len(inSource))
	}
}

// literals are the strings in the source of a package that are written like a reason,
// and the reasons of model that it uses. That other strings are not is part of the bargain.
func literals(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && reason.MatchString(s) {
					found[s] = true
				}
			case *ast.SelectorExpr:
				if code, ok := strings.CutPrefix(n.Sel.Name, "Reason"); ok && isPackage(n.X, "model") {
					found[code] = true
				}
			}
			return true
		})
	}
	return found
}

func isPackage(x ast.Expr, name string) bool {
	id, ok := x.(*ast.Ident)
	return ok && id.Name == name
}

// column lists what is quoted in a column of the table with a heading.
func column(t *testing.T, document, heading string, n int) (all []string) {
	t.Helper()
	for _, cells := range rows(t, document, heading) {
		for _, m := range quoted.FindAllStringSubmatch(cells[n], -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// rows are the cells of the table with a heading.
func rows(t *testing.T, document, heading string) (all [][]string) {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, document), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no table %q", document, heading)
	}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"); !strings.HasPrefix(line, "|---") {
			all = append(all, cells)
		}
	}
	return all
}

// The tables of fields name those of the custom resources, all of them and no others.
func TestFields(t *testing.T) {
	for _, tc := range []struct{ document, heading, crd string }{
		{"docs/issuers.md", "| field | meaning | default |", "cmpissuers"},
		{"docs/certificates.md", "| field | meaning | default | example |", "cmpcertificates"},
	} {
		documented := column(t, tc.document, tc.heading, 0)
		fields := leaves(specOf(t, tc.crd), "")
		for _, path := range fields {
			if !slices.Contains(documented, path) {
				t.Errorf("%s does not have the field %s", tc.document, path)
			}
		}
		for _, path := range documented {
			if !slices.Contains(fields, path) {
				t.Errorf("%s has the field %s, which there is not", tc.document, path)
			}
		}
		if len(fields) < 30 {
			t.Errorf("%s: got %d fields", tc.crd, len(fields))
		}
	}
}

// The examples in the table of a CMPCertificate's fields are values of these fields.
func TestFieldExamples(t *testing.T) {
	for _, row := range rows(t, "docs/certificates.md", "| field | meaning | default | example |") {
		path, example := quoted.FindStringSubmatch(row[0])[1], quoted.FindStringSubmatch(row[3])
		if example == nil {
			t.Errorf("%s has no example", path)
			continue
		}
		spec := fmt.Sprintf("{%s%s%s}", strings.ReplaceAll(path, ".", ": {")+": ", example[1], strings.Repeat("}", strings.Count(path, ".")))
		var c model.CMPCertificateSpec
		if err := yaml.UnmarshalStrict([]byte(spec), &c); err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		for _, problem := range c.Validate() {
			if strings.HasPrefix(problem.Field, "spec."+path) && problem.Type != field.ErrorTypeRequired {
				t.Errorf("%s: %v", spec, problem)
			}
		}
	}
}

// schema is what is of interest here in an OpenAPI schema.
type schema struct {
	Properties map[string]schema `json:"properties"`
}

func specOf(t *testing.T, resource string) schema {
	t.Helper()
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/knative/crds/certloop.io_"+resource+".yaml")), &crd); err != nil {
		t.Fatal(err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
}

// leaves are the paths of the fields that have no fields themselves.
func leaves(s schema, path string) (all []string) {
	for name, field := range s.Properties {
		if len(field.Properties) == 0 {
			all = append(all, path+name)
		}
		all = append(all, leaves(field, path+name+".")...)
	}
	slices.Sort(all)
	return all
}

// The variables that READMEs name exist.
func TestEnvironment(t *testing.T) {
	help := output(t, rig.Binary(t, "enroll"), "--help")
	for _, document := range documents(t) {
		for _, m := range quoted.FindAllStringSubmatch(read(t, document), -1) {
			if strings.HasPrefix(m[1], "CERTLOOP_") && strings.ToUpper(m[1]) == m[1] && !strings.Contains(help, m[1]) && !stream[m[1]] {
				t.Errorf("%s names the variable %s, which a function does not know", document, m[1])
			}
		}
	}
}

// stream names look like variables.
var stream = map[string]bool{"CERTLOOP_WORK": true, "CERTLOOP_EVENTS": true, "CERTLOOP_DEAD": true}
