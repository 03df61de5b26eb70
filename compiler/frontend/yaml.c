#include "compiler/frontend/yaml.h"

#include <stdlib.h>
#include <yaml.h>

#include "runtime/base/file.h"
#include "runtime/base/num.h"

typedef struct {
    YamlKind kind;
    size_t first; // index of the first child in the pending stack
    size_t begin;
    Yaml key; // under which this container will stand
} Frame;

typedef struct {
    Arena *arena;
    const Source *src;
    Diags *diags;
    size_t from;         // byte offset where the YAML text begins
    YamlMember *pending; // children of all open containers, innermost last; keys unused in lists
    size_t n_pending, cap_pending;
    Frame frames[YAML_DEPTH_MAX];
    uint32_t depth, n_documents;
    Yaml key; // read, waits for its value
    bool has_key;
    size_t seen_chars, seen_bytes; // a character index of libyaml and its byte offset, to go on from
} Parser;

static bool fail(Parser *p, size_t begin, size_t end, const char *why) {
    return diag_error(p->diags, E_YAML, (Span){p->src, begin, MAX(end, begin + 1)}, "%s", why);
}

// libyaml's marks count characters; spans count bytes.
static size_t byte_at(Parser *p, size_t chars) {
    if (chars < p->seen_chars) p->seen_chars = 0, p->seen_bytes = p->from;
    Str t = p->src->text;
    while (p->seen_chars < chars && p->seen_bytes < t.len) {
        do p->seen_bytes++;
        while (p->seen_bytes < t.len && ((unsigned char)t.ptr[p->seen_bytes] & 0xC0) == 0x80);
        p->seen_chars++;
    }
    return p->seen_bytes;
}

static bool check_key(Parser *p, const Yaml *key) {
    if (key->kind != YAML_SCALAR) return fail(p, key->begin, key->end, "a key must be plain text");
    if (key->plain && str_is(key->s, "<<"))
        return fail(p, key->begin, key->end, "merge keys (`<<`) are not supported: write the fields out");
    for (size_t i = p->frames[p->depth - 1].first; i < p->n_pending; i++)
        if (str_eq(p->pending[i].key.s, key->s))
            return diag_error(p->diags, E_YAML, yaml_span(p->src, key), "key `" STR_FMT "` appears twice",
                              (int)MIN(key->s.len, 200), key->s.ptr);
    return true;
}

// A finished value becomes a key, a member or an item of the innermost open container.
static bool push(Parser *p, Yaml value) {
    bool in_map = p->depth && p->frames[p->depth - 1].kind == YAML_MAP;
    if (in_map && !p->has_key) {
        if (!check_key(p, &value)) return false;
        p->key = value, p->has_key = true;
        return true;
    }
    if (p->n_pending == p->cap_pending) {
        p->cap_pending = MAX(p->cap_pending * 2, (size_t)64);
        p->pending = xrealloc(p->pending, p->cap_pending, sizeof *p->pending);
    }
    p->pending[p->n_pending++] = (YamlMember){.key = p->key, .value = value};
    p->has_key = false;
    return true;
}

static bool on_scalar(Parser *p, const yaml_event_t *e, size_t begin, size_t end) {
    Yaml y = {.kind = YAML_SCALAR, .begin = begin, .end = end};
    Str s = {(const char *)e->data.scalar.value, e->data.scalar.length};
    if (s.len && memchr(s.ptr, 0, s.len)) return fail(p, begin, end, "text with a NUL character");
    y.plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    y.s = str_dup(p->arena, s);
    return push(p, y);
}

static bool on_start(Parser *p, YamlKind kind, size_t begin) {
    if (p->depth == YAML_DEPTH_MAX)
        return diag_error(p->diags, E_YAML, (Span){p->src, begin, begin + 1},
                          "nested more than %d levels deep", YAML_DEPTH_MAX);
    if (p->depth && p->frames[p->depth - 1].kind == YAML_MAP && !p->has_key)
        return fail(p, begin, begin + 1, "a key must be plain text");
    p->frames[p->depth++] = (Frame){.kind = kind, .first = p->n_pending, .begin = begin, .key = p->key};
    p->has_key = false;
    return true;
}

static bool on_end(Parser *p, size_t end) {
    Frame f = p->frames[--p->depth];
    size_t n = p->n_pending - f.first;
    const YamlMember *children = n ? p->pending + f.first : NULL;
    Yaml y = {.kind = f.kind, .n = (uint32_t)n, .begin = f.begin, .end = end};
    if (n) y.end = MAX(children[n - 1].value.end, f.begin + 1);
    if (f.kind == YAML_MAP) {
        YamlMember *members = ARENA_ARRAY(p->arena, YamlMember, n);
        if (n) memcpy(members, children, n * sizeof *members);
        y.members = members;
    } else {
        Yaml *items = ARENA_ARRAY(p->arena, Yaml, n);
        for (size_t i = 0; i < n; i++) items[i] = children[i].value;
        y.items = items;
    }
    p->n_pending = f.first;
    p->key = f.key;
    p->has_key = p->depth && p->frames[p->depth - 1].kind == YAML_MAP;
    return push(p, y);
}

