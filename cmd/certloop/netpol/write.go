package netpol

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"sigs.k8s.io/yaml"
)

// Formats of a report.
const (
	FormatTable = "table"
	FormatJSON  = "json"
	FormatYAML  = "yaml"
	FormatSARIF = "sarif"
)

// Formats are all of them.
func Formats() []string { return []string{FormatTable, FormatJSON, FormatYAML, FormatSARIF} }

// Write writes reports in one of the formats.
func Write(w io.Writer, format string, reports []*Report) error {
	switch format {
	case FormatJSON:
		return writeJSON(w, reports)
	case FormatYAML:
		body, err := yaml.Marshal(reports)
		if err != nil {
			return err
		}
		_, err = w.Write(body)
		return err
	case FormatSARIF:
		return writeJSON(w, sarif(reports))
	default:
		return writeTable(w, reports)
	}
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func writeTable(w io.Writer, reports []*Report) error {
	for _, r := range reports {
		name := r.Cluster
		if name == "" {
			name = "cluster"
		}
		if _, err := fmt.Fprintf(w, "%s: %s (%d namespaces, %d workloads judged)\n", name, r.Verdict, r.Namespaces, r.Pods); err != nil {
			return err
		}
		if len(r.NotJudged) > 0 {
			if _, err := fmt.Fprintf(w, "Not judged, though Pods run there: %s\n", strings.Join(r.NotJudged, ", ")); err != nil {
				return err
			}
		}
		if err := writeFindings(w, r.Findings); err != nil {
			return err
		}
	}
	return nil
}

func writeFindings(w io.Writer, findings []Finding) error {
	if len(findings) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	_, _ = fmt.Fprintln(t, "LEVEL\tSEVERITY\tNAMESPACE\tOBJECT\tFINDING\tREMEDY")
	for _, f := range findings {
		_, _ = fmt.Fprintln(t, strings.Join([]string{string(f.Level), f.Severity, f.Namespace, f.Object, f.Message, f.Remedy}, "\t"))
	}
	return t.Flush()
}

// The parts of SARIF 2.1.0 (OASIS) that a finding needs.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		ShortDescription sarifText `json:"shortDescription"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifLocation struct {
		LogicalLocations []sarifLogical `json:"logicalLocations"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
)

func sarif(reports []*Report) sarifLog {
	run := sarifRun{Results: []sarifResult{}, Tool: sarifTool{sarifDriver{
		Name: "certloop netpol audit", InformationURI: "https://github.com/certloop/certloop",
		Rules: []sarifRule{
			{string(L0), sarifText{"Every namespace has a NetworkPolicy"}},
			{string(L1), sarifText{"Every Pod is isolated in both directions"}},
			{string(L2), sarifText{"No rule allows everything"}},
			{string(L3), sarifText{"certloop's Pods reach what they need and nothing else, and are reached so"}},
			{string(L5), sarifText{"Namespaces with certloop's certificates have a NetworkPolicy"}},
		},
	}}}
	for _, r := range reports {
		for _, f := range r.Findings {
			where := strings.TrimPrefix(strings.Join([]string{f.Cluster, f.Namespace, f.Object}, "/"), "/")
			run.Results = append(run.Results, sarifResult{
				RuleID: string(f.Level), Level: f.Severity, Message: sarifText{f.Object + " " + f.Message + ". Remedy: " + f.Remedy + "."},
				Locations: []sarifLocation{{[]sarifLogical{{where, "resource"}}}},
			})
		}
	}
	return sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}}
}
