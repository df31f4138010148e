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
func TestEventsDocument(t *testing.T) { generated(t, "../../docs/events.md", "types", typesTable()) }

// docs/reasons.md is the catalogue of reasons.
func TestReasonsDocument(t *testing.T) {
	generated(t, "../../docs/reasons.md", "reasons", reasonsText())
}

// The table in docs/certificates.md of what changes do is that of FieldEffects.
func TestEffectsDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("| field | effect | what happens |\n|---|---|---|\n")
	for _, e := range FieldEffects() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.Path, e.Effect, e.Doc)
	}
	generated(t, "../../docs/certificates.md", "effects", b.String())
}

// generated compares what stands between two markers of a document with what belongs
// there, or writes it there.
func generated(t *testing.T, path, part, want string) {
	t.Helper()
	begin, end := "<!-- begin "+part+" -->\n", "<!-- end "+part+" -->"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(doc), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no markers %q and %q", path, begin, end)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("%s is not what it is generated from: run go test ./pkg/model -run %s -update", path, t.Name())
	}
}

func reasonsText() string {
	var index, text strings.Builder
	index.WriteString("| reason | about | alerts |\n|---|---|---|\n")
	for _, r := range Reasons() {
		alerts := ""
		if r.Alert {
			alerts = "yes"
		}
		fmt.Fprintf(&index, "| [%s](#%s) | %s | %s |\n", r.Code, strings.ToLower(r.Code), r.About, alerts)
		fmt.Fprintf(&text, "\n### %s\n\n%s\n\nRemedy: %s.\n", r.Code, r.Cause, r.Remedy)
	}
	return index.String() + text.String()
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
