package chart

import (
	"os"
	"slices"
	"strings"
	"testing"

	common4 "helm.sh/helm/v4/pkg/chart/common"
	values4 "helm.sh/helm/v4/pkg/chart/common/util"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
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
		"CA anywhere":               {"networkPolicy: {ca: [{name: a, cidrs: [0.0.0.0/0], port: 80}]}", "networkPolicy.ca a: 0.0.0.0/0 is too wide"},
		"CA anywhere in two halves": {"networkPolicy: {ca: [{name: a, cidrs: [0.0.0.0/1, 128.0.0.0/1], port: 80}]}", "0.0.0.0/1 is too wide"},
		"CA anywhere in IPv6":       {"networkPolicy: {ca: [{name: a, cidrs: [2000::/3], port: 80}]}", "2000::/3 is too wide"},
		"CA that is no address":     {"networkPolicy: {ca: [{name: a, cidrs: [999.0.0.0/8], port: 80}]}", "cidrs"},
		"CA that is no IPv6":        {"networkPolicy: {ca: [{name: a, cidrs: [\"fd00:::1/128\"], port: 80}]}", "cidrs"},
		"API server anywhere":       {"networkPolicy: {apiServer: {cidrs: [0.0.0.0/0]}}", "networkPolicy.apiServer: 0.0.0.0/0 is too wide"},
		"NATS anywhere":             {"networkPolicy: {nats: {cidrs: [0.0.0.0/0]}}", "networkPolicy.nats: 0.0.0.0/0 is too wide"},
		"node-local DNS":            {"networkPolicy: {dns: {nodeLocalIP: 169.254.20.300}}", "nodeLocalIP"},
		"OTLP that nobody sends":    {"networkPolicy: {otlp: {enabled: true}}", "otlp"},
		"memory by the byte":        {"dispatch: {resources: {limits: {memory: 96}}}", "dispatch.resources.limits.memory: 96 is less than 16Mi"},
		"memory in bits":            {"functions: {enroll: {resources: {limits: {memory: 128mb}}}}", "memory"},
		"no CPU at all":             {"functions: {enroll: {resources: {requests: {cpu: some}}}}", "cpu"},
		"no place on Earth":         {"timezone: Mars/Olympus", "there is no Mars/Olympus"},
		"no name of a time zone":    {"timezone: \"+02:00\"", "timezone"},
		"NATS at another port":      {"nats: {url: \"nats://nats.nats:4333\"}", "networkPolicy.nats.port"},
		"one NATS at another port":  {"nats: {url: \"nats://a:4222,nats://b:4333\"}", "nats://b:4333 is reached at port 4333"},
		"NATS at a default port":    {"nats: {url: \"wss://nats.example.org\"}", "reached at port 443"},
		"NATS nowhere":              {"networkPolicy: {nats: {namespace: \"\", cidrs: [192.0.2.20/32]}}", "nats.url is empty"},
		"another's label":           {"pod: {labels: {app.kubernetes.io/component: enroll}}", "use another label"},
		"a publisher of our name":   {"nats: {authorization: {publishers: [{name: enroll, namespaces: [core]}]}}", "there is a user enroll already"},
		"a publisher of any name":   {"nats: {authorization: {publishers: [{name: all, namespaces: [core]}]}}", "there is a user all already"},
		"an operator of our name":   {"nats: {authorization: {operators: [setup]}}", "there is a user setup already"},
		"a publisher twice":         {"nats: {authorization: {publishers: [{name: ci, namespaces: [core]}, {name: ci, namespaces: [edge]}]}}", "there is a user ci already"},
		"credentials for nobody":    {"profile: plain\nplain: {embeddedNATS: true, replicas: 1}\nnats: {credentialsSecret: nats}", "nats.credentialsSecret is for a NATS server of your own"},
		"a URL for nobody":          {"profile: plain\nplain: {embeddedNATS: true, replicas: 1}\nnats: {url: \"nats://nats:4222\"}", "nats.url is for a NATS server of your own"},
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

// What is right is not refused.
func TestAccepted(t *testing.T) {
	for name, overlay := range map[string]string{
		"IPv6":                  "networkPolicy: {ca: [{name: a, cidrs: [\"2001:db8::10/128\", \"::ffff/128\", \"2001:db8:0:1:2:3:4:5/128\"], port: 80}], dns: {nodeLocalIP: \"fd00::10\"}}",
		"a private range":       "networkPolicy: {apiServer: {cidrs: [10.0.0.0/8, 172.16.0.0/12]}}",
		"a place":               "timezone: America/Argentina/Buenos_Aires",
		"the time of Greenwich": "timezone: Etc/GMT",
		"UTC by another name":   "timezone: Zulu",
		"NATS at another port":  "nats: {url: \"tls://nats.example.org:4333\"}\nnetworkPolicy: {nats: {port: 4333}}",
		"NATS over the web":     "nats: {url: \"wss://nats.example.org\"}\nnetworkPolicy: {nats: {namespace: \"\", cidrs: [192.0.2.20/32], port: 443}}",
		"nothing restricted":    "nats: {url: \"nats://nats:4333\"}\nnetworkPolicy: {enabled: false}",
		"fractions":             "functions: {enroll: {resources: {requests: {cpu: 0.05, memory: 0.1Gi}, limits: {memory: 0.25Gi}}}}",
	} {
		if _, err := render("certloop", values(t, overlay)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A value that null takes away is missed by name, and not by a template that stumbles.
func TestNullIsRefused(t *testing.T) {
	var defaults map[string]any
	if err := yaml.Unmarshal(read(t, chartDir+"/values.yaml"), &defaults); err != nil {
		t.Fatal(err)
	}
	c, err := loader4.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	try := func(path []string) {
		given := values(t)
		section := given
		for _, name := range path[:len(path)-1] {
			if _, ok := section[name]; !ok {
				section[name] = map[string]any{}
			}
			section = section[name].(map[string]any)
		}
		section[path[len(path)-1]] = nil
		_, err := values4.ToRenderValues(c, given, common4.ReleaseOptions{Name: release, Namespace: "core"}, nil)
		if err == nil {
			t.Errorf("%s: null is accepted", strings.Join(path, "."))
		} else if !strings.Contains(err.Error(), "missing property '"+path[len(path)-1]+"'") {
			t.Errorf("%s: null: %v", strings.Join(path, "."), err)
		}
		refused++
	}
	var walk func(path []string, v map[string]any)
	walk = func(path []string, v map[string]any) {
		for name, v := range v {
			path := append(slices.Clone(path), name)
			try(path)
			if section, ok := v.(map[string]any); ok && name != "labels" && name != "resources" {
				walk(path, section)
			}
		}
	}
	walk(nil, defaults)
	if refused < 80 {
		t.Errorf("%d values were tried, want more", refused)
	}
}

// Where nobody says where NATS is, it is in this cluster, whatever that is called.
func TestDefaultNATS(t *testing.T) {
	overlay := "clusterDomain: example.org\nnetworkPolicy: {nats: {namespace: messaging, port: 4333}}"
	for component, env := range environments(t, arrangement{"knative", "dedicated"}.objects(t, overlay)) {
		if got, want := env["NATS_URL"], "nats://nats.messaging.svc.example.org:4333"; got != want {
			t.Errorf("%s looks for NATS at %s, want %s", component, got, want)
		}
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
