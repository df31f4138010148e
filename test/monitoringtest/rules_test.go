package monitoringtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/certloop/certloop/test/e2e/rig"
)

// rules is a file of rules, as Prometheus and a PrometheusRule have them.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Record      string            `json:"record,omitempty"`
	Alert       string            `json:"alert,omitempty"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func shippedRules(tb testing.TB) (all []rule) {
	tb.Helper()
	var r rules
	decode(tb, shipped(tb, "rules.yaml"), &r)
	for _, g := range r.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// promtool runs Prometheus's own judge.
func promtool(tb testing.TB, stdin string, args ...string) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), rig.Program(tb, "promtool"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		tb.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
}

func TestRulesAreValid(t *testing.T) {
	promtool(t, "", "check", "rules", "--lint=all", "--lint-fatal", shipped(t, "rules.yaml"))
}

func TestAlerts(t *testing.T) {
	promtool(t, "", "test", "rules", "testdata/alerts.yaml")
}

// Each alert is tried in a state where it fires, with each of its severities, and in one where it does not.
func TestEachAlertIsTried(t *testing.T) {
	type labels = map[string]string
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name string `json:"alertname"`
				Want []struct {
					Labels labels `json:"exp_labels"`
				} `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	decode(t, "testdata/alerts.yaml", &file)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, alert := range test.Alerts {
			silent[alert.Name] = silent[alert.Name] || len(alert.Want) == 0
			for _, want := range alert.Want {
				fires[alert.Name+" "+want.Labels["severity"]+want.Labels["band"]] = true
			}
		}
	}
	// Among others of its kind that fire, in the same test.
	silent["CertloopCertificateExpiring"], silent["CertloopWithdrawalUnfinished"] = true, true
	for _, r := range shippedRules(t) {
		if r.Alert == "" {
			continue
		}
		if what := r.Alert + " " + r.Labels["severity"] + r.Labels["band"]; !fires[what] {
			t.Errorf("%s never fires in the tests", what)
		}
		if !silent[r.Alert] {
			t.Errorf("%s never keeps silent in the tests", r.Alert)
		}
	}
}

// An alert says how bad it is, what it is about and where it is explained.
func TestEachAlertIsExplained(t *testing.T) {
	document := string(read(t, filepath.Join(rig.Root(t), "docs", "monitoring.md")))
	const book = "https://github.com/certloop/certloop/blob/main/docs/monitoring.md#"
	for _, r := range shippedRules(t) {
		if r.Alert == "" {
			continue
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity is %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Annotations["runbook_url"] != book+strings.ToLower(r.Alert) {
			t.Errorf("%s: annotations are %v", r.Alert, r.Annotations)
		}
		if !strings.Contains(document, "\n### "+r.Alert+"\n") {
			t.Errorf("docs/monitoring.md has no section %s", r.Alert)
		}
	}
}

// exported are the metrics that the rules take of NATS's exporter (collector/jsz.go of
// prometheus-nats-exporter), which begin with jetstream_, or with the prefix that it is given.
func exported() []string {
	return []string{"stream_last_seq", "stream_total_messages", "consumer_num_pending", "consumer_num_ack_pending", "consumer_delivered_consumer_seq"}
}

var (
	ours    = regexp.MustCompile(`\bcertloop[_:][a-z_:]+`)
	theirs  = regexp.MustCompile(`__name__=~"\(jetstream\|nats\)_([a-z_]+)"`)
	foreign = regexp.MustCompile(`\b(?:kube|nats|jetstream|gnatsd)_[a-z_]+`)
)

// existing fails for each metric in a query that nobody has.
func existing(t *testing.T, where, query string) {
	t.Helper()
	known := defined(t)
	for _, r := range shippedRules(t) {
		known[r.Record] = true
	}
	for _, name := range ours.FindAllString(query, -1) {
		if !known[name] {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	for _, m := range theirs.FindAllStringSubmatch(query, -1) {
		if !slices.Contains(exported(), m[1]) {
			t.Errorf("%s: NATS's exporter has no metric %s", where, m[1])
		}
	}
	if name := foreign.FindString(theirs.ReplaceAllString(query, "")); name != "" {
		t.Errorf("%s: %s is not by both of its names", where, name)
	}
}

func TestRulesNameWhatExists(t *testing.T) {
	for _, r := range shippedRules(t) {
		if !ours.MatchString(r.Expr) && !theirs.MatchString(r.Expr) {
			t.Errorf("%s%s is about nothing of certloop's", r.Alert, r.Record)
		}
		existing(t, r.Alert+r.Record, r.Expr)
	}
}

// valid writes queries as rules, which promtool parses.
func valid(t *testing.T, queries []string) {
	t.Helper()
	var all []rule
	for i, q := range queries {
		all = append(all, rule{Record: "query:number:" + string(rune('a'+i/26)) + string(rune('a'+i%26)), Expr: q})
	}
	promtool(t, "", "check", "rules", written(t, map[string]any{"groups": []any{map[string]any{"name": "queries", "rules": all}}}))
}

// written is a file for promtool.
func written(t *testing.T, v any) (path string) {
	t.Helper()
	content, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "promtool.yaml")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The tables of docs/monitoring.md have every metric, and no other.
func TestDocumentNamesMetrics(t *testing.T) {
	all := defined(t)
	for _, r := range shippedRules(t) {
		if r.Record != "" {
			all[r.Record] = true
		}
	}
	document := string(read(t, filepath.Join(rig.Root(t), "docs", "monitoring.md")))
	in := map[string]bool{}
	for line := range strings.Lines(document) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, name := range ours.FindAllString(cells[1], -1) {
				in[name] = true
			}
		}
	}
	for name := range all {
		if !in[name] {
			t.Errorf("docs/monitoring.md says nothing of %s", name)
		}
	}
	for name := range in {
		if !all[name] {
			t.Errorf("docs/monitoring.md has %s, which does not exist", name)
		}
	}
}
