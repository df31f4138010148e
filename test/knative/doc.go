// Package knative pins Knative's own programs, which the tests of test/knativetest run as
// plain processes: the PingSource and ApiServerSource adapters, the broker's ingress and
// filter, the admission webhooks of Knative Eventing and Knative Serving, and kncontrol with
// the controllers. It is a module of its own because Knative is built with another version
// of Kubernetes.
package knative
