/* The authority itself: its key and certificate, the certificates it issued, and what it puts into them. */
#include "openssl-ca.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { path_size = 1024, serial_octets = 16, ca_days = 3650, crl_seconds = 86400 };

static EVP_PKEY *make_key(const char *type)
{
    if (strncmp(type, "RSA-", 4) == 0)
        return EVP_RSA_gen(atoi(type + 4));
    return strcmp(type, "Ed25519") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519") : EVP_EC_gen(type);
}

/* The digest that goes with a key; NULL where there is none to choose. */
static const EVP_MD *ca_digest(EVP_PKEY *key)
{
    if (EVP_PKEY_is_a(key, "ED25519"))
        return NULL;
    return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) > 256 ? EVP_sha384() : EVP_sha256();
}

static FILE *open_in(const struct ca *ca, const char *name, const char *mode)
{
    char path[path_size];
    if (snprintf(path, sizeof path, "%s/%s", ca->opt->dir, name) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return fopen(path, mode);
}

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    int ok = ext != NULL && X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    return ok;
}

static int set_random_serial(X509 *cert)
{
    unsigned char octets[serial_octets];
    if (RAND_bytes(octets, sizeof octets) != 1)
        return 0;
    octets[0] = (octets[0] & 0x7f) | 0x40; /* positive and always of full length (RFC 5280 section 4.1.2.2) */
    BIGNUM *bn = BN_bin2bn(octets, sizeof octets, NULL);
    int ok = bn != NULL && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) != NULL;
    BN_free(bn);
    return ok;
}

/* A certificate of this CA's name for a key, signed with another or the same. */
static X509 *certify_ca(const struct ca *ca, EVP_PKEY *subject, EVP_PKEY *by)
{
    X509 *cert = X509_new();
    X509_NAME *name = cert == NULL ? NULL : X509_get_subject_name(cert);
    if (cert != NULL && X509_set_version(cert, X509_VERSION_3) && set_random_serial(cert)
        && X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"certloop tests", -1, -1, 0)
        && X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)ca->opt->name, -1, -1, 0)
        && X509_set_issuer_name(cert, name) && X509_gmtime_adj(X509_getm_notBefore(cert), -60) != NULL
        && X509_time_adj_ex(X509_getm_notAfter(cert), ca_days, 0, NULL) != NULL && X509_set_pubkey(cert, subject)
        && add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE")
        && add_extension(cert, cert, NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign")
        && add_extension(cert, cert, NID_subject_key_identifier, "hash") && X509_sign(cert, by, ca_digest(by)))
        return cert;
    X509_free(cert);
    return NULL;
}

static int make_root(struct ca *ca)
{
    return (ca->key = make_key(ca->opt->key)) != NULL && (ca->cert = certify_ca(ca, ca->key, ca->key)) != NULL;
}

X509 *const *ca_successor(struct ca *ca)
{
    if (ca->successor[0] == NULL) {
        EVP_PKEY *next = make_key(ca->opt->key);
        if (next != NULL) {
            ca->successor[2] = certify_ca(ca, ca->key, next);
            ca->successor[1] = certify_ca(ca, next, ca->key);
            ca->successor[0] = certify_ca(ca, next, next);
        }
        EVP_PKEY_free(next);
    }
    return ca->successor[0] == NULL || ca->successor[1] == NULL || ca->successor[2] == NULL ? NULL : ca->successor;
}

static int save_root(const struct ca *ca)
{
    mode_t old = umask(077);
    FILE *key = open_in(ca, "ca.key", "w");
    umask(old);
    FILE *cert = open_in(ca, "ca.crt", "w");
    int ok = key != NULL && cert != NULL && PEM_write_PrivateKey(key, ca->key, NULL, NULL, 0, NULL, NULL)
        && PEM_write_X509(cert, ca->cert);
    if (key != NULL)
        ok &= fclose(key) == 0;
    if (cert != NULL)
        ok &= fclose(cert) == 0;
    return ok;
}

/* Returns 1 when both files were read and belong together, 0 when there is no key yet, -1 when something is wrong. */
static int load_root(struct ca *ca)
{
    FILE *key = open_in(ca, "ca.key", "r");
    if (key == NULL)
        return errno == ENOENT ? 0 : -1;
    ca->key = PEM_read_PrivateKey(key, NULL, NULL, NULL);
    fclose(key);
    FILE *cert = open_in(ca, "ca.crt", "r");
    if (cert == NULL)
        return -1;
    ca->cert = PEM_read_X509(cert, NULL, NULL, NULL);
    fclose(cert);
    return ca->key != NULL && ca->cert != NULL && X509_check_private_key(ca->cert, ca->key) == 1 ? 1 : -1;
}

