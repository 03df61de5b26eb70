// POST /v1/completions: a prompt as text or ids, one or many.
#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/request.h"

enum { COMPLETION_TOKENS = 16 }; // what OpenAI gives who does not ask

static const char *const kinds = "a string, token ids, or a list of these";

static bool add_text(const ApiModel *m, Str text, bool add_special, Ids *ids, ApiError *e) {
    Err err;
    size_t n = ids->n;
    if (!tokenizer_encode(m->tok, text, (EncodeOptions){.special = true, .add_special = add_special}, ids,
                          &err))
        return api_invalid(e, "prompt", "`prompt`: %s", err.msg);
    for (; n < ids->n; n++)
        if (ids->ptr[n] >= m->vocab)
            return api_invalid(e, "prompt", "`prompt` has token %u, which the model does not have",
                               ids->ptr[n]);
    return true;
}

// True: *ids are the prompt. They are freed either way.
static bool keep_ids(Arena *a, bool ok, Ids *ids, ApiPrompt *out, ApiError *e) {
    if (ok && !ids->n) ok = api_invalid(e, "prompt", "`prompt` has no tokens");
    if (ok) {
        uint32_t *copy = ARENA_ARRAY(a, uint32_t, ids->n);
        memcpy(copy, ids->ptr, ids->n * sizeof *copy);
        out->ids = copy, out->n = (uint32_t)ids->n;
    }
    ids_free(ids);
    return ok;
}

static bool encode_text(const ApiModel *m, Arena *a, Str text, bool add_special, ApiPrompt *out,
                        ApiError *e) {
    Ids ids = {0};
    *out = (ApiPrompt){.text = text};
    return keep_ids(a, add_text(m, text, add_special, &ids, e), &ids, out, e);
}

// llama.cpp's one prompt of ids and texts, in their order.
static bool encode_mixed(const ApiModel *m, Arena *a, const Json *list, bool add_special, ApiPrompt *out,
                         ApiError *e) {
    Ids ids = {0};
    bool ok = true;
    *out = (ApiPrompt){0};
    for (uint32_t i = 0; ok && i < list->n; i++) {
        const Json *j = &list->items[i];
        if (j->kind == JSON_STRING)
            ok = add_text(m, j->s, add_special && !i, &ids, e);
        else if (j->kind != JSON_INT || j->big || j->i < 0 || j->i >= m->vocab)
            ok = api_invalid(e, "prompt", "`prompt`: item %u must be a token id below %u, or text", i,
                             m->vocab);
        else
            ids_add(&ids, (uint32_t)j->i);
    }
    return keep_ids(a, ok, &ids, out, e);
}

static bool is_mixed(const Json *list) {
    bool ids = false, texts = false;
    for (uint32_t i = 0; i < list->n; i++)
        ids |= list->items[i].kind == JSON_INT, texts |= list->items[i].kind == JSON_STRING;
    return ids && texts;
}

static bool one_prompt(const ApiModel *m, Arena *a, const Json *j, bool add_special, ApiPrompt *out,
                       ApiError *e) {
    if (j->kind == JSON_STRING) return encode_text(m, a, j->s, add_special, out, e);
    if (j->kind != JSON_ARRAY) return field_wrong(e, "prompt", kinds, j);
    return is_mixed(j) ? encode_mixed(m, a, j, add_special, out, e) : request_ids(m, a, j, "prompt", out, e);
}

static bool read_prompts(const ApiModel *m, Arena *a, const Json *body, ApiRequest *r, ApiError *e) {
    const Json *j = json_get(body, "prompt");
    bool add_special = true;
    if (!field_bool(body, "add_special_tokens", &add_special, e)) return false;
    if (json_absent(j)) return field_wrong(e, "prompt", kinds, j);
    bool many = j->kind == JSON_ARRAY && j->n && j->items[0].kind != JSON_INT && !is_mixed(j);
    if (j->kind == JSON_ARRAY && !j->n) return api_invalid(e, "prompt", "`prompt` must not be empty");
    r->n_prompts = many ? j->n : 1;
    if (r->n_prompts > API_PROMPTS_MAX || (uint64_t)r->n_prompts * r->n > API_CHOICES_MAX)
        return api_invalid(e, "prompt", "`prompt` times `n` makes %llu answers; at most %d are possible",
                           (unsigned long long)r->n_prompts * r->n, API_CHOICES_MAX);
    r->prompts = ARENA_ARRAY(a, ApiPrompt, r->n_prompts);
    for (uint32_t i = 0; i < r->n_prompts; i++)
        if (!one_prompt(m, a, many ? &j->items[i] : j, add_special, &r->prompts[i], e)) return false;
    return true;
}

static bool read_logprobs(const Json *body, ApiRequest *r, ApiError *e) {
    const Json *j = json_get(body, "logprobs");
    if (json_absent(j) || (j->kind == JSON_BOOL && !j->boolean)) return true;
    r->sampling.logprobs = true;
    return field_u32(body, "logprobs", 0, LOGPROBS_MAX, &r->sampling.top_logprobs, e);
}

static bool read_max_tokens(const Json *body, uint32_t *out, ApiError *e) {
    static const char *const names[] = {"max_tokens", "max_completion_tokens", "n_predict"};
    int64_t v = COMPLETION_TOKENS;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!json_absent(json_get(body, names[i]))) {
            if (!field_int(body, names[i], -1, INT32_MAX, &v, e)) return false;
            break;
        }
    *out = v < 0 ? UINT32_MAX : (uint32_t)v;
    return true;
}

static bool fit(const ApiModel *m, ApiRequest *r, uint32_t max_tokens, ApiError *e) {
    uint32_t least = UINT32_MAX;
    if (!max_tokens && !r->echo)
        return api_invalid(e, "max_tokens", "`max_tokens` 0 asks for nothing unless `echo` is true");
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        uint32_t fits;
        request_cut(m, r, max_tokens, &r->prompts[i]);
        if (!request_fit(m, r->prompts[i].n, max_tokens, "prompt", &fits, e)) return false;
        least = MIN(least, fits);
    }
    r->max_tokens = least;
    return true;
}

bool completion_request(const ApiModel *m, Arena *arena, const Json *body, ApiRequest *r, ApiError *e) {
    uint32_t max_tokens;
    *r = (ApiRequest){.kind = API_COMPLETIONS};
    request_unknown(arena, body, API_COMPLETIONS, r);
    return request_model(m, body, r, e) && request_neutral(body, e) &&
           request_sampling(m, arena, body, r, e) && request_stream(body, r, e) &&
           request_telemetry(body, r, e) && request_prompt(body, r, e) &&
           request_stops(arena, body, "stop", r, e) && read_logprobs(body, r, e) &&
           read_max_tokens(body, &max_tokens, e) && field_bool(body, "echo", &r->echo, e) &&
           request_format(arena, body, r, e) && read_prompts(m, arena, body, r, e) &&
           fit(m, r, max_tokens, e);
}
