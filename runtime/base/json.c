#include "runtime/base/json.h"

#include <stdlib.h>
#include <yajl/yajl_parse.h>

#include "runtime/base/num.h"

enum { DEPTH_DEFAULT = 64, DEPTH_CAP = 1024, NODES_DEFAULT = 16 << 20, HASH_FROM = 12 };

typedef struct {
    JsonKind kind;
    size_t first; // index of the first child in the pending stack
    size_t begin;
    JsonMember own; // the member this container will become
} Frame;

typedef struct {
    Arena *arena;
    const Source *src;
    Diags *diags;
    JsonLimits limits;
    yajl_handle yajl;
    JsonMember *pending; // children of all open containers, innermost last
    size_t n_pending, cap_pending, n_nodes;
    Frame frames[DEPTH_CAP];
    uint32_t depth;
    Str key; // waiting for its value
    size_t key_begin;
    bool failed;
} Parser;

static int fail(Parser *p, size_t at, const char *why) {
    if (!p->failed) diag_error(p->diags, E_JSON, (Span){p->src, at, at + 1}, "%s", why);
    p->failed = true;
    return 0;
}

static size_t here(Parser *p) { return yajl_get_bytes_consumed(p->yajl); }

static int push(Parser *p, Json value) {
    if (++p->n_nodes > p->limits.nodes_max) return fail(p, value.begin, "too many values");
    if (p->n_pending == p->cap_pending) {
        p->cap_pending = MAX(p->cap_pending * 2, (size_t)64);
        p->pending = xrealloc(p->pending, p->cap_pending, sizeof *p->pending);
    }
    p->pending[p->n_pending++] = (JsonMember){.key = p->key, .key_begin = p->key_begin, .value = value};
    p->key = (Str){0};
    return 1;
}

static Json scalar(Parser *p, JsonKind kind, size_t width) {
    size_t end = here(p);
    return (Json){.kind = kind, .begin = end >= width ? end - width : 0, .end = end};
}

static int on_null(void *ctx) { return push(ctx, scalar(ctx, JSON_NULL, 4)); }

static int on_boolean(void *ctx, int value) {
    Json j = scalar(ctx, JSON_BOOL, value ? 4 : 5);
    j.boolean = value;
    return push(ctx, j);
}

static int on_number(void *ctx, const char *text, size_t len) {
    Parser *p = ctx;
    Str s = str_dup(p->arena, (Str){text, len});
    bool is_int = !memchr(s.ptr, '.', len) && !memchr(s.ptr, 'e', len) && !memchr(s.ptr, 'E', len);
    Json j = scalar(p, is_int ? JSON_INT : JSON_REAL, len);
    j.s = s;
    if (is_int)
        j.big = !str_to_i64(s, &j.i);
    else
        j.real = strtod(s.ptr, NULL);
    return push(p, j);
}

// yajl reports a string after its closing quote; the opening one is found from there, escapes included.
static size_t string_begin(Parser *p, size_t end) {
    const char *t = p->src->text.ptr;
    for (size_t i = end - 1; i-- > 0;) {
        if (t[i] != '"') continue;
        size_t slashes = 0;
        while (slashes < i && t[i - 1 - slashes] == '\\') slashes++;
        if (slashes % 2 == 0) return i;
    }
    return 0;
}

static int on_string(void *ctx, const unsigned char *text, size_t len) {
    Parser *p = ctx;
    Json j = scalar(p, JSON_STRING, 0);
    j.s = str_dup(p->arena, (Str){(const char *)text, len});
    j.begin = string_begin(p, j.end);
    return push(p, j);
}

static int on_key(void *ctx, const unsigned char *text, size_t len) {
    Parser *p = ctx;
    p->key = str_dup(p->arena, (Str){(const char *)text, len});
    p->key_begin = string_begin(p, here(p));
    return 1;
}

static int open_container(Parser *p, JsonKind kind) {
    size_t at = here(p) - 1;
    if (p->depth >= p->limits.depth_max) return fail(p, at, "nested too deeply");
    p->frames[p->depth++] = (Frame){
        .kind = kind, .first = p->n_pending, .begin = at, .own = {.key = p->key, .key_begin = p->key_begin}};
    p->key = (Str){0};
    return 1;
}

static int on_start_map(void *ctx) { return open_container(ctx, JSON_OBJECT); }
static int on_start_array(void *ctx) { return open_container(ctx, JSON_ARRAY); }

// Earlier member of m[0..n) with the same key, found through an open-addressing table for large objects.
typedef struct {
    uint32_t *slots; // index + 1, 0 is free
    size_t mask;
} KeyTable;

static JsonMember *find_or_add(KeyTable *t, JsonMember *m, size_t n, Str key) {
    if (!t->slots) {
        for (size_t i = 0; i < n; i++)
            if (str_eq(m[i].key, key)) return &m[i];
        return NULL;
    }
    size_t at = str_hash(key) & t->mask;
    for (; t->slots[at]; at = (at + 1) & t->mask)
        if (str_eq(m[t->slots[at] - 1].key, key)) return &m[t->slots[at] - 1];
    t->slots[at] = (uint32_t)n + 1;
    return NULL;
}

