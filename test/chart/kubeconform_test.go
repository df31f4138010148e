package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yannh/kubeconform/pkg/validator"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// groupVersions are those of the chart's objects. Where the API server publishes no schema of one of
// them yet, it does so in a moment.
var groupVersions = []string{
	"api/v1", "apis/admissionregistration.k8s.io/v1", "apis/apiextensions.k8s.io/v1", "apis/apps/v1", "apis/batch/v1", "apis/networking.k8s.io/v1",
	"apis/policy/v1", "apis/rbac.authorization.k8s.io/v1",
	"apis/eventing.knative.dev/v1", "apis/eventing.knative.dev/v1beta3", "apis/serving.knative.dev/v1", "apis/sources.knative.dev/v1",
}

// conformer is kubeconform with the schemas that the API server publishes, of its own kinds
// and of Knative's, in which no field is allowed that they do not name.
func conformer(t *testing.T) validator.Validator {
	t.Helper()
	i, dir := newInstaller(t), t.TempDir()
	for _, api := range groupVersions {
		i.writeSchemas(t, dir, api)
	}
	v, err := validator.New([]string{dir + "/{{ .Group }}/{{ .ResourceAPIVersion }}/{{ .ResourceKind }}.json"}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// document is one of OpenAPI 3.0, which here is a JSON Schema but for its beginning.
type document struct {
	Ref        string `json:"$ref,omitempty"`
	Components struct {
		Schemas map[string]any `json:"schemas"`
	} `json:"components"`
}

// schemaOf is the kind that a schema is of.
type schemaOf struct{ Group, Version, Kind string }

// writeSchemas writes a file for each kind of an API.
func (i *installer) writeSchemas(t *testing.T, dir, api string) {
	t.Helper()
	d := i.published(t, api)
	closeObjects(d.Components.Schemas)
	for name, schema := range d.Components.Schemas {
		kinds, _, _ := unstructured.NestedSlice(schema.(map[string]any), "x-kubernetes-group-version-kind")
		if len(kinds) != 1 {
			continue // what is part of objects, and what is of every group
		}
		kind := decode[schemaOf](t, kinds[0])
		if kind.Group == "" {
			kind.Group = kind.Version // so kubeconform has it
		}
		d.Ref = "#/components/schemas/" + name
		content, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, kind.Group, kind.Version, strings.ToLower(kind.Kind)+".json")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// published is what the API server says of an API.
func (i *installer) published(t *testing.T, api string) document {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var d document
		paths, err := i.kube.OpenAPIV3().Paths()
		if of, ok := paths[api]; ok && err == nil {
			var content []byte
			if content, err = of.Schema(runtime.ContentTypeJSON); err == nil {
				err = json.Unmarshal(content, &d)
			}
		}
		if len(d.Components.Schemas) > 0 && err == nil {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("the API server publishes no schema of %s: %v", api, err)
		}
	}
}

// closeObjects forbids fields that are not named, but where the API server keeps them.
func closeObjects(schema any) {
	switch schema := schema.(type) {
	case map[string]any:
		_, named := schema["properties"].(map[string]any)
		_, open := schema["additionalProperties"]
		if named && !open && schema["x-kubernetes-preserve-unknown-fields"] != true {
			schema["additionalProperties"] = false
		}
		for _, part := range schema {
			closeObjects(part)
		}
	case []any:
		for _, part := range schema {
			closeObjects(part)
		}
	}
}

// conforming fails for what kubeconform does not find valid, and counts what it does.
func conforming(t *testing.T, v validator.Validator, name string, content []byte) (valid int) {
	t.Helper()
	for _, r := range v.Validate(name, io.NopCloser(bytes.NewReader(content))) {
		switch r.Status {
		case validator.Valid:
			valid++
		case validator.Empty:
		default:
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	return valid
}

// kubeconform finds every object valid, and no field in it that is not in its schema.
func TestKubeconform(t *testing.T) {
	v := conformer(t)
	for _, a := range arrangements() {
		for name, overlay := range map[string]string{"": "{}", "-everything": everything} {
			t.Run(a.String()+name, func(t *testing.T) {
				files, err := render(a.home(), a.values(t, overlay))
				if err != nil {
					t.Fatal(err)
				}
				valid := 0
				for _, name := range slices.Sorted(maps.Keys(files)) {
					if filepath.Ext(name) == ".yaml" {
						valid += conforming(t, v, name, []byte(files[name]))
					}
				}
				if want := len(objects(t, files)); valid < want || want < 15 {
					t.Errorf("%d objects were judged, want at least %d", valid, want)
				}
			})
		}
	}
	t.Run("deploy/knative", func(t *testing.T) {
		for _, pattern := range []string{"certloop.yaml", "namespace.yaml", "crds/*.yaml", "policies/*.yaml"} {
			files, err := filepath.Glob(filepath.Join(root, "deploy/knative", pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %d files, %v", pattern, len(files), err)
			}
			for _, file := range files {
				if conforming(t, v, file, read(t, file)) == 0 {
					t.Errorf("%s holds nothing", file)
				}
			}
		}
	})
}

// It would notice.
func TestKubeconformRefuses(t *testing.T) {
	v := conformer(t)
	const service = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{image: a, %s}]}}}\n"
	for name, tt := range map[string]struct {
		object string
		want   validator.Status
	}{
		"nothing wrong":             {fmt.Sprintf(service, "resources: {limits: {memory: 1Gi}}"), validator.Valid},
		"misspelt field":            {fmt.Sprintf(service, "imagePulPolicy: Always"), validator.Invalid},
		"misspelt field of ours":    {"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {matchLabelz: {}}}\n", validator.Invalid},
		"misspelt metadata":         {"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, anotations: {}}\n", validator.Invalid},
		"wrong type":                {fmt.Sprintf(service, "ports: [{containerPort: http}]"), validator.Invalid},
		"one field twice":           {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\ndata: {c: d}\n", validator.Error},
		"a kind that there is none": {"apiVersion: apps/v1\nkind: Deploymnt\nmetadata: {name: a}\n", validator.Error},
		"a version that is gone":    {"apiVersion: eventing.knative.dev/v1beta1\nkind: Broker\nmetadata: {name: a}\n", validator.Error},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range v.Validate(name, io.NopCloser(strings.NewReader(tt.object))) {
				if r.Status != tt.want {
					t.Errorf("got %v (%v), want %v", r.Status, r.Err, tt.want)
				}
			}
		})
	}
}
