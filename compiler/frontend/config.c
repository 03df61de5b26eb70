#include "compiler/frontend/config.h"

#include <math.h>

#include "compiler/frontend/family.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"

enum { CONFIG_BYTES_MAX = 16 << 20, INTS_MAX = 1024, EXPERTS_MAX = 1 << 16 };

const ConfigRule config_rules[CFG_COUNT] = {
#define FIELD(name, kind, min, max, multiple, what) {#name, CONFIG_##kind, min, max, multiple},
#include "compiler/frontend/config.def"
#undef FIELD
};

static const char *const whats[CFG_COUNT] = {
#define FIELD(name, kind, min, max, multiple, what) what,
#include "compiler/frontend/config.def"
#undef FIELD
};

// Activations as configs spell them, and the op that computes them.
static const struct {
    const char *spelling, *op;
} activations[] = {
    {"silu", "silu"}, {"swish", "silu"}, {"gelu_pytorch_tanh", "gelu_tanh"}, {"gelu_new", "gelu_tanh"}};

typedef struct {
    Arena *arena;
    const Source *src;
    const Json *root, *text; // text: `text_config` where there is one, else root
    Config *out;
    Diags *diags;
    bool failed; // some field is wrong: defaults computed from fields would only be wrong, too
} Reader;

static bool wrong(Reader *r, const char *key, const Json *j, const char *want) {
    bool number = j->kind == JSON_INT || j->kind == JSON_REAL, string = j->kind == JSON_STRING;
    if (number || string)
        return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, j),
                          "`%s` must be %s, not %s" STR_FMT "%s", key, want, string ? "\"" : "",
                          (int)MIN(j->s.len, 60), j->s.ptr, string ? "\"" : "");
    return diag_error(r->diags, E_CONFIG_VALUE, json_span(r->src, j), "`%s` must be %s, not %s", key, want,
                      json_kind_name(j->kind));
}

static const char *wanted(Arena *a, const ConfigRule *rule) {
    if (rule->kind == CONFIG_REAL) return arena_printf(a, "a number from %g to %g", rule->min, rule->max);
    const char *kind = rule->multiple == 2  ? "an even integer"
                       : rule->multiple > 2 ? arena_printf(a, "a multiple of %lld", (long long)rule->multiple)
                                            : "an integer";
    return arena_printf(a, "%s from %.0f to %.0f", kind, rule->min, rule->max);
}

static bool in_range(const ConfigRule *rule, double v) {
    if (!(v >= rule->min && v <= rule->max)) return false;
    return rule->kind == CONFIG_REAL || (v == floor(v) && fmod(v, (double)rule->multiple) == 0);
}

// ---- values --------------------------------------------------------------------------------------------

static bool read_number(Reader *r, const ConfigRule *rule, const char *key, const Json *j, ConfigValue *out) {
    bool number = j->kind == JSON_INT || (j->kind == JSON_REAL && rule->kind == CONFIG_REAL);
    if (!number || j->big || !in_range(rule, json_number(j))) return wrong(r, key, j, wanted(r->arena, rule));
    out->num = json_number(j);
    return true;
}

static bool set_activation(Str spelling, ConfigValue *out) {
    for (size_t i = 0; i < COUNT_OF(activations); i++)
        if (str_is(spelling, activations[i].spelling)) {
            out->act = activations[i].op;
            return true;
        }
    return false;
}

static bool read_activation(Reader *r, const char *key, const Json *j, ConfigValue *out) {
    const char *names[COUNT_OF(activations)];
    for (size_t i = 0; i < COUNT_OF(activations); i++) names[i] = activations[i].spelling;
    if (j->kind != JSON_STRING) return wrong(r, key, j, "the name of an activation");
    if (set_activation(j->s, out)) return true;
    diag_error(r->diags, E_CONFIG_UNSUPPORTED, json_span(r->src, j),
               "activation `" STR_FMT "` is not supported; supported are silu and gelu_pytorch_tanh",
               (int)MIN(j->s.len, 60), j->s.ptr);
    diag_did_you_mean(r->diags, j->s, names, COUNT_OF(names));
    return false;
}

