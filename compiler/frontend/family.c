#include "compiler/frontend/family.h"

#include "compiler/codegen/embedded.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"

typedef struct {
    Arena *arena;
    Family *f;
    Diags *diags;
} Reader;

static bool fail(Reader *r, const Yaml *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool fail(Reader *r, const Yaml *at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *why = arena_vprintf(r->arena, fmt, ap);
    va_end(ap);
    return diag_error(r->diags, E_FAMILY, yaml_span(&r->f->src, at), "%s", why);
}

Span family_text_span(const Family *f, const Yaml *y) {
    Span at = yaml_span(&f->src, y);
    if (!y->plain && at.end > at.begin + 1) at.begin++, at.end--;
    return at;
}

// ---- reading maps --------------------------------------------------------------------------------------

static bool only_keys(Reader *r, const Yaml *map, const char *what, const char *const *keys, size_t n) {
    if (map->kind != YAML_MAP) return fail(r, map, "%s must be a map, not %s", what, yaml_kind_name(map));
    bool ok = true;
    for (uint32_t i = 0; i < map->n; i++) {
        const Yaml *key = &map->members[i].key;
        bool known = false;
        for (size_t k = 0; k < n; k++) known = known || str_is(key->s, keys[k]);
        if (known) continue;
        ok = fail(r, key, "%s has no key `" STR_FMT "`", what, STR_ARG(key->s));
        diag_did_you_mean(r->diags, key->s, keys, n);
    }
    return ok;
}

#define KEYS(...) ((const char *const[]){__VA_ARGS__}), COUNT_OF(((const char *const[]){__VA_ARGS__}))

// An optional scalar of a map; *out NULL when absent.
static bool get_text(Reader *r, const Yaml *map, const char *key, const Yaml **out) {
    *out = yaml_get(map, key);
    if (!*out || (*out)->kind == YAML_SCALAR) return true;
    return fail(r, *out, "`%s` must be text, not %s", key, yaml_kind_name(*out));
}

static bool need(Reader *r, const Yaml *map, const char *key, YamlKind kind, const char *want,
                 const Yaml **out) {
    *out = yaml_get(map, key);
    if (!*out) return fail(r, map, "`%s` is missing", key);
    if ((*out)->kind == kind) return true;
    return fail(r, *out, "`%s` must be %s, not %s", key, want, yaml_kind_name(*out));
}

static bool find_word(Str s, const char *const *words, size_t n, int *out) {
    for (size_t i = 0; i < n; i++)
        if (str_is(s, words[i])) {
            *out = (int)i;
            return true;
        }
    return false;
}

static bool get_word(Reader *r, const Yaml *map, const char *key, const char *const *words, size_t n,
                     int *out) {
    const Yaml *y;
    if (!get_text(r, map, key, &y)) return false;
    if (!y || find_word(y->s, words, n, out)) return true;
    fail(r, y, "unknown `%s` `" STR_FMT "`", key, STR_ARG(y->s));
    diag_did_you_mean(r->diags, y->s, words, n);
    return false;
}

// ---- config --------------------------------------------------------------------------------------------

static bool read_keys(Reader *r, const Yaml *y, FamilyField *out) {
    const Yaml *items = y->kind == YAML_LIST ? y->items : y;
    uint32_t n = y->kind == YAML_LIST ? y->n : 1;
    if (y->kind == YAML_MAP || !n || n > FAMILY_KEYS_MAX)
        return fail(r, y, "`key` must be one key of config.json, or a list of at most %d", FAMILY_KEYS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        if (items[i].kind != YAML_SCALAR || !items[i].s.len) return fail(r, &items[i], "a key must be text");
        out->keys[out->n_keys++] = items[i].s.ptr;
    }
    return true;
}

static bool get_number(Reader *r, const Yaml *map, const char *key, double *out) {
    const Yaml *y;
    if (!get_text(r, map, key, &y)) return false;
    if (!y || str_to_double(y->s, out)) return true;
    return fail(r, y, "`%s` must be a number", key);
}

// A field that config.def does not know brings its own kind and range.
static bool read_own_rule(Reader *r, const YamlMember *m, ConfigRule *out) {
    static const char *const kinds[] = {"int", "real", "bool"};
    int kind = -1;
    *out = (ConfigRule){.name = m->key.s.ptr, .min = -1e12, .max = 1e12, .multiple = 1};
    if (!get_word(r, &m->value, "kind", kinds, COUNT_OF(kinds), &kind)) return false;
    if (kind < 0)
        return fail(r, &m->key,
                    "`" STR_FMT "` is no known field (config.def) and has no `kind: int|real|bool`",
                    STR_ARG(m->key.s));
    out->kind = kind == 0 ? CONFIG_INT : kind == 1 ? CONFIG_REAL : CONFIG_BOOL;
    return get_number(r, &m->value, "min", &out->min) && get_number(r, &m->value, "max", &out->max);
}

static bool read_field(Reader *r, const YamlMember *m, FamilyField *out) {
    static const char *const names[] = {
#define FIELD(name, ...) #name,
#include "compiler/frontend/config.def"
#undef FIELD
    };
    const Yaml *keys;
    *out = (FamilyField){.field = -1};
    if (!only_keys(r, &m->value, "a config field", KEYS("key", "default", "kind", "min", "max")))
        return false;
    if (!(keys = yaml_get(&m->value, "key"))) return fail(r, &m->key, "`key` is missing");
    if (!read_keys(r, keys, out) || !get_text(r, &m->value, "default", &out->preset)) return false;
    out->required = !out->preset;
    if (out->preset && yaml_is_null(out->preset)) out->preset = NULL;
    if (!find_word(m->key.s, names, COUNT_OF(names), &out->field)) return read_own_rule(r, m, &out->rule);
    out->rule = config_rules[out->field];
    return true;
}

static bool read_config(Reader *r, const Yaml *root) {
    const Yaml *map;
    if (!need(r, root, "config", YAML_MAP, "a map", &map)) return false;
    bool ok = true;
    r->f->fields = ARENA_ARRAY(r->arena, FamilyField, map->n);
    for (uint32_t i = 0; i < map->n; i++)
        ok = read_field(r, &map->members[i], &r->f->fields[r->f->n_fields++]) && ok;
    static const ConfigField always[] = {CFG_vocab,        CFG_hidden,    CFG_ffn,      CFG_layers,
                                         CFG_heads,        CFG_kv_heads,  CFG_head_dim, CFG_activation,
                                         CFG_max_position, CFG_rope_theta};
    for (size_t a = 0; a < COUNT_OF(always); a++) {
        bool found = false;
        for (uint32_t i = 0; i < r->f->n_fields; i++)
            found = found || r->f->fields[i].field == (int)always[a];
        if (!found) ok = fail(r, map, "`config` lacks the field `%s`", config_rules[always[a]].name);
    }
    return ok;
}

static bool read_flags(Reader *r, const Yaml *root) {
    const Yaml *map = yaml_get(root, "layer_flags");
    if (!map) return true;
    if (map->kind != YAML_MAP || map->n > FAMILY_FLAGS_MAX)
        return fail(r, map, "`layer_flags` must be a map of at most %d expressions", FAMILY_FLAGS_MAX);
    for (uint32_t i = 0; i < map->n; i++) {
        const YamlMember *m = &map->members[i];
        if (m->value.kind != YAML_SCALAR) return fail(r, &m->value, "a flag must be an expression");
        r->f->flags[r->f->n_flags++] = (FamilyFlag){m->key.s, &m->value};
    }
    return true;
}

// ---- weights and steps ---------------------------------------------------------------------------------

static bool read_weight(Reader *r, const YamlMember *m, FamilyWeight *out) {
    static const char *const kinds[FW_KINDS] = {"linear", "embed",     "head", "router",
                                                "norm",   "norm_zero", "bias"};
    static const char *const rules[] = {"none", "rows", "cols"};
    int kind = -1, shard = SHARD_NONE;
    *out = (FamilyWeight){.name = m->key.s, .at = &m->key};
    const Yaml *v = &m->value;
    if (!only_keys(r, v, "a weight", KEYS("kind", "shape", "shard", "units", "stack", "when"))) return false;
    if (!get_word(r, v, "kind", kinds, COUNT_OF(kinds), &kind)) return false;
    if (!get_word(r, v, "shard", rules, COUNT_OF(rules), &shard)) return false;
    if (kind < 0) return fail(r, &m->key, "`kind` is missing");
    out->kind = (FamilyWeightKind)kind, out->shard = (ShardRule)shard;
    if (!need(r, v, "shape", YAML_LIST, "a list", &out->shape)) return false;
    if (out->shape->n < 1 || out->shape->n > 2)
        return fail(r, out->shape, "`shape` must have 1 or 2 dimensions");
    for (uint32_t i = 0; i < out->shape->n; i++)
        if (out->shape->items[i].kind != YAML_SCALAR)
            return fail(r, &out->shape->items[i], "a dimension must be an expression");
    if (!get_text(r, v, "units", &out->units) || !get_text(r, v, "stack", &out->stack) ||
        !get_text(r, v, "when", &out->when))
        return false;
    if (out->stack && (out->shape->n != 2 || !strstr(out->name.ptr, "{expert}.")))
        return fail(r, &m->key, "a stacked weight needs two dimensions and `{expert}.` in its name");
    return true;
}

static bool read_weights(Reader *r, const Yaml *root, const char *key, FamilyWeight **out, uint32_t *n) {
    const Yaml *map;
    if (!need(r, root, key, YAML_MAP, "a map", &map)) return false;
    bool ok = true;
    *out = ARENA_ARRAY(r->arena, FamilyWeight, map->n);
    for (uint32_t i = 0; i < map->n; i++) ok = read_weight(r, &map->members[i], &(*out)[(*n)++]) && ok;
    return ok;
}

static bool read_step(Reader *r, const Yaml *y, FamilyStep *out) {
    *out = (FamilyStep){0};
    if (y->kind != YAML_MAP) return fail(r, y, "a step must be `RESULT: op(...)`, not %s", yaml_kind_name(y));
    for (uint32_t i = 0; i < y->n; i++) {
        const YamlMember *m = &y->members[i];
        if (m->value.kind != YAML_SCALAR)
            return fail(r, &m->value, "a step must be text, not %s", yaml_kind_name(&m->value));
        if (str_is(m->key.s, "when"))
            out->when = &m->value;
        else if (out->call)
            return fail(r, &m->key, "a step has one result");
        else
            out->result = m->key.s, out->call = &m->value;
    }
    return out->call || fail(r, y, "a step must be `RESULT: op(...)`");
}

static bool read_graph(Reader *r, const Yaml *root) {
    static const char *const parts[FAMILY_PARTS] = {"embed", "layer", "head"};
    const Yaml *graph, *list;
    if (!need(r, root, "graph", YAML_MAP, "a map", &graph)) return false;
    bool ok = only_keys(r, graph, "`graph`", parts, FAMILY_PARTS);
    for (int p = 0; p < FAMILY_PARTS; p++) {
        if (!need(r, graph, parts[p], YAML_LIST, "a list", &list)) return false;
        r->f->steps[p] = ARENA_ARRAY(r->arena, FamilyStep, list->n);
        for (uint32_t i = 0; i < list->n; i++)
            ok = read_step(r, &list->items[i], &r->f->steps[p][r->f->n_steps[p]++]) && ok;
    }
    return ok;
}

static bool text_list(Reader *r, const Yaml *map, const char *key, const Yaml **out) {
    if (!need(r, map, key, YAML_LIST, "a list", out)) return false;
    for (uint32_t i = 0; i < (*out)->n; i++)
        if ((*out)->items[i].kind != YAML_SCALAR) return fail(r, &(*out)->items[i], "a name must be text");
    return true;
}

static bool read_header(Reader *r, const Yaml *root) {
    const Yaml *name, *matches;
    if (!only_keys(r, root, "a family",
                   KEYS("family", "matches", "config", "layer_flags", "weights", "layer_weights", "graph")))
        return false;
    if (!need(r, root, "family", YAML_SCALAR, "text", &name)) return false;
    r->f->name = name->s;
    return need(r, root, "matches", YAML_MAP, "a map", &matches) &&
           only_keys(r, matches, "`matches`", KEYS("model_type", "architectures")) &&
           text_list(r, matches, "model_type", &r->f->model_types) &&
           text_list(r, matches, "architectures", &r->f->architectures);
}

static const Family *read_family(Arena *a, Family *f, const Yaml *root, Diags *d) {
    Reader r = {.arena = a, .f = f, .diags = d};
    if (!root || !read_header(&r, root)) return NULL;
    bool ok = read_config(&r, root);
    ok = read_flags(&r, root) && ok;
    ok = read_weights(&r, root, "weights", &f->weights, &f->n_weights) && ok;
    ok = read_weights(&r, root, "layer_weights", &f->layer_weights, &f->n_layer_weights) && ok;
    ok = read_graph(&r, root) && ok;
    return ok ? f : NULL;
}

const Family *family_parse(Arena *a, Source src, Diags *d) {
    Family *f = ARENA_NEW(a, Family);
    f->src = src;
    return read_family(a, f, yaml_parse(a, &f->src, 0, d), d);
}

const Family *family_read(Arena *a, const char *path, Diags *d) {
    Source src = {.name = arena_strdup(a, path)};
    Err e = {0};
    if (file_read(a, path, YAML_BYTES_MAX, &src.text, &e)) return family_parse(a, src, d);
    diag_err(d, SPAN_NONE, &e);
    return NULL;
}

bool family_has(const Yaml *list, Str name) {
    for (uint32_t i = 0; i < list->n; i++)
        if (str_eq(list->items[i].s, name)) return true;
    return false;
}

enum { TYPES_MAX = 64 };

const Family *family_builtin(Arena *a, Str model_type, Span at, Diags *d) {
    const char *types[TYPES_MAX];
    size_t n_types = 0;
    StrBuf list = {0};
    for (size_t i = 0; i < n_embedded_files; i++) {
        const EmbeddedFile *e = &embedded_files[i];
        if (!str_starts(str_of(e->path), STR("models/families/"))) continue;
        Family *f = ARENA_NEW(a, Family);
        f->src = (Source){e->path, {e->text, e->len}};
        const Yaml *root = yaml_parse(a, &f->src, 0, d);
        Reader r = {.arena = a, .f = f, .diags = d};
        if (!root || !read_header(&r, root)) return NULL;
        if (family_has(f->model_types, model_type)) {
            buf_free(&list);
            return read_family(a, f, root, d);
        }
        for (uint32_t t = 0; t < f->model_types->n && n_types < TYPES_MAX; t++) {
            types[n_types] = f->model_types->items[t].s.ptr;
            buf_printf(&list, "%s%s", n_types ? ", " : "", types[n_types]);
            n_types++;
        }
    }
    diag_error(d, E_CONFIG_UNSUPPORTED, at,
               "models of type `" STR_FMT "` are not supported; supported are %s",
               (int)MIN(model_type.len, 60), model_type.ptr, buf_cstr(&list));
    diag_did_you_mean(d, model_type, types, n_types);
    buf_free(&list);
    return NULL;
}
