// Objects: declared properties in their order, optional ones left out or not, then others.
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/dfa.h"
#include "runtime/grammar/regex.h"
#include "runtime/grammar/schema.h"

enum {
    INLINE_OPTIONAL_MAX = 16, // more optional properties than that become rules: their keys are not repeated
    OPTIONAL_MAX = 200,       // all of them can be the next one at once: GRAMMAR_CONFIGS_MAX
    PATTERNS_MAX = 16
};

typedef struct {
    Str key, spelled; // spelled: as a JSON string
    Conj value;
    bool required;
} Property;

// Names that a pattern of patternProperties matches, as they are spelled, without quotes.
typedef struct {
    const Dfa *names;
    Conj value;
} Pattern;

typedef struct {
    Property *list;
    uint32_t n, cap, n_required;
    bool open;  // others are allowed
    Conj other; // their values
    Conj names; // their keys (propertyNames)
    Pattern patterns[PATTERNS_MAX];
    uint32_t n_patterns;
    uint32_t least, most;
} Properties;

static Property *find(Schema *s, Properties *p, Str key) {
    build_work(s->b, p->n / 4 + 1);
    for (uint32_t i = 0; i < p->n; i++)
        if (str_eq(p->list[i].key, key)) return &p->list[i];
    return NULL;
}

static Property *add(Schema *s, Properties *p, Str key) {
    Property *old = find(s, p, key);
    if (old) return old;
    if (p->n == p->cap) {
        p->cap = MAX(p->cap * 2, 8u);
        Property *more = ARENA_ARRAY(&s->b->arena, Property, p->cap);
        if (p->n) memcpy(more, p->list, p->n * sizeof *more);
        p->list = more;
    }
    StrBuf spelled = {0};
    json_write_string(&spelled, key);
    p->list[p->n] = (Property){.key = key, .spelled = str_dup(&s->b->arena, buf_view(&spelled))};
    buf_free(&spelled);
    return &p->list[p->n++];
}

static bool add_declared(Schema *s, Properties *p, Node n) {
    Node declared = node_member(s, n, "properties"), required = node_member(s, n, "required");
    if (declared.json && !json_is(declared.json, JSON_OBJECT))
        return schema_fail(s, declared, "must be an object");
    for (uint32_t i = 0; declared.json && i < declared.json->n && !s->b->failed; i++) {
        const JsonMember *m = &declared.json->members[i];
        Property *property = add(s, p, m->key);
        conj_add(s, &property->value, node_in(s, declared, m->key, &m->value));
    }
    if (!required.json) return true;
    if (json_is(required.json, JSON_BOOL))
        return schema_fail(s, required, "must be a list of property names");
    if (!json_is(required.json, JSON_ARRAY))
        return schema_fail(s, required, "must be a list of property names");
    for (uint32_t i = 0; i < required.json->n; i++)
        if (!json_is(&required.json->items[i], JSON_STRING))
            return schema_fail(s, node_item(s, required, i), "must be a string");
    return true;
}

// After all are declared: names that are required alone stand behind them.
static void mark_required(Schema *s, Properties *p, Node n) {
    const Json *required = json_get(n.json, "required");
    for (uint32_t i = 0; required && i < required->n && !s->b->failed; i++) {
        Property *property = add(s, p, required->items[i].s);
        p->n_required += !property->required;
        property->required = true;
    }
}

static Str inner(const Property *p) { return str_sub(p->spelled, 1, p->spelled.len - 1); }

static bool about_objects(Node n) {
    for (uint32_t i = 0; i < n.json->n; i++)
        if (keyword_about(n.json->members[i].key) == ABOUT_OBJECT) return true;
    return false;
}

// Declared names that a pattern matches must satisfy its schema, too.
static bool add_pattern(Schema *s, Properties *p, Node list, const JsonMember *m) {
    Node n = node_in(s, list, m->key, &m->value);
    if (p->n_patterns == PATTERNS_MAX)
        return build_fail(s->b, E_LIMIT, "schema %s: more than %d patterns", list.at, PATTERNS_MAX);
    Pattern *pattern = &p->patterns[p->n_patterns++];
    regex_push(s->b, m->key, REGEX_ANYWHERE, true, arena_printf(&s->b->arena, "schema %s: ", n.at));
    pattern->names = dfa_pop(s->b);
    conj_add(s, &pattern->value, n);
    for (uint32_t i = 0; pattern->names && i < p->n; i++)
        if (dfa_matches(pattern->names, inner(&p->list[i]))) conj_add(s, &p->list[i].value, n);
    return !s->b->failed;
}