static bool read_ints(Reader *r, const ConfigRule *rule, const char *key, const Json *j, ConfigValue *out) {
    if (j->kind != JSON_ARRAY) return wrong(r, key, j, "a list of integers");
    if (j->n > INTS_MAX) return wrong(r, key, j, "a list of at most 1024 integers");
    int64_t *items = ARENA_ARRAY(r->arena, int64_t, j->n);
    for (uint32_t i = 0; i < j->n; i++) {
        const Json *item = &j->items[i];
        if (item->kind != JSON_INT || item->big || !in_range(rule, (double)item->i))
            return wrong(
                r, key, item,
                arena_printf(r->arena, "a list of integers from %.0f to %.0f", rule->min, rule->max));
        items[i] = item->i;
    }
    out->ints = items, out->n_ints = j->n;
    return true;
}

static bool read_types(Reader *r, const char *key, const Json *j, ConfigValue *out) {
    static const char *const names[] = {"full_attention", "sliding_attention"};
    if (j->kind != JSON_ARRAY || j->n > INTS_MAX)
        return wrong(r, key, j, "a list with one layer type a layer");
    int64_t *items = ARENA_ARRAY(r->arena, int64_t, j->n);
    for (uint32_t i = 0; i < j->n; i++) {
        const Json *item = &j->items[i];
        if (item->kind != JSON_STRING) return wrong(r, key, item, "a list of strings");
        items[i] = str_is(item->s, names[1]);
        if (items[i] || str_is(item->s, names[0])) continue;
        diag_error(r->diags, E_CONFIG_UNSUPPORTED, json_span(r->src, item),
                   "layers of type `" STR_FMT "` are not supported; supported are full_attention and "
                   "sliding_attention",
                   (int)MIN(item->s.len, 60), item->s.ptr);
        diag_did_you_mean(r->diags, item->s, names, COUNT_OF(names));
        return false;
    }
    out->ints = items, out->n_ints = j->n;
    return true;
}

static bool read_value(Reader *r, const ConfigRule *rule, const char *key, const Json *j, ConfigValue *out) {
    out->given = true, out->at = json_span(r->src, j);
    switch (rule->kind) {
    case CONFIG_INT:
    case CONFIG_REAL: return read_number(r, rule, key, j, out);
    case CONFIG_ACT: return read_activation(r, key, j, out);
    case CONFIG_INTS: return read_ints(r, rule, key, j, out);
    case CONFIG_TYPES: return read_types(r, key, j, out);
    case CONFIG_BOOL:
        if (j->kind != JSON_BOOL) return wrong(r, key, j, "true or false");
        out->num = j->boolean;
        return true;
    }
    return false;
}

// ---- fields --------------------------------------------------------------------------------------------

bool config_lookup(const Config *c, Str name, ExprValue *out) {
    const ConfigValue *v = NULL;
    for (size_t i = 0; i < CFG_COUNT; i++)
        if (str_is(name, config_rules[i].name)) v = &c->values[i];
    for (uint32_t i = 0, own = 0; !v && i < c->family->n_fields; i++) {
        if (c->family->fields[i].field >= 0) continue;
        if (str_is(name, c->family->fields[i].rule.name)) v = &c->extra[own];
        own++;
    }
    if (!v) return false;
    *out = (ExprValue){.is_list = v->kind == CONFIG_INTS || v->kind == CONFIG_TYPES, .num = v->num};
    out->items = v->ints, out->n_items = v->n_ints;
    return true;
}

const char *const *config_names(size_t *n) {
    static const char *const names[] = {
#define FIELD(name, ...) #name,
#include "compiler/frontend/config.def"
#undef FIELD
    };
    *n = COUNT_OF(names);
    return names;
}

static bool lookup(void *ctx, Str name, ExprValue *out) { return config_lookup(ctx, name, out); }

