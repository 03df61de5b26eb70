#include "runtime/exec/manifest.h"

#include "runtime/base/num.h"

static bool wrong(Err *e, const char *key, const char *should) {
    return err_set(e, E_ARTIFACT, "manifest section: `%s` must be %s", key, should);
}

static bool read_string(const Manifest *m, Artifact *a, const char *key, const char **out, Err *e) {
    const Json *j = json_get(m->json, key);
    if (!json_is(j, JSON_STRING)) return wrong(e, key, "a string");
    *out = arena_strndup(&a->arena, j->s.ptr, j->s.len);
    return true;
}

static bool read_real(const Json *object, const char *key, double min, double max, double *out, Err *e) {
    const Json *j = json_get(object, key);
    if (!json_is(j, JSON_REAL) && !json_is(j, JSON_INT)) return wrong(e, key, "a number");
    *out = json_number(j);
    if (!(*out >= min && *out <= max)) return wrong(e, key, "within its range");
    return true;
}

static bool read_eos(Manifest *m, Artifact *a, Err *e) {
    const Json *j = json_get(m->json, "eos_ids");
    if (!json_is(j, JSON_ARRAY)) return wrong(e, "eos_ids", "a list");
    int32_t *ids = ARENA_ARRAY(&a->arena, int32_t, j->n);
    for (uint32_t i = 0; i < j->n; i++) {
        const Json *id = &j->items[i];
        if (!json_is(id, JSON_INT) || id->big || id->i < 0 || id->i > INT32_MAX)
            return wrong(e, "eos_ids", "a list of token ids");
        ids[i] = (int32_t)id->i;
    }
    m->eos_ids = ids, m->n_eos_ids = j->n;
    return true;
}

static bool parse(Artifact *a, Manifest *m, Err *e) {
    Str text;
    CHECK(artifact_section(a, ADA_MANIFEST, 0, &text));
    Source src = {"manifest", text};
    Diags d = {.arena = &a->arena, .n_max = 1};
    m->json = json_parse(&a->arena, &src, (JsonLimits){.dup = JSON_DUP_REFUSE}, &d);
    if (!m->json) return err_set(e, E_ARTIFACT, "manifest section: %s", diags_first_message(&d));
    return json_is(m->json, JSON_OBJECT) || err_set(e, E_ARTIFACT, "manifest section: no JSON object");
}

bool manifest_read(Artifact *a, Manifest *out, Err *e) {
    *out = (Manifest){0};
    if (!parse(a, out, e)) return false;
    if (!read_string(out, a, "model", &out->model, e) || !read_string(out, a, "family", &out->family, e))
        return false;
    const Json *chat = json_get(out->json, "chat"), *sampling = json_get(out->json, "sampling");
    if (!json_is(chat, JSON_BOOL)) return wrong(e, "chat", "true or false");
    out->chat = chat->boolean;
    double top_k;
    if (!read_real(sampling, "temperature", 0, 1e6, &out->temperature, e) ||
        !read_real(sampling, "top_p", 0, 1, &out->top_p, e) ||
        !read_real(sampling, "min_p", 0, 1, &out->min_p, e) ||
        !read_real(sampling, "top_k", 0, INT32_MAX, &top_k, e))
        return false;
    out->top_k = (uint32_t)top_k;
    return read_eos(out, a, e);
}
