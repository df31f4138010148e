/* HTTP/1.0 and 1.1, as much as RFC 9811 needs: POST with Content-Length, one thread per connection, loopback only. */
#include "openssl-ca.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { max_header = 16 << 10, max_body = 1 << 20, max_connections = 256, idle_seconds = 30 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int sockets[max_connections]; /* -1 when free */
    int count;
} connections = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

struct request {
    char head[max_header + 1];
    size_t head_len; /* octets read so far, possibly beyond the head */
    int minor, keep_alive, cmp;
    long length; /* -1 when missing */
};

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n <= 0)
            return 0;
        data += n;
        len -= (size_t)n;
    }
    return 1;
}

/* Head and body leave in one write, so that no client waits for a delayed acknowledgement. */
static int reply(int fd, const struct request *r, const char *status, const char *type, const void *body, int len)
{
    char *out = OPENSSL_malloc(max_name + (size_t)len);
    if (out == NULL)
        return 0;
    int n = snprintf(out, max_name, "HTTP/1.%d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-cache\r\nConnection: %s\r\n\r\n",
        r->minor, status, type, len, r->keep_alive ? "keep-alive" : "close");
    memcpy(out + n, body, (size_t)len);
    int ok = write_all(fd, out, (size_t)(n + len));
    OPENSSL_free(out);
    return ok && r->keep_alive;
}

static int refuse(int fd, struct request *r, const char *status)
{
    r->keep_alive = 0;
    return reply(fd, r, status, "text/plain", status, (int)strlen(status));
}

/* Returns the length of the head including the empty line, 0 when the peer closed, kept silent or sent too much. */
static size_t read_head(int fd, struct request *r)
{
    for (;;) {
        r->head[r->head_len] = '\0';
        char *end = strstr(r->head, "\r\n\r\n");
        if (end != NULL)
            return (size_t)(end - r->head) + 4;
        if (r->head_len >= max_header)
            return 0;
        ssize_t n = read(fd, r->head + r->head_len, max_header - r->head_len);
        if (n <= 0)
            return 0;
        r->head_len += (size_t)n;
    }
}

static int is_cmp(const char *type)
{
    static const char *const accepted[] = {"application/pkixcmp", "application/pkixcmp-poll"};
    size_t n = strcspn(type, "; \t\r");
    for (size_t i = 0; i < COUNT_OF(accepted); i++)
        if (n == strlen(accepted[i]) && strncasecmp(type, accepted[i], n) == 0)
            return 1;
    return 0;
}

static void read_fields(struct request *r, char *line)
{
    char *save = NULL;
    for (line = strtok_r(line, "\r\n", &save); line != NULL; line = strtok_r(NULL, "\r\n", &save)) {
        char *value = strchr(line, ':');
        if (value == NULL)
            continue;
        *value++ = '\0';
        value += strspn(value, " \t");
        if (strcasecmp(line, "Content-Length") == 0) {
            char *end;
            r->length = isdigit((unsigned char)*value) ? strtol(value, &end, 10) : -1;
        } else if (strcasecmp(line, "Content-Type") == 0) {
            r->cmp = is_cmp(value);
        } else if (strcasecmp(line, "Connection") == 0) {
            r->keep_alive = strcasestr(value, "close") == NULL && (r->minor == 1 || strcasestr(value, "keep-alive") != NULL);
        }
    }
}

/* Says what is wrong with the head, NULL when a body may follow. */
static const char *parse_head(struct request *r)
{
    char *line_end = strstr(r->head, "\r\n"), method[8], path[256];
    *line_end = '\0';
    if (sscanf(r->head, "%7s %255s HTTP/1.%1d", method, path, &r->minor) != 3 || (r->minor != 0 && r->minor != 1)) {
        r->minor = 0;
        return "400 Bad Request";
    }
    r->keep_alive = r->minor == 1;
    r->length = -1;
    r->cmp = 0;
    read_fields(r, line_end + 2);
    if (strcmp(method, "POST") != 0)
        return "405 Method Not Allowed";
    if (strcmp(path, "/") != 0 && strcmp(path, "/pkix") != 0 && strncmp(path, "/pkix/", 6) != 0
        && strncmp(path, "/.well-known/cmp", 16) != 0)
        return "404 Not Found";
    if (!r->cmp)
        return "415 Unsupported Media Type";
    if (r->length < 0)
        return "411 Length Required";
    return r->length > max_body ? "413 Content Too Large" : NULL;
}

