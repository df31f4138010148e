/*
 * openssl-ca: a small issuing certification authority that speaks CMP with OpenSSL's own server code, so that a client
 * can be tried against an implementation it shares nothing with.
 *
 *   main.c  options, signals        http.c  HTTP/1.x on the loopback interface
 *   cmp.c   transactions            ca.c    keys, issued certificates, certificate contents
 *   info.c  general messages
 */
#ifndef OPENSSL_CA_H
#define OPENSSL_CA_H

#include <openssl/cmp.h>
#include <openssl/crmf.h>
#include <openssl/x509v3.h>
#include <signal.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { max_secrets = 16, max_name = 512, max_serial = 48 };

struct secret {
    const char *reference;
    char *value;
};

/* What the command line asked for; constant once the server runs. */
struct options {
    const char *dir, *log, *name, *key;
    int port, poll, check_after, implicit, mac;
    long lifetime; /* seconds */
    struct secret secrets[max_secrets];
    int secret_count;
};

/* ca.c: everything below is called with one lock held (see cmp.c). */
struct ca {
    const struct options *opt;
    EVP_PKEY *key;
    X509 *cert;
    X509 *successor[3]; /* newWithNew, newWithOld, oldWithNew, from when they are first asked for */
    X509_STORE *store; /* trusts cert, refuses what the ledger holds as revoked */
};

int ca_open(struct ca *ca, const struct options *opt);
void ca_close(struct ca *ca);

/* The parts of a request that go into a certificate; owns nothing but pubkey. */
struct template {
    EVP_PKEY *pubkey;
    const X509_NAME *subject;
    const STACK_OF(X509_EXTENSION) *extensions;
    ASN1_TIME *not_before, *not_after; /* NULL: the CA decides */
};

/* Issues and records a certificate, or returns NULL and says in *why what is wrong with the template. */
X509 *ca_issue(struct ca *ca, const struct template *t, const char **why);

/* The ledger: one file per serial number in DIR/issued, .pem while good, .revoked afterwards. */
X509 *ca_lookup(const struct ca *ca, const ASN1_INTEGER *serial, int *revoked);
int ca_revoke(const struct ca *ca, const ASN1_INTEGER *serial);

X509_CRL *ca_crl(const struct ca *ca);

/* The root that is to follow: newWithNew, newWithOld, oldWithNew (RFC 9810 section 4.4); NULL when it cannot be made. */
X509 *const *ca_successor(struct ca *ca);

void serial_text(char out[max_serial], const ASN1_INTEGER *serial);
void name_text(char out[max_name], const X509_NAME *name);

/* cmp.c: answers one DER-encoded PKIMessage; NULL when it is none. The result is freed with OPENSSL_free. */
int cmp_open(struct ca *ca);
void cmp_close(void);
unsigned char *cmp_answer(const unsigned char *der, long len, int *answer_len);
void log_event(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* info.c: the answer to one question of a general message. */
OSSL_CMP_ITAV *info_answer(struct ca *ca, const OSSL_CMP_ITAV *asked);

/* http.c */
int http_listen(int port, int *bound);
void http_serve(int listener, volatile const sig_atomic_t *stop);

#endif