static bool read_patterns(Schema *s, const Conj *c, Properties *p) {
    uint32_t n_about = 0;
    for (uint32_t i = 0; i < c->n; i++) n_about += about_objects(c->nodes[i]);
    for (uint32_t i = 0; i < c->n; i++) {
        Node list = node_member(s, c->nodes[i], "patternProperties");
        if (!list.json) continue;
        if (!json_is(list.json, JSON_OBJECT)) return schema_fail(s, list, "must be an object");
        if (n_about > 1)
            return schema_fail(s, list,
                               "keyword `patternProperties` beside another schema of the same object "
                               "is not supported");
        for (uint32_t k = 0; k < list.json->n; k++)
            if (!add_pattern(s, p, list, &list.json->members[k])) return false;
    }
    return true;
}

static bool matches_pattern(const Properties *p, const Property *property) {
    for (uint32_t i = 0; i < p->n_patterns; i++)
        if (dfa_matches(p->patterns[i].names, inner(property))) return true;
    return false;
}

// What additionalProperties of one schema says about properties that others declare, and about the rest.
static bool add_additional(Schema *s, Properties *p, Node n) {
    Node a = node_member(s, n, "additionalProperties");
    const Json *own = json_get(n.json, "properties");
    if (!a.json) return true;
    if (!json_is(a.json, JSON_BOOL) && !json_is(a.json, JSON_OBJECT))
        return schema_fail(s, a, "must be a schema, true or false");
    for (uint32_t i = 0; i < p->n && !s->b->failed; i++) {
        bool declared = matches_pattern(p, &p->list[i]);
        build_work(s->b, own ? own->n / 4 + 1 : 1);
        for (uint32_t k = 0; own && k < own->n && !declared; k++)
            declared = str_eq(own->members[k].key, p->list[i].key);
        if (!declared) conj_add(s, &p->list[i].value, a);
    }
    conj_add(s, &p->other, a);
    return true;
}

static bool read_names(Schema *s, Properties *p, Node n) {
    Node names = node_member(s, n, "propertyNames");
    if (!names.json) return true;
    if (json_is(names.json, JSON_OBJECT) && !schema_check_keywords(s, names)) return false;
    for (uint32_t i = 0; json_is(names.json, JSON_OBJECT) && i < names.json->n; i++) {
        Str key = names.json->members[i].key;
        if (str_is(key, "type") || keyword_about(key) == ABOUT_STRING || keyword_about(key) == ABOUT_NOTE)
            continue;
        return schema_fail(s, node_in(s, names, key, NULL), "keyword `" STR_FMT "` of names is not supported",
                           STR_ARG(key));
    }
    if (!json_is(names.json, JSON_OBJECT)) return schema_fail(s, names, "must be an object");
    if (p->n)
        return schema_fail(s, names,
                           "keyword `propertyNames` beside properties or required is not supported");
    conj_add(s, &p->names, names);
    return true;
}

static bool read_counts(Schema *s, Properties *p, Node n) {
    Node least = node_member(s, n, "minProperties"), most = node_member(s, n, "maxProperties");
    p->least = MAX(p->least, node_count(s, n, "minProperties", 0));
    p->most = MIN(p->most, node_count(s, n, "maxProperties", NFA_NO_END));
    // Other names can come twice, and count once then: a second one that is needed could not be relied on.
    if (least.json && p->least > p->n_required && (p->n || p->least > 1))
        return schema_fail(
            s, least,
            "more properties than `required` names (or 1, where none is declared) are not supported");
    if (most.json && p->n && (p->open || p->n_patterns || p->most < p->n))
        return schema_fail(s, most,
                           "fewer properties than are declared, or others beside them, are not supported");
    if (p->most != NFA_NO_END && p->most > GRAMMAR_REPEAT_MAX && !p->n)
        return build_fail(s->b, E_LIMIT, "schema %s: at most %d properties", most.json ? most.at : "/",
                          GRAMMAR_REPEAT_MAX);
    return !s->b->failed;
}