/* Reads one request and answers it; returns whether the connection stays open. */
static int exchange(int fd, struct request *r)
{
    size_t head = read_head(fd, r);
    if (head == 0)
        return 0;
    r->head[head - 2] = '\0';
    size_t got = r->head_len - head;
    const char *problem = parse_head(r);
    if (problem != NULL)
        return refuse(fd, r, problem);
    size_t length = (size_t)r->length;
    unsigned char *body = OPENSSL_malloc(length + 1);
    if (body == NULL)
        return refuse(fd, r, "503 Service Unavailable");
    if (got > length)
        got = length;
    memcpy(body, r->head + head, got);
    r->head_len -= head + got; /* what is left belongs to the next request */
    memmove(r->head, r->head + head + got, r->head_len);
    for (ssize_t n; got < length; got += (size_t)n)
        if ((n = read(fd, body + got, length - got)) <= 0) {
            OPENSSL_free(body);
            return 0;
        }
    int len;
    unsigned char *answer = cmp_answer(body, r->length, &len);
    OPENSSL_free(body);
    int open = answer != NULL ? reply(fd, r, "200 OK", "application/pkixcmp", answer, len) : refuse(fd, r, "400 Bad Request");
    OPENSSL_free(answer);
    return open;
}

static void *serve_connection(void *slot)
{
    int fd = *(int *)slot;
    struct request *r = OPENSSL_zalloc(sizeof *r);
    while (r != NULL && exchange(fd, r))
        continue;
    OPENSSL_free(r);
    pthread_mutex_lock(&connections.lock);
    close(fd);
    *(int *)slot = -1;
    connections.count--;
    pthread_cond_signal(&connections.changed);
    pthread_mutex_unlock(&connections.lock);
    return NULL;
}

/* Gives the connection a thread of its own; with all places taken it is closed at once. */
static void start_connection(int fd)
{
    struct timeval idle = {.tv_sec = idle_seconds};
    int on = 1, *slot = NULL;
    pthread_t thread;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_mutex_lock(&connections.lock);
    for (int i = 0; i < max_connections && slot == NULL; i++)
        if (connections.sockets[i] < 0)
            slot = &connections.sockets[i];
    if (slot != NULL) {
        *slot = fd;
        connections.count++;
        if (pthread_create(&thread, NULL, serve_connection, slot) == 0) {
            pthread_detach(thread);
            fd = -1;
        } else {
            *slot = -1;
            connections.count--;
        }
    }
    pthread_mutex_unlock(&connections.lock);
    if (fd >= 0)
        close(fd);
}

int http_listen(int port, int *bound)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 128) != 0
        || getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    *bound = ntohs(address.sin_port);
    return fd;
}

/* Serves until *stop, then hangs up on everybody and waits for the threads. */
void http_serve(int listener, volatile const sig_atomic_t *stop)
{
    for (int i = 0; i < max_connections; i++)
        connections.sockets[i] = -1;
    while (!*stop) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            start_connection(fd);
        else if (errno != EINTR && errno != ECONNABORTED)
            usleep(10000); /* out of descriptors: let some connections end */
    }
    close(listener);
    pthread_mutex_lock(&connections.lock);
    for (int i = 0; i < max_connections; i++)
        if (connections.sockets[i] >= 0)
            shutdown(connections.sockets[i], SHUT_RDWR);
    while (connections.count > 0)
        pthread_cond_wait(&connections.changed, &connections.lock);
    pthread_mutex_unlock(&connections.lock);
}
