/*
 * Transactions. OpenSSL's OSSL_CMP_SRV_CTX remembers one transaction, so there is one of them per transactionID; it
 * verifies protection, nonces and proof of possession and builds the answers, the callbacks here decide.
 */
#include "openssl-ca.h"

#include <openssl/err.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

enum { max_transactions = 1024, max_id = 64, transaction_seconds = 600 };

struct transaction {
    unsigned char id[max_id];
    int id_len, polls_left;
    time_t used;
    OSSL_CMP_SRV_CTX *srv;
    OSSL_CMP_MSG *request; /* kept while the client polls */
    X509 *issued;
    /* what the message at hand brought about, for the log */
    const char *status, *confirmation;
    char subject[max_name], old_serial[max_serial];
    struct transaction *next;
};

/* Parts of a PKIHeader that libcrypto 3.0 has no accessor for. */
struct header {
    char sender[max_name];
    const char *protection;
    unsigned char reference[max_id];
    int reference_len;
};

static struct {
    pthread_mutex_t lock; /* guards all below, and everything in ca.c */
    struct ca *ca;
    struct transaction *open;
    int count;
    FILE *log;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread char last_error[256];

void log_event(const char *format, ...)
{
    char line[4 * max_name], stamp[32];
    struct timespec now;
    struct tm utc;
    va_list args;
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &utc));
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    printf("time=%s.%03ldZ %s\n", stamp, now.tv_nsec / 1000000, line);
    fflush(stdout);
    if (server.log != NULL) {
        fprintf(server.log, "time=%s.%03ldZ %s\n", stamp, now.tv_nsec / 1000000, line);
        fflush(server.log);
    }
}

/* Keeps libcrypto's first complaint about a request; the later ones are its consequences. */
static int keep_error(const char *func, const char *file, int line, OSSL_CMP_severity level, const char *text)
{
    (void)func, (void)file, (void)line;
    if (level > OSSL_CMP_LOG_ERR || last_error[0] != '\0')
        return 1;
    snprintf(last_error, sizeof last_error, "%s", text);
    for (char *c = last_error; *c != '\0'; c++)
        if (*c == '"' || (unsigned char)*c < ' ')
            *c = c[1] == '\0' ? '\0' : ' ';
    return 1;
}

/* --- DER: what the accessors of libcrypto 3.0 leave out --- */

struct der {
    const unsigned char *at;
    long left;
};

/* Steps into a constructed element. */
static struct der der_inside(const unsigned char *at, long left)
{
    int tag, class;
    long len;
    if (left <= 0 || (ASN1_get_object(&at, &len, &tag, &class, left) & 0x80) != 0)
        return (struct der){NULL, 0};
    return (struct der){at, len};
}

/* Takes the next element, header included; returns its context tag, -1 when it has none, -2 at the end. */
static int der_next(struct der *in, struct der *element)
{
    const unsigned char *content = in->at;
    int tag, class;
    long len;
    if (in->left <= 0 || (ASN1_get_object(&content, &len, &tag, &class, in->left) & 0x80) != 0)
        return -2;
    *element = (struct der){in->at, content - in->at + len};
    in->at += element->left;
    in->left -= element->left;
    return class == V_ASN1_CONTEXT_SPECIFIC ? tag : -1;
}

static int der_find(struct der in, int wanted, struct der *element)
{
    for (int tag; (tag = der_next(&in, element)) != -2;)
        if (tag == wanted)
            return 1;
    return 0;
}

/* PKIHeader, RFC 9810 section 5.1.1: pvno, sender, recipient, then the tagged fields. */
static void read_header(struct header *out, const OSSL_CMP_PKIHEADER *hdr)
{
    unsigned char *der = NULL;
    struct der in, field;
    memset(out, 0, sizeof *out);
    out->protection = "none";
    in.left = i2d_OSSL_CMP_PKIHEADER((OSSL_CMP_PKIHEADER *)hdr, &der);
    in = der_inside(der, in.left);
    der_next(&in, &field);
    der_next(&in, &field);
    GENERAL_NAME *sender = d2i_GENERAL_NAME(NULL, &field.at, field.left);
    if (sender != NULL && sender->type == GEN_DIRNAME)
        name_text(out->sender, sender->d.directoryName);
    GENERAL_NAME_free(sender);
    der_next(&in, &field);
    if (der_find(in, 1, &field)) { /* protectionAlg */
        struct der inner = der_inside(field.at, field.left);
        X509_ALGOR *alg = d2i_X509_ALGOR(NULL, &inner.at, inner.left);
        out->protection = alg != NULL && OBJ_obj2nid(alg->algorithm) == NID_id_PasswordBasedMAC ? "mac" : "signature";
        X509_ALGOR_free(alg);
    }
    if (der_find(in, 2, &field)) { /* senderKID */
        struct der inner = der_inside(field.at, field.left), octets = der_inside(inner.at, inner.left);
        if (octets.left > 0 && octets.left <= max_id)
            memcpy(out->reference, octets.at, out->reference_len = octets.left);
    }
    OPENSSL_free(der);
}

