// Package monitoring pins the programs of others that operators see certloop with, which the tests
// of test/monitoringtest run: kube-state-metrics, and Prometheus's promtool. It is a module of its
// own because both are built with another version of Kubernetes.
package monitoring
