package responder

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestReadme: the README names every way to misbehave.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Behaviour]()) {
		if !strings.Contains(string(text), "`"+field.Name+"`") {
			t.Errorf("Behaviour.%s is not in README.md", field.Name)
		}
	}
}
