// Package knative pins Knative Eventing's own programs, which the tests of
// test/knativetest run as plain processes: the PingSource and ApiServerSource adapters, the
// broker's ingress and filter, and kncontrol with the controllers and the webhook. It is a
// module of its own because Knative is built with another version of Kubernetes.
package knative
