// logit_bias: OpenAI's object of ids, and llama.cpp's list of pairs, of which texts may stand for their
// tokens.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/server/fields.h"
#include "runtime/server/request.h"

enum { WRONG_KEYS_TOLD = 8 };

typedef struct {
    const ApiModel *model;
    TokenBias items[BIAS_MAX];
    uint32_t n;
} BiasList;

static int by_id(const void *a, const void *b) {
    const TokenBias *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool value_of(const Json *v, float *out, ApiError *e) {
    if (v->kind == JSON_BOOL && !v->boolean) return *out = -100, true; // llama.cpp: never
    if ((v->kind != JSON_INT && v->kind != JSON_REAL) || !(json_number(v) >= -100 && json_number(v) <= 100))
        return api_invalid(e, "logit_bias", "`logit_bias`: a bias must be a number from -100 to 100");
    return *out = (float)json_number(v), true;
}

static bool add(BiasList *l, uint64_t id, float bias, ApiError *e) {
    if (l->n == BIAS_MAX)
        return api_invalid(e, "logit_bias", "`logit_bias` has more than %d entries", BIAS_MAX);
    l->items[l->n++] = (TokenBias){(int32_t)id, bias};
    return true;
}

static bool id_of(const BiasList *l, Str key, uint64_t *id) {
    return str_to_u64(key, id) && *id < l->model->vocab;
}

// Names all that are none, but of a long list.
static bool refuse_keys(const BiasList *l, const Json *object, ApiError *e) {
    StrBuf keys = {0};
    uint32_t n = 0;
    uint64_t id;
    for (uint32_t i = 0; i < object->n; i++) {
        Str key = object->members[i].key;
        if (id_of(l, key, &id) || n++ >= WRONG_KEYS_TOLD) continue;
        buf_printf(&keys, "%s\"%.*s\"", n > 1 ? ", " : "", (int)MIN(key.len, 40u), key.ptr);
    }
    if (n > WRONG_KEYS_TOLD) buf_printf(&keys, " and %u more", n - WRONG_KEYS_TOLD);
    api_invalid(e, "logit_bias", "`logit_bias`: " STR_FMT " %s below %u", STR_ARG(buf_view(&keys)),
                n > 1 ? "are no token ids" : "is no token id", l->model->vocab);
    buf_free(&keys);
    return false;
}

static bool add_member(BiasList *l, const Json *object, uint32_t i, ApiError *e) {
    uint64_t id;
    float bias;
    if (!id_of(l, object->members[i].key, &id)) return refuse_keys(l, object, e);
    return value_of(&object->members[i].value, &bias, e) && add(l, id, bias, e);
}

static bool add_text(BiasList *l, Str text, float bias, ApiError *e) {
    Ids ids = {0};
    Err err;
    bool ok = tokenizer_encode(l->model->tok, text, (EncodeOptions){0}, &ids, &err) ||
              api_invalid(e, "logit_bias", "`logit_bias`: %s", err.msg);
    for (size_t i = 0; ok && i < ids.n; i++)
        if (ids.ptr[i] < l->model->vocab) ok = add(l, ids.ptr[i], bias, e);
    ids_free(&ids);
    return ok;
}

static bool add_pair(BiasList *l, const Json *pair, ApiError *e) {
    float bias;
    if (pair->kind != JSON_ARRAY || pair->n != 2)
        return field_wrong(e, "logit_bias", "an object, or a list of [id, bias]", pair);
    const Json *what = &pair->items[0];
    if (!value_of(&pair->items[1], &bias, e)) return false;
    if (what->kind == JSON_STRING) return add_text(l, what->s, bias, e);
    if (what->kind != JSON_INT || what->big || what->i < 0 || what->i >= l->model->vocab)
        return api_invalid(e, "logit_bias",
                           "`logit_bias`: a pair begins with a token id below %u, or with text",
                           l->model->vocab);
    return add(l, (uint64_t)what->i, bias, e);
}

// Ids ascend and are distinct. An object that names one twice is a mistake; texts share tokens.
static bool finish(BiasList *l, bool pairs, ApiError *e) {
    uint32_t n = 0;
    qsort(l->items, l->n, sizeof *l->items, by_id);
    for (uint32_t i = 0; i < l->n; i++) {
        bool twice = n && l->items[n - 1].id == l->items[i].id;
        if (twice && !pairs)
            return api_invalid(e, "logit_bias", "`logit_bias` names token %d twice", l->items[i].id);
        if (!twice) l->items[n++] = l->items[i];
    }
    l->n = n;
    return true;
}

bool request_bias(const ApiModel *m, Arena *a, const Json *body, Sampling *s, ApiError *e) {
    const Json *j = json_get(body, "logit_bias");
    const bool pairs = json_is(j, JSON_ARRAY);
    if (!pairs && !field_object(body, "logit_bias", &j, e)) return false;
    if (!j || !j->n) return true;
    BiasList *l = ARENA_NEW(a, BiasList);
    l->model = m, l->n = 0;
    for (uint32_t i = 0; i < j->n; i++)
        if (!(pairs ? add_pair(l, &j->items[i], e) : add_member(l, j, i, e))) return false;
    if (!finish(l, pairs, e)) return false;
    s->bias = l->items, s->n_bias = l->n;
    return true;
}
