// Package monitoringtest tries what certloop shows its operators on the programs that they use:
// kube-state-metrics makes metrics of real objects with no rights but those of the chart, and
// Prometheus's promtool judges the rules and the queries of the dashboard.
package monitoringtest
