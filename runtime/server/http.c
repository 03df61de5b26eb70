// The daemon and its loop: connections, bodies, suspended calls, signals.
#include "runtime/server/http.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/server/listen.h"
#include "runtime/server/notify.h"

enum {
    STREAM_BLOCK = 4 << 10,
    PREPARING_MAX = 512,
    BODIES_MAX = 64, // bodies of the largest size that are held at once
    DRAIN_MAX = 1 << 20
};
static const double tick_s = 0.25, drain_notice_s = 0.05, gone_s = 1;

// ---- calls -----------------------------------------------------------------------------------------------

void call_suspend(Call *c) {
    if (c->suspended) return;
    c->suspended = true;
    MHD_suspend_connection(c->mhd);
}

void call_resume(Call *c) {
    if (!c->suspended) return;
    c->suspended = false;
    c->server->mhd_due = true;
    MHD_resume_connection(c->mhd);
}

void call_ready(Call *c, int status) {
    c->status = status;
    c->state = CALL_READY;
    call_resume(c);
}

void call_fail(Call *c) {
    c->doc.len = 0;
    c->content_type = NULL;
    bool anthropic = c->route && (c->route->flags & ANTHROPIC);
    if (anthropic && c->error.status == 503) c->error.status = 529;
    api_error_write(&c->doc, &c->error, anthropic ? API_STYLE_ANTHROPIC : API_STYLE_OPENAI,
                    str_of(c->request_id));
    buf_putc(&c->doc, '\n');
    c->retry_after_s = c->error.retry_after_s;
    c->streams = false;
    call_ready(c, c->error.status);
}

static void conn_phase(Conn *k, ConnPhase phase) {
    k->phase = phase;
    k->since_s = clock_s();
}

static const char *status_words(int status) {
    switch (status) {
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 431: return "Request Header Fields Too Large";
    default: return "Service Unavailable";
    }
}

// Bytes that nobody read would reset the connection, and the answer with it.
static void drain_socket(int fd) {
    char junk[4096];
    for (size_t n = 0; n < DRAIN_MAX && recv(fd, junk, sizeof junk, MSG_DONTWAIT) > 0;) n += sizeof junk;
}

void conn_kick(Conn *k, const ApiError *e) {
    if (e && !k->gone) {
        StrBuf body = {0}, all = {0};
        const Call *c = k->call;
        const bool anthropic = c && c->route && (c->route->flags & ANTHROPIC);
        api_error_write(&body, e, anthropic ? API_STYLE_ANTHROPIC : API_STYLE_OPENAI,
                        str_of(c ? c->request_id : ""));
        buf_printf(&all,
                   "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n%s\n",
                   e->status, status_words(e->status), body.len + 1, buf_cstr(&body));
        (void)!send(k->fd, all.ptr, all.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        buf_free(&body), buf_free(&all);
        drain_socket(k->fd);
    }
    k->gone = true;
    shutdown(k->fd, SHUT_RDWR);
}

static bool id_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           strchr("-_.:/+=@", c);
}

// The client's own request id where it is sane, else a new one.
static void set_request_id(Call *c) {
    const char *own = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "X-Request-Id");
    size_t n = own ? strlen(own) : 0;
    bool sane = n > 0 && n < sizeof c->request_id - 1;
    for (size_t i = 0; sane && i < n; i++) sane = id_char(own[i]);
    if (sane) {
        memcpy(c->request_id, own, n + 1);
        return;
    }
    uint64_t r[2] = {0};
    (void)!getrandom(r, sizeof r, 0);
    snprintf(c->request_id, sizeof c->request_id, "%016llx%016llx", (unsigned long long)r[0],
             (unsigned long long)r[1]);
}

static void call_free(Call *c) {
    generate_free(c);
    c->server->body_bytes -= c->body_counted;
    buf_free(&c->body);
    buf_free(&c->doc);
    buf_free(&c->wire);
    arena_free(&c->arena);
    free(c);
}

// ---- MHD asks ---------------------------------------------------------------------------------------------

static void *on_uri(void *ctx, const char *uri, struct MHD_Connection *mhd) {
    Server *s = ctx;
    Call *c = xmalloc(sizeof *c);
    memset(c, 0, sizeof *c);
    c->server = s, c->mhd = mhd, c->begin_s = clock_s();
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    c->conn = info ? info->socket_context : NULL;
    CHECK(c->conn);
    c->conn->call = c;
    conn_phase(c->conn, CONN_HEADERS);
    (void)uri;
    return c;
}

