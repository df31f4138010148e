// Package netpol judges the NetworkPolicies of a cluster or of manifests: whether every
// namespace has one, whether every Pod is isolated in both directions, which rules allow
// everything, and whether certloop's own functions reach what they need and nothing else.
//
// It computes what the objects say (networking.k8s.io/v1), which is what a CNI plugin that
// enforces NetworkPolicy does. Whether one does at all, only a probe in the cluster shows.
package netpol
