// Package zpr plans Oracle Cloud's Zero Trust Packet Routing (ZPR) around an OKE cluster
// that runs certloop: it checks what ZPR demands of the cluster, and generates security
// attributes, IAM statements, ZPR policy statements and the order to introduce them in.
//
// ZPR attaches attributes to VNICs, so that its smallest unit is a node pool. It sees no
// Pod and no traffic within a node: NetworkPolicies are what keeps functions apart, ZPR is
// a second fence around the pool that may talk to the CA.
//
// Words and grammar are those of Oracle's documentation (ZPR policy syntax; OKE, securing
// traffic with ZPR). Where its editions differ, [Edition] says which one is followed.
package zpr
