# Words of Oracle's documentation, edition 2026.
# For the provider oracle/oci 6.12 or later, in the tenancy's home region. A module that names its providers
# elsewhere does so once: leave the first block out there.
terraform {
  required_providers {
    oci = {
      source  = "oracle/oci"
      version = ">= 6.12.0"
    }
  }
}

variable "tenancy_ocid" {
  type = string
}

variable "zpr_is_enabled" {
  description = "Whether ZPR has been enabled in the tenancy before."
  type        = bool
  default     = false
}

resource "oci_zpr_configuration" "tenancy" {
  count          = var.zpr_is_enabled ? 0 : 1
  compartment_id = var.tenancy_ocid
  zpr_status     = "ENABLED"
  lifecycle {
    prevent_destroy = true
  }
}

resource "oci_security_attribute_security_attribute_namespace" "certloop" {
  for_each       = toset(["certloop", "team"])
  compartment_id = var.tenancy_ocid
  name           = each.key
  description    = "certloop"
  depends_on     = [oci_zpr_configuration.tenancy]
}

resource "oci_security_attribute_security_attribute" "certloop" {
  for_each = {
    "certloop.lb" = { namespace = "certloop", name = "lb" }
    "certloop.network" = { namespace = "certloop", name = "network" }
    "certloop.pool" = { namespace = "certloop", name = "pool" }
    "team.owner" = { namespace = "team", name = "owner" }
  }
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop[each.value.namespace].id
  name                            = each.value.name
  description                     = "certloop"
}

resource "oci_identity_policy" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
  statements = [
    "Allow group admins to use security-attribute-namespace in tenancy where target.security-attribute-namespace.name = 'certloop'",
    "Allow group admins to use security-attribute-namespace in tenancy where target.security-attribute-namespace.name = 'team'",
    "Allow any-user to use security-attribute-namespace in compartment prod where request.principal.type = 'cluster'",
    "Allow any-user to manage security-attribute-namespace in compartment prod where request.principal.type = 'nodepool'",
  ]
  depends_on = [
    oci_zpr_configuration.tenancy,
    oci_security_attribute_security_attribute_namespace.certloop,
  ]
}

resource "oci_zpr_zpr_policy" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
  statements = [
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '192.0.2.16/28' with protocol='tcp/829'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.0.8/30' with protocol='tcp/6443'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.32.0/20' with protocol='udp/53'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.32.0/20' with protocol='tcp/53'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.32.0/20' with protocol='tcp/4222'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:ca-clients endpoints with protocol='tcp/9091'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:ca-clients endpoints with protocol='tcp/8012-8013'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:ca-clients endpoints with protocol='tcp/8112'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to certloop.pool:ca-clients endpoints with protocol='tcp/8012-8013'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to certloop.pool:ca-clients endpoints with protocol='tcp/8112'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:ca-clients endpoints with protocol='tcp/8012'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:ca-clients endpoints with protocol='tcp/9090'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to '10.0.32.0/20' with protocol='tcp/8012-8013'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to '10.0.32.0/20' with protocol='tcp/8112'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:edge endpoints with protocol='tcp/8081'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:edge endpoints with protocol='tcp/8444'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.32.0/20' with protocol='tcp/8080'",
    "in certloop.network:prod VCN allow certloop.pool:ca-clients endpoints to connect to '10.0.32.0/20' with protocol='tcp/8443'",
    "in certloop.network:prod VCN allow '10.0.32.0/20' to connect to certloop.pool:edge endpoints",
    "in certloop.network:prod VCN allow '10.0.0.8/30' to connect to certloop.pool:edge endpoints with protocol='tcp/8443'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to '10.0.32.0/20'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to certloop.pool:edge endpoints",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to '10.0.0.8/30' with protocol='tcp/6443'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to '10.0.32.0/20' with protocol='udp/53'",
    "in certloop.network:prod VCN allow certloop.pool:edge endpoints to connect to '10.0.32.0/20' with protocol='tcp/53'",
  ]
  depends_on = [
    oci_zpr_configuration.tenancy,
    oci_security_attribute_security_attribute.certloop,
  ]
}

resource "oci_zpr_zpr_policy" "certloop-2" {
  compartment_id = var.tenancy_ocid
  name           = "certloop-2"
  description    = "certloop"
  statements = [
    "in certloop.network:prod VCN allow '198.51.100.0/24' to connect to certloop.lb:events endpoints with protocol='tcp/80'",
    "in certloop.network:prod VCN allow certloop.lb:events endpoints to connect to certloop.pool:ca-clients endpoints with protocol='tcp/8012'",
  ]
  depends_on = [
    oci_zpr_configuration.tenancy,
    oci_security_attribute_security_attribute.certloop,
  ]
}

# The whole order. Terraform does what comes before the VCN; attach nothing before it is done:
# 1. Enable ZPR in the tenancy, in its home region, unless that has been done. It cuts nothing off.
# 2. Create the namespaces of attributes and the attributes.
# 3. Create the IAM statements.
# 4. Create ZPR policies with all statements, at most 25 in each: they have no effect yet, because nothing bears an attribute.
# 5. Put the attribute certloop.network:prod on the VCN.
# 6. Put attributes on the node pool ca-clients: certloop.pool:ca-clients on secondary VNICs (Pods), all of them alike, and nothing on the primary one (nodes).
# 7. Replace the nodes of ca-clients (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 8. Put attributes on the node pool edge: certloop.pool:edge on secondary VNICs (Pods), all of them alike, and nothing on the primary one (nodes).
# 9. Replace the nodes of edge (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 10. Install the chart with oci.ingest.by=NativeIngress and certloop.lb:events, team.owner:pki in oci.ingest.securityAttributes: its IngressClass bears oci-native-ingress.oraclecloud.com/security-attributes: {"certloop":{"lb":{"mode":"enforce","value":"events"}},"team":{"owner":{"mode":"enforce","value":"pki"}}}.
# 11. Check every connection of the statements with Network Path Analyzer, and that a certificate is renewed: certloop get -A.
# 12. Only now remove the security list and NSG rules that are no longer needed. Traffic must satisfy both ZPR and those.
