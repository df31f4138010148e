package netpol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func parse(t *testing.T, manifests string) *Cluster {
	t.Helper()
	c, err := Parse("test", strings.NewReader(manifests), "default")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fixture(t *testing.T, name string) *Cluster {
	t.Helper()
	content, err := os.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(content))
}

func lines(r *Report) (all []string) {
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s %s %s %s", f.Level, f.Severity, f.Namespace, f.Object))
	}
	return all
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		fixture, verdict string
		pods             int
		findings         []string
	}{
		{"all", VerdictAll, 1, nil},
		{"some", VerdictSome, 2, []string{
			"L0 error bare Namespace/bare",
			"L1 error shop CronJob/night", // egress
			"L1 warning shop Pod/agent",
			"L2 error shop NetworkPolicy/open",
		}},
		{"none", VerdictNone, 1, []string{
			"L0 error certloop Namespace/certloop",
			"L0 error shop Namespace/shop",
			"L1 error certloop Service/enroll",
			"L1 error certloop Service/enroll",
			"L3 error certloop Service/enroll", // reaches anybody
			"L3 error certloop Service/enroll", // is reached by anybody
		}},
	}
	for _, tt := range tests {
		t.Run(tt.fixture, func(t *testing.T) {
			r := Audit(fixture(t, tt.fixture), DefaultExclusions(), DefaultNeighbours())
			if r.Verdict != tt.verdict || r.Pods != tt.pods {
				t.Errorf("%s, %d Pods; want %s, %d", r.Verdict, r.Pods, tt.verdict, tt.pods)
			}
			if got := lines(r); !slices.Equal(got, tt.findings) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.findings, "\n"))
			}
			if r.Failed() != (len(tt.findings) > 0) {
				t.Errorf("failed: %v", r.Failed())
			}
		})
	}
}

// Namespaces of Kubernetes are not judged, and it is told that Pods run there.
func TestNotJudged(t *testing.T) {
	r := Audit(fixture(t, "all"), DefaultExclusions(), DefaultNeighbours())
	if !slices.Equal(r.NotJudged, []string{"kube-system"}) || r.Namespaces != 1 {
		t.Errorf("not judged %v, judged %d namespaces", r.NotJudged, r.Namespaces)
	}
	if r := Audit(fixture(t, "all"), nil, DefaultNeighbours()); !r.Failed() {
		t.Error("judged, kube-system has no finding")
	}
}

const threePods = `
kind: Namespace
apiVersion: v1
metadata: {name: a, labels: {team: red}}
---
kind: Pod
apiVersion: v1
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {containers: [{}]}
---
kind: Pod
apiVersion: v1
metadata: {name: server, namespace: b, labels: {app: server}}
spec: {containers: [{ports: [{name: web, containerPort: 8080}]}]}
---
kind: Pod
apiVersion: v1
metadata: {name: running, namespace: b, labels: {app: running}}
spec: {containers: [{ports: [{name: web, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.1.2.3}]}
---
`

func policy(namespace, spec string) string {
	return fmt.Sprintf("kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p%d, namespace: %s}\nspec: %s\n---\n", len(spec), namespace, spec)
}

