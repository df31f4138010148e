package zpr

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

func scenarios(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f, ".yaml"))
	}
	return names
}

func plan(t *testing.T, file string) *Plan {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePlan(content)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGenerate(t *testing.T) {
	for _, name := range scenarios(t) {
		p := plan(t, name+".yaml")
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for format, suffix := range map[string]string{FormatText: ".txt", FormatTerraform: ".tf"} {
			var out bytes.Buffer
			if err := Generate(&out, p, format, EditionCurrent); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(name+suffix, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%s%s differs: run go test ./cmd/certloop/zpr -update and look at the change\n%s", name, suffix, out.String())
			}
		}
	}
}

// Every statement that is generated is one of the grammar, and means the same when read.
func TestStatementsRoundTrip(t *testing.T) {
	count := 0
	for _, name := range scenarios(t) {
		for _, edition := range Editions() {
			statements, lacks := plan(t, name+".yaml").statements(edition)
			if len(lacks) > 0 {
				t.Errorf("%s lacks %v", name, lacks)
			}
			for _, s := range statements {
				got, err := ParseStatement(s.String())
				if err != nil || got.String() != s.String() {
					t.Errorf("%s: read again as %s, %v", s, got, err)
				}
				if s.Why == "" {
					t.Errorf("%s: nobody needs it", s)
				}
				count++
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d statements were checked", count)
	}
}

func TestStatementGrammar(t *testing.T) {
	for _, text := range []string{
		"in networks:prod VCN allow app:web endpoints to connect to app:store endpoints",
		"in a.networks:prod VCN allow '192.0.2.0/24' to connect to app:store endpoints with protocol='tcp/1521'",
		"in a.networks:prod VCN allow 'a.app:dev and test' endpoints to connect to osn-services-ip-addresses",
		"in a.networks:prod VCN allow all-endpoints to connect to a.app:store endpoints with protocol='udp/53-54'",
	} {
		if _, err := ParseStatement(text); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{
		"",
		"allow app:web endpoints to connect to app:store endpoints",
		"in networks:prod VCN allow app:web to connect to app:store endpoints",
		"in networks:prod VCN allow app:web endpoints to connect to 192.0.2.300/24",
		"in networks:prod VCN allow app:web endpoints to connect to app:store endpoints with protocol='http'",
		"in net works.a:prod VCN allow app:web endpoints to connect to app:store endpoints",
		"in 'a.b:it's' VCN allow app:web endpoints to connect to app:store endpoints",
		"in a.b.c:d VCN allow app:web endpoints to connect to app:store endpoints",
	} {
		if s, err := ParseStatement(text); err == nil {
			t.Errorf("%q was read as %s", text, s)
		}
	}
}

func TestAttributeQuoting(t *testing.T) {
	for text, want := range map[string]Attribute{
		"app:web":                    {"oracle-zpr", "app", "web"},
		"my-corp.biz:hr":             {"my-corp", "biz", "hr"},
		"'my-corp.biz:dev and test'": {"my-corp", "biz", "dev and test"},
		"'n.k:it''s 1.0'":            {"n", "k", "it's 1.0"},
	} {
		got, err := ParseAttribute(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseAttribute(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s and read as %+v, %v", text, got, again, err)
		}
	}
}

// What ZPR, OKE or common sense refuses, each with the reason.
func TestCheckRefuses(t *testing.T) {
	six := []string{"c.a:1", "c.b:1", "c.c:1", "c.d:1", "c.e:1", "c.f:1"}
	balancer := func(p *Plan) *LoadBalancer {
		p.NodePools[0].NodeCIDR = "10.0.10.0/24"
		p.LoadBalancer = &LoadBalancer{Attributes: []string{"certloop.lb:events"}, Clients: []string{"198.51.100.0/24"}, Port: 443, NodePort: 30081, HealthCheckNodePort: 30082}
		return p.LoadBalancer
	}
	for name, tt := range map[string]struct {
		spoil func(*Plan)
		says  string
	}{
		"an old cluster":               {func(p *Plan) { p.KubernetesVersion = "v1.31.4" }, "v1.31.4 is older than 1.32"},
		"no version":                   {func(p *Plan) { p.KubernetesVersion = "" }, "kubernetesVersion: "},
		"flannel":                      {func(p *Plan) { p.PodNetwork = "flannel" }, "flannel hides Pods behind their node"},
		"a public endpoint":            {func(p *Plan) { p.EndpointNetwork = "public" }, "the API endpoint must be VCN-native"},
		"virtual nodes":                {func(p *Plan) { p.NodePools[1].Type = "virtual" }, "nodePools[1]: general is virtual"},
		"an unknown kind of nodes":     {func(p *Plan) { p.NodePools[1].Type = "spot" }, "nodePools[1].type: spot"},
		"a pool twice":                 {func(p *Plan) { p.NodePools[1].Name = "ca-clients" }, "nodePools[1].name: \"ca-clients\""},
		"six attributes":               {func(p *Plan) { p.NodePools[0].PodAttributes = six }, "6 attributes, at most 5"},
		"two values of an attribute":   {func(p *Plan) { p.NodePools[0].PodAttributes = []string{"a.b:1", "a.b:2"} }, "a.b is there twice"},
		"a space in a key":             {func(p *Plan) { p.VCN = "certloop.net work:prod" }, `key "net work" may hold letters`},
		"a period in a key":            {func(p *Plan) { p.VCN = "certloop.net.work:prod" }, `key "net.work" may hold letters`},
		"no value":                     {func(p *Plan) { p.VCN = "certloop.network:" }, "the value must have 1 to 255"},
		"an undefined attribute":       {func(p *Plan) { p.Attributes = []string{"certloop.network:prod"} }, "certloop.pool:ca-clients is not among the plan's attributes"},
		"primary VNICs, self-managed":  {func(p *Plan) { p.NodePools[0].Type, p.NodePools[0].NodeAttributes = "self-managed", []string{"a.b:c"} }, "nodePools[0].nodeAttributes: ca-clients is self-managed"},
		"the fence around all":         {func(p *Plan) { p.NodePools[1].PodAttributes = p.NodePools[0].PodAttributes }, "nodePools[1].podAttributes: general bears certloop.pool:ca-clients, by which ca-clients may talk to the CAs, and so could every Pod of general"},
		"no CA":                        {func(p *Plan) { p.CAs = nil }, "cas: name at least one"},
		"a CA twice located":           {func(p *Plan) { p.CAs[0].Attribute = "a.b:c" }, "cas[0]: set attribute when operator-ca is in the same VCN, cidr otherwise"},
		"a CA's port":                  {func(p *Plan) { p.CAs[0].Port = 0 }, "cas[0].port: 0 is not within"},
		"a CA's address":               {func(p *Plan) { p.CAs[0].CIDR = "192.0.2.16" }, "cas[0].cidr: "},
		"a CA anywhere":                {func(p *Plan) { p.CAs[0].CIDR = "0.0.0.0/0" }, "cas[0].cidr: 0.0.0.0/0 is every address"},
		"no API endpoint":              {func(p *Plan) { p.APIEndpoint.CIDR = "" }, "apiEndpoint: set attributes or cidr"},
		"no pool for the functions":    {func(p *Plan) { p.CAClientsPool = "general" }, `caClientsPool: "general" is no node pool of the plan with podAttributes`},
		"a missing pool for functions": {func(p *Plan) { p.FunctionsPool = "f" }, `functionsPool: "f" is no node pool`},
		"plain on two pools":           {func(p *Plan) { p.Profile, p.Knative = "plain", nil }, "functionsPool: with profile plain all functions run in one Pod"},
		"a missing pool for NATS":      {func(p *Plan) { p.NATS.Pool = "nats" }, `nats.pool: "nats" is no node pool`},
		"NATS in two places":           {func(p *Plan) { p.NATS.CIDR = "10.0.0.1/32" }, "nats: set one of pool, attribute and cidr"},
		"NATS nowhere":                 {func(p *Plan) { p.NATS = nil }, "nats: is missing, and ZPR would cut this off: the functions take and give work"},
		"NATS, not where":              {func(p *Plan) { p.NATS = &Place{} }, "nats: set one of pool, attribute and cidr"},
		"no DNS":                       {func(p *Plan) { p.DNS = nil }, "dns: is missing, and ZPR would cut this off: the functions resolve names"},
		"no Knative":                   {func(p *Plan) { p.Knative = nil }, "knative.serving: is missing, and ZPR would cut this off: the activator hands requests on"},
		"Knative in plain":             {func(p *Plan) { p.Profile, p.FunctionsPool = "plain", "" }, "knative: profile plain runs without Knative"},
		"an unknown profile":           {func(p *Plan) { p.Profile = "openshift" }, "profile: openshift is not one of"},
		"Pods without address":         {func(p *Plan) { p.NodePools[1].PodCIDR = "" }, "nodePools[1].podCIDR: is missing, and ZPR would cut this off: the functions resolve names"},
		"kubectl cut off":              {func(p *Plan) { p.APIEndpoint = APIServer{Attributes: []string{"a.b:c"}} }, "operators: name the blocks of addresses that kubectl is used from"},
		"nodes cut off": {func(p *Plan) {
			p.APIEndpoint, p.Operators = APIServer{Attributes: []string{"a.b:c"}}, []string{"203.0.113.0/28"}
		}, "nodePools[1].nodeCIDR: is missing, and ZPR would cut this off: kubelets of general talk to the API endpoint"},
		"a load balancer for all":    {func(p *Plan) { balancer(p).Clients = nil }, "loadBalancer.clients: name the blocks"},
		"a load balancer unguarded":  {func(p *Plan) { balancer(p).Attributes = nil }, "loadBalancer.attributes: name at least one"},
		"a load balancer's check":    {func(p *Plan) { balancer(p).HealthCheckNodePort = 0 }, "loadBalancer.healthCheckNodePort: 0 is not within"},
		"a load balancer to nowhere": {func(p *Plan) { balancer(p); p.NodePools[0].NodeCIDR = "" }, "nodePools[0].nodeCIDR: is missing, and ZPR would cut this off: the load balancer hands events on"},
		"another load balancer":      {func(p *Plan) { balancer(p).By = "nginx" }, "loadBalancer.by: nginx is neither"},
		"files for nobody":           {func(p *Plan) { p.FileStorage = "a.b:c" }, "nodePools[0].nodeCIDR: is missing, and ZPR would cut this off: nodes of ca-clients mount file systems"},
		"a key in another case":      {func(p *Plan) { p.CAs[0].CIDR, p.CAs[0].Attribute = "", "certloop.Pool:ca" }, "certloop.Pool and certloop.pool: ZPR takes names that differ in case alone for one"},
		"a namespace in another":     {func(p *Plan) { p.CAs[0].CIDR, p.CAs[0].Attribute = "", "Certloop.ca:ca" }, "Certloop and certloop: ZPR takes names that differ in case alone for one"},
		"nobody to use attributes":   {func(p *Plan) { p.IAM.Group = "" }, "iam: set group and compartment"},
	} {
		p := plan(t, "testdata/ca-by-address.yaml")
		tt.spoil(p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

// A resource is cut off although there is a statement about one whose attribute begins alike.
func TestAttributesAreComparedWhole(t *testing.T) {
	statement, err := ParseStatement("in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '192.0.2.16/28' with protocol='tcp/829'")
	if err != nil {
		t.Fatal(err)
	}
	for attribute, want := range map[string]int{
		"certloop.pool:ca": 1, "certloop.pool:ca-clients-2": 1, "certloop.network:prod": 1, "oracle-zpr.pool:ca-clients": 1,
		"certloop.pool:ca-clients": 0, "'certloop.pool:ca-clients'": 0,
	} {
		var found problems
		found.cutOff([]use{{"there", []string{attribute}}}, []reasoned{{statement, "a test"}})
		if len(found) != want {
			t.Errorf("%s: %v, want %d problems", attribute, found, want)
		}
	}
}

// What a Pod of certloop needs is allowed, from or to each pool that bears attributes. The
// ports are those of the chart's NetworkPolicies.
func TestPodsAreNotCutOff(t *testing.T) {
	const clients, general = "certloop.pool:ca-clients endpoints", "'10.0.32.0/20'"
	statements := map[string]bool{}
	all, lacks := plan(t, "testdata/ca-by-address.yaml").statements(EditionCurrent)
	for _, s := range all {
		statements[fmt.Sprintf("%s > %s %s", s.From, s.To, s.Protocol)] = true
	}
	for _, want := range []string{
		clients + " > '192.0.2.16/28' tcp/829", clients + " > '10.0.0.8/30' tcp/6443",
		clients + " > " + general + " udp/53", clients + " > " + general + " tcp/53", clients + " > " + general + " tcp/4222",
		general + " > " + clients + " tcp/8012-8013", general + " > " + clients + " tcp/8112", general + " > " + clients + " tcp/8012", general + " > " + clients + " tcp/9090",
	} {
		if !statements[want] {
			t.Errorf("nothing allows %s", want)
		}
		delete(statements, want)
	}
	if len(statements)+len(lacks) > 0 {
		t.Errorf("more is allowed than is needed: %v; %v", statements, lacks)
	}
}

// dispatch, and the adapters of sources, where they bear attributes and the others do not.
func TestSendersAreNotCutOff(t *testing.T) {
	p := plan(t, "testdata/ca-by-address.yaml")
	p.FunctionsPool = ""
	p.Knative.Sources = &Place{Pool: "ca-clients"}
	all, _ := p.statements(EditionCurrent)
	for why, protocols := range map[string][]string{
		"dispatch wakes functions":                                {"tcp/8081", "tcp/8444"},
		"the adapters of ApiServerSources send to the Broker":     {"tcp/8080", "tcp/8443"},
		"the adapters of ApiServerSources watch":                  {"tcp/6443"},
		"the adapters of ApiServerSources resolve names":          {"udp/53", "tcp/53"},
		"the functions take and give work":                        {"tcp/4222"},
		"the functions read and write Secrets and configurations": {"tcp/6443"},
	} {
		var got []string
		for _, s := range all {
			if strings.Contains(s.Why, why) && s.From.bears([]string{"certloop.pool:ca-clients"}) {
				got = append(got, s.Protocol)
			}
		}
		if !slices.Equal(got, protocols) {
			t.Errorf("%s: %v, want %v", why, got, protocols)
		}
	}
}

// arguments of a resource or a data source, as the provider's documentation has them: those that
// are required, and those that may be there. Terraform's own are in meta.
var arguments = map[string]struct{ required, optional []string }{
	"oci_zpr_configuration":                                     {[]string{"compartment_id"}, []string{"zpr_status", "defined_tags", "freeform_tags"}},
	"oci_security_attribute_security_attribute_namespace":       {[]string{"compartment_id", "description", "name"}, []string{"defined_tags", "freeform_tags"}},
	"oci_security_attribute_security_attribute":                 {[]string{"description", "name", "security_attribute_namespace_id"}, []string{"validator"}},
	"data oci_security_attribute_security_attribute_namespaces": {[]string{"compartment_id"}, []string{"compartment_id_in_subtree", "name", "state"}},
	"oci_identity_policy":                                       {[]string{"compartment_id", "description", "name", "statements"}, []string{"defined_tags", "freeform_tags", "version_date"}},
	"oci_zpr_zpr_policy":                                        {[]string{"compartment_id", "description", "name", "statements"}, []string{"defined_tags", "freeform_tags"}},
}

var meta = []string{"count", "depends_on", "for_each", "lifecycle"}

// block is one of Terraform's at the outermost level.
type block struct {
	kind, name string // of a resource: its type and its name
	arguments  []string
	lists      map[string][]string // lines of the lists among them
}

var (
	blockPattern    = regexp.MustCompile(`^(resource|data) "([a-z_]+)" "([a-z0-9-]+)" \{$`)
	argumentPattern = regexp.MustCompile(`^  ([a-z_]+) *(=.*|\{)$`)
	itemPattern     = regexp.MustCompile(`^    (".*"|[a-z_.]+),$`)
)

// blocks reads what Generate writes, and nothing else.
func blocks(t *testing.T, text string) (all []block) {
	t.Helper()
	open, list := false, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := blockPattern.FindStringSubmatch(line); m != nil {
			all = append(all, block{kind: m[2], name: m[3], lists: map[string][]string{}})
			if open = true; m[1] == "data" {
				all[len(all)-1].kind = "data " + m[2]
			}
			continue
		}
		if open = open && line != "}"; !open {
			continue
		}
		b := &all[len(all)-1]
		if m := argumentPattern.FindStringSubmatch(line); m != nil {
			list = m[1]
			b.arguments = append(b.arguments, m[1])
		} else if m := itemPattern.FindStringSubmatch(line); m != nil {
			b.lists[list] = append(b.lists[list], m[1])
		}
	}
	if n := strings.Count(text, "\nresource ") + strings.Count(text, "\ndata "); n != len(all) {
		t.Errorf("%d of %d blocks are understood", len(all), n)
	}
	return all
}

// Terraform is given what the provider knows, and as much as it takes.
func TestTerraformArguments(t *testing.T) {
	most := 0
	for _, name := range scenarios(t) {
		var out bytes.Buffer
		if err := Generate(&out, plan(t, name+".yaml"), FormatTerraform, EditionCurrent); err != nil {
			t.Fatal(err)
		}
		seen, statements := map[string]bool{}, 0
		for _, b := range blocks(t, out.String()) {
			known, ok := arguments[b.kind]
			if !ok || seen[b.kind+"."+b.name] {
				t.Errorf("%s: %s %s is no resource of the provider's, or there twice", name, b.kind, b.name)
			}
			seen[b.kind+"."+b.name] = true
			for _, required := range known.required {
				if !slices.Contains(b.arguments, required) {
					t.Errorf("%s: %s %s lacks %s", name, b.kind, b.name, required)
				}
			}
			for _, argument := range b.arguments {
				if !slices.Contains(slices.Concat(known.required, known.optional, meta), argument) {
					t.Errorf("%s: %s %s has %s, which the provider does not know", name, b.kind, b.name, argument)
				}
			}
			if b.kind == zprPolicyResource {
				if n := len(b.lists["statements"]); n < 1 || n > 25 {
					t.Errorf("%s: %d statements in one policy, want at most 25", name, n)
				}
				statements += len(b.lists["statements"])
			}
		}
		if want, _ := plan(t, name+".yaml").statements(EditionCurrent); statements != len(want) {
			t.Errorf("%s: %d statements, want %d", name, statements, len(want))
		}
		most = max(most, statements)
	}
	if most <= 25 {
		t.Errorf("no scenario needs two policies: the most are %d statements", most)
	}
}

// A tenancy in which ZPR is not enabled refuses all of it, and a policy what does not exist yet.
func TestTerraformIsInOrder(t *testing.T) {
	for _, name := range scenarios(t) {
		var out bytes.Buffer
		if err := Generate(&out, plan(t, name+".yaml"), FormatTerraform, EditionCurrent); err != nil {
			t.Fatal(err)
		}
		all := blocks(t, out.String())
		before := map[string][]string{iamPolicyResource: {configurationResource + ".tenancy"}, zprPolicyResource: {configurationResource + ".tenancy"}}
		for _, b := range all {
			switch b.kind {
			case namespaceResource:
				before[iamPolicyResource] = append(before[iamPolicyResource], b.kind+"."+b.name)
			case attributeResource:
				before[zprPolicyResource] = append(before[zprPolicyResource], b.kind+"."+b.name)
			}
		}
		policies := 0
		for _, b := range all {
			if want, ok := before[b.kind]; ok {
				policies++
				if !slices.Equal(b.lists["depends_on"], want) {
					t.Errorf("%s: %s %s waits for %v, want %v", name, b.kind, b.name, b.lists["depends_on"], want)
				}
			}
		}
		if policies < 2 || len(before[zprPolicyResource]) < 2 || all[0].kind != configurationResource {
			t.Errorf("%s: %d policies, after %v", name, policies, before)
		}
		text := out.String()
		if first, _, _ := strings.Cut(text[strings.Index(text, "# 1. "):], "\n"); !strings.Contains(first, "Enable ZPR in the tenancy") {
			t.Errorf("%s begins with %s", name, first)
		}
	}
}

// The annotations are those that the chart writes for the same attributes.
func TestAnnotation(t *testing.T) {
	const want = `{"certloop":{"lb":{"mode":"enforce","value":"events"},"stage":{"mode":"enforce","value":"pre prod"}},"oracle-zpr":{"a":{"mode":"enforce","value":"1"}}}`
	if got := annotation([]string{"certloop.lb:events", "'certloop.stage:pre prod'", "a:1"}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestReport(t *testing.T) {
	for format, want := range map[string]string{
		FormatJSON: "{\n  \"valid\": false,\n  \"problems\": [\n    {\n      \"field\": \"cas\",\n      \"reason\": \"a < b\"\n    }\n  ]\n}\n",
		FormatYAML: "problems:\n- field: cas\n  reason: a < b\nvalid: false\n",
	} {
		var out strings.Builder
		if err := Report(&out, format, []Problem{{"cas", "a < b"}}); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v", format, out.String(), err)
		}
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	content, err := yaml.Marshal(map[string]any{"kubernetesversion": "v1.33", "podNetwrk": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePlan(content); err == nil || !strings.Contains(err.Error(), `unknown field "podNetwrk"`) {
		t.Errorf("%v", err)
	}
}
