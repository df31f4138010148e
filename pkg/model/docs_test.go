package model

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write generated parts of documents")

// The table of types in docs/events.md is that of Kinds.
func TestEventsDocument(t *testing.T) {
	const path, begin, end = "../../docs/events.md", "<!-- begin types -->\n", "<!-- end types -->"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(doc), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no markers %q and %q", path, begin, end)
	}
	want := typesTable()
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("%s is not the table of Kinds: run go test ./pkg/model -run TestEventsDocument -update", path)
	}
}

func typesTable() string {
	var b strings.Builder
	b.WriteString("| type | acted on by | kept | meaning |\n|---|---|---|---|\n")
	for _, k := range Kinds() {
		kept := "no"
		if k.Fact {
			kept = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Type, verbs(k.Consumers), kept, k.Doc)
	}
	return b.String()
}

func verbs(vs []Verb) string {
	var names []string
	for _, v := range vs {
		names = append(names, string(v))
	}
	if len(names) == 0 {
		return "–"
	}
	return strings.Join(names, ", ")
}
