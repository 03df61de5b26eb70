// What the APIs have in common: the body, how to sample, when to stop.
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/request.h"

// ---- body ------------------------------------------------------------------------------------------------

static int hex4(const char *p) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

// A \u escape at text[at]: its length, 0 when it stands for no character that a prompt can hold.
static size_t escape_ok(Str s, size_t at) {
    if (at + 6 > s.len) return 2; // the parser will say what is wrong
    int v = hex4(s.ptr + at + 2);
    if (v == 0 || (v >= 0xDC00 && v <= 0xDFFF)) return 0;
    if (v < 0xD800 || v > 0xDBFF) return 6;
    if (at + 12 > s.len || s.ptr[at + 6] != '\\' || s.ptr[at + 7] != 'u') return 0;
    int low = hex4(s.ptr + at + 8);
    return low >= 0xDC00 && low <= 0xDFFF ? 12 : 0;
}

static bool check_escapes(Str s, ApiError *e) {
    for (size_t at = 0; at < s.len;) {
        const char *slash = memchr(s.ptr + at, '\\', s.len - at);
        if (!slash) return true;
        at = (size_t)(slash - s.ptr);
        size_t n = at + 1 < s.len && s.ptr[at + 1] == 'u' ? escape_ok(s, at) : 2;
        if (!n)
            return api_error(
                e, 400, "invalid_request_error", "invalid_json", NULL,
                "The body's JSON holds an escape that is no character (NUL or half of a surrogate "
                "pair) at byte %zu.",
                at);
        at += n;
    }
    return true;
}

const Json *api_parse_body(Arena *arena, Str body, ApiError *e) {
    if (!check_escapes(body, e)) return NULL;
    Source src = {"body", body};
    Diags d = {.arena = arena, .n_max = 1};
    const Json *j = json_parse(
        arena, &src,
        (JsonLimits){.dup = JSON_DUP_REFUSE, .depth_max = API_JSON_DEPTH, .nodes_max = API_JSON_NODES}, &d);
    if (!j) {
        api_error(e, 400, "invalid_request_error", "invalid_json", NULL, "The body is not valid JSON: %s",
                  diags_first_message(&d));
        return NULL;
    }
    if (j->kind == JSON_OBJECT) return j;
    api_error(e, 400, "invalid_request_error", "invalid_json", NULL,
              "The body must be a JSON object, not %s.", json_kind_name(j->kind));
    return NULL;
}

bool request_model(const ApiModel *m, const Json *body, ApiRequest *r, ApiError *e) {
    r->model = m->name;
    Str asked = {0};
    if (!field_str(body, "model", &asked, e)) return false;
    if (!asked.ptr) return true;
    for (uint32_t i = 0; i < m->n_names; i++)
        if (str_eq(asked, m->names[i])) return r->model = m->names[i], true;
    return api_error(e, 404, "invalid_request_error", "model_not_found", "model",
                     "The model `%.*s` does not exist; this server has `" STR_FMT "`.",
                     (int)MIN(asked.len, 200u), asked.ptr, STR_ARG(m->name));
}

// ---- sampling --------------------------------------------------------------------------------------------

static bool read_top_k(const Json *body, Sampling *s, ApiError *e) {
    int64_t v = s->top_k;
    if (!field_int(body, "top_k", -1, INT32_MAX, &v, e)) return false;
    s->top_k = v < 0 ? 0 : (uint32_t)v;
    return true;
}

static bool read_seed(const Json *body, ApiRequest *r, ApiError *e) {
    int64_t v = 0;
    r->has_seed = !json_absent(json_get(body, "seed"));
    if (!field_int(body, "seed", INT64_MIN, INT64_MAX, &v, e)) return false;
    r->sampling.seed = (uint64_t)v;
    if (!r->has_seed && getrandom(&r->sampling.seed, sizeof r->sampling.seed, 0) < 0) r->sampling.seed = 0;
    return true;
}

static bool read_stop_ids(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *list;
    bool ignore_eos = false;
    if (!field_bool(body, "ignore_eos", &ignore_eos, e)) return false;
    uint32_t n_model = ignore_eos ? 0 : m->n_eos_ids, most = STOP_MAX - MIN(n_model, (uint32_t)STOP_MAX);
    if (!field_array(body, "stop_token_ids", most, &list, e)) return false;
    int32_t *ids = ARENA_ARRAY(a, int32_t, n_model + (list ? list->n : 0));
    for (uint32_t i = 0; i < n_model; i++) ids[i] = m->eos_ids[i];
    for (uint32_t i = 0; list && i < list->n; i++) {
        const Json *j = &list->items[i];
        if (j->kind != JSON_INT || j->big) return field_wrong(e, "stop_token_ids", "a list of token ids", j);
        if (j->i < 0 || j->i >= m->vocab)
            return api_invalid(e, "stop_token_ids",
                               "`stop_token_ids[%u]` must be a token id below %u, not %lld", i, m->vocab,
                               (long long)j->i);
        ids[n_model + i] = (int32_t)j->i;
    }
    r->eos_ids = ids, r->n_model_eos = n_model, r->n_eos_ids = n_model + (list ? list->n : 0);
    return true;
}

