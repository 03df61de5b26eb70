#include "runtime/server/json_build.h"

#include "runtime/base/num.h"

static void *grown(Arena *a, void *old, uint32_t n, uint32_t *cap, size_t size) {
    if (n < *cap) return old;
    uint32_t more = MAX(*cap * 2, 8u);
    void *p = arena_array(a, more, size);
    if (n) memcpy(p, old, n * size);
    *cap = more;
    return p;
}

void json_put(JsonObjectBuild *b, Str key, Json value) {
    for (uint32_t i = 0; i < b->n; i++)
        if (str_eq(b->members[i].key, key)) {
            b->members[i].value = value;
            return;
        }
    b->members = grown(b->arena, b->members, b->n, &b->cap, sizeof *b->members);
    b->members[b->n++] = (JsonMember){.key = key, .value = value};
}

Json json_built(const JsonObjectBuild *b) {
    return (Json){.kind = JSON_OBJECT, .n = b->n, .members = b->members};
}

Json *json_append(JsonArrayBuild *b, Json value) {
    b->items = grown(b->arena, b->items, b->n, &b->cap, sizeof *b->items);
    b->items[b->n] = value;
    return &b->items[b->n++];
}

Json json_built_array(const JsonArrayBuild *b) {
    return (Json){.kind = JSON_ARRAY, .n = b->n, .items = b->items};
}

const Json *json_keep(Arena *a, Json value) {
    Json *j = ARENA_NEW(a, Json);
    *j = value;
    return j;
}

// Depth is bounded by that of parsed JSON, of which these trees are made.
void json_write(StrBuf *out, const Json *j) {
    switch (j->kind) {
    case JSON_NULL: buf_puts(out, "null"); break;
    case JSON_BOOL: buf_puts(out, j->boolean ? "true" : "false"); break;
    case JSON_INT:
    case JSON_REAL: buf_str(out, j->s); break;
    case JSON_STRING: json_write_string(out, j->s); break;
    case JSON_ARRAY:
        buf_putc(out, '[');
        for (uint32_t i = 0; i < j->n; i++) {
            if (i) buf_puts(out, ", ");
            json_write(out, &j->items[i]);
        }
        buf_putc(out, ']');
        break;
    case JSON_OBJECT:
        buf_putc(out, '{');
        for (uint32_t i = 0; i < j->n; i++) {
            if (i) buf_puts(out, ", ");
            json_write_string(out, j->members[i].key);
            buf_puts(out, ": ");
            json_write(out, &j->members[i].value);
        }
        buf_putc(out, '}');
        break;
    }
}