static void on_connection(void *ctx, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode what) {
    Server *s = ctx;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        Conn *k = xmalloc(sizeof *k);
        *k = (Conn){.next = s->conns,
                    .fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd};
        conn_phase(k, CONN_HEADERS); // the first request is due
        if (s->conns) s->conns->prev = k;
        s->conns = k;
        s->n_conns++;
        s->counters.connections_total++;
        struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLOUT | EPOLLET, .data.ptr = k};
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, k->fd, &ev);
        *socket_context = k;
        head_arrived(s, k);
        return;
    }
    Conn *k = *socket_context;
    if (!k) return;
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, k->fd, NULL);
    head_forget(s, k);
    if (k->prev) k->prev->next = k->next;
    if (k->next) k->next->prev = k->prev;
    if (s->conns == k) s->conns = k->next;
    s->n_conns--;
    free(k);
    *socket_context = NULL;
}

static void on_completed(void *ctx, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode how) {
    Server *s = ctx;
    Call *c = *con_cls;
    (void)mhd;
    if (!c) return;
    *con_cls = NULL;
    c->conn->call = NULL;
    head_begin(c->conn);
    conn_phase(c->conn, CONN_IDLE);
    if (how != MHD_REQUEST_TERMINATED_COMPLETED_OK && c->state == CALL_SENT && !c->stream_done)
        s->counters.cancelled++;
    if (c->headers_seen) {
        s->counters.requests[how == MHD_REQUEST_TERMINATED_COMPLETED_OK ? MIN(c->status / 100, 5) : 0]++;
        access_log(c, how);
    }
    call_free(c);
}

// libmicrohttpd (0.9.75) forgets a connection that it closes at this point, and holds it as long as there is
// an older one. Those that have a timeout of their own it visits each time that it runs.
static ssize_t close_here(Call *c, ssize_t how) {
    MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 3600u);
    c->server->mhd_due = true;
    return how;
}

// Gives MHD what is there of a stream.
static ssize_t on_read(void *ctx, uint64_t pos, char *buf, size_t max) {
    Call *c = ctx;
    (void)pos;
    size_t left = c->doc.len - c->sent, n = MIN(left, max);
    c->last_progress_s = clock_s();
    if (c->status == 499) return close_here(c, MHD_CONTENT_READER_END_WITH_ERROR);
    if (n) {
        memcpy(buf, c->doc.ptr + c->sent, n);
        c->sent += n;
        if (c->sent == c->doc.len) c->sent = c->doc.len = 0;
        return (ssize_t)n;
    }
    if (c->stream_done && !c->direct) return close_here(c, MHD_CONTENT_READER_END_OF_STREAM); // not chunked
    if (c->stream_done) return MHD_CONTENT_READER_END_OF_STREAM;
    call_suspend(c);
    return 0;
}

static void header(struct MHD_Response *r, const char *name, const char *value) {
    MHD_add_response_header(r, name, value);
}

static void add_headers(const Call *c, struct MHD_Response *r) {
    header(r, "Content-Type",
           c->streams        ? "text/event-stream"
           : c->content_type ? c->content_type
                             : "application/json");
    header(r, "X-Request-Id", c->request_id);
    header(r, "X-Content-Type-Options", "nosniff");
    header(r, "Cache-Control", c->streams ? "no-cache" : "no-store");
    if (c->streams) header(r, "X-Accel-Buffering", "no");
    if (c->streams && c->direct) header(r, "Transfer-Encoding", "chunked");
    if (c->status == 401) header(r, "WWW-Authenticate", "Bearer");
    if (c->allow) header(r, "Allow", c->allow);
    cors_headers(c, r);
    if (c->retry_after_s) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", c->retry_after_s);
        header(r, "Retry-After", seconds);
    }
    bool close_after = c->server->draining || c->state == CALL_BODY;
    if (close_after || c->status == 413 || c->status == 408) header(r, "Connection", "close");
}

