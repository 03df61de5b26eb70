// Streams past libmicrohttpd: while a connection is suspended in the middle of a chunked answer, nothing of
// it is underway there, and events go to the socket as chunks of their own: one system call a token. Its end,
// and everything else, is libmicrohttpd's.
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/server/http.h"

size_t stream_unsent(const Call *c) { return c->doc.len - c->sent + c->wire.len - c->wire_sent; }

static ssize_t send_parts(Call *c, struct iovec *parts, size_t n) {
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = n};
    ssize_t sent;
    do sent = sendmsg(c->conn->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent > 0) c->last_progress_s = clock_s();
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) conn_gone(c->conn);
    return sent;
}

// The rest of a chunk that the socket did not take whole. False: there is still some.
static bool flush_wire(Call *c) {
    if (c->wire.len == c->wire_sent) return true;
    struct iovec part = {c->wire.ptr + c->wire_sent, c->wire.len - c->wire_sent};
    ssize_t n = send_parts(c, &part, 1);
    if (n > 0) c->wire_sent += (size_t)n;
    if (c->wire.len > c->wire_sent) return false;
    c->wire.len = c->wire_sent = 0;
    return true;
}

static void keep_rest(Call *c, const struct iovec *parts, size_t n, size_t sent) {
    for (size_t i = 0; i < n; i++) {
        size_t skip = MIN(sent, parts[i].iov_len);
        buf_add(&c->wire, (const char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
        sent -= skip;
    }
}

static void send_chunk(Call *c) {
    char head[24];
    size_t len = c->doc.len - c->sent;
    int n = snprintf(head, sizeof head, "%zx\r\n", len);
    struct iovec parts[] = {{head, (size_t)n}, {c->doc.ptr + c->sent, len}, {(char[]){'\r', '\n'}, 2}};
    size_t all = (size_t)n + len + 2;
    ssize_t sent = send_parts(c, parts, COUNT_OF(parts));
    if (c->conn->gone) return;
    if (sent < (ssize_t)all) keep_rest(c, parts, COUNT_OF(parts), sent > 0 ? (size_t)sent : 0);
    c->doc.len = c->sent = 0;
}

void stream_push(Call *c) {
    if (!c->direct || !c->suspended || c->state != CALL_SENT || c->conn->gone) {
        call_resume(c);
        return;
    }
    if (!flush_wire(c)) return; // EPOLLOUT will tell
    if (c->doc.len > c->sent && !c->stream_done) send_chunk(c);
    if (c->stream_done && !c->conn->gone) call_resume(c);
}
