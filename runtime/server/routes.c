// Which handler a path has, and who may call it.
#include "runtime/server/routes.h"

#include <stdio.h>

#include "runtime/base/num.h"

static const Route routes[] = {
#define ROUTE_POST(path, name, flags) {"POST", path, NULL, work_##name, flags},
#define ROUTE_GET(path, name, flags)  {"GET", path, answer_##name, NULL, flags},
#include "runtime/server/routes.def"
#undef ROUTE_POST
#undef ROUTE_GET
};

// "//v1/models/" and "/models" are "/models".
static Str normalise(Arena *a, const char *url) {
    size_t n = strlen(url), out = 0;
    char *p = arena_alloc(a, n + 2);
    for (size_t i = 0; i < n; i++)
        if (url[i] != '/' || !out || p[out - 1] != '/') p[out++] = url[i];
    if (out > 1 && p[out - 1] == '/') out--;
    Str path = {p, out};
    if (str_starts(path, STR("/v1/"))) return str_from(path, 3);
    return path;
}

static bool path_matches(Str path, const char *pattern) {
    size_t n = strlen(pattern);
    if (pattern[n - 1] == '*') return path.len >= n && !memcmp(path.ptr, pattern, n - 1);
    return str_is(path, pattern);
}

static bool method_matches(const char *asked, const char *method) {
    return !strcmp(asked, method) || (!strcmp(asked, "HEAD") && !strcmp(method, "GET"));
}

const Route *route_find(Call *c, const char *url) {
    const Route *other = NULL;
    c->path = normalise(&c->arena, url);
    for (size_t i = 0; i < COUNT_OF(routes); i++) {
        if (!path_matches(c->path, routes[i].path)) continue;
        if (method_matches(c->method, routes[i].method)) return &routes[i];
        other = &routes[i];
    }
    if (other) {
        c->allow = str_is(str_of(other->method), "GET") ? "GET, HEAD" : "POST";
        api_error(&c->error, 405, "invalid_request_error", "method_not_allowed", NULL,
                  "%s is not allowed for %.*s.", c->method, (int)MIN(c->path.len, 200u), c->path.ptr);
    } else {
        api_error(&c->error, 404, "not_found_error", "not_found", NULL, "There is no %s %.*s here.",
                  c->method, (int)MIN(c->path.len, 200u), c->path.ptr);
    }
    return NULL;
}

// ---- who may call -----------------------------------------------------------------------------------------

static const char *request_header(const Call *c, const char *name) {
    return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name);
}

static bool check_key(Call *c) {
    const Server *s = c->server;
    if (!s->keys.n || (c->route && (c->route->flags & OPEN)) || cors_asks_first(c)) return true;
    const char *bearer = request_header(c, "Authorization"), *own = request_header(c, "x-api-key");
    Str key = own ? str_of(own) : STR("");
    if (bearer && !strncasecmp(bearer, "Bearer ", 7)) {
        key = str_of(bearer + 7);
        while (key.len && key.ptr[0] == ' ') key = str_from(key, 1);
    }
    if (keys_match(&s->keys, key)) return true;
    return api_error(&c->error, 401, "authentication_error", "invalid_api_key", NULL,
                     key.len ? "The API key is wrong." : "An API key is needed: Authorization: Bearer KEY.");
}

// The name in "name:port" or "[::1]:port".
static Str host_name(const char *host) {
    Str h = str_of(host);
    const char *end = h.len && h.ptr[0] == '[' ? memchr(h.ptr, ']', h.len) : NULL;
    if (end) return str_sub(h, 0, (size_t)(end - h.ptr) + 1);
    const char *colon = memchr(h.ptr, ':', h.len);
    return colon ? str_sub(h, 0, (size_t)(colon - h.ptr)) : h;
}

static bool same_name(Str a, const char *b) { return a.len == strlen(b) && !strncasecmp(a.ptr, b, a.len); }

// A web page may resolve its own name to 127.0.0.1: its requests carry that name.
static bool check_host(Call *c) {
    const Server *s = c->server;
    const char *host = request_header(c, "Host");
    if (!s->loopback || s->o.socket || !host) return true;
    Str name = host_name(host);
    static const char *const own[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < COUNT_OF(own); i++)
        if (same_name(name, own[i])) return true;
    for (size_t i = 0; i < s->o.n_allowed_hosts; i++)
        if (same_name(name, s->o.allowed_hosts[i])) return true;
    return api_error(&c->error, 403, "permission_error", "host_not_allowed", NULL,
                     "The Host header is not that of this machine; --allowed-host adds names.");
}

// Any page may send a form here; only one that asked first may send JSON. Those of --allowed-origins may.
static bool check_origin(Call *c) {
    const char *origin = request_header(c, "Origin"), *type = request_header(c, "Content-Type");
    if (!origin || !c->route || !(c->route->flags & WORK) || cors_origin(c)) return true;
    if (type && !strncasecmp(type, "application/json", 16)) return true;
    return api_error(&c->error, 415, "invalid_request_error", "unsupported_media_type", NULL,
                     "A request from a web page must have the content type application/json.");
}

// What is wrong with the route itself is told to those who may know.
bool route_guard(Call *c) {
    ApiError route_error = c->error;
    if (!check_host(c) || !check_key(c) || !check_origin(c)) return false;
    c->error = route_error;
    return true;
}