static bool members_unique(Parser *p, JsonMember *m, size_t *n) {
    KeyTable table = {0};
    size_t kept = 0;
    if (*n > HASH_FROM) {
        size_t cap = 1;
        while (cap < *n * 2) cap *= 2;
        table = (KeyTable){calloc(cap, sizeof(uint32_t)), cap - 1};
        CHECK(table.slots);
    }
    for (size_t i = 0; i < *n; i++) {
        JsonMember *old = find_or_add(&table, m, kept, m[i].key);
        if (!old) {
            m[kept++] = m[i];
        } else if (p->limits.dup == JSON_DUP_LAST) {
            old->value = m[i].value;
        } else {
            diag_error(p->diags, E_JSON, (Span){p->src, m[i].key_begin, m[i].key_begin + m[i].key.len + 2},
                       "key \"" STR_FMT "\" appears twice", (int)MIN(m[i].key.len, 200), m[i].key.ptr);
            p->failed = true;
            break;
        }
    }
    free(table.slots);
    *n = kept;
    return !p->failed;
}

static int close_container(Parser *p) {
    Frame f = p->frames[--p->depth];
    size_t n = p->n_pending - f.first;
    JsonMember *children = n ? p->pending + f.first : NULL;
    Json j = {.kind = f.kind, .begin = f.begin, .end = here(p)};
    if (f.kind == JSON_OBJECT) {
        if (!members_unique(p, children, &n)) return 0;
        JsonMember *m = ARENA_ARRAY(p->arena, JsonMember, n);
        if (n) memcpy(m, children, n * sizeof *m);
        j.members = m;
    } else {
        Json *items = ARENA_ARRAY(p->arena, Json, n);
        for (size_t i = 0; i < n; i++) items[i] = children[i].value;
        j.items = items;
    }
    j.n = (uint32_t)n;
    p->n_pending = f.first;
    p->key = f.own.key;
    p->key_begin = f.own.key_begin;
    return push(p, j);
}

static int on_end(void *ctx) { return close_container(ctx); }

static const yajl_callbacks callbacks = {.yajl_null = on_null,
                                         .yajl_boolean = on_boolean,
                                         .yajl_number = on_number,
                                         .yajl_string = on_string,
                                         .yajl_start_map = on_start_map,
                                         .yajl_map_key = on_key,
                                         .yajl_end_map = on_end,
                                         .yajl_start_array = on_start_array,
                                         .yajl_end_array = on_end};

static void report_yajl(Parser *p) {
    unsigned char *text =
        yajl_get_error(p->yajl, 0, (const unsigned char *)p->src->text.ptr, p->src->text.len);
    size_t at = here(p), len = strcspn((const char *)text, "\n");
    Str msg = {(const char *)text, len};
    for (int i = 0; i < 2;
         i++) { // "lexical error: why" and "parse error: why" say more without the first half
        const char *colon = memchr(msg.ptr, ':', msg.len);
        if (i == 0 && colon && colon[1] == ' ') msg = str_from(msg, (size_t)(colon - msg.ptr) + 2);
    }
    diag_error(p->diags, E_JSON, (Span){p->src, at, at + 1}, "malformed JSON: " STR_FMT, STR_ARG(msg));
    yajl_free_error(p->yajl, text);
}

const Json *json_parse(Arena *a, const Source *src, JsonLimits limits, Diags *d) {
    Parser *p = xmalloc(sizeof *p);
    memset(p, 0, sizeof *p);
    p->arena = a, p->src = src, p->diags = d, p->limits = limits;
    if (!p->limits.depth_max) p->limits.depth_max = DEPTH_DEFAULT;
    if (!p->limits.nodes_max) p->limits.nodes_max = NODES_DEFAULT;
    CHECK(p->limits.depth_max <= DEPTH_CAP);
    p->yajl = yajl_alloc(&callbacks, NULL, p);
    CHECK(p->yajl);
    yajl_status st = yajl_parse(p->yajl, (const unsigned char *)src->text.ptr, src->text.len);
    if (st == yajl_status_ok) st = yajl_complete_parse(p->yajl);
    Json *root = NULL;
    if (st == yajl_status_ok && !p->failed && p->n_pending == 1) {
        root = ARENA_NEW(a, Json);
        *root = p->pending[0].value;
    } else if (st != yajl_status_ok && !p->failed) {
        report_yajl(p);
    } else if (!p->failed) {
        fail(p, 0, "no JSON value");
    }
    yajl_free(p->yajl);
    free(p->pending);
    free(p);
    return root;
}

const Json *json_get(const Json *object, const char *key) {
    if (!json_is(object, JSON_OBJECT)) return NULL;
    for (uint32_t i = 0; i < object->n; i++)
        if (str_is(object->members[i].key, key)) return &object->members[i].value;
    return NULL;
}

double json_number(const Json *j) {
    if (j->kind == JSON_REAL) return j->real;
    return j->big ? strtod(j->s.ptr, NULL) : (double)j->i;
}

const char *json_kind_name(JsonKind kind) {
    static const char *const names[] = {"null",     "a boolean", "an integer", "a number",
                                        "a string", "a list",    "an object"};
    return names[kind];
}

void json_write_string(StrBuf *out, Str s) {
    buf_putc(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        switch (c) {
        case '"': buf_puts(out, "\\\""); break;
        case '\\': buf_puts(out, "\\\\"); break;
        case '\n': buf_puts(out, "\\n"); break;
        case '\r': buf_puts(out, "\\r"); break;
        case '\t': buf_puts(out, "\\t"); break;
        case '\b': buf_puts(out, "\\b"); break;
        case '\f': buf_puts(out, "\\f"); break;
        default:
            if (c < 0x20)
                buf_printf(out, "\\u%04x", c);
            else
                buf_putc(out, (char)c);
        }
    }
    buf_putc(out, '"');
}
