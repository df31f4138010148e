// Package chart tests the Helm chart of certloop: that Helm 3 and 4 render the same from it,
// that Kubernetes and Knative accept it, and that it gives nobody more rights, ways through
// the network or NATS subjects than its function needs.
package chart
