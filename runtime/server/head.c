// The size of a request's line and headers. libmicrohttpd answers what its memory does not hold with a page
// of its own, and offers no hook there. So it gets twice the memory that is allowed: whoever sends more than
// allowed is answered here, before it runs out. (Some hundred tiny headers still fill it first, and bytes
// that are no HTTP are its own to answer.)
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

static size_t unread(const Conn *k) {
    int n = 0;
    return ioctl(k->fd, FIONREAD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

void head_arrived(Server *s, Conn *k) {
    if (k->arrived || k->gone || (k->call && k->call->headers_seen)) return;
    k->arrived = true;
    k->unread = unread(k);
    k->next_arrived = s->arrived;
    s->arrived = k;
}

void head_forget(Server *s, Conn *k) {
    if (!k->arrived) return;
    Conn **at = &s->arrived;
    while (*at != k) at = &(*at)->next_arrived;
    *at = k->next_arrived;
}

// What libmicrohttpd has read of a head is what is no longer in the socket.
void heads_check(Server *s) {
    const uint64_t most = s->o.header_bytes_max;
    for (Conn **at = &s->arrived; *at;) {
        Conn *k = *at;
        const size_t left = unread(k);
        const bool seen = k->call && k->call->headers_seen, read = left < k->unread;
        if (read) k->head_bytes += k->unread - left;
        k->unread = left;
        if (!seen && k->head_bytes >= most && !k->gone) {
            ApiError e;
            too_large(&e, !k->call, most);
            conn_kick(k, &e);
        } else if (!seen && !read) {
            at = &k->next_arrived; // not its turn yet
            continue;
        }
        *at = k->next_arrived;
        k->arrived = false;
    }
}
