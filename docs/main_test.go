// Package docs runs what the documents show: their YAML is applied, their commands are
// executed, their tables are compared with the source. An example that no longer works
// fails a test.
package docs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// root is the directory of the project, in which the documents' commands are run.
const root = ".."

// block is a fenced block of a document.
type block struct {
	document string // relative to root
	language string
	text     string
}

// documents are all that people read first.
func documents(t testing.TB) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "functions/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no document is %s: %v", pattern, err)
		}
		for _, path := range found {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, name)
		}
	}
	return paths
}

func read(t testing.TB, document string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, document)) // #nosec G304 -- of this project
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks are the fenced blocks of all documents in some languages.
func blocks(t testing.TB, languages ...string) (found []block) {
	t.Helper()
	for _, document := range documents(t) {
		parts := strings.Split("\n"+read(t, document), "\n```")
		if len(parts)%2 == 0 {
			t.Fatalf("%s: a block is not closed", document)
		}
		for i := 1; i < len(parts); i += 2 {
			language, text, _ := strings.Cut(parts[i], "\n")
			if slices.Contains(languages, language) {
				found = append(found, block{document, language, text + "\n"})
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("no document has a block in %v", languages)
	}
	return found
}

// of selects the blocks of a document.
func of(t testing.TB, all []block, document string) (found []block) {
	t.Helper()
	for _, b := range all {
		if b.document == document {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no such block", document)
	}
	return found
}

// commands are the commands of the documents' shell blocks, continued lines as one,
// comments left out.
func commands(t testing.TB, all []block) (found []string) {
	t.Helper()
	for _, b := range all {
		for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", "")) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.Join(strings.Fields(line), " "); line != "" {
				found = append(found, line)
			}
		}
	}
	return found
}

// one is the command of a document that begins so.
func one(t testing.TB, document, begins string) string {
	t.Helper()
	for _, command := range commands(t, of(t, blocks(t, "sh"), document)) {
		if strings.HasPrefix(command, begins) {
			return command
		}
	}
	t.Fatalf("%s has no command %s…", document, begins)
	return ""
}