static bool on_document(Parser *p, const yaml_event_t *e, size_t begin) {
    if (p->n_documents++) return fail(p, begin, begin + 3, "more than one document");
    if (e->data.document_start.version_directive ||
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end)
        return fail(p, begin, begin + 1, "directives (`%`) are not supported");
    return true;
}

static bool refuse_decorated(Parser *p, const yaml_char_t *anchor, const yaml_char_t *tag, size_t begin,
                             size_t end) {
    if (anchor) return fail(p, begin, end, "anchors (`&`) are not supported: write the value out");
    if (tag) return fail(p, begin, end, "tags (`!`) are not supported");
    return true;
}

static bool on_event(Parser *p, const yaml_event_t *e) {
    size_t begin = byte_at(p, e->start_mark.index), end = byte_at(p, e->end_mark.index);
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT: return on_document(p, e, begin);
    case YAML_ALIAS_EVENT: return fail(p, begin, end, "aliases (`*`) are not supported: write the value out");
    case YAML_SCALAR_EVENT:
        return refuse_decorated(p, e->data.scalar.anchor, e->data.scalar.tag, begin, end) &&
               on_scalar(p, e, begin, end);
    case YAML_SEQUENCE_START_EVENT:
        return refuse_decorated(p, e->data.sequence_start.anchor, e->data.sequence_start.tag, begin, end) &&
               on_start(p, YAML_LIST, begin);
    case YAML_MAPPING_START_EVENT:
        return refuse_decorated(p, e->data.mapping_start.anchor, e->data.mapping_start.tag, begin, end) &&
               on_start(p, YAML_MAP, begin);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: return on_end(p, end);
    default: return true;
    }
}

static bool report_libyaml(Parser *p, const yaml_parser_t *y) {
    if (y->error == YAML_MEMORY_ERROR) check_failed("memory for YAML", __FILE__, __LINE__);
    size_t at =
        y->error == YAML_READER_ERROR ? p->from + y->problem_offset : byte_at(p, y->problem_mark.index);
    at = MIN(at, p->src->text.len);
    return diag_error(p->diags, E_YAML, (Span){p->src, at, at + 1}, "malformed YAML: %s%s%s",
                      y->problem ? y->problem : "unreadable", y->context ? " " : "",
                      y->context ? y->context : "");
}

static bool run(Parser *p, yaml_parser_t *y) {
    for (int n = 0;; n++) {
        yaml_event_t e;
        if (!yaml_parser_parse(y, &e)) return report_libyaml(p, y);
        bool over = e.type == YAML_STREAM_END_EVENT, ok = true;
        if (n >= YAML_EVENTS_MAX) {
            size_t at = byte_at(p, e.start_mark.index);
            ok = fail(p, at, at + 1, "more than 10000 values");
        }
        ok = ok && on_event(p, &e);
        yaml_event_delete(&e);
        if (over || !ok) return ok;
    }
}

const Yaml *yaml_parse(Arena *a, const Source *src, size_t from, Diags *d) {
    Yaml *root = ARENA_NEW(a, Yaml);
    *root = (Yaml){.kind = YAML_MAP, .begin = from, .end = from};
    Parser p = {.arena = a, .src = src, .diags = d, .from = from, .seen_bytes = from};
    yaml_parser_t y;
    if (src->text.len - from > YAML_BYTES_MAX) {
        diag_error(d, E_LIMIT, SPAN_FILE(src), "%zu bytes of YAML; at most %d are read", src->text.len - from,
                   YAML_BYTES_MAX);
        return NULL;
    }
    CHECK(yaml_parser_initialize(&y));
    yaml_parser_set_encoding(&y, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&y, (const unsigned char *)src->text.ptr + from, src->text.len - from);
    bool ok = run(&p, &y);
    if (ok && p.n_pending && !yaml_is_null(&p.pending[0].value)) *root = p.pending[0].value;
    yaml_parser_delete(&y);
    free(p.pending);
    return ok ? root : NULL;
}

const Yaml *yaml_read(Arena *a, const char *path, const Source **src, Diags *d) {
    Source *s = ARENA_NEW(a, Source);
    s->name = arena_strdup(a, path);
    *src = s;
    Err e = {0};
    if (!file_read(a, path, YAML_BYTES_MAX, &s->text, &e)) {
        diag_err(d, SPAN_NONE, &e);
        return NULL;
    }
    return yaml_parse(a, s, 0, d);
}

const YamlMember *yaml_find(const Yaml *map, const char *key) {
    if (!map || map->kind != YAML_MAP) return NULL;
    for (uint32_t i = 0; i < map->n; i++)
        if (str_is(map->members[i].key.s, key)) return &map->members[i];
    return NULL;
}

const Yaml *yaml_get(const Yaml *map, const char *key) {
    const YamlMember *m = yaml_find(map, key);
    return m ? &m->value : NULL;
}

bool yaml_is_null(const Yaml *y) {
    return y->kind == YAML_SCALAR && y->plain && (!y->s.len || str_is(y->s, "null") || str_is(y->s, "~"));
}

const char *yaml_kind_name(const Yaml *y) {
    if (y->kind == YAML_LIST) return "a list";
    if (y->kind == YAML_MAP) return "a map";
    return yaml_is_null(y) ? "nothing" : "text";
}