bool request_sampling(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    Sampling *s = &r->sampling;
    *s = m->defaults;
    int64_t priority = 0;
    r->skip_special = true, r->n = 1;
    bool ok = field_real(body, "temperature", 0, 2, &s->temperature, e) &&
              field_real(body, "top_p", 0, 1, &s->top_p, e) &&
              field_real(body, "min_p", 0, 1, &s->min_p, e) && read_top_k(body, s, e) &&
              field_real(body, "presence_penalty", -2, 2, &s->presence, e) &&
              field_real(body, "frequency_penalty", -2, 2, &s->frequency, e) &&
              field_real(body, "repetition_penalty", 0.01, 100, &s->repetition, e) &&
              field_u32(body, "min_tokens", 0, m->context, &s->min_tokens, e) && read_seed(body, r, e) &&
              request_bias(m, a, body, s, e) && read_stop_ids(m, a, body, r, e) &&
              field_bool(body, "include_stop_str_in_output", &r->include_stop, e) &&
              field_bool(body, "skip_special_tokens", &r->skip_special, e) &&
              field_bool(body, "return_token_ids", &r->return_ids, e) &&
              field_bool(body, "return_tokens_as_token_ids", &r->ids_as_tokens, e) &&
              field_int(body, "priority", INT32_MIN, INT32_MAX, &priority, e) &&
              field_str(body, "cache_salt", &r->cache_salt, e) && field_str(body, "user", &r->user_id, e) &&
              field_u32(body, "n", 1, m->n_max, &r->n, e);
    r->priority = (int32_t)priority;
    if (ok && r->cache_salt.ptr && (!r->cache_salt.len || r->cache_salt.len > 256))
        return api_invalid(e, "cache_salt", "`cache_salt` must have 1 to 256 bytes");
    return ok;
}

bool request_stream(const Json *body, ApiRequest *r, ApiError *e) {
    const Json *o;
    if (!field_bool(body, "stream", &r->stream, e) || !field_object(body, "stream_options", &o, e))
        return false;
    if (!o) return true;
    if (!r->stream) return api_invalid(e, "stream_options", "`stream_options` is only for `stream: true`");
    if (!field_bool(o, "include_usage", &r->include_usage, e) ||
        !field_bool(o, "continuous_usage_stats", &r->usage_in_each, e))
        return false;
    r->usage_in_each = r->usage_in_each && r->include_usage;
    return true;
}

bool request_telemetry(const Json *body, ApiRequest *r, ApiError *e) {
    if (!field_bool(body, "timings_per_token", &r->timings, e) ||
        !field_bool(body, "return_progress", &r->progress, e))
        return false;
    r->progress = r->progress && r->stream;
    return true;
}

bool request_prompt(const Json *body, ApiRequest *r, ApiError *e) {
    int64_t cut = 0;
    Str side = STR("left");
    r->prompt_logprobs = !json_absent(json_get(body, "prompt_logprobs"));
    if (!field_u32(body, "prompt_logprobs", 0, LOGPROBS_MAX, &r->prompt_top, e) ||
        !field_int(body, "truncate_prompt_tokens", -1, INT32_MAX, &cut, e) ||
        !field_str(body, "truncation_side", &side, e))
        return false;
    if (r->prompt_logprobs && r->stream)
        return api_invalid(e, "prompt_logprobs", "`prompt_logprobs` are not for streams");
    if (!cut && !json_absent(json_get(body, "truncate_prompt_tokens")))
        return api_invalid(e, "truncate_prompt_tokens", "`truncate_prompt_tokens` must be -1 or at least 1");
    if (!str_is(side, "left") && !str_is(side, "right"))
        return api_invalid(e, "truncation_side", "`truncation_side` must be \"left\" or \"right\"");
    r->cut = cut < 0 ? UINT32_MAX : (uint32_t)cut;
    r->cut_end = str_is(side, "right");
    return true;
}

void request_cut(const ApiModel *m, const ApiRequest *r, uint32_t max_tokens, ApiPrompt *p) {
    uint32_t new_tokens = max_tokens == UINT32_MAX ? 1 : max_tokens;
    uint32_t most = r->cut != UINT32_MAX ? r->cut : m->context > new_tokens ? m->context - new_tokens : 0;
    if (!most || p->n <= most) return;
    *p = (ApiPrompt){.ids = r->cut_end ? p->ids : p->ids + (p->n - most), .n = most};
}

static bool one_stop(const Json *j, const char *name, Str *out, ApiError *e) {
    if (j->kind != JSON_STRING) return field_wrong(e, name, "a string or a list of strings", j);
    if (!j->s.len) return api_invalid(e, name, "`%s` must not hold an empty string", name);
    if (j->s.len > API_STOP_BYTES_MAX)
        return api_invalid(e, name, "`%s` has a string of %zu bytes; at most %d are possible", name, j->s.len,
                           API_STOP_BYTES_MAX);
    return *out = j->s, true;
}

