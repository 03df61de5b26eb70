// One line of JSON on standard error for each request and event. No text of prompts or answers, no keys.
#include <stdio.h>
#include <sys/time.h>

#include "runtime/base/log.h"
#include "runtime/server/http.h"

static void line_begin(StrBuf *b, const char *event) {
    struct timeval now;
    gettimeofday(&now, NULL);
    buf_printf(b, "{\"time\": %lld.%03d, \"event\": \"%s\"", (long long)now.tv_sec, (int)(now.tv_usec / 1000),
               event);
}

static void line_end(StrBuf *b) {
    buf_puts(b, "}\n");
    fwrite(b->ptr, 1, b->len, stderr);
    buf_free(b);
}

static void member(StrBuf *b, const char *key, Str value) {
    buf_printf(b, ", \"%s\": ", key);
    json_write_string(b, value);
}

static const char *end_name(const Call *c, enum MHD_RequestTerminationCode how) {
    if (c->status == 499 || how == MHD_REQUEST_TERMINATED_CLIENT_ABORT ||
        how == MHD_REQUEST_TERMINATED_READ_ERROR || how == MHD_REQUEST_TERMINATED_WITH_ERROR)
        return "client_gone";
    if (how == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED) return "timeout";
    if (how == MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN) return "shutdown";
    return c->told_error ? "error" : "ok";
}

static void generation(const Call *c, StrBuf *b) {
    const ReplyUsage *u = &c->reply.usage;
    typedef unsigned long long ull;
    buf_printf(b, ", \"prompt_tokens\": %llu, \"cached_tokens\": %llu, \"tokens\": %llu, \"choices\": %u",
               (ull)u->prompt_tokens, (ull)u->cached_tokens, (ull)u->tokens, c->reply.n_choices);
    if (c->first_s > 0) buf_printf(b, ", \"first_token_s\": %.4f", c->first_s - c->begin_s);
    if (c->reply.n_choices == 1 && c->reply.choices[0].over)
        member(b, "finish", str_of(reply_finish_name(&c->reply.choices[0])));
}

void access_log(const Call *c, enum MHD_RequestTerminationCode how) {
    bool polled = c->route && (c->route->flags & POLLED) && c->status == 200;
    if (!c->server->o.log_requests || polled) return;
    StrBuf b = {0};
    line_begin(&b, "request");
    member(&b, "id", str_of(c->request_id));
    member(&b, "method", str_of(c->method));
    Str path = c->path;
    if (path.len > 200) path.len = 200;
    member(&b, "path", c->route ? str_of(c->route->path) : str_utf8_len(path) ? path : STR("?"));
    buf_printf(&b, ", \"status\": %d, \"end\": \"%s\", \"duration_s\": %.4f", c->status, end_name(c, how),
               clock_s() - c->begin_s);
    if (c->has_reply) generation(c, &b);
    line_end(&b);
}

void event_log(const char *event, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    StrBuf b = {0};
    line_begin(&b, event);
    member(&b, "message", str_of(text));
    line_end(&b);
}