// Whether it names properties: those are all, then, unless additionalProperties says otherwise.
static bool declares(Node n) {
    static const char *const names[] = {"properties", "required", "patternProperties",
                                        "unevaluatedProperties"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (json_get(n.json, names[i])) return true;
    return false;
}

// It sees what the schemas inside of its own declare, and nothing else: all of the list must be inside.
static bool check_unevaluated(Schema *s, const Conj *c, uint32_t i) {
    Node rest = node_member(s, c->nodes[i], "unevaluatedProperties");
    if (!rest.json || (json_is(rest.json, JSON_BOOL) && !rest.json->boolean && i == 0 && c->n_roots == 1))
        return true;
    return schema_fail(s, rest, "is supported as `false` alone, in the schema that all others belong to");
}

static bool read_properties(Schema *s, const Conj *c, Properties *p) {
    *p = (Properties){.most = NFA_NO_END};
    bool ok = true, closed = false, declared = false;
    for (uint32_t i = 0; i < c->n && ok; i++) ok = add_declared(s, p, c->nodes[i]);
    for (uint32_t i = 0; i < c->n && ok; i++) mark_required(s, p, c->nodes[i]);
    ok = ok && read_patterns(s, c, p);
    for (uint32_t i = 0; i < c->n && ok; i++) ok = add_additional(s, p, c->nodes[i]);
    for (uint32_t i = 0; i < c->n && ok; i++) {
        const Json *a = json_get(c->nodes[i].json, "additionalProperties");
        closed |= json_is(a, JSON_BOOL) && !a->boolean;
        declared |= declares(c->nodes[i]);
        ok = check_unevaluated(s, c, i) && read_names(s, p, c->nodes[i]);
    }
    p->open = !closed && (p->other.n || !declared);
    for (uint32_t i = 0; i < c->n && ok; i++) ok = read_counts(s, p, c->nodes[i]);
    return ok && !s->b->failed;
}

// ---- others ----------------------------------------------------------------------------------------------
// Names without those of declared properties.
static const Dfa *undeclared(Schema *s, const Properties *p, const Dfa *names) {
    Build *b = s->b;
    if (!p->n || !names) return names;
    for (uint32_t i = 0; i < p->n; i++) nfa_bytes(b, inner(&p->list[i]));
    nfa_alt(b, p->n);
    const Dfa *declared = dfa_pop(b);
    return declared ? dfa_product(b, names, declared, DFA_WITHOUT) : NULL;
}

// Any characters in their shortest spelling, but no name that is declared or that a pattern matches.
static const Dfa *free_name(Schema *s, const Properties *p) {
    nfa_any_char(s->b, true);
    nfa_repeat(s->b, 0, NFA_NO_END);
    const Dfa *d = undeclared(s, p, dfa_pop(s->b));
    for (uint32_t i = 0; i < p->n_patterns && d; i++)
        d = dfa_product(s->b, d, p->patterns[i].names, DFA_WITHOUT);
    return d;
}

static void push_pair(Schema *s, const Dfa *name, const Conj *value) {
    Build *b = s->b;
    if (!name) return;
    nfa_bytes(b, STR("\""));
    nfa_dfa(b, name);
    nfa_bytes(b, STR("\""));
    schema_push_key(s, (Str){0});
    schema_push(s, value);
    nfa_cat(b, 5);
}

static bool is_never(const Dfa *d) { return d->n == 1 && !d->states[0].final; }

// Names of one pattern. Those of two would have to satisfy both schemas.
static const Dfa *pattern_name(Schema *s, const Properties *p, uint32_t i) {
    const Dfa *d = undeclared(s, p, p->patterns[i].names);
    for (uint32_t k = 0; k < i && d; k++) {
        const Dfa *shared = dfa_product(s->b, d, p->patterns[k].names, DFA_BOTH);
        if (shared && !is_never(shared))
            schema_fail(s, p->patterns[i].value.nodes[0],
                        "a name can match this pattern and another one: not supported");
    }
    return d;
}

static void push_other(Schema *s, const Properties *p) {
    Build *b = s->b;
    for (uint32_t i = 0; i < p->n_patterns && !b->failed; i++)
        push_pair(s, pattern_name(s, p, i), &p->patterns[i].value);
    if (p->open && (p->n || p->n_patterns)) {
        push_pair(s, free_name(s, p), &p->other);
    } else if (p->open) {
        if (p->names.n)
            schema_push_string(s, &p->names);
        else
            json_push_string(b, &s->rules, 0, NFA_NO_END);
        schema_push_key(s, (Str){0});
        schema_push(s, &p->other);
        nfa_cat(b, 3);
    }
    if (!b->failed) nfa_alt(b, p->n_patterns + p->open);
}

static void push_comma(Schema *s) {
    nfa_bytes(s->b, STR(","));
    json_push_space(s->b, &s->rules);
    nfa_cat(s->b, 2);
}

// ---- all together ----------------------------------------------------------------------------------------
// Three rows of nodes; i properties are decided in column i, the last column is before others and the end.
//
//     none[i]   nothing is written yet
//     comma[i]  a comma is written: one of those from i on must follow
//     some[i]   at least one property is written
//
// Property i leads from none[i] and comma[i] to some[i + 1]; left out, from each row to itself.
typedef struct {
    uint32_t none, comma, some;
} Column;

static void link_top(Schema *s, uint32_t from, uint32_t to) {
    Frag f = nfa_take(s->b);
    nfa_edge(s->b, from, f.start);
    nfa_edge(s->b, f.end, to);
}

static Column column(Schema *s) {
    Column c = {nfa_node(s->b), nfa_node(s->b), nfa_node(s->b)};
    return c;
}

static void push_property(Schema *s, const Property *p, bool own_rule) {
    if (own_rule) {
        schema_push_pair(s, p->spelled, &p->value);
        return;
    }
    schema_push_key(s, p->spelled);
    schema_push(s, &p->value);
    nfa_cat(s->b, 2);
}

static void link_property(Schema *s, const Property *p, Column from, Column to, bool own_rule) {
    Build *b = s->b;
    push_comma(s);
    link_top(s, from.some, from.comma);
    push_property(s, p, own_rule);
    Frag f = nfa_take(b);
    nfa_edge(b, from.none, f.start);
    nfa_edge(b, from.comma, f.start);
    nfa_edge(b, f.end, to.some);
    if (p->required) return;
    nfa_edge(b, from.none, to.none);
    nfa_edge(b, from.comma, to.comma);
    nfa_edge(b, from.some, to.some);
}

static void link_others(Schema *s, const Properties *p, Column last) {
    Build *b = s->b;
    push_comma(s);
    link_top(s, last.some, last.comma);
    push_other(s, p);
    Frag f = nfa_take(b);
    nfa_edge(b, last.none, f.start);
    nfa_edge(b, last.comma, f.start);
    nfa_edge(b, f.end, last.some);
}

// `{`, least to most pairs, `}`.
static void push_map(Schema *s, const Properties *p) {
    Build *b = s->b;
    if (p->least > p->most) {
        nfa_never(b);
        return;
    }
    nfa_bytes(b, STR("{"));
    json_push_space(b, &s->rules);
    push_other(s, p);
    push_comma(s);
    push_other(s, p);
    nfa_cat(b, 2);
    uint32_t most = p->most == NFA_NO_END ? NFA_NO_END : p->most ? p->most - 1 : 0;
    nfa_repeat(b, p->least ? p->least - 1 : 0, most);
    json_push_space(b, &s->rules);
    nfa_cat(b, 3);
    nfa_repeat(b, p->least ? 1 : 0, p->most ? 1 : 0);
    nfa_bytes(b, STR("}"));
    nfa_cat(b, 4);
}

static void push_declared(Schema *s, const Properties *p) {
    Build *b = s->b;
    bool own_rules = p->n - p->n_required > INLINE_OPTIONAL_MAX;
    uint32_t begin = (uint32_t)b->n_nodes, start = nfa_node(b), end = nfa_node(b), closed = nfa_node(b);
    Column at = column(s);
    if (p->n - p->n_required > OPTIONAL_MAX)
        build_fail(b, E_LIMIT, "an object of the schema has more than %d properties that are not required",
                   OPTIONAL_MAX);
    nfa_bytes(b, STR("{"));
    json_push_space(b, &s->rules);
    nfa_cat(b, 2);
    link_top(s, start, at.none);
    for (uint32_t i = 0; i < p->n && !b->failed; i++) {
        Column next = column(s);
        link_property(s, &p->list[i], at, next, own_rules && !p->list[i].required);
        at = next;
    }
    if (p->open || p->n_patterns) link_others(s, p, at);
    nfa_edge(b, at.none, end);
    json_push_space(b, &s->rules);
    link_top(s, at.some, end);
    nfa_bytes(b, STR("}"));
    link_top(s, end, closed);
    nfa_push(b, (Frag){begin, start, closed});
}

void schema_push_object(Schema *s, const Conj *c) {
    Properties p;
    if (!read_properties(s, c, &p)) return;
    bool plain_map =
        p.open && !p.n && !p.n_patterns && !p.other.n && !p.names.n && !p.least && p.most == NFA_NO_END;
    if (plain_map)
        json_push_any_object(s->b, &s->rules);
    else if ((p.open || p.n_patterns) && !p.n)
        push_map(s, &p);
    else
        push_declared(s, &p);
}
