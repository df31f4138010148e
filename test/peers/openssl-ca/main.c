/* Options, start and end; the README says what each option does. */
#include "openssl-ca.h"

#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>

static const char usage[] =
    "usage: openssl-ca -dir DIR [-port N] [-name CN] [-newkey TYPE] [-ref REF -secret SECRET]... [-mac NAME] [-days N | -seconds N]\n"
    "                  [-implicit] [-poll N] [-check_after S] [-log FILE]\n"
    "SECRET is the secret itself, pass:SECRET, or file:PATH whose first line is the secret.\n";

static volatile sig_atomic_t stop, listener = -1;

/* Shutting the listener down wakes accept, whichever thread got the signal. */
static void on_signal(int number)
{
    (void)number;
    stop = 1;
    shutdown(listener, SHUT_RDWR);
}

/* Returns the secret an argument stands for, NULL when it is empty or cannot be read. */
static char *read_secret(const char *arg)
{
    char line[256] = "";
    if (strncmp(arg, "file:", 5) == 0) {
        FILE *f = fopen(arg + 5, "r");
        if (f == NULL || fgets(line, sizeof line, f) == NULL)
            line[0] = '\0';
        if (f != NULL)
            fclose(f);
        line[strcspn(line, "\r\n")] = '\0';
        arg = line;
    } else if (strncmp(arg, "pass:", 5) == 0) {
        arg += 5;
    }
    char *secret = *arg == '\0' ? NULL : OPENSSL_strdup(arg);
    OPENSSL_cleanse(line, sizeof line);
    return secret;
}

static int read_number(const char *arg, long least, long most, long *out)
{
    char *end;
    *out = strtol(arg, &end, 10);
    return *arg != '\0' && *end == '\0' && *out >= least && *out <= most;
}

/* Applies one option; returns how many arguments it took, 0 when it is wrong. */
static int take(struct options *o, const char *name, const char *value)
{
    long n = 0;
    if (strcmp(name, "-implicit") == 0)
        return o->implicit = 1;
    if (value == NULL)
        return 0;
    if (strcmp(name, "-dir") == 0)
        o->dir = value;
    else if (strcmp(name, "-log") == 0)
        o->log = value;
    else if (strcmp(name, "-name") == 0)
        o->name = value;
    else if (strcmp(name, "-newkey") == 0)
        o->key = value;
    else if (strcmp(name, "-port") == 0 && read_number(value, 0, 65535, &n))
        o->port = (int)n;
    else if (strcmp(name, "-days") == 0 && read_number(value, 1, 3650, &n))
        o->lifetime = n * 86400;
    else if (strcmp(name, "-seconds") == 0 && read_number(value, 1, 3650L * 86400, &n))
        o->lifetime = n;
    else if (strcmp(name, "-poll") == 0 && read_number(value, 0, 1000000, &n))
        o->poll = (int)n;
    else if (strcmp(name, "-check_after") == 0 && read_number(value, 0, 86400, &n))
        o->check_after = (int)n;
    else if (strcmp(name, "-mac") == 0)
        return (o->mac = OBJ_txt2nid(value)) == NID_undef ? 0 : 2;
    else if (strcmp(name, "-ref") == 0 && o->secret_count < max_secrets)
        o->secrets[o->secret_count++].reference = value;
    else if (strcmp(name, "-secret") == 0 && o->secret_count > 0 && o->secrets[o->secret_count - 1].value == NULL)
        return (o->secrets[o->secret_count - 1].value = read_secret(value)) == NULL ? 0 : 2;
    else
        return 0;
    return 2;
}

static int parse(struct options *o, int argc, char **argv)
{
    for (int i = 1, taken; i < argc; i += taken)
        if ((taken = take(o, argv[i], i + 1 < argc ? argv[i + 1] : NULL)) == 0)
            return fprintf(stderr, "openssl-ca: bad option or value: %s\n%s", argv[i], usage), 0;
    for (int i = 0; i < o->secret_count; i++)
        if (o->secrets[i].value == NULL)
            return fprintf(stderr, "openssl-ca: -ref %s has no -secret\n", o->secrets[i].reference), 0;
    if (o->dir == NULL)
        return fputs(usage, stderr), 0;
    return 1;
}

static void catch_signals(void)
{
    struct sigaction end = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

int main(int argc, char **argv)
{
    struct options opt = {.name = "openssl-ca", .key = "P-256", .lifetime = 365L * 86400, .check_after = 1, .mac = NID_hmacWithSHA256};
    struct ca ca = {0};
    int port, status = 1;
    if (!parse(&opt, argc, argv))
        return 2;
    catch_signals();
    if (!ca_open(&ca, &opt) || !cmp_open(&ca)) {
        fprintf(stderr, "openssl-ca: cannot open the CA in %s or its log\n", opt.dir);
        ERR_print_errors_fp(stderr);
    } else if ((listener = http_listen(opt.port, &port)) < 0) {
        perror("openssl-ca: listening on 127.0.0.1");
    } else {
        printf("READY http://127.0.0.1:%d/pkix/ ca=%s/ca.crt\n", port, opt.dir);
        fflush(stdout);
        http_serve(listener, &stop);
        log_event("stopped");
        status = 0;
    }
    cmp_close();
    ca_close(&ca);
    for (int i = 0; i < opt.secret_count; i++)
        OPENSSL_clear_free(opt.secrets[i].value, opt.secrets[i].value == NULL ? 0 : strlen(opt.secrets[i].value));
    return status;
}