static enum MHD_Result send_call(Call *c) {
    struct MHD_Response *r =
        c->streams ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_read, c, NULL)
                   : MHD_create_response_from_buffer(c->doc.len, c->doc.ptr, MHD_RESPMEM_PERSISTENT);
    if (!r) return MHD_NO;
    add_headers(c, r);
    c->state = c->state == CALL_READY ? CALL_SENT : c->state;
    enum MHD_Result ok = MHD_queue_response(c->mhd, (unsigned)c->status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result refuse(Call *c) {
    call_fail(c);
    return send_call(c);
}

static bool length_fits(Call *c) {
    const char *text = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Content-Length");
    uint64_t n;
    if (!text || !str_to_u64(str_of(text), &n) || n <= c->server->o.body_bytes_max) return true;
    return api_error(&c->error, 413, "invalid_request_error", "request_too_large", NULL,
                     "The body has %llu bytes; at most %llu are taken.", (unsigned long long)n,
                     (unsigned long long)c->server->o.body_bytes_max);
}

static enum MHD_Result answer_preflight(Call *c) {
    c->status = 200;
    c->state = CALL_READY;
    return send_call(c);
}

// The headers are there.
static enum MHD_Result first_look(Call *c, const char *url, const char *method) {
    snprintf(c->method, sizeof c->method, "%s", method);
    c->headers_seen = true;
    set_request_id(c);
    c->route = route_find(c, url);
    if (!head_fits(c, url) || !route_guard(c)) return refuse(c);
    if (cors_asks_first(c)) return cors_preflight(c) ? answer_preflight(c) : refuse(c);
    if (!c->route || !length_fits(c)) return refuse(c);
    conn_phase(c->conn, CONN_BODY);
    return MHD_YES;
}

static void drop_body(Call *c) {
    c->server->body_bytes -= c->body_counted;
    c->body_counted = 0;
    buf_free(&c->body);
}

// libmicrohttpd takes no response before the end of the body.
static void refuse_body(Call *c, bool large) {
    c->too_large = true;
    if (large)
        api_error(&c->error, 413, "invalid_request_error", "request_too_large", NULL,
                  "The body is too large; at most %llu bytes are taken.",
                  (unsigned long long)c->server->o.body_bytes_max);
    else
        api_error(&c->error, 503, "unavailable_error", "server_overloaded", NULL,
                  "Too many bodies are held; try again.");
    c->status = c->error.status;
    conn_kick(c->conn, &c->error);
    drop_body(c);
}

static enum MHD_Result take_body(Call *c, const char *data, size_t *len) {
    Server *s = c->server;
    if (c->too_large) {
        *len = 0;
    } else if (c->body.len + *len > s->o.body_bytes_max) {
        refuse_body(c, true);
    } else if (s->body_bytes + *len > BODIES_MAX * s->o.body_bytes_max) {
        refuse_body(c, false);
    } else {
        buf_add(&c->body, data, *len);
        c->body_counted += *len;
        s->body_bytes += *len;
    }
    *len = 0;
    return MHD_YES;
}

static enum MHD_Result body_ended(Call *c) {
    Server *s = c->server;
    conn_phase(c->conn, CONN_BUSY);
    if (!(c->route->flags & WORK)) {
        c->state = CALL_READY;
        c->status = 200;
        c->route->answer(s, c);
        return send_call(c);
    }
    if (s->n_preparing >= PREPARING_MAX) {
        s->counters.rejected_busy++;
        api_error(&c->error, 429, "rate_limit_error", "server_overloaded", NULL,
                  "Too many requests are being prepared; try again.");
        c->error.retry_after_s = 1;
        return refuse(c);
    }
    c->state = CALL_PREPARING;
    s->n_preparing++;
    call_suspend(c);
    workers_push(s->workers, c);
    return MHD_YES;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *data, size_t *len, void **con_cls) {
    Call *c = *con_cls;
    (void)ctx, (void)mhd;
    if (!c->headers_seen) {
        c->direct = !strcmp(version, MHD_HTTP_VERSION_1_1);
        return first_look(c, url, method);
    }
    if (*len) return take_body(c, data, len);
    if (c->state == CALL_BODY) return body_ended(c);
    if (c->conn->gone && !c->streams) return MHD_NO;
    return c->state == CALL_READY ? send_call(c) : MHD_YES;
}

// ---- loop ------------------------------------------------------------------------------------------------

static void prepared(Server *s) {
    for (Call *c; (c = workers_next(s->workers));) {
        s->n_preparing--;
        drop_body(c);
        if (c->conn->gone) {
            c->status = 499;
            call_resume(c);
        } else if (c->failed) {
            call_fail(c);
        } else if (c->generates) {
            generate_submit(c);
        } else {
            call_ready(c, 200);
        }
    }
}

void conn_gone(Conn *k) {
    k->gone = true;
    Call *c = k->call;
    if (!c || c->state == CALL_PREPARING) return;
    if (c->has_reply && !c->stream_done) {
        c->server->counters.cancelled++;
        generate_cancel(c);
    }
    call_resume(c);
}

static void on_socket(Server *s, Conn *k, uint32_t events) {
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn_gone(k);
    else if (k->call && k->call->streams && k->call->wire.len)
        stream_push(k->call);
    if (events & EPOLLIN) head_arrived(s, k);
}

// Bad ones change nothing: nobody is to be locked out, or let in, by a typing error.
static void read_keys_again(Server *s) {
    Keys keys;
    Err e;
    Arena *a = xmalloc(sizeof *a);
    *a = (Arena){0};
    if (!keys_read(a, s->o.key_file, &keys, &e)) {
        event_log("keys_kept", "SIGHUP: the keys stay as they were: %s", e.msg);
        arena_free(a), free(a);
        return;
    }
    if (s->keys_arena) arena_free(s->keys_arena), free(s->keys_arena);
    s->keys = keys, s->keys_arena = a;
    event_log("keys_read", "SIGHUP: %zu keys of %s", keys.n, s->o.key_file);
}

static void on_signal(Server *s) {
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            read_keys_again(s);
            continue;
        }
        if (s->draining) {
            s->stopping = true;
            continue;
        }
        s->draining = true;
        s->drain_until_s = clock_s() + s->o.drain_s;
        engine_drain(s->engine);
        notify_supervisor("STOPPING=1");
        event_log("draining", "signal %u: %u requests run, at most %.0f s more", info.ssi_signo, s->n_running,
                  s->o.drain_s);
    }
}