// The rules of networking.k8s.io/v1, one by one, between client in a and server in b, or
// the address 192.0.2.9.
func TestAllowed(t *testing.T) {
	const deny = "{podSelector: {}, policyTypes: [Ingress, Egress]}"
	tests := []struct {
		name     string
		policies string
		to       string
		port     Port
		want     bool
	}{
		{"no policies", "", "server", tcp(8080)[0], true},
		{"a policy without rules isolates ingress", policy("b", "{podSelector: {}}"), "server", tcp(8080)[0], false},
		{"and not egress", policy("a", "{podSelector: {}}"), "server", tcp(8080)[0], true},
		{"egress rules isolate egress", policy("a", "{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}"), "server", tcp(8080)[0], false},
		{"another Pod's policy", policy("b", "{podSelector: {matchLabels: {app: other}}}"), "server", tcp(8080)[0], true},
		{"both ends must allow", policy("a", deny) + policy("b", "{podSelector: {}, ingress: [{}]}"), "server", tcp(8080)[0], false},
		{"policies add up", policy("b", deny) + policy("b", "{podSelector: {}, ingress: [{}]}"), "server", tcp(8080)[0], true},
		{"a podSelector alone is for the policy's namespace", policy("b", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}"), "server", tcp(8080)[0], false},
		{"a namespace by its name", policy("b", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: a}}}]}]}"), "server", tcp(8080)[0], true},
		{"a namespace by a label", policy("b", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: client}}}]}]}"), "server", tcp(8080)[0], true},
		{"namespace and Pod must both match", policy("b", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: other}}}]}]}"), "server", tcp(8080)[0], false},
		{"two peers are alternatives", policy("b", "{podSelector: {}, ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}}]}]}"), "server", tcp(8080)[0], true},
		{"a port", policy("b", "{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}"), "server", tcp(8080)[0], true},
		{"another port", policy("b", "{podSelector: {}, ingress: [{ports: [{port: 8081}]}]}"), "server", tcp(8080)[0], false},
		{"a named port", policy("b", "{podSelector: {}, ingress: [{ports: [{port: web}]}]}"), "server", tcp(8080)[0], true},
		{"a range of ports", policy("b", "{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8100}]}]}"), "server", tcp(8080)[0], true},
		{"beyond a range", policy("b", "{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8079}]}]}"), "server", tcp(8080)[0], false},
		{"another protocol", policy("b", "{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 8080}]}]}"), "server", tcp(8080)[0], false},
		{"UDP", policy("b", "{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}"), "server", Port{corev1.ProtocolUDP, 8080}, true},
		{"an address", policy("a", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 80}]}]}"), "192.0.2.9", tcp(80)[0], true},
		{"an address that is excepted", policy("a", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.8/29]}}]}]}"), "192.0.2.9", tcp(80)[0], false},
		{"an address outside of the block", policy("a", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}"), "192.0.2.9", tcp(80)[0], false},
		{"an ipBlock is not relied on for Pods without an address", policy("a", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"), "server", tcp(8080)[0], false},
		{"an ipBlock is for Pods with an address in it", policy("a", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}"), "running", tcp(8080)[0], true},
		{"and for no others", policy("a", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}"), "running", tcp(8080)[0], false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, threePods+tt.policies)
			dst := Peer{Pod: &c.Pods[1]}
			switch tt.to {
			case "server":
			case "running":
				dst.Pod = &c.Pods[2]
			default:
				dst = Peer{Addr: netip.MustParseAddr(tt.to)}
			}
			if got := c.Allowed(Peer{Pod: &c.Pods[0]}, dst, tt.port); got != tt.want {
				t.Errorf("allowed: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestHoles(t *testing.T) {
	for rule, want := range map[string]string{
		"ingress: [{}]":                                                    `ingress[0] has no "from": it allows every peer, inside and outside the cluster, on every port`,
		"ingress: [{ports: [{port: 1}]}]":                                  `ingress[0] has no "from": it allows every peer, inside and outside the cluster, on these ports`,
		"egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]":                   "egress[0].to[0] is 0.0.0.0/0 without a port",
		"egress: [{to: [{ipBlock: {cidr: '::/0'}}]}]":                      "egress[0].to[0] is ::/0 without a port",
		"ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 1}]}]": "ingress[0].from[0] selects every Pod of every namespace",
		"ingress: [{from: [{namespaceSelector: {}, podSelector: {}}]}]":    "ingress[0].from[0] selects every Pod of every namespace",
		"ingress: [{from: [{podSelector: {}}]}]":                           "ingress[0] names no ports",
		"ingress: [{from: [{podSelector: {}}], ports: [{port: 1}]}]":       "",
		"egress: [{to: [{ipBlock: {cidr: 10.2.0.0/16, except: [10.2.0.0/17, 10.2.128.0/17]}}], ports: [{port: 443}]}]":                    "",
		"egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]":                                                            "egress[0].to[0] is 0.0.0.0/0, which may hold the addresses of Pods",
		"egress: [{to: [{namespaceSelector: {matchLabels: {a: b}}}], ports: [{port: 443}]}]":                                              "",
		"ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]}, podSelector: {}}], ports: [{port: 1}]}]": "",
	} {
		r := Audit(parse(t, policy("a", "{podSelector: {}, "+rule+"}")), nil, DefaultNeighbours())
		var got []string
		for _, f := range r.Findings {
			if f.Level == L2 {
				got = append(got, f.Message)
			}
		}
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)) {
			t.Errorf("%s: %q, want %q", rule, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for manifests, says := range map[string]string{
		"a: [": "document 1",
		"x: y": "document 1",
		policy("a", "{podSelector: {}, ingres: [{}]}"): `unknown field "spec.ingres"`,
	} {
		if _, err := Parse("x.yaml", strings.NewReader(manifests), "default"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", manifests, err, says)
		}
	}
}

func TestFormats(t *testing.T) {
	reports := []*Report{Audit(fixture(t, "some"), DefaultExclusions(), DefaultNeighbours())}
	for format, check := range map[string]func([]byte) error{
		FormatTable: func(b []byte) error {
			if !bytes.Contains(b, []byte("test: some namespaces lack a NetworkPolicy (2 namespaces, 2 workloads judged)")) {
				return fmt.Errorf("%s", b)
			}
			return nil
		},
		FormatYAML: func(b []byte) error {
			if !bytes.Contains(b, []byte("verdict: "+VerdictSome)) {
				return fmt.Errorf("%s", b)
			}
			return nil
		},
		FormatJSON: func(b []byte) error {
			var got []Report
			if err := json.Unmarshal(b, &got); err != nil || len(got[0].Findings) != 4 {
				return fmt.Errorf("%w: %s", err, b)
			}
			return nil
		},
		FormatSARIF: func(b []byte) error {
			var got sarifLog
			if err := json.Unmarshal(b, &got); err != nil || got.Version != "2.1.0" || len(got.Runs[0].Results) != 4 ||
				got.Runs[0].Results[0].Locations[0].LogicalLocations[0].FullyQualifiedName != "test/bare/Namespace/bare" {
				return fmt.Errorf("%w: %s", err, b)
			}
			return nil
		},
	} {
		var out bytes.Buffer
		if err := Write(&out, format, reports); err != nil {
			t.Fatal(err)
		}
		if err := check(out.Bytes()); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}
