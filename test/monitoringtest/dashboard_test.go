package monitoringtest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what the tests look at of Grafana's model.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID         int `json:"id"`
	Type       string
	Title      string
	Datasource *struct{ Type, UID string }
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct {
		RefID      string
		Expr       string
		Datasource struct{ Type, UID string }
	}
	FieldConfig struct {
		Overrides []struct {
			Matcher    struct{ ID, Options string }
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
}

func shippedDashboard(tb testing.TB) (d dashboard) {
	tb.Helper()
	decode(tb, shipped(tb, "dashboard.json"), &d)
	return d
}

var variables = regexp.MustCompile(`\$\{?[a-z]+\}?`)

// Every query of the dashboard is one, and asks for metrics that exist.
func TestDashboardQueries(t *testing.T) {
	d := shippedDashboard(t)
	var queries []string
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			existing(t, p.Title, target.Expr)
			queries = append(queries, variables.ReplaceAllString(target.Expr, ".*"))
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			query := v.Query.(map[string]any)["query"].(string)
			selector, _, _ := strings.Cut(strings.TrimPrefix(query, "label_values("), ", ")
			existing(t, v.Name, selector)
		}
	}
	if len(queries) < 20 {
		t.Errorf("%d queries, want those of all panels", len(queries))
	}
	valid(t, queries)
}

// What Grafana does not say when it shows a dashboard wrong: panels of the same id or one over the
// other, and data sources and variables that there are none of.
func TestDashboardIsInOrder(t *testing.T) {
	d := shippedDashboard(t)
	if d.UID != "certloop" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, schemaVersion %d", d.UID, d.Title, d.SchemaVersion)
	}
	declared := map[string]bool{}
	for _, v := range d.Templating.List {
		declared["$"+v.Name] = true
	}
	known := []string{"row", "stat", "bargauge", "table", "timeseries"}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || !slices.Contains(known, p.Type) {
			t.Errorf("panel %d %q of type %q: the id is not its own, or the type is unknown", p.ID, p.Title, p.Type)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q is over %q, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Datasource.UID != "${datasource}" {
				t.Errorf("%q: refId %q, data source %q", p.Title, target.RefID, target.Datasource.UID)
			}
			refs[target.RefID] = true
			for _, name := range variables.FindAllString(target.Expr, -1) {
				if !declared[name] {
					t.Errorf("%q: there is no variable %s", p.Title, name)
				}
			}
		}
	}
}

// Days left have the colours of the bands: red up to 7 days, then orange, yellow and pale to 30, 90 and 180, then green.
func TestDashboardBands(t *testing.T) {
	for _, p := range shippedDashboard(t).Panels {
		for _, o := range p.FieldConfig.Overrides {
			for _, property := range o.Properties {
				if o.Matcher.Options != "days left" || property.ID != "thresholds" {
					continue
				}
				var thresholds struct {
					Steps []struct {
						Color string
						Value *int
					}
				}
				if err := json.Unmarshal(property.Value, &thresholds); err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, s := range thresholds.Steps {
					if s.Value != nil {
						got += fmt.Sprintf(" %d ", *s.Value)
					}
					got += s.Color
				}
				if want := "red 7 orange 30 yellow 90 super-light-yellow 180 green"; got != want {
					t.Errorf("%s: got %s, want %s", p.Title, got, want)
				}
				return
			}
		}
	}
	t.Error("no panel shows days left")
}

// The dashboard counts what is there. Ten certificates, at ten minutes past the beginning of time.
func TestDashboardCounts(t *testing.T) {
	const day = 86400
	state := map[string]float64{}
	certificate := func(name, reason string, left, lead, ready float64) {
		labels := fmt.Sprintf(`{namespace="core",name=%q,issuer="ca"`, name)
		state["certloop_certificate_info"+labels+`,type="endEntity"}`] = 1
		state["certloop_certificate_ready"+labels+"}"] = ready
		state["certloop_certificate_condition"+labels+fmt.Sprintf(`,type="Ready",reason=%q}`, reason)] = ready
		if lead > 0 {
			state["certloop_certificate_not_after_timestamp_seconds"+labels+"}"] = 600 + left
			state["certloop_certificate_renewal_timestamp_seconds"+labels+"}"] = 600 + left - lead
		}
	}
	for name, left := range map[string]float64{"expired": -1, "week": 6, "month": 20, "quarter": 80, "half": 170, "year": 300} {
		certificate(name, "Issued", left*day, 100*day, 1)
	}
	certificate("short", "Issued", day, day/3, 1)
	certificate("shortly-due", "Issued", day/3-60, day/3, 1)
	certificate("refused", "RejectedByCA", 0, 0, 0)
	certificate("waiting", "WaitingForCA", 0, 0, 0)
	state[`certloop_certificate_condition{namespace="core",name="refused",issuer="ca",type="Stalled",reason="RejectedByCA"}`] = 1
	state[`certloop_certificate_condition{namespace="core",name="short",issuer="ca",type="Stalled",reason="Paused"}`] = 1
	state[`certloop_issuer_ready{namespace="core",issuer="ca"}`] = 1
	state[`certloop_clusterissuer_ready{issuer="everybodys"}`] = 0
	state[`certloop_issuer_condition{namespace="core",issuer="ca",type="Reconciling",reason="CircuitOpen"}`] = 1
	counted(t, state, map[string][]float64{
		"Certificates":              {10},
		"Expired":                   {1},
		"Renewal late":              {4}, // expired, week, month, quarter
		"Not ready":                 {2},
		"Waiting for a person":      {1},
		"Issuers not ready":         {1},
		"CAs away":                  {1},
		"Certificates by days left": {4, 1, 1, 1, 1}, // the two short ones among the first
	})
}

// counted has promtool evaluate the queries of panels, each of which gives one number.
func counted(t *testing.T, state map[string]float64, want map[string][]float64) {
	t.Helper()
	var inputs, expressions []any
	for series, value := range state {
		inputs = append(inputs, map[string]any{"series": series, "values": fmt.Sprintf("%fx20", value)})
	}
	for _, p := range shippedDashboard(t).Panels {
		for i, value := range want[p.Title] {
			if len(p.Targets) != len(want[p.Title]) {
				t.Fatalf("%q has %d queries, want %d", p.Title, len(p.Targets), len(want[p.Title]))
			}
			expressions = append(expressions, map[string]any{
				"expr": variables.ReplaceAllString(p.Targets[i].Expr, ".*"), "eval_time": "10m",
				"exp_samples": []any{map[string]any{"labels": "{}", "value": value}},
			})
		}
	}
	if len(expressions) != len(want)+4 {
		t.Errorf("%d queries are tried", len(expressions))
	}
	test := map[string]any{"tests": []any{map[string]any{"interval": "1m", "input_series": inputs, "promql_expr_test": expressions}}}
	promtool(t, "", "test", "rules", written(t, test))
}
