// Arrays: prefixItems, then items, between minItems and maxItems of them.
#include "runtime/base/num.h"
#include "runtime/grammar/schema.h"

typedef struct {
    Conj *prefix; // [n_prefix] schemas of the first items
    uint32_t n_prefix;
    Conj rest;            // of all behind
    uint32_t least, most; // most NFA_NO_END: no bound
} Items;

static bool check_list(Schema *s, Node n) {
    Node prefix = node_member(s, n, "prefixItems"), items = node_member(s, n, "items");
    Node unique = node_member(s, n, "uniqueItems");
    if (prefix.json && !json_is(prefix.json, JSON_ARRAY))
        return schema_fail(s, prefix, "must be a list of schemas");
    if (json_is(items.json, JSON_ARRAY))
        return schema_fail(s, items, "must be one schema; a list of schemas is called prefixItems");
    if (unique.json && !(json_is(unique.json, JSON_BOOL) && !unique.json->boolean))
        return schema_fail(s, unique, "keyword `uniqueItems` is not supported");
    return true;
}

// What one schema says about the item at this index. False: that there is none.
static bool add_item_schema(Schema *s, Node n, uint32_t i, Conj *out) {
    Node prefix = node_member(s, n, "prefixItems"), items = node_member(s, n, "items");
    if (prefix.json && i < prefix.json->n) {
        conj_add(s, out, node_item(s, prefix, i));
        return true;
    }
    if (!items.json) return !prefix.json; // a tuple ends with its last item
    if (json_is(items.json, JSON_BOOL)) return items.json->boolean;
    conj_add(s, out, items);
    return true;
}

static bool add_item_schemas(Schema *s, const Conj *c, uint32_t i, Conj *out) {
    bool possible = true;
    for (uint32_t k = 0; k < c->n; k++) possible &= add_item_schema(s, c->nodes[k], i, out);
    return possible;
}

static bool read_items(Schema *s, const Conj *c, Items *it) {
    *it = (Items){.most = NFA_NO_END};
    for (uint32_t k = 0; k < c->n; k++) {
        Node n = c->nodes[k];
        if (!check_list(s, n)) return false;
        const Json *prefix = json_get(n.json, "prefixItems");
        if (prefix) it->n_prefix = MAX(it->n_prefix, prefix->n);
        it->least = MAX(it->least, node_count(s, n, "minItems", 0));
        it->most = MIN(it->most, node_count(s, n, "maxItems", NFA_NO_END));
    }
    it->prefix = ARENA_ARRAY(&s->b->arena, Conj, it->n_prefix);
    for (uint32_t i = 0; i < it->n_prefix; i++)
        if (!add_item_schemas(s, c, i, &it->prefix[i])) it->most = MIN(it->most, i);
    if (!add_item_schemas(s, c, it->n_prefix, &it->rest)) it->most = MIN(it->most, it->n_prefix);
    uint32_t unrolled = it->most == NFA_NO_END ? it->least : it->most;
    if (unrolled > GRAMMAR_REPEAT_MAX)
        return build_fail(s->b, E_LIMIT, "schema %s: minItems and maxItems are at most %d",
                          c->n && *c->nodes[0].at ? c->nodes[0].at : "/", GRAMMAR_REPEAT_MAX);
    return !s->b->failed;
}

// Links what is on top of the stack between two nodes.
static void link(Schema *s, uint32_t from, uint32_t to) {
    Frag f = nfa_take(s->b);
    nfa_edge(s->b, from, f.start);
    nfa_edge(s->b, f.end, to);
}

// An item behind `from` (which is behind a comma unless it is the first), to `to`.
static void link_item(Schema *s, uint32_t from, uint32_t to, const Conj *item, bool comma) {
    if (comma) {
        nfa_bytes(s->b, STR(","));
        json_push_space(s->b, &s->rules);
        schema_push(s, item);
        nfa_cat(s->b, 3);
    } else {
        schema_push(s, item);
    }
    link(s, from, to);
}

void schema_push_array(Schema *s, const Conj *c) {
    Build *b = s->b;
    Items it;
    if (!read_items(s, c, &it)) return;
    if (it.least > it.most) {
        nfa_never(b);
        return;
    }
    bool loop = it.most == NFA_NO_END;
    uint32_t n = loop ? MAX(MAX(it.least, it.n_prefix), 1u) : it.most;
    uint32_t begin = (uint32_t)b->n_nodes, start = nfa_node(b), full = nfa_node(b), end = nfa_node(b);
    uint32_t at = nfa_node(b); // behind i items
    nfa_bytes(b, STR("["));
    json_push_space(b, &s->rules);
    nfa_cat(b, 2);
    link(s, start, at);
    for (uint32_t i = 0; i < n && !b->failed; i++) {
        if (i >= it.least) nfa_edge(b, at, i ? full : end);
        uint32_t next = nfa_node(b);
        link_item(s, at, next, i < it.n_prefix ? &it.prefix[i] : &it.rest, i > 0);
        at = next;
    }
    nfa_edge(b, at, n ? full : end);
    if (loop) link_item(s, at, at, &it.rest, true);
    json_push_space(b, &s->rules);
    link(s, full, end);
    uint32_t closed = nfa_node(b);
    nfa_bytes(b, STR("]"));
    link(s, end, closed);
    nfa_push(b, (Frag){begin, start, closed});
}