/* Called by the path validation for every certificate of the chain that protects a request. */
static int refuse_revoked(int ok, X509_STORE_CTX *ctx)
{
    const struct ca *ca = X509_STORE_get_ex_data(X509_STORE_CTX_get0_store(ctx), 0);
    X509 *cert = X509_STORE_CTX_get_current_cert(ctx);
    int revoked = 0;
    if (!ok || cert == NULL || X509_STORE_CTX_get_error_depth(ctx) != 0)
        return ok;
    X509_free(ca_lookup(ca, X509_get0_serialNumber(cert), &revoked));
    if (revoked)
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_CERT_REVOKED);
    return !revoked;
}

int ca_open(struct ca *ca, const struct options *opt)
{
    char issued[path_size];
    ca->opt = opt;
    if (mkdir(opt->dir, 0700) != 0 && errno != EEXIST)
        return 0;
    snprintf(issued, sizeof issued, "%s/issued", opt->dir);
    if (mkdir(issued, 0700) != 0 && errno != EEXIST)
        return 0;
    int loaded = load_root(ca);
    if (loaded < 0 || (loaded == 0 && !(make_root(ca) && save_root(ca))))
        return 0;
    if ((ca->store = X509_STORE_new()) == NULL || !X509_STORE_add_cert(ca->store, ca->cert)
        || !X509_STORE_set_ex_data(ca->store, 0, ca))
        return 0;
    X509_STORE_set_verify_cb(ca->store, refuse_revoked);
    return 1;
}

void ca_close(struct ca *ca)
{
    X509_STORE_free(ca->store);
    for (size_t i = 0; i < COUNT_OF(ca->successor); i++)
        X509_free(ca->successor[i]);
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
}

void serial_text(char out[max_serial], const ASN1_INTEGER *serial)
{
    BIGNUM *bn = serial == NULL ? NULL : ASN1_INTEGER_to_BN(serial, NULL);
    char *hex = bn == NULL ? NULL : BN_bn2hex(bn);
    snprintf(out, max_serial, "%s", hex == NULL ? "" : hex);
    OPENSSL_free(hex);
    BN_free(bn);
}

void name_text(char out[max_name], const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int n = 0;
    if (bio != NULL && name != NULL
        && X509_NAME_print_ex(bio, name, 0, (XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB)) >= 0)
        n = BIO_read(bio, out, max_name - 1);
    out[n > 0 ? n : 0] = '\0';
    for (char *c = out; *c != '\0'; c++)
        if (*c == '"')
            *c = '\'';
    BIO_free(bio);
}

static void ledger_name(char out[path_size], const ASN1_INTEGER *serial, const char *state)
{
    char hex[max_serial];
    serial_text(hex, serial);
    snprintf(out, path_size, "issued/%s.%s", hex, state);
}

static int record(const struct ca *ca, X509 *cert)
{
    char name[path_size];
    ledger_name(name, X509_get0_serialNumber(cert), "pem");
    FILE *f = open_in(ca, name, "wx");
    if (f == NULL)
        return 0;
    int ok = PEM_write_X509(f, cert);
    return fclose(f) == 0 && ok;
}

X509 *ca_lookup(const struct ca *ca, const ASN1_INTEGER *serial, int *revoked)
{
    char name[path_size];
    *revoked = 0;
    ledger_name(name, serial, "pem");
    FILE *f = open_in(ca, name, "r");
    if (f == NULL) {
        ledger_name(name, serial, "revoked");
        if ((f = open_in(ca, name, "r")) == NULL)
            return NULL;
        *revoked = 1;
    }
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    return cert;
}

int ca_revoke(const struct ca *ca, const ASN1_INTEGER *serial)
{
    char from[path_size], to[path_size], path_from[2 * path_size], path_to[2 * path_size];
    ledger_name(from, serial, "pem");
    ledger_name(to, serial, "revoked");
    snprintf(path_from, sizeof path_from, "%s/%s", ca->opt->dir, from);
    snprintf(path_to, sizeof path_to, "%s/%s", ca->opt->dir, to);
    return rename(path_from, path_to) == 0;
}

static int add_revoked(X509_CRL *crl, const char *hex)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    BIGNUM *bn = NULL;
    ASN1_INTEGER *serial = BN_hex2bn(&bn, hex) > 0 ? BN_to_ASN1_INTEGER(bn, NULL) : NULL;
    int ok = entry != NULL && serial != NULL && X509_REVOKED_set_serialNumber(entry, serial)
        && X509_REVOKED_set_revocationDate(entry, (ASN1_TIME *)X509_CRL_get0_lastUpdate(crl)) && X509_CRL_add0_revoked(crl, entry);
    if (!ok)
        X509_REVOKED_free(entry);
    ASN1_INTEGER_free(serial);
    BN_free(bn);
    return ok;
}