/* CertTemplate, RFC 4211 section 5: publicKey [6] SubjectPublicKeyInfo and validity [4] OptionalValidity, both IMPLICIT. */
static void read_template(struct template *out, OSSL_CRMF_CERTTEMPLATE *tmpl)
{
    unsigned char *der = NULL;
    struct der in, field, time;
    in.left = i2d_OSSL_CRMF_CERTTEMPLATE(tmpl, &der);
    in = der_inside(der, in.left);
    if (der_find(in, 6, &field)) {
        der[field.at - der] = V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED;
        X509_PUBKEY *key = d2i_X509_PUBKEY(NULL, &field.at, field.left);
        out->pubkey = X509_PUBKEY_get(key);
        X509_PUBKEY_free(key);
        in = der_inside(der, i2d_OSSL_CRMF_CERTTEMPLATE(tmpl, NULL));
    }
    if (der_find(in, 4, &field)) {
        struct der validity = der_inside(field.at, field.left);
        for (int tag; (tag = der_next(&validity, &field)) != -2;) {
            time = der_inside(field.at, field.left);
            ASN1_TIME **to = tag == 0 ? &out->not_before : &out->not_after;
            if (*to == NULL)
                *to = d2i_ASN1_TIME(NULL, &time.at, time.left);
        }
    }
    OPENSSL_free(der);
}

/* PKIStatusInfo starts with the status. */
static int read_status(const OSSL_CMP_PKISI *si)
{
    unsigned char *der = NULL;
    int len = i2d_OSSL_CMP_PKISI(si, &der);
    struct der in = der_inside(der, len);
    ASN1_INTEGER *status = d2i_ASN1_INTEGER(NULL, &in.at, in.left);
    int value = status == NULL ? -1 : (int)ASN1_INTEGER_get(status);
    ASN1_INTEGER_free(status);
    OPENSSL_free(der);
    return value;
}

/* --- the CA's decisions --- */

static OSSL_CMP_PKISI *reject(struct transaction *t, int failure, const char *text)
{
    t->status = "rejection";
    snprintf(last_error, sizeof last_error, "%s", text);
    return OSSL_CMP_STATUSINFO_new(OSSL_CMP_PKISTATUS_rejection, 1 << failure, text);
}

/* Key update, RFC 9483 section 4.1.3: names a certificate of ours, keeps its subject, brings another key. */
static OSSL_CMP_PKISI *check_update(struct transaction *t, const OSSL_CRMF_MSG *crm, const struct template *tmpl)
{
    const OSSL_CRMF_CERTID *id = OSSL_CRMF_MSG_get0_regCtrl_oldCertID(crm);
    OSSL_CMP_PKISI *refusal = NULL;
    int revoked;
    if (id == NULL)
        return reject(t, OSSL_CMP_PKIFAILUREINFO_addInfoNotAvailable, "kur without oldCertID");
    serial_text(t->old_serial, OSSL_CRMF_CERTID_get0_serialNumber(id));
    X509 *old = ca_lookup(server.ca, OSSL_CRMF_CERTID_get0_serialNumber(id), &revoked);
    if (old == NULL || X509_NAME_cmp(OSSL_CRMF_CERTID_get0_issuer(id), X509_get_issuer_name(old)) != 0)
        refusal = reject(t, OSSL_CMP_PKIFAILUREINFO_badCertId, "oldCertID names no certificate of this CA");
    else if (revoked)
        refusal = reject(t, OSSL_CMP_PKIFAILUREINFO_certRevoked, "the old certificate is revoked");
    else if (X509_cmp_current_time(X509_get0_notAfter(old)) <= 0)
        refusal = reject(t, OSSL_CMP_PKIFAILUREINFO_badCertId, "the old certificate has expired");
    else if (EVP_PKEY_eq(X509_get0_pubkey(old), tmpl->pubkey) == 1)
        refusal = reject(t, OSSL_CMP_PKIFAILUREINFO_badCertTemplate, "the public key is that of the old certificate");
    else if (X509_NAME_cmp(X509_get_subject_name(old), tmpl->subject) != 0)
        refusal = reject(t, OSSL_CMP_PKIFAILUREINFO_badCertTemplate, "the subject is not that of the old certificate");
    X509_free(old);
    return refusal;
}

