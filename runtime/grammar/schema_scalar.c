// Strings, and values that are listed one by one.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/dfa.h"
#include "runtime/grammar/regex.h"
#include "runtime/grammar/schema.h"

// ---- strings ---------------------------------------------------------------------------------------------
#define DATE                                                                                                 \
    "((0[0-9]{2}[1-9]|0[0-9][1-9]0|0[1-9]00|[1-9][0-9]{3})-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|"      \
    "(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|"                                          \
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
#define TIME     "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define SPAN     "([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S)"
#define LABEL    "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define BYTE     "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define HEX4     "[0-9a-fA-F]{1,4}"
#define URI_CHAR "([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"

static const struct {
    const char *name, *pattern;
} formats[] = {
#define F(name, pattern) {name, pattern},
#include "runtime/grammar/formats.def"
#undef F
};

static const Dfa *dfa_of_pattern(Schema *s, Node pattern) {
    if (!json_is(pattern.json, JSON_STRING)) {
        schema_fail(s, pattern, "must be a string");
        return NULL;
    }
    const char *where = arena_printf(&s->b->arena, "schema %s: ", pattern.at);
    regex_push(s->b, pattern.json->s, REGEX_ANYWHERE, true, where);
    return dfa_pop(s->b);
}

static const Dfa *dfa_of_format(Schema *s, Node format) {
    for (size_t i = 0; i < COUNT_OF(formats) && json_is(format.json, JSON_STRING); i++) {
        if (!str_is(format.json->s, formats[i].name)) continue;
        regex_push(s->b, str_of(formats[i].pattern), REGEX_WHOLE, true, "");
        return dfa_pop(s->b);
    }
    StrBuf names = {0};
    for (size_t i = 0; i < COUNT_OF(formats); i++) buf_printf(&names, "%s%s", i ? ", " : "", formats[i].name);
    schema_fail(s, format, "unknown format; supported are %s", buf_cstr(&names));
    buf_free(&names);
    return NULL;
}

static const Dfa *dfa_of_length(Schema *s, Node at, uint32_t least, uint32_t most) {
    if (least > GRAMMAR_REPEAT_MAX || (most != NFA_NO_END && most > GRAMMAR_REPEAT_MAX)) {
        build_fail(s->b, E_LIMIT,
                   "schema %s: minLength and maxLength beside pattern or format are at most %d", at.at,
                   GRAMMAR_REPEAT_MAX);
        return NULL;
    }
    nfa_any_char(s->b, true);
    nfa_repeat(s->b, least, most);
    return dfa_pop(s->b);
}

static const Dfa *both(Schema *s, const Dfa *x, const Dfa *y) {
    return x && y ? dfa_product(s->b, x, y, DFA_BOTH) : y;
}

static void length_bounds(Schema *s, const Conj *c, uint32_t *least, uint32_t *most) {
    *least = 0;
    *most = NFA_NO_END;
    for (uint32_t i = 0; i < c->n; i++) {
        *least = MAX(*least, node_count(s, c->nodes[i], "minLength", 0));
        *most = MIN(*most, node_count(s, c->nodes[i], "maxLength", NFA_NO_END));
    }
}

const Dfa *schema_string_dfa(Schema *s, const Conj *c) {
    const Dfa *d = NULL;
    uint32_t least, most;
    for (uint32_t i = 0; i < c->n && !s->b->failed; i++) {
        Node pattern = node_member(s, c->nodes[i], "pattern"), format = node_member(s, c->nodes[i], "format");
        if (pattern.json) d = both(s, d, dfa_of_pattern(s, pattern));
        if (format.json) d = both(s, d, dfa_of_format(s, format));
    }
    length_bounds(s, c, &least, &most);
    if (d && (least || most != NFA_NO_END)) d = both(s, d, dfa_of_length(s, c->nodes[0], least, most));
    return d;
}

void schema_push_string(Schema *s, const Conj *c) {
    uint32_t least, most;
    length_bounds(s, c, &least, &most);
    const Dfa *d = schema_string_dfa(s, c);
    if (s->b->failed) return;
    if (least > most) {
        nfa_never(s->b);
    } else if (!d) {
        json_push_string(s->b, &s->rules, least, most);
    } else {
        nfa_bytes(s->b, STR("\""));
        nfa_dfa(s->b, d);
        nfa_bytes(s->b, STR("\""));
        nfa_cat(s->b, 3);
    }
}

