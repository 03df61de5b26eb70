#include "runtime/grammar/schema.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/automaton.h"

// A rule: a value, or with a key a property.
struct SchemaTask {
    Conj value;
    Str key; // ptr NULL: none
    uint32_t rule;
    SchemaTask *next;
};

bool schema_fail(Schema *s, Node n, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *why = arena_vprintf(&s->b->arena, fmt, ap);
    va_end(ap);
    return build_fail(s->b, E_GRAMMAR, "schema %s: %s", *n.at ? n.at : "/", why);
}

void conj_add(Schema *s, Conj *c, Node n) {
    if (c->n == c->cap) {
        uint32_t cap = MAX(c->cap * 2, 4u);
        Node *more = ARENA_ARRAY(&s->b->arena, Node, cap);
        if (c->n) memcpy(more, c->nodes, c->n * sizeof *more);
        c->nodes = more;
        c->cap = cap;
    }
    c->nodes[c->n++] = n;
}

Node node_in(Schema *s, Node parent, Str key, const Json *json) {
    StrBuf at = {0};
    buf_printf(&at, "%s/", parent.at);
    for (size_t i = 0; i < key.len; i++) {
        if (key.ptr[i] == '~' || key.ptr[i] == '/')
            buf_puts(&at, key.ptr[i] == '~' ? "~0" : "~1");
        else
            buf_putc(&at, key.ptr[i]);
    }
    Node n = {json, parent.root, arena_strndup(&s->b->arena, at.ptr, at.len)};
    buf_free(&at);
    return n;
}

Node node_member(Schema *s, Node parent, const char *key) {
    const Json *j = json_get(parent.json, key);
    return j ? node_in(s, parent, str_of(key), j) : (Node){0};
}

Node node_item(Schema *s, Node parent, uint32_t i) {
    return (Node){&parent.json->items[i], parent.root, arena_printf(&s->b->arena, "%s/%u", parent.at, i)};
}

uint32_t node_count(Schema *s, Node n, const char *key, uint32_t absent) {
    Node c = node_member(s, n, key);
    if (!c.json) return absent;
    double v = json_is(c.json, JSON_INT) || json_is(c.json, JSON_REAL) ? json_number(c.json) : -1;
    if (v < 0 || v != (double)(uint64_t)MIN(v, 1e18)) {
        schema_fail(s, c, "must be a non-negative integer");
        return absent;
    }
    return v > 1e9 ? 1000000000u : (uint32_t)v;
}

// ---- one list of schemas ---------------------------------------------------------------------------------
static uint32_t type_of_name(Schema *s, Node at, const Json *name) {
    static const struct {
        const char *name;
        uint32_t type;
    } types[] = {{"null", TYPE_NULL},
                 {"boolean", TYPE_BOOLEAN},
                 {"string", TYPE_STRING},
                 {"integer", TYPE_INTEGER},
                 {"number", TYPE_NUMBER | TYPE_INTEGER},
                 {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}};
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (json_is(name, JSON_STRING) && str_is(name->s, types[i].name)) return types[i].type;
    schema_fail(s, at, "must be null, boolean, string, integer, number, array, object, or a list of them");
    return 0;
}

static uint32_t declared_types(Schema *s, Node n) {
    Node type = node_member(s, n, "type");
    uint32_t types = 0;
    if (!type.json) return TYPE_EVERY;
    if (!json_is(type.json, JSON_ARRAY)) types = type_of_name(s, type, type.json);
    for (uint32_t i = 0; json_is(type.json, JSON_ARRAY) && i < type.json->n; i++)
        types |= type_of_name(s, node_item(s, type, i), &type.json->items[i]);
    const Json *nullable = json_get(n.json, "nullable");
    return json_is(nullable, JSON_BOOL) && nullable->boolean ? types | TYPE_NULL : types;
}