static void kick_late(Conn *k, const char *what, double seconds) {
    ApiError e;
    api_error(&e, 408, "invalid_request_error", "request_timeout", NULL,
              "The request's %s did not arrive within %g seconds.", what, seconds);
    if (k->call) k->call->status = e.status;
    conn_kick(k, &e);
}

static void conn_deadline(Server *s, Conn *k, double now) {
    double age = now - k->since_s;
    if (k->gone) { // libmicrohttpd misses an end that comes along with the bytes before it
        if (k->phase != CONN_BUSY && age > gone_s) conn_kick(k, NULL);
        return;
    }
    if (k->phase == CONN_HEADERS && age > s->o.header_s)
        kick_late(k, "headers", s->o.header_s);
    else if (k->phase == CONN_BODY && age > s->o.body_s)
        kick_late(k, "body", s->o.body_s);
    else if (k->phase == CONN_IDLE && (age > s->o.idle_s || (s->draining && age > drain_notice_s)))
        conn_kick(k, NULL);
}

static void tick(Server *s) {
    double now = clock_s();
    if (now - s->ticked_s < tick_s) return;
    s->ticked_s = now;
    for (Conn *k = s->conns, *next; k; k = next) {
        next = k->next;
        conn_deadline(s, k, now);
    }
    generate_tick(s, now);
}

static int wait_ms(Server *s) {
    MHD_UNSIGNED_LONG_LONG mhd;
    int ms = (int)(tick_s * 1e3);
    if (s->mhd_due) return 0;
    if (MHD_get_timeout(s->daemon, &mhd) == MHD_YES && mhd < (unsigned)ms) ms = (int)mhd;
    return ms;
}

static void handle(Server *s, const struct epoll_event *ev) {
    void *what = ev->data.ptr;
    if (what == &s->signals)
        on_signal(s);
    else if (what == &s->sink)
        generate_news(s);
    else if (what == &s->workers)
        prepared(s);
    else if (what == &s->daemon)
        s->mhd_due = true;
    else
        on_socket(s, what, ev->events);
}

// Nothing is owed to anybody any more.
static bool finished(const Server *s) {
    if (!s->draining && !s->dead) return false;
    for (const Conn *k = s->conns; k; k = k->next)
        if (k->call && (k->phase == CONN_BUSY || k->phase == CONN_BODY)) return false;
    return !s->n_preparing && !s->n_running;
}

static void abort_all(Server *s, const char *code, const char *why) {
    ApiError e;
    api_error(&e, 503, "unavailable_error", code, NULL, "%s", why);
    e.retry_after_s = 5;
    generate_abort(s, &e);
}

static void check_state(Server *s) {
    Err why;
    if (!s->dead && engine_state(s->engine) == ENGINE_DEAD) {
        s->dead = true;
        if (!engine_error(s->engine, &why)) err_set(&why, E_DEVICE, "unknown");
        event_log("engine_dead", "%s", why.msg);
        generate_news(s);
        abort_all(s, "engine_dead", "The device failed; the server ends.");
    }
    bool late = s->draining && clock_s() > s->drain_until_s;
    if ((s->stopping || late) && s->n_running) abort_all(s, "draining", "The server was told to stop.");
}

