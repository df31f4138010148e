# Words of Oracle's documentation, edition 2026.
variable "tenancy_ocid" {
  type = string
}

resource "oci_security_attribute_security_attribute_namespace" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
}

resource "oci_security_attribute_security_attribute" "certloop_network" {
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop.id
  name                            = "network"
  description                     = "certloop"
}

resource "oci_security_attribute_security_attribute" "certloop_pool" {
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop.id
  name                            = "pool"
  description                     = "certloop"
}

resource "oci_identity_policy" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
  statements = [
    "Allow group admins to use security-attribute-namespace in tenancy where target.security-attribute-namespace.name = 'certloop'",
    "Allow any-user to use security-attribute-namespace in compartment prod where request.principal.type = 'cluster'",
    "Allow any-user to manage security-attribute-namespace in compartment prod where request.principal.type = 'nodepool'",
  ]
}

resource "oci_zpr_zpr_policy" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
  statements = [
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '2001:db8:829::/64' with protocol='tcp/829'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.0.8/30' with protocol='tcp/6443'",
    "in certloop.network:prod VCN allow certloop.pool:functions endpoints to connect to '10.0.0.8/30' with protocol='tcp/6443'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to certloop.pool:nats endpoints with protocol='tcp/4222'",
    "in certloop.network:prod VCN allow certloop.pool:functions endpoints to connect to certloop.pool:nats endpoints with protocol='tcp/4222'",
    "in certloop.network:prod VCN allow certloop.pool:nats endpoints to connect to certloop.pool:nats endpoints with protocol='tcp/6222'",
  ]
}

# What Terraform cannot do in the right order:
# 1. Create the namespaces of attributes and the attributes.
# 2. Create the IAM statements.
# 3. Create the ZPR policy with all statements: it has no effect yet, because nothing bears an attribute.
# 4. Put the attribute certloop.network:prod on the VCN.
# 5. Put certloop.pool:ca-clients on the node pool ca-clients: certloop.pool:ca-clients on secondary VNICs (Pods), nothing on the primary one (nodes).
# 6. Replace the nodes of ca-clients (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 7. Put certloop.pool:functions on the node pool functions: certloop.pool:functions on secondary VNICs (Pods), nothing on the primary one (nodes).
# 8. Replace the nodes of functions (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 9. Put certloop.pool:nats on the node pool nats: certloop.pool:nats on secondary VNICs (Pods), nothing on the primary one (nodes).
# 10. Replace the nodes of nats (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 11. Check every connection of the statements with Network Path Analyzer, and that a certificate is renewed: certloop get -A.
# 12. Only now remove the security list and NSG rules that are no longer needed. Traffic must satisfy both ZPR and those.