// What keywords about one type mean where no `type` stands.
static uint32_t implied_types(Node n) {
    static const uint32_t of[] = {[ABOUT_STRING] = TYPE_STRING,
                                  [ABOUT_NUMBER] = TYPE_NUMBER | TYPE_INTEGER,
                                  [ABOUT_ARRAY] = TYPE_ARRAY,
                                  [ABOUT_OBJECT] = TYPE_OBJECT};
    uint32_t types = 0;
    for (uint32_t i = 0; i < n.json->n; i++) {
        About about = keyword_about(n.json->members[i].key);
        if (about > ABOUT_ANY && about < ABOUT_NOTE) types |= of[about];
    }
    return types ? types : TYPE_EVERY;
}

static uint32_t types_of(Schema *s, const Conj *c) {
    uint32_t types = TYPE_EVERY, implied = TYPE_EVERY;
    bool declared = false;
    for (uint32_t i = 0; i < c->n; i++) {
        types &= declared_types(s, c->nodes[i]);
        declared |= json_get(c->nodes[i].json, "type") != NULL;
        implied &= implied_types(c->nodes[i]);
    }
    if (!declared && implied && !schema_is_listed(c)) types = implied;
    return types;
}

static bool says_nothing(const Conj *c) {
    for (uint32_t i = 0; i < c->n; i++)
        for (uint32_t k = 0; k < c->nodes[i].json->n; k++) {
            Str key = c->nodes[i].json->members[k].key;
            bool resolved =
                str_is(key, "$ref") || str_is(key, "allOf") || str_is(key, "anyOf") || str_is(key, "oneOf");
            if (!resolved && keyword_about(key) != ABOUT_NOTE) return false;
        }
    return true;
}

static uint32_t push_word(Schema *s, uint32_t types, uint32_t type, Str word) {
    if (types & type) nfa_bytes(s->b, word);
    return !!(types & type);
}

static void push_flat(Schema *s, const Conj *c) {
    uint32_t types = types_of(s, c), n = 0;
    if (s->b->failed) return;
    if (schema_is_listed(c)) {
        schema_push_listed(s, c, types);
        return;
    }
    if (says_nothing(c)) {
        json_push_any(s->b, &s->rules);
        return;
    }
    n += push_word(s, types, TYPE_NULL, STR("null"));
    n += push_word(s, types, TYPE_BOOLEAN, STR("true"));
    n += push_word(s, types, TYPE_BOOLEAN, STR("false"));
    if (types & TYPE_STRING) schema_push_string(s, c), n++;
    if (types & (TYPE_INTEGER | TYPE_NUMBER)) schema_push_number(s, c, !(types & TYPE_NUMBER)), n++;
    if (types & TYPE_ARRAY) schema_push_array(s, c), n++;
    if (types & TYPE_OBJECT) schema_push_object(s, c), n++;
    if (!n) nfa_never(s->b), n++;
    if (!s->b->failed) nfa_alt(s->b, n);
}

static void push_alternatives(Schema *s, const Conj *alternatives, uint32_t n) {
    for (uint32_t i = 0; i < n && !s->b->failed; i++) push_flat(s, &alternatives[i]);
    if (s->b->failed) return;
    if (n)
        nfa_alt(s->b, n);
    else
        nfa_never(s->b);
}

// ---- rules -----------------------------------------------------------------------------------------------
static bool same_value(const Conj *x, const Conj *y) {
    if (x->n != y->n) return false;
    for (uint32_t i = 0; i < x->n; i++)
        if (x->nodes[i].json != y->nodes[i].json) return false;
    return true;
}

static uint32_t rule_of(Schema *s, Str key, const Conj *value) {
    uint64_t n = 0;
    for (SchemaTask *t = s->tasks; t; t = t->next, n++)
        if (!key.ptr && !t->key.ptr && same_value(&t->value, value)) return t->rule;
    build_work(s->b, n);
    uint32_t rule = build_rule(s->b, NULL);
    if (s->b->failed) return 0;
    SchemaTask *t = ARENA_NEW(&s->b->arena, SchemaTask);
    *t = (SchemaTask){*value, key, rule, NULL};
    *s->tasks_end = t;
    s->tasks_end = &t->next;
    return rule;
}

