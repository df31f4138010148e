// Package knative holds the manifests that certloop is deployed with.
package knative

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed crds/*.yaml policies/*.yaml
var manifests embed.FS

// CRDs are the custom resource definitions in the order of their names, one YAML
// document each.
func CRDs() ([][]byte, error) { return documents("crds/*.yaml") }

// Policies are the admission policies and their bindings, one YAML document each. They
// need the custom resource definitions.
func Policies() ([][]byte, error) { return documents("policies/*.yaml") }

func documents(pattern string) ([][]byte, error) {
	names, err := fs.Glob(manifests, pattern)
	if err != nil {
		return nil, err
	}
	all := make([][]byte, 0, len(names))
	for _, name := range names {
		content, err := manifests.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("embedded %s: %w", name, err)
		}
		all = append(all, content)
	}
	return all, nil
}
