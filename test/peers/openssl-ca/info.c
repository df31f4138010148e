/*
 * General messages (RFC 9810 section 5.3.19). libcrypto 3.0 has no types for most of what is told here, so that the
 * values are put together from the encodings of its certificates, CRLs and templates.
 */
#include "openssl-ca.h"

#include <openssl/err.h>
#include <string.h>

struct octets {
    unsigned char *data;
    int len;
};

/* Appends DER and frees it; a missing one stands for a failure, which stays. */
static void append(struct octets *to, unsigned char *der, int len)
{
    if (der == NULL || len <= 0) {
        OPENSSL_free(to->data);
        *to = (struct octets){NULL, -1};
    } else if (to->len >= 0) {
        to->data = OPENSSL_realloc(to->data, to->len + len);
        memcpy(to->data + to->len, der, len);
        to->len += len;
    }
    OPENSSL_free(der);
}

/* Appends an element that has others inside, and frees those. */
static void append_inside(struct octets *to, int tag, int class, struct octets inside)
{
    int len = inside.len < 0 ? -1 : ASN1_object_size(1, inside.len, tag);
    unsigned char *der = len < 0 ? NULL : OPENSSL_malloc(len), *at = der;
    if (der != NULL) {
        ASN1_put_object(&at, 1, inside.len, tag, class);
        memcpy(at, inside.data, inside.len);
    }
    OPENSSL_free(inside.data);
    append(to, der, len);
}

static void append_cert(struct octets *to, const X509 *cert)
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    append(to, der, len);
}

static void append_oid(struct octets *to, const char *dotted)
{
    ASN1_OBJECT *oid = OBJ_txt2obj(dotted, 1);
    unsigned char *der = NULL;
    int len = i2d_ASN1_OBJECT(oid, &der);
    append(to, der, len);
    ASN1_OBJECT_free(oid);
}

static void append_integer(struct octets *to, long value)
{
    ASN1_INTEGER *integer = ASN1_INTEGER_new();
    unsigned char *der = NULL;
    int len = ASN1_INTEGER_set(integer, value) ? i2d_ASN1_INTEGER(integer, &der) : -1;
    append(to, der, len);
    ASN1_INTEGER_free(integer);
}

/* newWithNew, newWithOld [0], oldWithNew [1] */
static struct octets root_update(struct ca *ca)
{
    struct octets out = {NULL, 0}, link = {NULL, 0};
    X509 *const *update = ca_successor(ca);
    if (update == NULL)
        return (struct octets){NULL, -1};
    append_cert(&out, update[0]);
    append_cert(&link, update[1]);
    append_inside(&out, 0, V_ASN1_CONTEXT_SPECIFIC, link);
    link = (struct octets){NULL, 0};
    append_cert(&link, update[2]);
    append_inside(&out, 1, V_ASN1_CONTEXT_SPECIFIC, link);
    return out;
}

/* CertReqTemplateContent: an organization, and keys of RSA-3072 (id-regCtrl-rsaKeyLen). */
static struct octets request_template(void)
{
    struct octets out = {NULL, 0}, spec = {NULL, 0}, control = {NULL, 0};
    OSSL_CRMF_MSG *msg = OSSL_CRMF_MSG_new();
    X509_NAME *subject = X509_NAME_new();
    OSSL_CRMF_CERTTEMPLATE *tmpl = OSSL_CRMF_MSG_get0_tmpl(msg);
    unsigned char *der = NULL;
    int len = -1;
    if (X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, (const unsigned char *)"certloop tests", -1, -1, 0)
        && OSSL_CRMF_CERTTEMPLATE_fill(tmpl, NULL, subject, NULL, NULL))
        len = i2d_OSSL_CRMF_CERTTEMPLATE(tmpl, &der);
    append(&out, der, len);
    append_oid(&control, "1.3.6.1.5.5.7.5.1.12");
    append_integer(&control, 3072);
    append_inside(&spec, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, control);
    append_inside(&out, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, spec);
    X509_NAME_free(subject);
    OSSL_CRMF_MSG_free(msg);
    return out;
}

static struct octets crls(struct ca *ca)
{
    struct octets out = {NULL, 0};
    X509_CRL *crl = ca_crl(ca);
    unsigned char *der = NULL;
    int len = crl == NULL ? -1 : i2d_X509_CRL(crl, &der);
    append(&out, der, len);
    X509_CRL_free(crl);
    return out;
}

/* Finds octets inside an element. */
static int holds(const ASN1_TYPE *value, unsigned char *wanted, int len)
{
    unsigned char *der = NULL;
    int size = value == NULL ? -1 : i2d_ASN1_TYPE(value, &der);
    int found = size > 0 && len > 0 && memmem(der, size, wanted, len) != NULL;
    OPENSSL_free(der);
    OPENSSL_free(wanted);
    return found;
}

static int holds_root(const struct ca *ca, const ASN1_TYPE *value)
{
    unsigned char *der = NULL;
    int len = i2d_X509(ca->cert, &der);
    return holds(value, der, len);
}

static int holds_issuer(const struct ca *ca, const ASN1_TYPE *value)
{
    unsigned char *der = NULL;
    int len = i2d_X509_NAME(X509_get_subject_name(ca->cert), &der);
    return holds(value, der, len);
}

/* An answer with a SEQUENCE of what is in `inside`, or without a value when there is nothing. */
static OSSL_CMP_ITAV *told(const char *type, struct octets inside)
{
    struct octets list = {NULL, 0};
    ASN1_TYPE *value = NULL;
    if (inside.len > 0) {
        append_inside(&list, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, inside);
        const unsigned char *at = list.data;
        value = d2i_ASN1_TYPE(NULL, &at, list.len);
        OPENSSL_free(list.data);
    }
    return OSSL_CMP_ITAV_create(OBJ_txt2obj(type, 1), value);
}

#define ID_IT(n) "1.3.6.1.5.5.7.4." #n

OSSL_CMP_ITAV *info_answer(struct ca *ca, const OSSL_CMP_ITAV *asked)
{
    char type[64];
    struct octets nothing = {NULL, 0}, root = {NULL, 0};
    OBJ_obj2txt(type, sizeof type, OSSL_CMP_ITAV_get0_type(asked), 1);
    if (strcmp(type, ID_IT(17)) == 0) { /* caCerts */
        append_cert(&root, ca->cert);
        return told(ID_IT(17), root);
    }
    if (strcmp(type, ID_IT(6)) == 0) /* currentCRL, of which libcrypto has the type */
        return OSSL_CMP_ITAV_create(OBJ_txt2obj(ID_IT(6), 1), (ASN1_TYPE *)ca_crl(ca));
    if (strcmp(type, ID_IT(20)) == 0) /* rootCaCert: rootCaKeyUpdate */
        return told(ID_IT(18), holds_root(ca, OSSL_CMP_ITAV_get0_value(asked)) ? root_update(ca) : nothing);
    if (strcmp(type, ID_IT(19)) == 0) /* certReqTemplate */
        return told(ID_IT(19), request_template());
    if (strcmp(type, ID_IT(22)) == 0) /* crlStatusList: crls */
        return told(ID_IT(23), holds_issuer(ca, OSSL_CMP_ITAV_get0_value(asked)) ? crls(ca) : nothing);
    if (strcmp(type, ID_IT(16)) == 0) /* suppLangTags: any of them, for there are no translations */
        return OSSL_CMP_ITAV_dup(asked);
    return told(type, nothing);
}