static bool apply_default(Reader *r, const FamilyField *f, ConfigValue *out) {
    const Family *family = r->out->family;
    if (!f->preset) return true;
    if (f->rule.kind == CONFIG_ACT) {
        if (set_activation(f->preset->s, out)) return true;
        return diag_error(r->diags, E_FAMILY, yaml_span(&family->src, f->preset), "unknown activation");
    }
    ExprScope scope = {.lookup = lookup, .ctx = r->out};
    scope.names = config_names(&scope.n_names);
    if (!expr_eval(f->preset->s, family_text_span(family, f->preset), &scope, &out->num, r->diags))
        return false;
    if (f->rule.kind == CONFIG_BOOL || in_range(&f->rule, out->num)) return true;
    return diag_error(r->diags, E_CONFIG_VALUE, SPAN_FILE(r->src),
                      "`%s` is absent, and its default (" STR_FMT ") is %g, but it must be %s", f->keys[0],
                      STR_ARG(f->preset->s), out->num, wanted(r->arena, &f->rule));
}

static bool read_field(Reader *r, const FamilyField *f, ConfigValue *out) {
    *out = (ConfigValue){.kind = f->rule.kind, .at = SPAN_FILE(r->src)};
    for (uint32_t k = 0; k < f->n_keys; k++) {
        const Json *j = json_get(r->text, f->keys[k]);
        // Multimodal files say this one outside of text_config, too.
        if (json_absent(j) && f->field == CFG_tie_embeddings) j = json_get(r->root, f->keys[k]);
        if (!json_absent(j)) return read_value(r, &f->rule, f->keys[k], j, out);
    }
    if (!f->required) return r->failed || apply_default(r, f, out);
    return diag_error(r->diags, E_CONFIG_MISSING, SPAN_FILE(r->src), "`%s` is missing%s%s", f->keys[0],
                      f->field >= 0 ? ": " : "", f->field >= 0 ? whats[f->field] : "");
}

static bool read_fields(Reader *r) {
    const Family *f = r->out->family;
    bool ok = true;
    for (uint32_t i = 0; i < f->n_fields; i++) r->out->n_extra += f->fields[i].field < 0;
    r->out->extra = ARENA_ARRAY(r->arena, ConfigValue, r->out->n_extra);
    for (size_t i = 0; i < CFG_COUNT; i++)
        r->out->values[i] = (ConfigValue){.kind = config_rules[i].kind, .at = SPAN_FILE(r->src)};
    ConfigValue *own = r->out->extra;
    for (uint32_t i = 0; i < f->n_fields; i++) {
        int field = f->fields[i].field;
        ok = read_field(r, &f->fields[i], field < 0 ? own++ : &r->out->values[field]) && ok;
        r->failed = !ok;
    }
    return ok;
}

static bool has_field(const Family *f, ConfigField field) {
    for (uint32_t i = 0; i < f->n_fields; i++)
        if (f->fields[i].field == (int)field) return true;
    return false;
}

static bool read_rope(Reader *r) {
    Config *c = r->out;
    RopeDefaults defaults = {.theta = config_real(c, CFG_rope_theta),
                             .local_theta = config_real(c, CFG_rope_local_theta),
                             .local = has_field(c->family, CFG_rope_local_theta),
                             .max_position = config_real(c, CFG_max_position)};
    return rope_read(r->src, r->text, &defaults, &c->rope_full, &c->rope_sliding, r->diags);
}

// ---- what must fit together ----------------------------------------------------------------------------

#define FAULT(field, code, ...) diag_error(r->diags, code, c->values[CFG_##field].at, __VA_ARGS__)

static bool check_together(Reader *r) {
    const Config *c = r->out;
    long long heads = config_int(c, CFG_heads), kv = config_int(c, CFG_kv_heads);
    long long width = heads * config_int(c, CFG_head_dim), layers = config_int(c, CFG_layers);
    long long experts = config_int(c, CFG_experts), visited = config_int(c, CFG_experts_per_token);
    bool ok = true;
    if (heads % kv)
        ok = FAULT(kv_heads, E_CONFIG_VALUE, "%lld query heads cannot share %lld key-value heads evenly",
                   heads, kv);
    if (width % 16)
        ok = FAULT(head_dim, E_CONFIG_VALUE,
                   "%lld heads of %lld are %lld values, which must be a multiple of 16", heads,
                   (long long)config_int(c, CFG_head_dim), width);
    const ConfigValue *types = &c->values[CFG_layer_types];
    if (types->given && types->n_ints != layers)
        ok = FAULT(layer_types, E_CONFIG_VALUE, "`layer_types` has %u entries, but there are %lld layers",
                   types->n_ints, layers);
    if (experts && visited > experts)
        ok = FAULT(experts_per_token, E_CONFIG_VALUE, "a token cannot visit %lld of %lld experts", visited,
                   experts);
    if (experts * layers > EXPERTS_MAX)
        ok = FAULT(experts, E_CONFIG_VALUE, "%lld layers of %lld experts are more than %d experts", layers,
                   experts, EXPERTS_MAX);
    if (config_bool(c, CFG_bidirectional))
        ok = FAULT(bidirectional, E_CONFIG_UNSUPPORTED,
                   "bidirectional attention is not supported: this compiler makes causal decoders");
    return ok;
}

