package functiontest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/certloop/certloop/pkg/model"
)

// row finds a row of the table in a function's README.
func row(tb testing.TB, readme, title string) string {
	tb.Helper()
	text, err := os.ReadFile(readme) // #nosec G304 -- the function's own
	if err != nil {
		tb.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\| ` + title + ` \| (.*) \|$`).FindSubmatch(text)
	if m == nil {
		tb.Fatalf("%s has no row %q", readme, title)
	}
	return string(m[1])
}

// Rights reads the row of rights in a function's README: sentences such as
// "cmpissuers, cmpcertificates: get, list; their status: update. secrets: get."
// A sentence without a colon gives none.
func Rights(tb testing.TB, readme string) (rules []rbacv1.PolicyRule) {
	tb.Helper()
	var resources []string
	for _, sentence := range strings.FieldsFunc(row(tb, readme, "rights"), func(r rune) bool { return r == '.' || r == ';' }) {
		whose, verbs, ok := strings.Cut(sentence, ":")
		if !ok {
			continue
		}
		if whose = strings.TrimSpace(whose); whose == "their status" {
			for i := range resources {
				resources[i] += "/status"
			}
		} else {
			resources = list(whose)
		}
		group := model.GroupVersion.Group
		if whose == "secrets" {
			group = corev1.GroupName
		}
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: append([]string(nil), resources...), Verbs: list(verbs)})
	}
	if len(rules) == 0 {
		tb.Fatalf("%s: no rights are understood", readme)
	}
	return rules
}

func list(s string) []string {
	words := strings.Split(s, ",")
	for i := range words {
		words[i] = strings.TrimSpace(words[i])
	}
	return words
}

// Events reads a row of event types in a function's README, "events in" or "events
// out", with its braces: a.{b,c} is a.b and a.c.
func Events(tb testing.TB, readme, title string) (types []string) {
	tb.Helper()
	for _, m := range regexp.MustCompile("`((?:io\\.certloop|dev\\.knative)\\.[^`]+)`").FindAllStringSubmatch(row(tb, readme, title), -1) {
		types = append(types, expand(m[1])...)
	}
	if len(types) == 0 {
		tb.Fatalf("%s: no types are understood in the row %q", readme, title)
	}
	return types
}

func expand(text string) (all []string) {
	before, rest, ok := strings.Cut(text, "{")
	inner, after, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return []string{text}
	}
	for word := range strings.SplitSeq(inner, ",") {
		all = append(all, expand(before+word+after)...)
	}
	return all
}
