// The size of a request's line and headers. libmicrohttpd answers what its memory does not hold with a page
// of its own, and offers no hook there. So it gets twice the memory that is allowed, of which it reads half
// at most at once: whoever sent more than allowed is answered here, before it reads again. What remains its
// own to answer: some hundred tiny headers, bytes that are no HTTP, and twice too much on a unix socket,
// where nobody counts the bytes.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runtime/base/num.h"
#include "runtime/server/http.h"

static bool too_large(ApiError *e, bool line, uint64_t most) {
    return line ? api_error(e, 414, "invalid_request_error", "uri_too_long", NULL,
                            "The request's line is too long: line and headers may have %llu bytes.",
                            (unsigned long long)most)
                : api_error(e, 431, "invalid_request_error", "headers_too_large", NULL,
                            "The request's line and headers are too large: they may have %llu bytes.",
                            (unsigned long long)most);
}

bool head_fits(Call *c, const char *url) {
    const uint64_t most = c->server->o.header_bytes_max;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return !info || info->header_size <= most || too_large(&c->error, strlen(url) > most / 2, most);
}

// Bytes of a connection that libmicrohttpd has read: those that came, without those that the socket holds.
static uint64_t bytes_read(const Conn *k) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    int held = 0;
    if (getsockopt(k->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return 0;
    if (ioctl(k->fd, FIONREAD, &held) != 0) return 0;
    return info.tcpi_bytes_received - MIN((uint64_t)MAX(held, 0), info.tcpi_bytes_received);
}

static bool in_head(const Conn *k) { return !k->gone && !(k->call && k->call->headers_seen); }

// Whether the head is still to be watched.
static bool check(Server *s, Conn *k) {
    const uint64_t most = s->o.header_bytes_max, read = in_head(k) ? bytes_read(k) : 0;
    ApiError e;
    if (read < k->head_begin + most) return in_head(k) && read == k->head_begin;
    too_large(&e, !k->call, most);
    conn_kick(k, &e);
    return false;
}

void head_begin(Conn *k) { k->head_begin = bytes_read(k); }

void head_arrived(Server *s, Conn *k) {
    if (k->arrived || !in_head(k)) return;
    check(s, k); // libmicrohttpd may have read since the last event
    if (k->gone) return;
    k->arrived = true;
    k->next_arrived = s->arrived;
    s->arrived = k;
}

void head_forget(Server *s, Conn *k) {
    if (!k->arrived) return;
    Conn **at = &s->arrived;
    while (*at != k) at = &(*at)->next_arrived;
    *at = k->next_arrived;
}

void heads_check(Server *s) {
    for (Conn **at = &s->arrived; *at;) {
        Conn *k = *at;
        if (check(s, k)) { // not read yet
            at = &k->next_arrived;
            continue;
        }
        *at = k->next_arrived;
        k->arrived = false;
    }
}
