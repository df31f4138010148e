# Words of Oracle's documentation, edition 2026.
variable "tenancy_ocid" {
  type = string
}

resource "oci_security_attribute_security_attribute_namespace" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
}

resource "oci_security_attribute_security_attribute" "certloop_endpoint" {
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop.id
  name                            = "endpoint"
  description                     = "certloop"
}

resource "oci_security_attribute_security_attribute" "certloop_network" {
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop.id
  name                            = "network"
  description                     = "certloop"
}

resource "oci_security_attribute_security_attribute" "certloop_nodes" {
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop.id
  name                            = "nodes"
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
    "Allow group admins to use security-attribute-namespace in tenancy",
    "Allow any-user to use security-attribute-namespace in compartment prod where request.principal.type = 'cluster'",
    "Allow any-user to manage security-attribute-namespace in compartment prod where request.principal.type = 'nodepool'",
  ]
}

resource "oci_zpr_zpr_policy" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
  statements = [
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '192.0.2.16/28' with protocol='tcp/829'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to certloop.endpoint:api endpoints with protocol='tcp/6443'",
    "in certloop.network:prod VCN allow certloop.nodes:ca-clients endpoints to connect to all-endpoints",
    "in certloop.network:prod VCN allow all-endpoints to connect to certloop.nodes:ca-clients endpoints with protocol='tcp/443'",
    "in certloop.network:prod VCN allow certloop.nodes:ca-clients endpoints to connect to osn-services-ip-addresses",
    "in certloop.network:prod VCN allow certloop.nodes:ca-clients endpoints to connect to certloop.endpoint:api endpoints with protocol='tcp/6443'",
    "in certloop.network:prod VCN allow certloop.nodes:ca-clients endpoints to connect to certloop.endpoint:api endpoints with protocol='tcp/12250'",
    "in certloop.network:prod VCN allow certloop.endpoint:api endpoints to connect to certloop.nodes:ca-clients endpoints with protocol='tcp/10250'",
  ]
}

# What Terraform cannot do in the right order:
# 1. Create the namespaces of attributes and the attributes.
# 2. Create the IAM statements.
# 3. Create the ZPR policy with all statements: it has no effect yet, because nothing bears an attribute.
# 4. Put the attribute certloop.network:prod on the VCN.
# 5. Put certloop.endpoint:api on the API endpoint. Check kubectl from an operator's address.
# 6. Put certloop.nodes:ca-clients, certloop.pool:ca-clients on the node pool ca-clients: certloop.pool:ca-clients on secondary VNICs (Pods), certloop.nodes:ca-clients on the primary one (nodes).
# 7. Replace the nodes of ca-clients (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 8. Check every connection of the statements with Network Path Analyzer, and that a certificate is renewed: certloop get -A.
# 9. Only now remove the security list and NSG rules that are no longer needed. Traffic must satisfy both ZPR and those.
