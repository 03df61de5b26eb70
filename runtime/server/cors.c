// Cross-origin requests: which web pages may read answers. None by default.
#include "runtime/server/http.h"

static const char *request_header(const Call *c, const char *name) {
    return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name);
}

const char *cors_origin(const Call *c) {
    const ServerOptions *o = &c->server->o;
    const char *origin = request_header(c, "Origin");
    for (size_t i = 0; origin && i < o->n_allowed_origins; i++) {
        if (!strcmp(o->allowed_origins[i], "*")) return "*";
        if (!strcasecmp(o->allowed_origins[i], origin)) return origin;
    }
    return NULL;
}

bool cors_asks_first(const Call *c) {
    return !strcmp(c->method, "OPTIONS") && request_header(c, "Origin") &&
           request_header(c, "Access-Control-Request-Method");
}

bool cors_preflight(Call *c) {
    if (cors_origin(c)) return true;
    return api_error(&c->error, 400, "invalid_request_error", "origin_not_allowed", NULL,
                     "Pages of this origin may not call this server; --allowed-origins adds origins.");
}

void cors_headers(const Call *c, struct MHD_Response *r) {
    const char *allowed = cors_origin(c), *asked = request_header(c, "Access-Control-Request-Headers");
    if (!c->server->o.n_allowed_origins) return;
    MHD_add_response_header(r, "Vary", "Origin");
    if (!allowed) return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", allowed);
    if (!cors_asks_first(c)) {
        MHD_add_response_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
        return;
    }
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS");
    MHD_add_response_header(r, "Access-Control-Allow-Headers", asked ? asked : "*");
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
}
