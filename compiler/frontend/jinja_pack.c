// Where a checkpoint keeps its chat template, and the tokens that the template names.
#include "compiler/frontend/jinja.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/num.h"

enum { TEMPLATE_FILE_MAX = 16 << 20, CONFIG_FILE_MAX = 64 << 20 };

// The tokens that transformers hands to a template, and no others.
static const char *const token_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

typedef struct {
    Arena *arena;
    const char *dir;
    Diags *diags;
} Pack;

// NULL without an error when the file is not there.
static const Source *read_source(Pack *p, const char *name, uint64_t max, bool *failed) {
    const char *path = path_join(p->arena, p->dir, name);
    Source *src = ARENA_NEW(p->arena, Source);
    Err e = {0};
    if (!file_exists(path)) return NULL;
    src->name = path;
    if (file_read(p->arena, path, max, &src->text, &e)) return src;
    diag_err(p->diags, SPAN_NONE, &e);
    *failed = true;
    return NULL;
}

static const Json *read_json(Pack *p, const char *name, const Source **src, bool *failed) {
    *src = read_source(p, name, CONFIG_FILE_MAX, failed);
    if (!*src) return NULL;
    const Json *j = json_parse(p->arena, *src, (JsonLimits){.dup = JSON_DUP_LAST}, p->diags);
    if (j && j->kind != JSON_OBJECT) {
        diag_error(p->diags, E_JSON, json_span(*src, j), "expected an object, not %s",
                   json_kind_name(j->kind));
        j = NULL;
    }
    *failed = *failed || !j;
    return j;
}

static const Source *inner_source(Pack *p, const Source *src, const Json *text) {
    Source *inner = ARENA_NEW(p->arena, Source);
    *inner = (Source){arena_printf(p->arena, "%s:chat_template", src->name), text->s};
    return inner;
}

// A template as JSON: a string, or a list of {name, template} of which "default" counts.
static const Source *template_of(Pack *p, const Source *src, const Json *config, bool *failed) {
    const Json *t = json_get(config, "chat_template");
    if (json_absent(t)) return NULL;
    if (t->kind == JSON_STRING) return inner_source(p, src, t);
    for (uint32_t i = 0; t->kind == JSON_ARRAY && i < t->n; i++) {
        const Json *name = json_get(&t->items[i], "name"), *text = json_get(&t->items[i], "template");
        if (json_is(name, JSON_STRING) && str_is(name->s, "default") && json_is(text, JSON_STRING))
            return inner_source(p, src, text);
    }
    diag_error(p->diags, E_TEMPLATE, json_span(src, t),
               "`chat_template` must be a string, or a list of {name, template} with one named \"default\"");
    *failed = true;
    return NULL;
}

static const Source *find_template(Pack *p, const Source *config_src, const Json *config, bool *failed) {
    const Source *src = read_source(p, "chat_template.jinja", TEMPLATE_FILE_MAX, failed);
    if (src || *failed) return src;
    if (config) src = template_of(p, config_src, config, failed);
    if (src || *failed) return src;
    const Source *file;
    const Json *processor = read_json(p, "chat_template.json", &file, failed);
    return processor ? template_of(p, file, processor, failed) : NULL;
}

// A token is written as its text or as {"content": text, ...}.
static bool token_text(const Json *j, Str *out) {
    if (json_is(j, JSON_OBJECT)) j = json_get(j, "content");
    if (!json_is(j, JSON_STRING)) return false;
    *out = j->s;
    return true;
}

static size_t find_tokens(const Json *config, const Json *map, JinjaVar vars[COUNT_OF(token_names)]) {
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(token_names); i++) {
        const Json *own = json_get(config, token_names[i]);
        if (!own) own = json_get(map, token_names[i]);
        vars[n].name = str_of(token_names[i]);
        if (token_text(own, &vars[n].value)) n++;
    }
    return n;
}

bool chat_pack(Arena *a, const char *model_dir, StrBuf *section, bool *present, Diags *d) {
    Pack p = {.arena = a, .dir = model_dir, .diags = d};
    JinjaVar vars[COUNT_OF(token_names)];
    const Source *config_src, *map_src;
    bool failed = false;
    *present = false;
    const Json *config = read_json(&p, "tokenizer_config.json", &config_src, &failed);
    if (failed) return false;
    const Source *src = find_template(&p, config_src, config, &failed);
    *present = src != NULL;
    if (!src) return !failed;
    const Json *map = read_json(&p, "special_tokens_map.json", &map_src, &failed);
    if (failed) return false;
    return jinja_compile(a, src, vars, find_tokens(config, map, vars), section, d);
}