// ---- listed values ---------------------------------------------------------------------------------------
// Keywords that may stand beside a list. What `format` says about a listed value is taken as true.
static bool goes_with_list(Str keyword) {
    static const char *const names[] = {"enum",  "const", "type",  "nullable", "$ref",
                                        "allOf", "anyOf", "oneOf", "format"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (str_is(keyword, names[i])) return true;
    return false;
}

bool schema_is_listed(const Conj *c) {
    for (uint32_t i = 0; i < c->n; i++)
        if (json_get(c->nodes[i].json, "enum") || json_get(c->nodes[i].json, "const")) return true;
    return false;
}

typedef struct {
    const Json *container;
    uint32_t i;
} Level;

static void write_scalar(StrBuf *out, const Json *j) {
    switch (j->kind) {
    case JSON_NULL: buf_puts(out, "null"); return;
    case JSON_BOOL: buf_puts(out, j->boolean ? "true" : "false"); return;
    case JSON_STRING: json_write_string(out, j->s); return;
    default: buf_str(out, j->s);
    }
}

// Where a space may stand in the text of a value; JSON has no such byte.
#define GAP '\x01'

// Compact text of a value, with the gaps. json_parse bounds the depth, so the levels fit.
static void write_json(StrBuf *out, const Json *j) {
    enum { LEVELS = 1024 };
    Level *levels = xmalloc(LEVELS * sizeof *levels);
    uint32_t n = 0;
    for (const Json *next = j; next || n;) {
        if (next && (next->kind == JSON_ARRAY || next->kind == JSON_OBJECT)) {
            CHECK(n < LEVELS);
            buf_putc(out, next->kind == JSON_ARRAY ? '[' : '{');
            levels[n++] = (Level){next, 0};
        } else if (next) {
            write_scalar(out, next);
        }
        next = NULL;
        if (!n) break;
        Level *top = &levels[n - 1];
        bool object = top->container->kind == JSON_OBJECT;
        if (top->i == top->container->n) {
            buf_putc(out, object ? '}' : ']');
            n--;
            continue;
        }
        if (top->i) buf_printf(out, ",%c", GAP);
        if (object) {
            json_write_string(out, top->container->members[top->i].key);
            buf_printf(out, ":%c", GAP);
        }
        next = object ? &top->container->members[top->i].value : &top->container->items[top->i];
        top->i++;
    }
    free(levels);
}

static void push_value(Schema *s, Str text) {
    uint32_t n = 0;
    for (const char *gap; (gap = memchr(text.ptr, GAP, text.len)); n += 2) {
        nfa_bytes(s->b, str_sub(text, 0, (size_t)(gap - text.ptr)));
        nfa_bytes(s->b, STR(" "));
        nfa_repeat(s->b, 0, 1);
        text = str_from(text, (size_t)(gap - text.ptr) + 1);
    }
    nfa_bytes(s->b, text);
    nfa_cat(s->b, n + 1);
}

static uint32_t type_of_value(const Json *j) {
    static const uint32_t types[] = {
        [JSON_NULL] = TYPE_NULL,    [JSON_BOOL] = TYPE_BOOLEAN,  [JSON_INT] = TYPE_INTEGER,
        [JSON_REAL] = TYPE_NUMBER,  [JSON_STRING] = TYPE_STRING, [JSON_ARRAY] = TYPE_ARRAY,
        [JSON_OBJECT] = TYPE_OBJECT};
    return types[j->kind];
}

static bool has_text(const Json *list, Str text) {
    StrBuf t = {0};
    bool found = false;
    for (uint32_t i = 0; i < list->n && !found; i++) {
        t.len = 0;
        write_json(&t, &list->items[i]);
        found = str_eq(buf_view(&t), text);
    }
    buf_free(&t);
    return found;
}

// Every list of the Conj but the one that it was taken from.
static bool others_have(const Conj *c, const Json *from, Str text) {
    for (uint32_t i = 0; i < c->n; i++) {
        const Json *list = json_get(c->nodes[i].json, "enum"), *one = json_get(c->nodes[i].json, "const");
        if (list && list != from && !has_text(list, text)) return false;
        if (one && !has_text(&(Json){.kind = JSON_ARRAY, .n = 1, .items = one}, text)) return false;
    }
    return true;
}

static bool check_listed(Schema *s, const Conj *c) {
    for (uint32_t i = 0; i < c->n; i++) {
        Node n = c->nodes[i], list = node_member(s, n, "enum");
        if (list.json && (!json_is(list.json, JSON_ARRAY) || !list.json->n))
            return schema_fail(s, list, "must be a list of at least one value");
        for (uint32_t k = 0; k < n.json->n; k++) {
            Str key = n.json->members[k].key;
            if (keyword_about(key) != ABOUT_NOTE && !goes_with_list(key))
                return schema_fail(s, node_in(s, n, key, NULL),
                                   "keyword `" STR_FMT "` beside enum or const is not supported",
                                   STR_ARG(key));
        }
    }
    return true;
}

static const Json *first_list(const Conj *c, Json *single) {
    for (uint32_t i = 0; i < c->n; i++) {
        const Json *list = json_get(c->nodes[i].json, "enum"), *one = json_get(c->nodes[i].json, "const");
        if (list) return list;
        if (!one) continue;
        *single = (Json){.kind = JSON_ARRAY, .n = 1, .items = one};
        return single;
    }
    CHECK(false);
}

void schema_push_listed(Schema *s, const Conj *c, uint32_t types) {
    Json single;
    StrBuf text = {0};
    size_t n = 0;
    if (!check_listed(s, c)) return;
    const Json *list = first_list(c, &single);
    for (uint32_t i = 0; i < list->n && !s->b->failed; i++) {
        if (!(type_of_value(&list->items[i]) & types)) continue;
        text.len = 0;
        write_json(&text, &list->items[i]);
        build_work(s->b, c->n > 1 ? 16 * list->n : 1);
        if (!others_have(c, list, buf_view(&text))) continue;
        push_value(s, buf_view(&text));
        n++;
    }
    buf_free(&text);
    if (n)
        nfa_alt(s->b, n);
    else
        nfa_never(s->b);
}