// ---- tokens --------------------------------------------------------------------------------------------

static bool token(Reader *r, const char *key, const Json *j, int32_t *out) {
    int64_t vocab = config_int(r->out, CFG_vocab);
    if (j->kind != JSON_INT || j->big || j->i < 0 || j->i >= vocab)
        return wrong(r, key, j,
                     arena_printf(r->arena, "a token id below %lld (vocab_size)", (long long)vocab));
    *out = (int32_t)j->i;
    return true;
}

static bool read_eos(Reader *r, const Json *j) {
    const Json *items = j->kind == JSON_ARRAY ? j->items : j;
    uint32_t n = j->kind == JSON_ARRAY ? j->n : 1;
    r->out->n_eos = 0;
    if (n > CONFIG_EOS_MAX) return wrong(r, "eos_token_id", j, "at most 16 token ids");
    for (uint32_t i = 0; i < n; i++)
        if (!token(r, "eos_token_id", &items[i], &r->out->eos[r->out->n_eos++])) return false;
    return true;
}

// The outer value of a multimodal file is the one that generation uses.
static const Json *token_key(const Reader *r, const char *key) {
    const Json *j = json_get(r->root, key);
    return json_absent(j) ? json_get(r->text, key) : j;
}

static bool read_tokens(Reader *r) {
    const Json *eos = token_key(r, "eos_token_id"), *bos = token_key(r, "bos_token_id");
    bool ok = true;
    if (!json_absent(eos)) ok = read_eos(r, eos);
    if (json_is(bos, JSON_ARRAY) && bos->n) bos = &bos->items[0];
    if (!json_absent(bos)) ok = token(r, "bos_token_id", bos, &r->out->bos) && ok;
    return ok;
}

static bool sampling_value(Reader *r, const char *key, double min, double max, double *out, bool *given) {
    const Json *j = json_get(r->root, key);
    *given = false;
    if (json_absent(j)) return true;
    *given = (j->kind == JSON_INT || j->kind == JSON_REAL) && json_number(j) >= min && json_number(j) <= max;
    if (!*given) return wrong(r, key, j, arena_printf(r->arena, "a number from %g to %g", min, max));
    *out = json_number(j);
    return true;
}

static bool read_generation(Reader *r) {
    GenerationDefaults *g = &r->out->generation;
    const Json *eos = json_get(r->root, "eos_token_id"), *sample = json_get(r->root, "do_sample");
    double top_k = 0;
    bool ok = true;
    if (!json_absent(eos)) ok = read_eos(r, eos);
    if (!json_absent(sample) && sample->kind != JSON_BOOL)
        ok = wrong(r, "do_sample", sample, "true or false");
    g->do_sample = json_is(sample, JSON_BOOL) && sample->boolean;
    ok = sampling_value(r, "temperature", 0, 100, &g->temperature, &g->has_temperature) && ok;
    ok = sampling_value(r, "top_k", 0, 1 << 22, &top_k, &g->has_top_k) && ok;
    ok = sampling_value(r, "top_p", 0, 1, &g->top_p, &g->has_top_p) && ok;
    ok = sampling_value(r, "min_p", 0, 1, &g->min_p, &g->has_min_p) && ok;
    g->top_k = (int64_t)top_k;
    return ok;
}

// ---- files ---------------------------------------------------------------------------------------------

static bool read_source(Arena *a, const char *path, Source *src, Diags *d) {
    Err e = {0};
    src->name = arena_strdup(a, path);
    return file_read(a, path, CONFIG_BYTES_MAX, &src->text, &e) || diag_err(d, SPAN_NONE, &e);
}