static OSSL_CMP_PKISI *issue(struct transaction *t, const OSSL_CRMF_MSG *crm, const struct template *tmpl, int kur)
{
    const char *why = "no usable public key is requested";
    OSSL_CMP_PKISI *refusal;
    name_text(t->subject, tmpl->subject);
    if (tmpl->pubkey == NULL)
        return reject(t, OSSL_CMP_PKIFAILUREINFO_badCertTemplate, why);
    if (kur && (refusal = check_update(t, crm, tmpl)) != NULL)
        return refusal;
    X509_free(t->issued);
    if ((t->issued = ca_issue(server.ca, tmpl, &why)) == NULL)
        return reject(t, OSSL_CMP_PKIFAILUREINFO_badCertTemplate, why);
    t->status = "accepted";
    return OSSL_CMP_STATUSINFO_new(OSSL_CMP_PKISTATUS_accepted, 0, NULL);
}

static OSSL_CMP_PKISI *on_cert_request(OSSL_CMP_SRV_CTX *srv, const OSSL_CMP_MSG *req, int id, const OSSL_CRMF_MSG *crm,
    const X509_REQ *p10cr, X509 **cert, STACK_OF(X509) **chain, STACK_OF(X509) **ca_pubs)
{
    struct transaction *t = OSSL_CMP_SRV_CTX_get0_custom_ctx(srv);
    struct template tmpl = {0};
    STACK_OF(X509_EXTENSION) *csr_extensions = NULL;
    (void)id, (void)chain;
    if (t->polls_left > 0 && t->request == NULL) {
        t->request = OSSL_CMP_MSG_dup(req);
        t->status = "waiting";
        return OSSL_CMP_STATUSINFO_new(OSSL_CMP_PKISTATUS_waiting, 0, NULL);
    }
    if (p10cr != NULL) {
        tmpl.pubkey = X509_REQ_get_pubkey((X509_REQ *)p10cr);
        tmpl.subject = X509_REQ_get_subject_name(p10cr);
        tmpl.extensions = csr_extensions = X509_REQ_get_extensions((X509_REQ *)p10cr);
    } else {
        OSSL_CRMF_CERTTEMPLATE *requested = OSSL_CRMF_MSG_get0_tmpl(crm);
        read_template(&tmpl, requested);
        tmpl.subject = OSSL_CRMF_CERTTEMPLATE_get0_subject(requested);
        tmpl.extensions = OSSL_CRMF_CERTTEMPLATE_get0_extensions(requested);
    }
    OSSL_CMP_PKISI *si = issue(t, crm, &tmpl, OSSL_CMP_MSG_get_bodytype(req) == OSSL_CMP_KUR);
    if (t->issued != NULL && strcmp(t->status, "accepted") == 0) {
        if (X509_up_ref(t->issued))
            *cert = t->issued;
        if (OSSL_CMP_MSG_get_bodytype(req) == OSSL_CMP_IR && (*ca_pubs = sk_X509_new_null()) != NULL
            && X509_up_ref(server.ca->cert))
            sk_X509_push(*ca_pubs, server.ca->cert);
    }
    EVP_PKEY_free(tmpl.pubkey);
    ASN1_TIME_free(tmpl.not_before);
    ASN1_TIME_free(tmpl.not_after);
    sk_X509_EXTENSION_pop_free(csr_extensions, X509_EXTENSION_free);
    return si;
}

