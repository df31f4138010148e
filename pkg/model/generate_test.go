package model

import (
	"bytes"
	order "cmp"
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const schemaBase = "https://certloop.io/schemas/" // is schemas.Base, which imports nothing of ours

// same compares a generated file with what it is to be, or writes it.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what it is generated from (%v): run make generate", path, err)
	}
}

// The schemas are those of the payloads, and there are no others.
func TestSchemaDocuments(t *testing.T) {
	facts := factSchemas(t)
	want := map[string]bool{}
	for _, k := range Kinds() {
		data, _ := Payload(k.Type)
		if data == nil {
			continue
		}
		var s object
		switch data.(type) {
		case CMPCertificate:
			s = resourceSchema(t, CertificateKind, CertificateResource)
		case CMPIssuer:
			s = resourceSchema(t, IssuerKind, IssuerResource)
		default:
			s = facts(data)
		}
		if !ours(k) {
			delete(s, "additionalProperties") // what others send may have more
		}
		s["$schema"], s["$id"], s["title"] = "https://json-schema.org/draft/2020-12/schema", schemaBase+k.Type+".json", k.Type
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("schemas", k.Type+".json")
		want[path] = true
		same(t, path, append(text, '\n'))
	}
	there, err := filepath.Glob("schemas/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if !want[path] {
			t.Errorf("%s is the schema of no event: delete it", path)
		}
	}
}

// factSchemas makes schemas of payload types, their comments included. Payloads are flat: what
// else a type could be made of is not known here.
func factSchemas(t *testing.T) func(any) object {
	t.Helper()
	comments := fieldComments(t)
	var schemaOf func(reflect.Type) object
	schemaOf = func(of reflect.Type) object {
		switch kind := of.Kind(); {
		case of == reflect.TypeFor[metav1.Time]():
			return object{"type": "string", "format": "date-time"}
		case kind == reflect.Pointer:
			return schemaOf(of.Elem())
		case kind == reflect.String:
			return object{"type": "string"}
		case kind == reflect.Float64:
			return object{"type": "number"}
		case kind >= reflect.Int && kind <= reflect.Uint64:
			return object{"type": "integer"}
		case kind == reflect.Slice:
			return object{"type": "array", "items": schemaOf(of.Elem())}
		case kind != reflect.Struct:
			t.Fatalf("a payload has a %v", of)
		}
		properties, required := object{}, []string{}
		for field := range of.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			s := schemaOf(field.Type)
			if c := comments[of.Name()+"."+field.Name]; c != "" {
				s["description"] = c
			}
			properties[name] = s
			if !strings.HasPrefix(options, "omit") {
				required = append(required, name)
			}
		}
		return object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	}
	return func(data any) object { return schemaOf(reflect.TypeOf(data)) }
}

// fieldComments are what stands above or beside the fields of the structs in event.go.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "event.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range of.Fields.List {
				for _, name := range f.Names {
					found[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(order.Or(f.Doc.Text(), f.Comment.Text())), " ")
				}
			}
		}
		return true
	})
	return found
}