static const Json *parse_object(Arena *a, const Source *src, Diags *d) {
    const Json *j = json_parse(a, src, (JsonLimits){.dup = JSON_DUP_REFUSE}, d);
    if (!j || j->kind == JSON_OBJECT) return j;
    diag_error(d, E_CONFIG_VALUE, json_span(src, j), "a configuration must be an object, not %s",
               json_kind_name(j->kind));
    return NULL;
}

static bool check_architectures(Reader *r) {
    const Json *j = json_get(r->root, "architectures");
    if (json_absent(j)) return true;
    if (j->kind != JSON_ARRAY) return wrong(r, "architectures", j, "a list of strings");
    const Yaml *known = r->out->family->architectures;
    for (uint32_t i = 0; i < j->n; i++) {
        if (j->items[i].kind != JSON_STRING)
            return wrong(r, "architectures", &j->items[i], "a list of strings");
        if (family_has(known, j->items[i].s)) return true;
    }
    if (!j->n) return true;
    return diag_error(r->diags, E_CONFIG_UNSUPPORTED, json_span(r->src, &j->items[0]),
                      "architecture `" STR_FMT "` is not supported; of type `%s` that is " STR_FMT,
                      (int)MIN(j->items[0].s.len, 60), j->items[0].s.ptr, r->out->model_type,
                      STR_ARG(known->items[0].s));
}

static bool choose_family(Reader *r, const char *family_path) {
    const Json *type = json_get(r->root, "model_type");
    if (json_absent(type)) type = json_get(r->text, "model_type");
    if (json_absent(type) && !family_path)
        return diag_error(r->diags, E_CONFIG_MISSING, SPAN_FILE(r->src), "`model_type` is missing");
    if (!json_absent(type) && type->kind != JSON_STRING) return wrong(r, "model_type", type, "a string");
    r->out->model_type = json_absent(type) ? "" : type->s.ptr;
    if (family_path) {
        r->out->family = family_read(r->arena, family_path, r->diags);
        return r->out->family != NULL;
    }
    r->out->family = family_builtin(r->arena, type->s, json_span(r->src, type), r->diags);
    return r->out->family && check_architectures(r);
}

static bool read_root(Reader *r, const Json *root, const char *family_path) {
    r->root = r->text = root;
    const Json *text = json_get(root, "text_config");
    if (!json_absent(text) && text->kind != JSON_OBJECT) return wrong(r, "text_config", text, "an object");
    if (!json_absent(text)) r->text = text;
    if (!choose_family(r, family_path)) return false;
    bool ok = read_fields(r);
    ok = read_rope(r) && ok;
    if (!ok) return false;
    ok = check_together(r);
    return read_tokens(r) && ok;
}

bool config_parse(Arena *a, Source src, const char *family_path, Config *out, Diags *d) {
    *out = (Config){.bos = -1, .src = src};
    Reader r = {.arena = a, .src = &out->src, .out = out, .diags = d};
    const Json *root = parse_object(a, &out->src, d);
    return root && read_root(&r, root, family_path);
}

// The generation_config.json beside config.json, where there is one.
static bool read_generation_file(Arena *a, const char *config_path, Config *out, Diags *d) {
    const char *slash = strrchr(config_path, '/');
    int folder = slash ? (int)(slash - config_path) + 1 : 0;
    const char *path = arena_printf(a, "%.*sgeneration_config.json", folder, config_path);
    Reader r = {.arena = a, .src = &out->generation_src, .out = out, .diags = d};
    if (!file_exists(path)) return true;
    if (!read_source(a, path, &out->generation_src, d)) return false;
    r.root = parse_object(a, r.src, d);
    return r.root && read_generation(&r);
}

bool config_read(Arena *a, const char *path, const char *family_path, Config *out, Diags *d) {
    Source src;
    *out = (Config){.bos = -1};
    return read_source(a, path, &src, d) && config_parse(a, src, family_path, out, d) &&
           read_generation_file(a, path, out, d);
}

int64_t config_context_max(const Config *c) {
    double most = config_real(c, CFG_max_position);
    if (c->rope_full.kind == ROPE_YARN) most = MAX(most, c->rope_full.factor * c->rope_full.original_max);
    return (int64_t)most;
}