/* Enters what the ledger holds as revoked; its names are SERIAL.revoked. */
static int list_revoked(const struct ca *ca, X509_CRL *crl)
{
    char path[path_size];
    snprintf(path, sizeof path, "%s/issued", ca->opt->dir);
    DIR *dir = opendir(path);
    int ok = dir != NULL;
    for (struct dirent *e; ok && (e = readdir(dir)) != NULL;) {
        char *dot = strchr(e->d_name, '.');
        if (dot == NULL || dot == e->d_name || strcmp(dot, ".revoked") != 0)
            continue;
        *dot = '\0';
        ok = add_revoked(crl, e->d_name);
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

X509_CRL *ca_crl(const struct ca *ca)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0), *next = X509_gmtime_adj(NULL, crl_seconds);
    int ok = crl != NULL && now != NULL && next != NULL && X509_CRL_set_version(crl, X509_CRL_VERSION_2)
        && X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert)) && X509_CRL_set1_lastUpdate(crl, now)
        && X509_CRL_set1_nextUpdate(crl, next) && list_revoked(ca, crl) && X509_CRL_sort(crl)
        && X509_CRL_sign(crl, ca->key, ca_digest(ca->key));
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    if (!ok) {
        X509_CRL_free(crl);
        crl = NULL;
    }
    return crl;
}

static int refuse(const char **why, const char *text)
{
    *why = text;
    return 0;
}

static int asks_for_ca(const STACK_OF(X509_EXTENSION) *requested)
{
    enum { key_cert_sign = 5 };
    BASIC_CONSTRAINTS *bc = X509V3_get_d2i(requested, NID_basic_constraints, NULL, NULL);
    ASN1_BIT_STRING *usage = X509V3_get_d2i(requested, NID_key_usage, NULL, NULL);
    int yes = (bc != NULL && bc->ca) || (usage != NULL && ASN1_BIT_STRING_get_bit(usage, key_cert_sign));
    BASIC_CONSTRAINTS_free(bc);
    ASN1_BIT_STRING_free(usage);
    return yes;
}

/* Copies what a subscriber may ask for; key identifiers and basic constraints are the CA's own business. */
static int copy_extensions(X509 *cert, const STACK_OF(X509_EXTENSION) *requested, const char **why)
{
    if (asks_for_ca(requested))
        return refuse(why, "this CA certifies end entities only");
    for (int i = 0; i < sk_X509_EXTENSION_num(requested); i++) {
        X509_EXTENSION *ext = sk_X509_EXTENSION_value(requested, i);
        switch (OBJ_obj2nid(X509_EXTENSION_get_object(ext))) {
        case NID_subject_alt_name:
        case NID_key_usage:
        case NID_ext_key_usage:
        case NID_certificate_policies:
            if (X509_get_ext_by_OBJ(cert, X509_EXTENSION_get_object(ext), -1) >= 0)
                return refuse(why, "an extension is requested twice");
            if (!X509_add_ext(cert, ext, -1))
                return 0;
            break;
        default:
            break;
        }
    }
    return 1;
}

/* The requested times, or now and the configured lifetime; never beyond the CA's own certificate. */
static int set_validity(X509 *cert, const struct ca *ca, const struct template *t, const char **why)
{
    if (X509_gmtime_adj(X509_getm_notBefore(cert), 0) == NULL
        || X509_gmtime_adj(X509_getm_notAfter(cert), ca->opt->lifetime) == NULL
        || (t->not_before != NULL && !X509_set1_notBefore(cert, t->not_before))
        || (t->not_after != NULL && !X509_set1_notAfter(cert, t->not_after)))
        return 0;
    if (ASN1_TIME_compare(X509_get0_notAfter(cert), X509_get0_notAfter(ca->cert)) > 0
        && !X509_set1_notAfter(cert, X509_get0_notAfter(ca->cert)))
        return 0;
    if (ASN1_TIME_compare(X509_get0_notBefore(cert), X509_get0_notAfter(cert)) >= 0
        || X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
        return refuse(why, "the requested validity is empty or over");
    return 1;
}

X509 *ca_issue(struct ca *ca, const struct template *t, const char **why)
{
    X509 *cert = X509_new();
    *why = "the certificate cannot be made";
    if (X509_NAME_entry_count(t->subject) == 0 && X509v3_get_ext_by_NID(t->extensions, NID_subject_alt_name, -1) < 0) {
        *why = "neither a subject nor a subjectAltName is requested";
    } else if (cert != NULL && X509_set_version(cert, X509_VERSION_3) && set_random_serial(cert)
        && X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) && X509_set_subject_name(cert, t->subject)
        && X509_set_pubkey(cert, t->pubkey) && set_validity(cert, ca, t, why)
        && copy_extensions(cert, t->extensions, why)
        && add_extension(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE")
        && add_extension(cert, ca->cert, NID_subject_key_identifier, "hash")
        && add_extension(cert, ca->cert, NID_authority_key_identifier, "keyid:always")
        && X509_sign(cert, ca->key, ca_digest(ca->key)) && record(ca, cert)) {
        return cert;
    }
    X509_free(cert);
    return NULL;
}
