package model

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every reason has one row, and every row is complete.
func TestReasons(t *testing.T) {
	rows := Reasons()
	constants := reasonConstants(t)
	if len(rows) < 30 || len(rows) != len(constants) {
		t.Errorf("got %d rows and %d constants, want one for each and at least 30", len(rows), len(constants))
	}
	abouts := []string{AboutCertificate, AboutIssuer, AboutConfiguration, AboutSecret}
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.Code] {
			t.Errorf("%s is there twice", r.Code)
		}
		seen[r.Code] = true
		if constants["Reason"+r.Code] != r.Code {
			t.Errorf("%s has no constant Reason%[1]s", r.Code)
		}
		if !slices.Contains(abouts, r.About) || !strings.HasSuffix(r.Cause, ".") || r.Remedy == "" || strings.HasSuffix(r.Remedy, ".") {
			t.Errorf("the row of %s is not complete: %+v", r.Code, r)
		}
		if r.Alert && strings.HasPrefix(r.Remedy, "none") {
			t.Errorf("%s alerts, and there is nothing to do", r.Code)
		}
	}
}

func reasonConstants(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	ast.Inspect(source(t, "reason.go"), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			found[spec.Names[0].Name] = literal(spec.Values[0])
		}
		return true
	})
	return found
}

var writtenLikeAReason = regexp.MustCompile(`^([A-Z][A-Za-z]*[a-z][A-Z][A-Za-z]*|[A-Z]{2,}[a-z]+[A-Za-z]*)$`)

// No reason is made up where it is used.
func TestReasonsInSource(t *testing.T) {
	known := map[string]bool{}
	for _, r := range Reasons() {
		known[r.Code] = true
	}
	for _, file := range slices.Concat(sources(t, "../lifecycle"), sources(t, "../ledger")) {
		ast.Inspect(source(t, file), func(n ast.Node) bool {
			if s := literal(n); writtenLikeAReason.MatchString(s) && !known[s] {
				t.Errorf("%s: %q is not in the catalogue of reasons", file, s)
			}
			return true
		})
	}
}

func sources(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: got %d files, %v", dir, len(files), err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
}

func source(t *testing.T, file string) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// literal is the string that a node is; "" when it is none.
func literal(n ast.Node) string {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != gotoken.STRING {
		return ""
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	return s
}