/* The first answer `waiting` counts as one of the -poll ones. */
static int on_poll(OSSL_CMP_SRV_CTX *srv, const OSSL_CMP_MSG *req, int id, OSSL_CMP_MSG **original, int64_t *check_after)
{
    struct transaction *t = OSSL_CMP_SRV_CTX_get0_custom_ctx(srv);
    (void)req, (void)id;
    *original = NULL;
    *check_after = server.ca->opt->check_after;
    if (--t->polls_left <= 0)
        *original = t->request == NULL ? NULL : OSSL_CMP_MSG_dup(t->request); /* libcrypto frees it */
    else
        t->status = "waiting";
    return 1;
}

/* certHash is taken with the hash of the certificate's own signature, RFC 9810 section 5.3.18. */
static int hash_matches(const X509 *cert, const ASN1_OCTET_STRING *hash)
{
    ASN1_OCTET_STRING *own = X509_digest_sig(cert, NULL, NULL);
    int same = own != NULL && ASN1_OCTET_STRING_cmp(own, hash) == 0;
    ASN1_OCTET_STRING_free(own);
    return same;
}

static int on_confirmation(OSSL_CMP_SRV_CTX *srv, const OSSL_CMP_MSG *req, int id, const ASN1_OCTET_STRING *hash,
    const OSSL_CMP_PKISI *si)
{
    struct transaction *t = OSSL_CMP_SRV_CTX_get0_custom_ctx(srv);
    (void)req, (void)id;
    if (t->issued == NULL || !hash_matches(t->issued, hash)) {
        ERR_raise(ERR_LIB_CMP, CMP_R_CERTHASH_UNMATCHED);
        return 0;
    }
    int accepted = si == NULL || read_status(si) == OSSL_CMP_PKISTATUS_accepted;
    t->confirmation = accepted ? "confirmed" : "rejected";
    return 1;
}

static OSSL_CMP_PKISI *on_revocation(OSSL_CMP_SRV_CTX *srv, const OSSL_CMP_MSG *req, const X509_NAME *issuer,
    const ASN1_INTEGER *serial)
{
    struct transaction *t = OSSL_CMP_SRV_CTX_get0_custom_ctx(srv);
    (void)req;
    serial_text(t->old_serial, serial);
    if (issuer == NULL || serial == NULL || X509_NAME_cmp(issuer, X509_get_subject_name(server.ca->cert)) != 0
        || !ca_revoke(server.ca, serial))
        return reject(t, OSSL_CMP_PKIFAILUREINFO_badCertId, "rr names no valid certificate of this CA");
    t->status = "accepted";
    return OSSL_CMP_STATUSINFO_new(OSSL_CMP_PKISTATUS_accepted, 0, NULL);
}

/* Later versions of libcrypto have types for what is told, and take no others. */
#if OPENSSL_VERSION_NUMBER < 0x30200000L
static int on_general(OSSL_CMP_SRV_CTX *srv, const OSSL_CMP_MSG *req, const STACK_OF(OSSL_CMP_ITAV) *in, STACK_OF(OSSL_CMP_ITAV) **out)
{
    (void)srv, (void)req;
    *out = sk_OSSL_CMP_ITAV_new_null();
    for (int i = 0; i < sk_OSSL_CMP_ITAV_num(in); i++)
        if (!sk_OSSL_CMP_ITAV_push(*out, info_answer(server.ca, sk_OSSL_CMP_ITAV_value(in, i))))
            return 0;
    return 1;
}
#else
#define on_general NULL
#endif

static void on_error(OSSL_CMP_SRV_CTX *srv, const OSSL_CMP_MSG *req, const OSSL_CMP_PKISI *si, const ASN1_INTEGER *code,
    const OSSL_CMP_PKIFREETEXT *details)
{
    (void)srv, (void)req, (void)code, (void)details;
    OSSL_CMP_snprint_PKIStatusInfo(si, last_error, sizeof last_error);
}

/* --- one transaction per transactionID --- */

static void transaction_free(struct transaction *t)
{
    OSSL_CMP_SRV_CTX_free(t->srv);
    OSSL_CMP_MSG_free(t->request);
    X509_free(t->issued);
    OPENSSL_free(t);
}

static void transaction_close(struct transaction *t)
{
    struct transaction **link = &server.open;
    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    server.count--;
    transaction_free(t);
}

