#include "compiler/frontend/quant_config.h"

#include <strings.h>

#include "runtime/base/file.h"
#include "runtime/base/num.h"

enum { CONFIG_BYTES_MAX = 16 << 20 };

typedef struct {
    const Source *src;
    Diags *diags;
    QuantConfig *out;
} Reader;

static bool refuse(Reader *r, const Json *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool refuse(Reader *r, const Json *at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *what = arena_vprintf(r->diags->arena, fmt, ap);
    va_end(ap);
    return diag_error(r->diags, E_QUANT_UNSUPPORTED, json_span(r->src, at),
                      "%s is not supported; supported is NVFP4 with blocks of 16, as written by ModelOpt and "
                      "compressed-tensors",
                      what);
}

static bool wrong_kind(Reader *r, const Json *at, const char *key, const char *want) {
    return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, at), "`%s` must be %s, not %s", key, want,
                      json_kind_name(at->kind));
}

static bool is_word(Str s, const char *word) {
    return s.len == strlen(word) && !strncasecmp(s.ptr, word, s.len);
}

// A member that is a string; *out stays empty when it is absent or null.
static bool get_string(Reader *r, const Json *object, const char *key, Str *out) {
    const Json *j = json_get(object, key);
    *out = (Str){0};
    if (json_absent(j)) return true;
    if (j->kind != JSON_STRING) return wrong_kind(r, j, key, "a string");
    *out = j->s;
    return true;
}

// A member that is an integer; `absent` when it is absent or null.
static bool get_int(Reader *r, const Json *object, const char *key, int64_t absent, int64_t *out) {
    const Json *j = json_get(object, key);
    *out = absent;
    if (json_absent(j)) return true;
    if (j->kind != JSON_INT || j->big) return wrong_kind(r, j, key, "an integer");
    *out = j->i;
    return true;
}

static bool check_names(Reader *r, const Json *object, const char *key) {
    const Json *j = json_get(object, key);
    if (json_absent(j)) return true;
    if (j->kind != JSON_ARRAY) return wrong_kind(r, j, key, "a list of module names");
    for (uint32_t i = 0; i < j->n; i++)
        if (j->items[i].kind != JSON_STRING) return wrong_kind(r, &j->items[i], key, "a list of strings");
    return true;
}

static bool check_group_size(Reader *r, const Json *object) {
    int64_t size;
    if (!get_int(r, object, "group_size", 16, &size)) return false;
    return size == 16 || refuse(r, json_get(object, "group_size"), "group_size %lld", (long long)size);
}

// ---- ModelOpt ------------------------------------------------------------------------------------------

static const char *const algos[] = {"NVFP4", "W4A16_NVFP4", "W4A8_NVFP4_FP8"};

static bool check_algo(Reader *r, const Json *object, const char *module) {
    const Json *j = json_get(object, "quant_algo");
    if (json_absent(j)) return true; // unquantised weights, perhaps with a quantised cache
    if (j->kind != JSON_STRING) return wrong_kind(r, j, "quant_algo", "a string");
    if (!module && is_word(j->s, "MIXED_PRECISION")) return true;
    for (size_t i = 0; i < COUNT_OF(algos); i++) {
        if (!is_word(j->s, algos[i])) continue;
        r->out->claims_nvfp4 = true;
        return check_group_size(r, object);
    }
    if (module) return refuse(r, j, "quant_algo `" STR_FMT "` of module %s", STR_ARG(j->s), module);
    bool awq = is_word(j->s, "NVFP4_AWQ") || is_word(j->s, "W4A16_NVFP4_AWQ");
    return refuse(r, j, "quant_algo `" STR_FMT "`%s", STR_ARG(j->s),
                  awq ? " (it needs pre_quant_scale)" : "");
}

static bool is_foreign_module(Str name) {
    const char *parts[] = {"vision", "visual", "multi_modal_projector", "audio"};
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (name.len && memmem(name.ptr, name.len, parts[i], strlen(parts[i]))) return true;
    return false;
}

static bool check_quantized_layers(Reader *r, const Json *q) {
    const Json *layers = json_get(q, "quantized_layers");
    if (json_absent(layers)) return true;
    if (layers->kind != JSON_OBJECT) return wrong_kind(r, layers, "quantized_layers", "an object");
    for (uint32_t i = 0; i < layers->n; i++) {
        const JsonMember *m = &layers->members[i];
        if (m->value.kind != JSON_OBJECT)
            return wrong_kind(r, &m->value, "quantized_layers", "an object of objects");
        if (is_foreign_module(m->key)) continue;
        if (!check_algo(r, &m->value, arena_strndup(r->diags->arena, m->key.ptr, m->key.len))) return false;
    }
    return true;
}

