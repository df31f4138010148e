package docs

import (
	"regexp"
	"strings"
	"testing"
)

// What stands for a field of OCCM is a field of ours, in the table of its resource.
func TestOCCMFields(t *testing.T) {
	for resource, header := range map[string]string{"cmpissuers": "## Issuer", "cmpcertificates": "## Certificate"} {
		_, text, found := strings.Cut(read(t, "docs/occm.md"), header)
		text, _, _ = strings.Cut(text, "\n## ")
		if !found {
			t.Fatalf("no %s", header)
		}
		fields := specOf(t, resource)
		n := 0
		for line := range strings.Lines(text) {
			cells := strings.Split(line, " | ")
			if len(cells) != 2 || cells[1] == "here |\n" {
				continue
			}
			n++
			var before string
			ours := 0
			for _, m := range fieldName.FindAllStringSubmatch(cells[1], -1) {
				path := m[1]
				if strings.HasPrefix(path, ".") {
					path = before + path
				}
				if fields.has(strings.Split(path, ".")) {
					before = path[:max(0, strings.LastIndex(path, "."))]
					ours++
				} else if strings.Contains(path, ".") && !strings.HasPrefix(path, "metadata.") {
					t.Errorf("%s has no field %s", resource, path)
				}
			}
			if ours == 0 && !strings.Contains(cells[1], "`metadata.name`") {
				t.Errorf("no field of ours in %s", line)
			}
		}
		if n < 10 {
			t.Errorf("%s: only %d rows", header, n)
		}
	}
}

var fieldName = regexp.MustCompile("`(\\.?[a-z][A-Za-z.]*)[^`]*`")

func (s schema) has(path []string) bool {
	if len(path) == 0 {
		return true
	}
	next, ok := s.Properties[path[0]]
	return ok && next.has(path[1:])
}