// definition is the schema of a custom resource, as its CustomResourceDefinition has it.
func definition(t *testing.T, resource string) object {
	t.Helper()
	text, err := os.ReadFile("../../deploy/knative/crds/certloop.io_" + resource + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema object `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// resourceSchema is that of a custom resource as an event bears it: metadata may be left out,
// status is ours, and what is misspelt is refused.
func resourceSchema(t *testing.T, kind, resource string) object {
	t.Helper()
	schema := definition(t, resource)
	strict(schema)
	properties := schema["properties"].(object)
	delete(properties, "status")
	kinds := []string{kind}
	if kind == IssuerKind {
		kinds = append(kinds, ClusterIssuerKind)
	}
	properties["kind"] = object{"type": "string", "enum": kinds}
	properties["apiVersion"] = object{"type": "string", "const": GroupVersion.String()}
	properties["metadata"] = object{"type": "object", "description": "name and namespace must be those of the subject"}
	return schema
}

// strict turns a structural schema into one that refuses unknown properties.
func strict(schema object) {
	maps.DeleteFunc(schema, func(key string, _ any) bool { return strings.HasPrefix(key, "x-kubernetes-") })
	if properties, ok := schema["properties"].(object); ok {
		schema["additionalProperties"] = false
		for _, p := range properties {
			strict(p.(object))
		}
	}
	if items, ok := schema["items"].(object); ok {
		strict(items)
	}
}

type object = map[string]any

func ours(k Kind) bool { return strings.HasPrefix(k.Type, "io.certloop.") }

// docs/asyncapi.yaml describes the subjects of NATS and what travels on them.
func TestAsyncAPIDocument(t *testing.T) {
	messages, channels, operations := object{}, object{}, object{}
	for _, k := range Kinds() {
		if ours(k) {
			messages[k.Type] = message(k)
		}
	}
	for _, v := range []Verb{Enroll, Renew, Watch, Scan} {
		kinds := slices.DeleteFunc(KindsFor(v), func(k Kind) bool { return !ours(k) })
		if len(kinds) == 0 {
			continue
		}
		id := "work-" + string(v)
		channels[id] = channel("certloop.work."+string(v)+".{namespace}.{name}", "Work for "+string(v)+".", kinds)
		operations[id] = object{"action": "receive", "channel": ref("channels", id), "summary": "The function that acts on it."}
	}
	for _, k := range Kinds() {
		if !k.Fact {
			continue
		}
		words := strings.TrimSuffix(strings.TrimPrefix(k.Type, "io.certloop."), ".v1")
		id := "history-" + strings.ReplaceAll(words, ".", "-")
		channels[id] = channel("certloop.evt."+words+".{namespace}.{name}", k.Doc, []Kind{k})
		operations[id] = object{"action": "send", "channel": ref("channels", id), "summary": k.Doc}
	}
	out, err := yaml.Marshal(object{
		"asyncapi": "3.0.0",
		"info": object{
			"title": "certloop", "version": "v1", "license": object{"name": "Apache-2.0"},
			"description": "CloudEvents 1.0 in binary mode over NATS JetStream, attributes as ce- headers. See events.md.",
		},
		"defaultContentType": "application/json",
		"servers":            object{"nats": object{"host": "nats:4222", "protocol": "nats"}},
		"channels":           channels, "operations": operations,
		"components": object{"messages": messages},
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "../../docs/asyncapi.yaml", append([]byte("# Generated from the table of events: make generate.\n"), out...))
}

func ref(path ...string) object { return object{"$ref": "#/" + strings.Join(path, "/")} }

func channel(address, description string, kinds []Kind) object {
	messages := object{}
	for _, k := range kinds {
		messages[k.Type] = ref("components", "messages", k.Type)
	}
	return object{"address": address, "description": description, "messages": messages, "parameters": object{
		"namespace": object{"description": "of the object, _ when there is none"},
		"name":      object{"description": "of the object, dots written as _"},
	}}
}

func message(k Kind) object {
	header := func(of string) object { return object{"type": "string", "description": of} }
	m := object{
		"name": k.Type, "summary": k.Doc, "contentType": "application/json",
		"headers": object{"type": "object", "required": []string{"ce-specversion", "ce-type", "ce-source", "ce-id"}, "properties": object{
			"ce-specversion": object{"const": "1.0"}, "ce-type": object{"const": k.Type}, "ce-source": header("who tells it"),
			"ce-id": header("unique with the source"), "ce-subject": header("namespace/name"),
			"ce-correlationid": header("constant from a request to its certificate"), "ce-causationid": header("id of the event this one follows from"),
			"ce-traceparent": header("W3C trace context"), "ce-notbefore": header("not delivered before this time"),
		}},
	}
	if data, _ := Payload(k.Type); data != nil {
		m["payload"] = object{"$ref": "../pkg/model/schemas/" + k.Type + ".json"}
	}
	return m
}

// Every type that certloop itself sends has a payload, or is one of those without.
func TestPayloads(t *testing.T) {
	none := []string{ConfigDeleted, IssuerDeleted, ResourceAdd, ResourceUpdate, ResourceDelete, Ping, IssuerProbe, IssuerCheck}
	for _, k := range Kinds() {
		if data, _ := Payload(k.Type); (data == nil) != slices.Contains(none, k.Type) {
			t.Errorf("%s: got payload %T", k.Type, data)
		}
	}
}