static bool is_small(Schema *s, const Conj *alternatives, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const Conj *c = &alternatives[i];
        bool listed = schema_is_listed(c);
        if (!listed && says_nothing(c)) continue;
        if (!listed && (types_of(s, c) & (TYPE_ARRAY | TYPE_OBJECT))) return false;
    }
    return n <= 8;
}

void schema_push(Schema *s, const Conj *value) {
    Conj *alternatives;
    uint32_t n = schema_alternatives(s, value, &alternatives);
    if (s->b->failed) return;
    if (is_small(s, alternatives, n))
        push_alternatives(s, alternatives, n);
    else
        nfa_call(s->b, rule_of(s, (Str){0}, value));
}

void schema_push_pair(Schema *s, Str key, const Conj *value) { nfa_call(s->b, rule_of(s, key, value)); }

void schema_push_key(Schema *s, Str key) {
    nfa_bytes(s->b, key);
    nfa_bytes(s->b, STR(":"));
    nfa_bytes(s->b, STR(" "));
    nfa_repeat(s->b, 0, 1);
    nfa_cat(s->b, 3);
}

static void give_body(Schema *s, const SchemaTask *t) {
    if (t->key.ptr) {
        schema_push_key(s, t->key);
        schema_push(s, &t->value);
        nfa_cat(s->b, 2);
    } else {
        Conj *alternatives;
        uint32_t n = schema_alternatives(s, &t->value, &alternatives);
        if (!s->b->failed) push_alternatives(s, alternatives, n);
    }
    build_define(s->b, t->rule);
}

void schema_begin(Schema *s, Build *b) {
    *s = (Schema){.b = b};
    s->tasks_end = &s->tasks;
    json_rules_begin(b, &s->rules);
}

void schema_finish(Schema *s) {
    for (SchemaTask **at = &s->tasks; *at && !s->b->failed; at = &(*at)->next) give_body(s, *at);
}

static void push_root(Schema *s, const Json *root) {
    Conj c = {0};
    conj_add(s, &c, (Node){root, root, ""});
    schema_push(s, &c);
}

Grammar *grammar_from_schema(const Json *root, Err *e) {
    Build b;
    Schema s;
    build_begin(&b, e);
    schema_begin(&s, &b);
    uint32_t start = build_rule(&b, NULL);
    push_root(&s, root);
    build_define(&b, start);
    schema_finish(&s);
    return automaton_make(&b, start);
}

Grammar *grammar_from_any_object(Err *e) {
    Build b;
    JsonRules j;
    build_begin(&b, e);
    json_rules_begin(&b, &j);
    return automaton_make(&b, j.any_object);
}

static void push_call(Schema *s, const GrammarCall *c) {
    nfa_bytes(s->b, c->begin);
    if (c->schema)
        push_root(s, c->schema);
    else
        json_push_any_object(s->b, &s->rules);
    nfa_bytes(s->b, c->end);
    if (!s->b->failed) nfa_cat(s->b, 3);
}

// call (between call){0,n_most - 1}
Grammar *grammar_from_calls(const GrammarCall *calls, size_t n, Str between, uint32_t n_most, Err *e) {
    Build b;
    Schema s;
    build_begin(&b, e);
    schema_begin(&s, &b);
    uint32_t start = build_rule(&b, NULL), one = build_rule(&b, NULL);
    if (!n || !n_most || n_most > GRAMMAR_REPEAT_MAX)
        build_fail(&b, n ? E_LIMIT : E_GRAMMAR, "1 to %d calls of at least one tool", GRAMMAR_REPEAT_MAX);
    for (size_t i = 0; i < n && !b.failed; i++) push_call(&s, &calls[i]);
    if (!b.failed) nfa_alt(&b, n);
    build_define(&b, one);
    nfa_call(&b, one);
    nfa_bytes(&b, between);
    nfa_call(&b, one);
    nfa_cat(&b, 2);
    nfa_repeat(&b, 0, n_most - 1);
    if (!b.failed) nfa_cat(&b, 2);
    build_define(&b, start);
    schema_finish(&s);
    return automaton_make(&b, start);
}