/* A secret is used only when the request names its reference, so that nothing else is authenticated with it. */
static int configure(struct transaction *t, const struct header *hdr)
{
    const struct options *opt = server.ca->opt;
    OSSL_CMP_CTX *ctx = OSSL_CMP_SRV_CTX_get0_cmp_ctx(t->srv);
    int ok = X509_STORE_up_ref(server.ca->store) && OSSL_CMP_CTX_set0_trustedStore(ctx, server.ca->store)
        && OSSL_CMP_CTX_set1_cert(ctx, server.ca->cert) && OSSL_CMP_CTX_set1_pkey(ctx, server.ca->key)
        && OSSL_CMP_CTX_set_option(ctx, OSSL_CMP_OPT_MAC_ALGNID, opt->mac) && OSSL_CMP_CTX_set_log_cb(ctx, keep_error)
        && OSSL_CMP_SRV_CTX_set_grant_implicit_confirm(t->srv, opt->implicit)
        && OSSL_CMP_SRV_CTX_init(t->srv, t, on_cert_request, on_revocation, on_general, on_error, on_confirmation, on_poll);
    for (int i = 0; ok && i < opt->secret_count; i++) {
        const struct secret *s = &opt->secrets[i];
        if (hdr->reference_len == (int)strlen(s->reference) && memcmp(hdr->reference, s->reference, hdr->reference_len) == 0)
            ok = OSSL_CMP_CTX_set1_referenceValue(ctx, hdr->reference, hdr->reference_len)
                && OSSL_CMP_CTX_set1_secretValue(ctx, (const unsigned char *)s->value, (int)strlen(s->value));
    }
    return ok;
}

/* Forgets transactions that nobody continued, and the one unused for longest when there are too many. */
static void make_room(time_t now)
{
    struct transaction *oldest = NULL;
    for (struct transaction *t = server.open, *next; t != NULL; t = next) {
        next = t->next;
        if (now - t->used > transaction_seconds)
            transaction_close(t);
        else if (oldest == NULL || t->used <= oldest->used)
            oldest = t;
    }
    if (server.count >= max_transactions)
        transaction_close(oldest);
}

static struct transaction *transaction_for(const ASN1_OCTET_STRING *id, const struct header *hdr)
{
    struct transaction *t;
    time_t now = time(NULL);
    int len = ASN1_STRING_length(id);
    for (t = server.open; t != NULL; t = t->next)
        if (t->id_len == len && memcmp(t->id, ASN1_STRING_get0_data(id), len) == 0) {
            t->used = now;
            return t;
        }
    make_room(now);
    if ((t = OPENSSL_zalloc(sizeof *t)) == NULL || (t->srv = OSSL_CMP_SRV_CTX_new(NULL, NULL)) == NULL || !configure(t, hdr)) {
        if (t != NULL)
            transaction_free(t);
        return NULL;
    }
    memcpy(t->id, ASN1_STRING_get0_data(id), t->id_len = len);
    t->polls_left = server.ca->opt->poll;
    t->used = now;
    t->next = server.open;
    server.open = t;
    server.count++;
    return t;
}

/* --- one message --- */

static const char *const body_names[] = {"ir", "ip", "cr", "cp", "p10cr", "popdecc", "popdecr", "kur", "kup", "krr", "krp",
    "rr", "rp", "ccr", "ccp", "ckuann", "cann", "rann", "crlann", "pkiconf", "nested", "genm", "genp", "error", "certConf",
    "pollReq", "pollRep"};

static const char *body_name(const OSSL_CMP_MSG *msg)
{
    int type = msg == NULL ? -1 : OSSL_CMP_MSG_get_bodytype(msg);
    return type >= 0 && type < (int)COUNT_OF(body_names) ? body_names[type] : "unknown";
}