static void run_daemon(Server *s) {
    MHD_UNSIGNED_LONG_LONG ms;
    bool due = s->mhd_due || (MHD_get_timeout(s->daemon, &ms) == MHD_YES && !ms);
    s->mhd_due = false;
    if (due) MHD_run(s->daemon);
    if (s->arrived) heads_check(s);
}

int server_run(Server *s) {
    struct epoll_event events[64];
    double stop_by = 0;
    notify_supervisor("READY=1");
    for (;;) {
        int n = epoll_wait(s->epoll, events, COUNT_OF(events), wait_ms(s));
        for (int i = 0; i < n; i++) handle(s, &events[i]);
        generate_news(s);
        check_state(s);
        run_daemon(s);
        tick(s);
        if (finished(s)) break;
        if (!stop_by && (s->dead || s->stopping)) stop_by = clock_s() + 1; // for the last bytes to leave
        if (stop_by && clock_s() > stop_by && !s->n_preparing) break;
    }
    event_log("stopped", "%s", s->dead ? "the engine is dead" : "all requests are answered");
    return s->dead ? SERVER_EXIT_ENGINE : 0;
}

// ---- opening ---------------------------------------------------------------------------------------------

static bool watch(Server *s, int fd, void *what, Err *e) {
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = what};
    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) == 0 || err_errno(e, E_SYSTEM, "cannot watch a file");
}

// Without keys there is nothing to read again, and a terminal that is closed ends its server.
static sigset_t own_signals(bool has_keys) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (has_keys) sigaddset(&set, SIGHUP);
    return set;
}

void server_block_signals(bool has_keys) {
    sigset_t set = own_signals(has_keys);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static bool catch_signals(Server *s, Err *e) {
    sigset_t set = own_signals(s->o.key_file != NULL);
    s->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return s->signals >= 0 || err_errno(e, E_SYSTEM, "cannot catch signals");
}

void server_without_tls(void); // no_tls.c: the linker takes it because it is called

static bool start_daemon(Server *s, Err *e) {
    server_without_tls();
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET,
        s->listener, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        2 * (size_t)s->o.header_bytes_max, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.connections_max,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_END);
    return s->daemon || err_set(e, E_SYSTEM, "libmicrohttpd does not start");
}

static bool open_parts(Server *s, Err *e) {
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0) return err_errno(e, E_SYSTEM, "epoll_create1");
    if (!catch_signals(s, e) || !listen_open(&s->o, &s->listener, &s->loopback, s->url, sizeof s->url, e))
        return false;
    if (!(s->workers = workers_new(s->o.workers, s->model, s->book, e)) ||
        !(s->sink = engine_sink_new(s->engine, e)))
        return false;
    if (!start_daemon(s, e)) return false;
    int mhd = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return watch(s, mhd, &s->daemon, e) && watch(s, s->signals, &s->signals, e) &&
           watch(s, engine_sink_fd(s->sink), &s->sink, e) && watch(s, workers_fd(s->workers), &s->workers, e);
}

Server *server_new(Engine *engine, const ApiModel *model, const ServerOptions *o, Err *e) {
    Server *s = xmalloc(sizeof *s);
    *s = (Server){.o = *o, .engine = engine, .model = model, .epoll = -1, .signals = -1, .listener = -1};
    s->started_s = clock_s();
    s->keys = o->keys;
    metrics_init(s);
    s->book = rule_book_new(model);
    if (open_parts(s, e)) return s;
    server_free(s);
    return NULL;
}

const char *server_url(const Server *s) { return s->url; }

// Suspended connections would outlive the daemon.
static void release_all(Server *s) {
    for (Conn *k = s->conns; k; k = k->next) {
        k->gone = true;
        if (k->call) call_resume(k->call);
        shutdown(k->fd, SHUT_RDWR);
    }
    MHD_run(s->daemon);
}

void server_free(Server *s) {
    if (!s) return;
    workers_free(s->workers);
    if (s->daemon) {
        release_all(s);
        MHD_stop_daemon(s->daemon);
    } else if (s->listener >= 0) {
        close(s->listener);
    }
    if (s->o.socket) unlink(s->o.socket);
    engine_stop(s->engine);
    if (s->sink) generate_news(s);
    engine_sink_free(s->sink);
    rule_book_free(s->book);
    if (s->keys_arena) arena_free(s->keys_arena), free(s->keys_arena);
    if (s->signals >= 0) close(s->signals);
    if (s->epoll >= 0) close(s->epoll);
    free(s);
}