// ModelOpt's config_groups only repeat quant_algo in other words; words that contradict it are not believed.
static bool check_modelopt_groups(Reader *r, const Json *q) {
    const Json *groups = json_get(q, "config_groups");
    if (json_absent(groups) || !r->out->claims_nvfp4 || !json_absent(json_get(q, "quantized_layers")))
        return true;
    if (groups->kind != JSON_OBJECT) return wrong_kind(r, groups, "config_groups", "an object");
    for (uint32_t i = 0; i < groups->n; i++) {
        const Json *w = json_get(&groups->members[i].value, "weights");
        int64_t bits;
        if (groups->members[i].value.kind != JSON_OBJECT)
            return wrong_kind(r, &groups->members[i].value, "config_groups", "an object of objects");
        if (json_absent(w)) continue;
        if (w->kind != JSON_OBJECT) return wrong_kind(r, w, "weights", "an object");
        if (!get_int(r, w, "num_bits", 4, &bits) || !check_group_size(r, w)) return false;
        if (bits != 4) return refuse(r, json_get(w, "num_bits"), "weights of %lld bits", (long long)bits);
    }
    return true;
}

static bool read_modelopt(Reader *r, const Json *q) {
    const Json *pre = json_get(q, "pre_quant_scale");
    if (json_is(pre, JSON_BOOL) && pre->boolean) return refuse(r, pre, "pre_quant_scale (AWQ)");
    const Json *zero = json_get(q, "has_zero_point");
    if (json_is(zero, JSON_BOOL) && zero->boolean) return refuse(r, zero, "has_zero_point");
    Str kv;
    if (!check_algo(r, q, NULL) || !check_quantized_layers(r, q) || !check_modelopt_groups(r, q) ||
        !check_names(r, q, "exclude_modules") || !check_names(r, q, "ignore") ||
        !get_string(r, q, "kv_cache_quant_algo", &kv))
        return false;
    if (kv.len && !is_word(kv, "FP8") && !is_word(kv, "NONE"))
        return refuse(r, json_get(q, "kv_cache_quant_algo"), "kv_cache_quant_algo `" STR_FMT "`",
                      STR_ARG(kv));
    r->out->kv_fp8 |= kv.len && is_word(kv, "FP8");
    return true;
}

// ---- compressed-tensors --------------------------------------------------------------------------------

static bool check_format(Reader *r, const Json *object) {
    Str format;
    if (!get_string(r, object, "format", &format)) return false;
    if (!format.len || str_is(format, "nvfp4-pack-quantized") || str_is(format, "mixed-precision") ||
        str_is(format, "dense"))
        return true;
    return refuse(r, json_get(object, "format"), "format `" STR_FMT "`", STR_ARG(format));
}

static bool check_ct_weights(Reader *r, const Json *w) {
    int64_t bits, group;
    Str type, actorder = {0};
    if (w->kind != JSON_OBJECT) return wrong_kind(r, w, "weights", "an object");
    const Json *order = json_get(w, "actorder");
    if (json_is(order, JSON_STRING)) actorder = order->s;
    if (!get_int(r, w, "num_bits", 0, &bits) || !get_string(r, w, "type", &type) ||
        !get_int(r, w, "group_size", 0, &group))
        return false;
    if (bits != 4 || !is_word(type, "float"))
        return refuse(r, w, "weights of %lld bits of type `" STR_FMT "`", (long long)bits, STR_ARG(type));
    if (group != 16)
        return refuse(r, w, "group_size %lld%s", (long long)group, group == 32 ? " (MXFP4)" : "");
    const Json *symmetric = json_get(w, "symmetric");
    if (json_is(symmetric, JSON_BOOL) && !symmetric->boolean)
        return refuse(r, symmetric, "asymmetric weights");
    if (str_is(actorder, "group")) return refuse(r, order, "actorder `group`");
    r->out->claims_nvfp4 = true;
    return true;
}

static bool targets_foreign_only(const Json *group) {
    const Json *t = json_get(group, "targets");
    if (!json_is(t, JSON_ARRAY) || !t->n) return false;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->items[i].kind != JSON_STRING || !is_foreign_module(t->items[i].s)) return false;
    return true;
}

static bool check_ct_groups(Reader *r, const Json *groups) {
    if (json_absent(groups)) return true;
    if (groups->kind != JSON_OBJECT) return wrong_kind(r, groups, "config_groups", "an object");
    for (uint32_t i = 0; i < groups->n; i++) {
        const Json *g = &groups->members[i].value, *w = json_get(g, "weights");
        if (g->kind != JSON_OBJECT) return wrong_kind(r, g, "config_groups", "an object of objects");
        if (json_absent(w) || targets_foreign_only(g)) continue;
        if (!check_format(r, g) || !check_ct_weights(r, w)) return false;
    }
    return true;
}

