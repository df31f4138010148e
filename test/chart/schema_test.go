package chart

import (
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What is wrong is refused, in words that say what to do.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct{ values, want string }{
		"typo at the top":           {"profil: plain", "profil"},
		"typo below":                {"nats: {ulr: nats://nats:4222}", "ulr"},
		"typo in a function":        {"functions: {enroll: {minscale: 1}}", "minscale"},
		"unknown function":          {"functions: {revoke: {minScale: 1}}", "revoke"},
		"unknown profile":           {"profile: openshift", "profile"},
		"Resource mode for Secrets": {"sources: {secrets: {mode: Resource}}", "Reference"},
		"Reference mode for CRs":    {"sources: {certificates: {mode: Reference}}", "Resource"},
		"no CA":                     {"networkPolicy: {ca: []}", "could reach no CA"},
		"CA without port":           {"networkPolicy: {ca: [{name: a, cidrs: [192.0.2.1/32]}]}", "port"},
		"CA by name":                {"networkPolicy: {ca: [{name: a, cidrs: [ca.example.org], port: 80}]}", "cidrs"},
		"CA anywhere":               {"networkPolicy: {ca: [{name: a, cidrs: [0.0.0.0/0], port: 80}]}", "whole internet"},
		"no API server":             {"networkPolicy: {apiServer: {cidrs: []}}", "kubectl get endpointslices"},
		"nowhere for NATS":          {"networkPolicy: {nats: {namespace: \"\"}}", "neither a namespace nor cidrs"},
		"shared with nobody":        {"model: shared", "accessedNamespaces"},
		"dedicated to others":       {"accessedNamespaces: [core]", "model: shared"},
		"no namespace":              {"model: shared\naccessedNamespaces: [Core]", "accessedNamespaces"},
		"a namespace twice":         {"model: shared\naccessedNamespaces: [core, core]", "accessedNamespaces"},
		"password in the URL":       {"nats: {url: \"nats://me:secret@nats:4222\"}", "url"},
		"no NATS":                   {"nats: {url: \"http://nats:4222\"}", "url"},
		"two copies":                {"nats: {replicas: 2}", "replicas"},
		"handler too slow":          {"handlerTimeoutSeconds: 540", "handlerTimeoutSeconds"},
		"max below min":             {"functions: {enroll: {minScale: 3, maxScale: 2}}", "maxScale 2 is less than minScale 3"},
		"schedule":                  {"scan: {schedule: often}", "schedule"},
		"digest":                    {"image: {digests: {enroll: latest}}", "digests"},
		"NATS inside Knative":       {"plain: {embeddedNATS: true}", "profile: plain"},
		"NATS inside each replica":  {"profile: plain\nplain: {embeddedNATS: true}", "replicas=1"},
		"half a publisher":          {"nats: {authorization: {publishers: [{name: ci}]}}", "namespaces"},
	} {
		t.Run(name, func(t *testing.T) {
			for helm, render := range map[string]func(string, map[string]any) (map[string]string, error){"3": render3, "4": render} {
				_, err := render("certloop", values(t, tt.values))
				if err == nil {
					t.Fatalf("Helm %s: accepted", helm)
				}
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Helm %s: refused with %v, want it to name %q", helm, err, tt.want)
				}
			}
		})
	}
}

// Every object of the schema is closed, but for those whose keys are the user's.
func TestSchemaIsStrict(t *testing.T) {
	content, err := os.ReadFile(chartDir + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := yaml.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	closed := 0
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, ok := v["properties"]; ok && v["type"] == "object" {
				closed++
				if v["additionalProperties"] != false {
					t.Errorf("%s lets typos pass", path)
				}
			}
			for key, value := range v {
				walk(path+"."+key, value)
			}
		case []any:
			for _, value := range v {
				walk(path+"[]", value)
			}
		}
	}
	walk("", schema)
	if closed < 30 {
		t.Errorf("%d objects were found, want more", closed)
	}
}

// Every value that has a default is in the schema, and nothing else is.
func TestSchemaIsOfTheseValues(t *testing.T) {
	var schema, defaults map[string]any
	for file, into := range map[string]*map[string]any{"values.schema.json": &schema, "values.yaml": &defaults} {
		content, err := os.ReadFile(chartDir + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(content, into); err != nil {
			t.Fatal(err)
		}
	}
	definitions, _ := schema["definitions"].(map[string]any)
	var compare func(path string, schema, value map[string]any)
	compare = func(path string, schema, value map[string]any) {
		if ref, ok := schema["$ref"].(string); ok {
			schema, _ = definitions[strings.TrimPrefix(ref, "#/definitions/")].(map[string]any)
		}
		properties, ok := schema["properties"].(map[string]any)
		if !ok || len(value) == 0 { // the user's own keys
			return
		}
		for name, property := range properties {
			child, given := value[name]
			if !given && name != "global" {
				t.Errorf("values.yaml does not show %s.%s", path, name)
			}
			if child, ok := child.(map[string]any); ok {
				compare(path+"."+name, property.(map[string]any), child)
			}
		}
	}
	compare("", schema, defaults)
}