static void log_message(const struct transaction *t, const OSSL_CMP_MSG *req, const OSSL_CMP_MSG *rsp, const struct header *hdr)
{
    char id[2 * max_id + 1] = "", serial[max_serial] = "", extra[4 * max_name] = "";
    int n = 0;
    for (int i = 0; i < t->id_len; i++)
        snprintf(id + 2 * i, 3, "%02x", t->id[i]);
    if (t->issued != NULL)
        serial_text(serial, X509_get0_serialNumber(t->issued));
    if (t->status != NULL)
        n += snprintf(extra + n, sizeof extra - n, " status=%s", t->status);
    if (t->subject[0] != '\0')
        n += snprintf(extra + n, sizeof extra - n, " subject=\"%s\"", t->subject);
    if (t->status != NULL && t->issued != NULL && strcmp(t->status, "accepted") == 0)
        n += snprintf(extra + n, sizeof extra - n, " serial=%s", serial);
    if (t->old_serial[0] != '\0')
        n += snprintf(extra + n, sizeof extra - n, " oldcert=%s", t->old_serial);
    if (t->confirmation != NULL)
        n += snprintf(extra + n, sizeof extra - n, " %s=%s", t->confirmation, serial);
    if (last_error[0] != '\0')
        snprintf(extra + n, sizeof extra - n, " error=\"%s\"", last_error);
    log_event("body=%s transactionID=%s sender=\"%s\" protection=%s answer=%s%s", body_name(req), id, hdr->sender,
        hdr->protection, body_name(rsp), extra);
}

/* Runs one message through its transaction, and closes the transaction when the answer ends it. */
static OSSL_CMP_MSG *process(const OSSL_CMP_MSG *req, const struct header *hdr, struct transaction *t)
{
    t->status = t->confirmation = NULL;
    t->subject[0] = t->old_serial[0] = last_error[0] = '\0';
    OSSL_CMP_MSG *rsp = OSSL_CMP_SRV_process_request(t->srv, req);
    const char *answer = body_name(rsp);
    int certificate = strcmp(answer, "ip") == 0 || strcmp(answer, "cp") == 0 || strcmp(answer, "kup") == 0;
    int implicit = OSSL_CMP_CTX_get_option(OSSL_CMP_SRV_CTX_get0_cmp_ctx(t->srv), OSSL_CMP_OPT_IMPLICIT_CONFIRM) == 1;
    if (certificate && t->status == NULL)
        t->status = "rejection"; /* libcrypto's own: proof of possession */
    int issued = certificate && strcmp(t->status, "accepted") == 0;
    if (issued && implicit)
        t->confirmation = "implicit";
    else if (strcmp(body_name(req), "certConf") == 0 && strcmp(answer, "pkiconf") == 0 && t->confirmation == NULL)
        t->confirmation = "rejected"; /* an empty certConf, RFC 9810 section 5.3.18 */
    if (t->issued != NULL && t->confirmation != NULL && strcmp(t->confirmation, "rejected") == 0)
        ca_revoke(server.ca, X509_get0_serialNumber(t->issued));
    log_message(t, req, rsp, hdr);
    int goes_on = strcmp(answer, "pollRep") == 0 || (issued && !implicit) || (certificate && strcmp(t->status, "waiting") == 0);
    if (!goes_on)
        transaction_close(t);
    return rsp;
}

unsigned char *cmp_answer(const unsigned char *der, long len, int *answer_len)
{
    const unsigned char *end = der;
    unsigned char *answer = NULL;
    struct header hdr;
    OSSL_CMP_MSG *rsp = NULL, *req = d2i_OSSL_CMP_MSG(NULL, &end, len);
    ASN1_OCTET_STRING *id = req == NULL ? NULL : OSSL_CMP_HDR_get0_transactionID(OSSL_CMP_MSG_get0_header(req));
    if (id != NULL && end == der + len && ASN1_STRING_length(id) > 0 && ASN1_STRING_length(id) <= max_id) {
        read_header(&hdr, OSSL_CMP_MSG_get0_header(req));
        pthread_mutex_lock(&server.lock);
        struct transaction *t = transaction_for(id, &hdr);
        if (t != NULL)
            rsp = process(req, &hdr, t);
        pthread_mutex_unlock(&server.lock);
    }
    *answer_len = rsp == NULL ? 0 : i2d_OSSL_CMP_MSG(rsp, &answer);
    OSSL_CMP_MSG_free(rsp);
    OSSL_CMP_MSG_free(req);
    ERR_clear_error();
    return answer;
}

int cmp_open(struct ca *ca)
{
    server.ca = ca;
    return ca->opt->log == NULL || (server.log = fopen(ca->opt->log, "a")) != NULL;
}

void cmp_close(void)
{
    while (server.open != NULL)
        transaction_close(server.open);
    if (server.log != NULL)
        fclose(server.log);
}