// The scheme of the KV cache, which both dialects write alike in config.json.
static bool check_kv_scheme(Reader *r, const Json *q) {
    const Json *kv = json_get(q, "kv_cache_scheme");
    int64_t bits;
    Str type, strategy;
    if (json_absent(kv)) return true;
    if (kv->kind != JSON_OBJECT) return wrong_kind(r, kv, "kv_cache_scheme", "an object or null");
    if (!get_int(r, kv, "num_bits", 0, &bits) || !get_string(r, kv, "type", &type) ||
        !get_string(r, kv, "strategy", &strategy))
        return false;
    if (bits != 8 || !is_word(type, "float"))
        return refuse(r, kv, "a KV cache of %lld bits of type `" STR_FMT "`", (long long)bits, STR_ARG(type));
    if (strategy.len && !str_is(strategy, "tensor"))
        return refuse(r, json_get(kv, "strategy"), "a KV cache with scales by `" STR_FMT "`",
                      STR_ARG(strategy));
    const Json *symmetric = json_get(kv, "symmetric"), *dynamic = json_get(kv, "dynamic");
    if (json_is(symmetric, JSON_BOOL) && !symmetric->boolean)
        return refuse(r, symmetric, "an asymmetric KV cache");
    if (json_is(dynamic, JSON_BOOL) && dynamic->boolean)
        return refuse(r, dynamic, "a KV cache with dynamic scales");
    r->out->kv_fp8 = true;
    return true;
}

static bool read_compressed_tensors(Reader *r, const Json *q) {
    const Json *transform = json_get(q, "transform_config"), *sparsity = json_get(q, "sparsity_config");
    if (!json_absent(transform) && !(transform->kind == JSON_OBJECT && !transform->n))
        return refuse(r, transform, "transform_config (rotated weights)");
    const Json *sparse = json_get(sparsity, "format");
    if (json_is(sparse, JSON_STRING) && !str_is(sparse->s, "dense"))
        return refuse(r, sparse, "sparsity format `" STR_FMT "`", STR_ARG(sparse->s));
    return check_format(r, q) && check_ct_groups(r, json_get(q, "config_groups")) &&
           check_names(r, q, "ignore");
}

// ---- files ---------------------------------------------------------------------------------------------

static bool read_quantization_config(Reader *r, const Json *q) {
    Str method;
    if (q->kind != JSON_OBJECT) return wrong_kind(r, q, "quantization_config", "an object");
    if (!get_string(r, q, "quant_method", &method)) return false;
    if (!method.len && json_get(q, "quant_algo")) method = STR("modelopt");
    if (!method.len)
        return diag_error(r->diags, E_CONFIG_MISSING, json_span(r->src, q),
                          "`quantization_config` needs `quant_method` (modelopt or compressed-tensors)");
    if (is_word(method, "modelopt") || is_word(method, "modelopt_fp4") || is_word(method, "modelopt_mixed")) {
        r->out->dialect = QUANT_MODELOPT;
        return read_modelopt(r, q) && check_kv_scheme(r, q);
    }
    if (is_word(method, "compressed-tensors")) {
        r->out->dialect = QUANT_COMPRESSED_TENSORS;
        return read_compressed_tensors(r, q) && check_kv_scheme(r, q);
    }
    return refuse(r, json_get(q, "quant_method"), "quant_method `" STR_FMT "`", STR_ARG(method));
}

// Parses dir/name if it exists; *root is NULL when it does not.
static bool read_json(Arena *a, const char *dir, const char *name, const Json **root, const Source **src,
                      Diags *d) {
    *root = NULL;
    const char *path = path_join(a, dir, name);
    if (!file_exists(path)) return true;
    Source *s = ARENA_NEW(a, Source);
    Err e;
    s->name = path;
    if (!file_read(a, path, CONFIG_BYTES_MAX, &s->text, &e)) return diag_err(d, SPAN_NONE, &e);
    *src = s;
    *root = json_parse(a, s, (JsonLimits){.dup = JSON_DUP_LAST}, d);
    return *root != NULL;
}

bool quant_config_read(Arena *a, const char *dir, QuantConfig *out, Diags *d) {
    *out = (QuantConfig){0};
    Reader r = {.diags = d, .out = out};
    const Json *root;
    if (!read_json(a, dir, "config.json", &root, &r.src, d)) return false;
    const Json *q = json_get(root, "quantization_config");
    if (json_absent(q)) q = json_get(json_get(root, "text_config"), "quantization_config");
    if (!json_absent(q) && !read_quantization_config(&r, q)) return false;
    if (!read_json(a, dir, "hf_quant_config.json", &root, &r.src, d)) return false;
    q = json_get(root, "quantization");
    if (json_absent(q) || out->dialect == QUANT_COMPRESSED_TENSORS) return true;
    if (q->kind != JSON_OBJECT) return wrong_kind(&r, q, "quantization", "an object");
    out->dialect = QUANT_MODELOPT;
    return read_modelopt(&r, q);
}
