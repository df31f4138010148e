package monitoringtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// firing has promtool evaluate the rules on metrics as they are for 40 minutes from now on, and wants
// these alerts and no others: each with the certificate or the issuer that it is about.
func firing(t *testing.T, metrics series, want ...string) {
	t.Helper()
	var inputs, samples []any
	for name, value := range metrics {
		inputs = append(inputs, map[string]any{"series": name, "values": fmt.Sprintf("%fx50", value)})
	}
	for _, one := range want {
		alert, labels, _ := strings.Cut(one, " ")
		samples = append(samples, map[string]any{"labels": fmt.Sprintf("{alertname=%q%s}", alert, labels), "value": 1})
	}
	promtool(t, "", "test", "rules", written(t, map[string]any{
		"rule_files":          []any{shipped(t, "rules.yaml")},
		"evaluation_interval": "1m",
		"tests": []any{map[string]any{
			"interval": "1m", "start_timestamp": time.Now().Unix(), "input_series": inputs,
			"promql_expr_test": []any{map[string]any{
				"expr": `max by (alertname, name, issuer) (ALERTS{alertstate="firing"})`, "eval_time": "40m", "exp_samples": samples,
			}},
		}},
	}))
}
