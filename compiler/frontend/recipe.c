#include "compiler/frontend/recipe.h"

#include <stddef.h>

#include "runtime/base/file.h"
#include "runtime/base/num.h"

typedef enum { KIND_PATH, KIND_TEXT, KIND_INT, KIND_LIST, KIND_CHOICE } Kind;

static const struct {
    const char *name;
    Kind kind;
    const char *preset; // the default, written as in YAML
    int64_t min, max;
    const char *choices; // words
    const char *help;
    size_t offset; // in Recipe
} fields[RECIPE_COUNT] = {
#define FIELD(name, kind, preset, min, max, choices, help)                                                   \
    {#name, KIND_##kind, preset, min, max, choices, help, offsetof(Recipe, name)},
#include "compiler/frontend/recipe.def"
#undef FIELD
};

static const char *const names[RECIPE_COUNT] = {
#define FIELD(name, ...) #name,
#include "compiler/frontend/recipe.def"
#undef FIELD
};

typedef struct {
    Arena *arena;
    const Source *src;
    const char *folder; // of the recipe; paths are relative to it; NULL: to the current folder
    Recipe *out;
    Diags *diags;
} Reader;

static Str shown(const Yaml *y) { return (Str){y->s.ptr, MIN(y->s.len, (size_t)60)}; }

static bool wrong(Reader *r, RecipeField f, const Yaml *y, const char *want) {
    if (y->kind != YAML_SCALAR)
        diag_error(r->diags, E_RECIPE_VALUE, yaml_span(r->src, y), "`%s` must be %s, not %s of %u", names[f],
                   want, yaml_kind_name(y), y->n);
    else
        diag_error(r->diags, E_RECIPE_VALUE, yaml_span(r->src, y), "`%s` must be %s, not %s`" STR_FMT "`",
                   names[f], want, y->plain ? "" : "the text ", STR_ARG(shown(y)));
    if (*fields[f].preset) diag_hint(r->diags, "the default is `%s: %s`", names[f], fields[f].preset);
    return false;
}

static bool integer(RecipeField f, const Yaml *y, int64_t *out) {
    return y->kind == YAML_SCALAR && y->plain && str_to_i64(y->s, out) && *out >= fields[f].min &&
           *out <= fields[f].max;
}

static bool read_int(Reader *r, RecipeField f, const Yaml *y, void *dst) {
    if (integer(f, y, dst)) return true;
    return wrong(r, f, y,
                 arena_printf(r->arena, "an integer from %lld to %lld", (long long)fields[f].min,
                              (long long)fields[f].max));
}

static bool read_list(Reader *r, RecipeField f, const Yaml *y, RecipeList *dst) {
    const char *want = arena_printf(r->arena, "a list of 1 to %d ascending integers from %lld to %lld",
                                    RECIPE_BUCKETS_MAX, (long long)fields[f].min, (long long)fields[f].max);
    const Yaml *items = y->kind == YAML_LIST ? y->items : y; // one integer is a list of one
    uint32_t n = y->kind == YAML_LIST ? y->n : 1;
    *dst = (RecipeList){0};
    if (y->kind == YAML_MAP || !n || n > RECIPE_BUCKETS_MAX) return wrong(r, f, y, want);
    for (uint32_t i = 0; i < n; i++) {
        int64_t v;
        if (!integer(f, &items[i], &v)) return wrong(r, f, &items[i], want);
        if (i && v <= dst->items[i - 1]) return wrong(r, f, &items[i], want);
        dst->items[dst->n++] = (uint32_t)v;
    }
    return true;
}

static bool read_text(Reader *r, RecipeField f, const Yaml *y, const char **dst) {
    if (y->kind != YAML_SCALAR || !y->s.len) return wrong(r, f, y, "text");
    *dst = y->s.ptr;
    if (fields[f].kind == KIND_PATH && r->folder && y->s.ptr[0] != '/')
        *dst = path_join(r->arena, r->folder, y->s.ptr);
    return true;
}

// Steps through `choices`.
static bool next_choice(const char **cursor, Str *word) {
    const char *p = *cursor + strspn(*cursor, " ");
    size_t n = strcspn(p, " ");
    *cursor = p + n;
    *word = (Str){p, n};
    return n != 0;
}

static bool read_choice(Reader *r, RecipeField f, const Yaml *y, const char **dst) {
    const char *cursor = fields[f].choices, *listed[8];
    size_t n = 0;
    Str word;
    StrBuf want = {0};
    while (next_choice(&cursor, &word)) {
        if (y->kind == YAML_SCALAR && str_eq(y->s, word)) {
            buf_free(&want);
            *dst = y->s.ptr;
            return true;
        }
        listed[n] = arena_strndup(r->arena, word.ptr, word.len);
        buf_printf(&want, "%s`%s`", n ? ", " : "", listed[n]);
        n++;
    }
    const char *text = arena_printf(r->arena, "%s%s", n > 1 ? "one of " : "", buf_cstr(&want));
    buf_free(&want);
    wrong(r, f, y, text);
    if (y->kind == YAML_SCALAR) diag_did_you_mean(r->diags, y->s, listed, n);
    return false;
}

static bool read_value(Reader *r, RecipeField f, const Yaml *y) {
    void *dst = (char *)r->out + fields[f].offset;
    switch (fields[f].kind) {
    case KIND_PATH:
    case KIND_TEXT: return read_text(r, f, y, dst);
    case KIND_INT: return read_int(r, f, y, dst);
    case KIND_LIST: return read_list(r, f, y, dst);
    case KIND_CHOICE: return read_choice(r, f, y, dst);
    }
    return false;
}

static const char *all_names(Arena *a) {
    StrBuf b = {0};
    for (size_t i = 0; i < RECIPE_COUNT; i++) buf_printf(&b, "%s%s", i ? ", " : "", names[i]);
    const char *s = arena_strdup(a, buf_cstr(&b));
    buf_free(&b);
    return s;
}

static bool find_field(Reader *r, Str key, Span at, RecipeField *out) {
    for (size_t i = 0; i < RECIPE_COUNT; i++) {
        *out = (RecipeField)i;
        if (str_is(key, names[i])) return true;
    }
    diag_error(r->diags, E_RECIPE_KEY, at, "a recipe has no key `" STR_FMT "`; it has: %s",
               (int)MIN(key.len, 60), key.ptr, all_names(r->arena));
    diag_did_you_mean(r->diags, key, names, RECIPE_COUNT);
    return false;
}

static bool read_field(Reader *r, RecipeField f, const Yaml *y) {
    if (yaml_is_null(y)) return true;
    r->out->at[f] = yaml_span(r->src, y);
    r->out->given[f] = true;
    return read_value(r, f, y);
}

static bool read_file(Reader *r, const char *path) {
    const Yaml *root = yaml_read(r->arena, path, &r->src, r->diags);
    if (!root) return false;
    if (root->kind != YAML_MAP)
        return diag_error(r->diags, E_RECIPE_VALUE, yaml_span(r->src, root),
                          "a recipe is a map of `key: value` lines, not %s", yaml_kind_name(root));
    const char *slash = strrchr(path, '/');
    r->folder = slash ? arena_strndup(r->arena, path, (size_t)(slash - path) + (slash == path)) : NULL;
    bool ok = true;
    for (uint32_t i = 0; i < root->n; i++) {
        RecipeField f;
        const Yaml *key = &root->members[i].key;
        ok = find_field(r, key->s, yaml_span(r->src, key), &f) && read_field(r, f, &root->members[i].value) &&
             ok;
    }
    return ok;
}

// One `--set key=value`. The error's place is inside the option's own text.
static bool read_set(Reader *r, const char *text) {
    Source *src = ARENA_NEW(r->arena, Source);
    *src = (Source){"--set", str_of(text)};
    r->src = src, r->folder = NULL;
    const char *eq = strchr(text, '=');
    if (!eq)
        return diag_error(r->diags, E_OPTION_VALUE, (Span){src, 0, src->text.len},
                          "`--set` takes key=value, as in `--set context=8192`");
    size_t key_len = (size_t)(eq - text);
    RecipeField f;
    if (!find_field(r, (Str){text, key_len}, (Span){src, 0, key_len}, &f)) return false;
    const Yaml *value = yaml_parse(r->arena, src, key_len + 1, r->diags);
    if (!value) return false;
    if (value->kind == YAML_MAP && !value->n) return true; // nothing: the default, or the file's value
    return read_field(r, f, value);
}

static void set_defaults(Reader *r) {
    for (size_t i = 0; i < RECIPE_COUNT; i++) {
        if (!*fields[i].preset) continue;
        Source *src = ARENA_NEW(r->arena, Source);
        *src = (Source){"default", str_of(fields[i].preset)};
        r->src = src;
        const Yaml *y = yaml_parse(r->arena, src, 0, r->diags);
        CHECK(y && read_value(r, (RecipeField)i, y));
    }
}

bool recipe_read(Arena *a, const char *path, const OptList *sets, Recipe *out, Diags *d) {
    *out = (Recipe){0};
    Reader r = {.arena = a, .out = out, .diags = d};
    bool ok = true;
    set_defaults(&r);
    if (dir_exists(path)) {
        out->model = arena_strdup(a, path);
        out->given[RECIPE_model] = true;
    } else if (file_exists(path)) {
        out->path = arena_strdup(a, path);
        ok = read_file(&r, path);
    } else {
        ok = diag_error(d, E_FILE, SPAN_NONE, "no recipe file and no checkpoint folder is called `%s`", path);
    }
    for (size_t i = 0; sets && i < sets->n; i++) ok = read_set(&r, sets->items[i]) && ok;
    return ok;
}

void recipe_help(StrBuf *out) {
    for (size_t i = 0; i < RECIPE_COUNT; i++) {
        buf_printf(out, "  %-16s %s", fields[i].name, fields[i].help);
        if (*fields[i].choices) buf_printf(out, "; one of %s", fields[i].choices);
        if (*fields[i].preset) buf_printf(out, " (default %s)", fields[i].preset);
        buf_putc(out, '\n');
    }
}