bool request_stops(Arena *a, const Json *body, const char *name, ApiRequest *r, ApiError *e) {
    const Json *j = json_get(body, name);
    if (json_absent(j)) return true;
    bool list = j->kind == JSON_ARRAY;
    uint32_t n = list ? j->n : 1;
    if (n > API_STOPS_MAX)
        return api_invalid(e, name, "`%s` has %u strings; at most %d are possible", name, n, API_STOPS_MAX);
    Str *stops = ARENA_ARRAY(a, Str, n);
    for (uint32_t i = 0; i < n; i++)
        if (!one_stop(list ? &j->items[i] : j, name, &stops[i], e)) return false;
    r->stops = stops, r->n_stops = n;
    return true;
}

bool request_fit(const ApiModel *m, uint32_t n_prompt, uint32_t max_tokens, const char *param, uint32_t *out,
                 ApiError *e) {
    uint32_t least = max_tokens == UINT32_MAX ? 1 : max_tokens;
    if ((uint64_t)n_prompt + least > m->context)
        return api_context_exceeded(e, param, n_prompt, least, m->context);
    *out = max_tokens == UINT32_MAX ? m->context - n_prompt : max_tokens;
    return true;
}

bool request_ids(const ApiModel *m, Arena *a, const Json *list, const char *name, ApiPrompt *out,
                 ApiError *e) {
    if (!list->n) return api_invalid(e, name, "`%s` must not be empty", name);
    uint32_t *ids = ARENA_ARRAY(a, uint32_t, list->n);
    for (uint32_t i = 0; i < list->n; i++) {
        const Json *j = &list->items[i];
        if (j->kind != JSON_INT || j->big || j->i < 0 || j->i >= m->vocab)
            return api_invalid(e, name, "`%s`: item %u must be a token id below %u", name, i, m->vocab);
        ids[i] = (uint32_t)j->i;
    }
    *out = (ApiPrompt){.ids = ids, .n = list->n};
    return true;
}

// ---- fields that do nothing here -------------------------------------------------------------------------

typedef struct {
    const char *name;
    bool (*neutral)(const Json *j);
    const char *why;
} Neutral;

static bool is_false(const Json *j) { return j->kind == JSON_BOOL && !j->boolean; }
static bool is_one(const Json *j) {
    return (j->kind == JSON_INT || j->kind == JSON_REAL) && json_number(j) == 1;
}
static bool is_empty(const Json *j) {
    return (j->kind == JSON_STRING && !j->s.len) || (j->kind == JSON_ARRAY && !j->n);
}
static bool is_text_only(const Json *j) {
    return j->kind == JSON_ARRAY && j->n == 1 && j->items[0].kind == JSON_STRING &&
           str_is(j->items[0].s, "text");
}
static bool is_none_or_auto(const Json *j) {
    return j->kind == JSON_STRING && (str_is(j->s, "none") || str_is(j->s, "auto"));
}
static bool never(const Json *j) { return (void)j, false; }

static const Neutral neutral_fields[] = {
    {"best_of", is_one, "answers are not ranked"},
    {"use_beam_search", is_false, "there is no beam search"},
    {"length_penalty", is_one, "there is no beam search"},
    {"suffix", is_empty, "the model was not made to fill in the middle"},
    {"modalities", is_text_only, "the model reads and writes text alone"},
    {"audio", never, "the model reads and writes text alone"},
    {"web_search_options", never, "the server opens no connections"},
    {"functions", is_empty, "`tools` replaced it"},
    {"function_call", is_none_or_auto, "`tool_choice` replaced it"},
    {"prompt_embeds", never, "clients send text or token ids"},
    {"chat_template", never, "the template was compiled with the model"},
};

bool request_neutral(const Json *body, ApiError *e) {
    for (size_t i = 0; i < COUNT_OF(neutral_fields); i++) {
        const Neutral *f = &neutral_fields[i];
        const Json *j = json_get(body, f->name);
        if (!json_absent(j) && !f->neutral(j))
            return api_unsupported(e, f->name, "`%s` is not supported: %s", f->name, f->why);
    }
    return true;
}

static const struct {
    const char *name, *apis;
} known[] = {
#define FIELD(name, apis) {name, apis},
#include "runtime/server/fields.def"
#undef FIELD
};

void request_unknown(Arena *a, const Json *body, ApiKind kind, ApiRequest *r) {
    Str *names = ARENA_ARRAY(a, Str, body->n);
    for (uint32_t i = 0; i < body->n; i++) {
        bool found = false;
        for (size_t k = 0; k < COUNT_OF(known) && !found; k++)
            found = str_is(body->members[i].key, known[k].name) && strchr(known[k].apis, "ctmr"[kind]);
        if (!found) names[r->n_unknown++] = body->members[i].key;
    }
    r->unknown = names;
}
