package zpr

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
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
			for _, s := range plan(t, name+".yaml").statements(edition) {
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
	six := slices.Repeat([]string{"certloop.pool:ca-clients"}, 6)
	for name, tt := range map[string]struct {
		spoil func(*Plan)
		says  string
	}{
		"an old cluster":            {func(p *Plan) { p.KubernetesVersion = "v1.31.4" }, "v1.31.4 is older than 1.32"},
		"no version":                {func(p *Plan) { p.KubernetesVersion = "" }, "kubernetesVersion: "},
		"flannel":                   {func(p *Plan) { p.PodNetwork = "flannel" }, "flannel hides Pods behind their node"},
		"a public endpoint":         {func(p *Plan) { p.EndpointNetwork = "public" }, "the API endpoint must be VCN-native"},
		"virtual nodes":             {func(p *Plan) { p.NodePools[1].Type = "virtual" }, "nodePools[1]: general is virtual"},
		"an unknown kind of nodes":  {func(p *Plan) { p.NodePools[1].Type = "spot" }, "nodePools[1].type: spot"},
		"six attributes":            {func(p *Plan) { p.NodePools[0].PodAttributes = six }, "6 attributes, at most 5"},
		"a space in a key":          {func(p *Plan) { p.VCN = "certloop.net work:prod" }, `key "net work" may hold letters`},
		"a period in a key":         {func(p *Plan) { p.VCN = "certloop.net.work:prod" }, `key "net.work" may hold letters`},
		"no value":                  {func(p *Plan) { p.VCN = "certloop.network:" }, "the value must have 1 to 255"},
		"an undefined attribute":    {func(p *Plan) { p.Attributes = []string{"certloop.network:prod"} }, "certloop.pool:ca-clients is not among the plan's attributes"},
		"an attribute cut off":      {func(p *Plan) { p.NodePools[1].PodAttributes = []string{"certloop.pool:general"} }, "no statement allows anything to or from certloop.pool:general"},
		"no CA":                     {func(p *Plan) { p.CAs = nil }, "cas: name at least one"},
		"a CA twice located":        {func(p *Plan) { p.CAs[0].Attribute = "a.b:c" }, "cas[0]: set attribute when operator-ca is in the same VCN, cidr otherwise"},
		"a CA's port":               {func(p *Plan) { p.CAs[0].Port = 0 }, "cas[0].port: 0 is not within"},
		"a CA's address":            {func(p *Plan) { p.CAs[0].CIDR = "192.0.2.16" }, "cas[0].cidr: "},
		"no API endpoint":           {func(p *Plan) { p.APIEndpoint.CIDR = "" }, "apiEndpoint: set attributes or cidr"},
		"no pool for the functions": {func(p *Plan) { p.CAClientsPool = "general" }, `caClientsPool: "general" is no node pool of the plan with podAttributes`},
		"a missing pool for NATS":   {func(p *Plan) { p.NATSPool = "nats" }, `natsPool: "nats" is no node pool`},
		"an open load balancer":     {func(p *Plan) { p.LoadBalancer = &LoadBalancer{Port: 443, NodePort: 8443} }, "loadBalancer.clients: name the blocks"},
		"nobody to use attributes":  {func(p *Plan) { p.IAM.Group = "" }, "iam: set group and compartment"},
	} {
		p := plan(t, "testdata/ca-by-address.yaml")
		tt.spoil(p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
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
