// Package netpol judges the NetworkPolicies of a cluster or of manifests: whether every
// namespace has one, whether every Pod is isolated in both directions, which rules allow
// everything, and whether certloop's own Pods reach, and are reached by, those they have to
// do with and nobody else.
//
// It computes what the objects say (networking.k8s.io/v1), which is what a CNI plugin that
// enforces NetworkPolicy does. Whether one does at all, only a probe in the cluster shows.
// What has to be possible is judged as strictly as what must not be: an ipBlock is not relied
// upon to let anything to a Pod whose address is not known, and is suspected of it where it
// is large.
package netpol
