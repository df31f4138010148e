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
  for_each       = toset(["certloop"])
  compartment_id = var.tenancy_ocid
  name           = each.key
  description    = "certloop"
  depends_on     = [oci_zpr_configuration.tenancy]
}

resource "oci_security_attribute_security_attribute" "certloop" {
  for_each = {
    "certloop.ca" = { namespace = "certloop", name = "ca" }
    "certloop.broker" = { namespace = "certloop", name = "broker" }
  }
  security_attribute_namespace_id = oci_security_attribute_security_attribute_namespace.certloop[each.value.namespace].id
  name                            = each.value.name
  description                     = "certloop"
}

data "oci_security_attribute_security_attribute_namespaces" "zpr" {
  compartment_id = var.tenancy_ocid
  name           = "oracle-zpr"
  depends_on     = [oci_zpr_configuration.tenancy]
}

resource "oci_security_attribute_security_attribute" "zpr" {
  for_each                        = toset(["endpoint", "network", "pool"])
  security_attribute_namespace_id = data.oci_security_attribute_security_attribute_namespaces.zpr.security_attribute_namespaces[0].id
  name                            = each.key
  description                     = "certloop"
}

resource "oci_identity_policy" "certloop" {
  compartment_id = var.tenancy_ocid
  name           = "certloop"
  description    = "certloop"
  statements = [
    "Allow group admins to use security-attribute-namespace in tenancy where target.security-attribute-namespace.name = 'certloop'",
    "Allow group admins to use security-attribute-namespace in tenancy where target.security-attribute-namespace.name = 'oracle-zpr'",
    "Allow group admins to inspect security-attribute-namespace in tenancy",
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
    "in oracle-zpr.network:prod VCN allow oracle-zpr.pool:ca-clients endpoints to connect to 'certloop.ca:issuing CA (it''s new)' endpoints with protocol='tcp/8080'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.pool:ca-clients endpoints to connect to certloop.ca:other endpoints with protocol='tcp/443'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.pool:ca-clients endpoints to connect to oracle-zpr.endpoint:api endpoints with protocol='tcp/6443'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.pool:ca-clients endpoints to connect to oracle-zpr.pool:ca-clients endpoints with protocol='udp/53'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.pool:ca-clients endpoints to connect to oracle-zpr.pool:ca-clients endpoints with protocol='tcp/53'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.pool:ca-clients endpoints to connect to certloop.broker:nats endpoints with protocol='tcp/4222'",
    "in oracle-zpr.network:prod VCN allow '203.0.113.0/28' to connect to oracle-zpr.endpoint:api endpoints with protocol='tcp/6443'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.endpoint:api endpoints to connect to osn-services-ip-addresses with protocol='tcp/443'",
    "in oracle-zpr.network:prod VCN allow '10.0.10.0/24' to connect to oracle-zpr.endpoint:api endpoints with protocol='tcp/6443'",
    "in oracle-zpr.network:prod VCN allow '10.0.10.0/24' to connect to oracle-zpr.endpoint:api endpoints with protocol='tcp/12250'",
    "in oracle-zpr.network:prod VCN allow oracle-zpr.endpoint:api endpoints to connect to '10.0.10.0/24' with protocol='tcp/10250'",
  ]
  depends_on = [
    oci_zpr_configuration.tenancy,
    oci_security_attribute_security_attribute.certloop,
    oci_security_attribute_security_attribute.zpr,
  ]
}

# The whole order. Terraform does what comes before the VCN; attach nothing before it is done:
# 1. Enable ZPR in the tenancy, in its home region, unless that has been done. It cuts nothing off.
# 2. Create the namespaces of attributes and the attributes.
# 3. Create the IAM statements.
# 4. Create ZPR policies with all statements, at most 25 in each: they have no effect yet, because nothing bears an attribute.
# 5. Put the attribute network:prod on the VCN.
# 6. Put endpoint:api on the API endpoint. Check kubectl from an operator's address, and that all nodes stay Ready.
# 7. Put attributes on the node pool ca-clients: pool:ca-clients on secondary VNICs (Pods), all of them alike, and nothing on the primary one (nodes).
# 8. Replace the nodes of ca-clients (cordon, drain, terminate): only new nodes get attributes, and replacing the boot volume is not enough.
# 9. Check every connection of the statements with Network Path Analyzer, and that a certificate is renewed: certloop get -A.
# 10. Only now remove the security list and NSG rules that are no longer needed. Traffic must satisfy both ZPR and those.
