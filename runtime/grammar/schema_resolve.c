// References, allOf, anyOf and oneOf: from schemas that must all hold to alternatives without them.
#include "runtime/base/num.h"
#include "runtime/grammar/schema.h"

enum { ALTERNATIVES_MAX = 512 };

static const struct {
    const char *name;
    About about;
} keywords[] = {
#define K(name, about) {#name, ABOUT_##about},
#include "runtime/grammar/schema_keywords.def"
#undef K
};

About keyword_about(Str name) {
    if (str_starts(name, STR("x-"))) return ABOUT_NOTE;
    for (size_t i = 0; i < COUNT_OF(keywords); i++)
        if (str_is(name, keywords[i].name)) return keywords[i].about;
    return ABOUT_REFUSED;
}

bool schema_check_keywords(Schema *s, Node n) {
    if (!json_is(n.json, JSON_OBJECT))
        return schema_fail(s, n, "a schema must be an object, true or false, not %s",
                           json_kind_name(n.json->kind));
    build_work(s->b, n.json->n);
    for (uint32_t i = 0; i < n.json->n; i++) {
        Str key = n.json->members[i].key;
        if (keyword_about(key) == ABOUT_REFUSED)
            return schema_fail(s, node_in(s, n, key, NULL), "keyword `" STR_FMT "` is not supported",
                               (int)MIN(key.len, 100u), key.ptr);
    }
    return true;
}

// ---- references ------------------------------------------------------------------------------------------
static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    char low = c | 0x20;
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

// One step of a pointer in a URI fragment: %XX, then ~0 and ~1.
static Str unescape(Schema *s, Str part) {
    char *out = arena_alloc(&s->b->arena, part.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];
        if (c == '%' && i + 2 < part.len && hex_digit(part.ptr[i + 1]) >= 0 &&
            hex_digit(part.ptr[i + 2]) >= 0) {
            c = (char)(hex_digit(part.ptr[i + 1]) * 16 + hex_digit(part.ptr[i + 2]));
            i += 2;
        }
        if (n && out[n - 1] == '~' && (c == '0' || c == '1'))
            out[n - 1] = c == '0' ? '~' : '/';
        else
            out[n++] = c;
    }
    return (Str){out, n};
}

static bool step_into(Schema *s, Node *n, Str part) {
    uint64_t i;
    Str key = unescape(s, part);
    const Json *found = NULL;
    if (json_is(n->json, JSON_OBJECT)) {
        for (uint32_t k = 0; k < n->json->n && !found; k++)
            if (str_eq(n->json->members[k].key, key)) found = &n->json->members[k].value;
    } else if (json_is(n->json, JSON_ARRAY) && str_to_u64(key, &i) && i < n->json->n) {
        found = &n->json->items[i];
    }
    if (found) *n = node_in(s, *n, key, found);
    return found != NULL;
}

static Node resolve(Schema *s, Node ref) {
    Node n = {ref.root, ref.root, ""};
    if (!json_is(ref.json, JSON_STRING)) {
        schema_fail(s, ref, "must be a string");
        return n;
    }
    Str left = ref.json->s;
    if (!str_starts(left, STR("#")) || (left.len > 1 && left.ptr[1] != '/')) {
        schema_fail(s, ref, "references inside of the schema (`#` or `#/...`) alone are supported");
        return n;
    }
    for (left = str_from(left, 1); left.len && !s->b->failed;) {
        left = str_from(left, 1);
        const char *slash = memchr(left.ptr, '/', left.len);
        Str part = {left.ptr, slash ? (size_t)(slash - left.ptr) : left.len};
        if (!step_into(s, &n, part))
            schema_fail(s, ref, "`" STR_FMT "` refers to nothing", STR_ARG(ref.json->s));
        left = str_from(left, part.len);
    }
    return n;
}

// ---- alternatives ----------------------------------------------------------------------------------------
// A schema still to be looked at; `from`: index into the done ones of who refers to it. fork: the list of an
// anyOf or oneOf, one of which must hold.
typedef struct {
    Node node;
    uint32_t from;
    bool fork;
} Pending;

typedef struct {
    Pending *pending; // [n_pending], the last one is next
    uint32_t n_pending, cap_pending;
    Conj done;
    uint32_t *from; // [done.n] who referred to it, NFA_NONE
} Draft;

typedef struct {
    Schema *s;
    Draft *drafts; // the last one is next
    uint32_t n_drafts, cap_drafts;
    Conj *out;
    uint32_t n_out, cap_out;
} Resolver;

static void add_pending(Resolver *r, Draft *d, Pending p) {
    if (d->n_pending == d->cap_pending) {
        d->cap_pending = MAX(d->cap_pending * 2, 8u);
        Pending *more = ARENA_ARRAY(&r->s->b->arena, Pending, d->cap_pending);
        if (d->n_pending) memcpy(more, d->pending, d->n_pending * sizeof *more);
        d->pending = more;
    }
    d->pending[d->n_pending++] = p;
}

static Draft copy_draft(Resolver *r, const Draft *d) {
    Arena *a = &r->s->b->arena;
    Draft c = *d;
    c.cap_pending = d->n_pending + 4;
    c.pending = ARENA_ARRAY(a, Pending, c.cap_pending);
    if (d->n_pending) memcpy(c.pending, d->pending, d->n_pending * sizeof *c.pending);
    c.done.cap = d->done.n;
    c.done.nodes = ARENA_ARRAY(a, Node, d->done.n);
    c.from = ARENA_ARRAY(a, uint32_t, d->done.n);
    if (d->done.n) memcpy(c.done.nodes, d->done.nodes, d->done.n * sizeof *c.done.nodes);
    if (d->done.n) memcpy(c.from, d->from, d->done.n * sizeof *c.from);
    build_work(r->s->b, 4 * (d->n_pending + d->done.n) + 8);
    return c;
}

static void add_draft(Resolver *r, Draft d) {
    if (r->n_drafts + r->n_out >= ALTERNATIVES_MAX) {
        build_fail(r->s->b, E_LIMIT, "schema %s: anyOf and oneOf together leave more than %d alternatives",
                   d.done.n && *d.done.nodes[0].at ? d.done.nodes[0].at : "/", ALTERNATIVES_MAX);
        return;
    }
    if (r->n_drafts == r->cap_drafts) {
        r->cap_drafts = MAX(r->cap_drafts * 2, 8u);
        Draft *more = ARENA_ARRAY(&r->s->b->arena, Draft, r->cap_drafts);
        if (r->n_drafts) memcpy(more, r->drafts, r->n_drafts * sizeof *more);
        r->drafts = more;
    }
    r->drafts[r->n_drafts++] = d;
}

static bool list_of_schemas(Schema *s, Node n) {
    return (json_is(n.json, JSON_ARRAY) && n.json->n) || schema_fail(s, n, "must be a list of schemas");
}

static void fork_draft(Resolver *r, const Draft *d, Pending p) {
    for (uint32_t i = p.node.json->n; i-- > 0 && !r->s->b->failed;) { // the first one comes out first
        Draft c = copy_draft(r, d);
        add_pending(r, &c, (Pending){node_item(r->s, p.node, i), p.from, false});
        add_draft(r, c);
    }
}

static void add_references(Resolver *r, Draft *d, Node n, uint32_t me) {
    Schema *s = r->s;
    static const char *const forks[] = {"oneOf", "anyOf"};
    for (size_t i = 0; i < COUNT_OF(forks); i++) {
        Node list = node_member(s, n, forks[i]);
        if (list.json && list_of_schemas(s, list)) add_pending(r, d, (Pending){list, me, true});
    }
    Node all = node_member(s, n, "allOf"), ref = node_member(s, n, "$ref");
    if (all.json && list_of_schemas(s, all))
        for (uint32_t i = all.json->n; i-- > 0;)
            add_pending(r, d, (Pending){node_item(s, all, i), me, false});
    if (ref.json) add_pending(r, d, (Pending){resolve(s, ref), me, false});
}

static bool refers_to_itself(const Draft *d, Pending p) {
    for (uint32_t i = p.from; i != NFA_NONE; i = d->from[i])
        if (d->done.nodes[i].json == p.node.json) return true;
    return false;
}

static bool is_done(const Draft *d, Node n) {
    for (uint32_t i = 0; i < d->done.n; i++)
        if (d->done.nodes[i].json == n.json) return true;
    return false;
}

// Takes one schema into the draft. False: no value can satisfy it, or the error is told.
static bool take_schema(Resolver *r, Draft *d, Pending p) {
    Schema *s = r->s;
    if (json_is(p.node.json, JSON_BOOL)) return p.node.json->boolean;
    if (refers_to_itself(d, p))
        return schema_fail(s, p.node, "refers to itself without a property or an item in between");
    if (is_done(d, p.node)) return true;
    if (!schema_check_keywords(s, p.node)) return false;
    uint32_t me = d->done.n, cap = d->done.cap;
    conj_add(s, &d->done, p.node);
    if (d->done.cap != cap) {
        uint32_t *more = ARENA_ARRAY(&s->b->arena, uint32_t, d->done.cap);
        if (me) memcpy(more, d->from, me * sizeof *more);
        d->from = more;
    }
    d->from[me] = p.from;
    add_references(r, d, p.node, me);
    return build_work(s->b, 8 + me);
}

static void add_out(Resolver *r, Conj c) {
    if (r->n_out == r->cap_out) {
        r->cap_out = MAX(r->cap_out * 2, 4u);
        Conj *more = ARENA_ARRAY(&r->s->b->arena, Conj, r->cap_out);
        if (r->n_out) memcpy(more, r->out, r->n_out * sizeof *more);
        r->out = more;
    }
    r->out[r->n_out++] = c;
}

uint32_t schema_alternatives(Schema *s, const Conj *value, Conj **out) {
    Resolver r = {.s = s};
    Draft first = {.done.n_roots = value->n};
    for (uint32_t i = value->n; i-- > 0;)
        add_pending(&r, &first, (Pending){value->nodes[i], NFA_NONE, false});
    add_draft(&r, first);
    while (r.n_drafts && !s->b->failed) {
        Draft d = r.drafts[--r.n_drafts];
        bool possible = true, forked = false;
        while (possible && !forked && d.n_pending && !s->b->failed) {
            Pending p = d.pending[--d.n_pending];
            forked = p.fork;
            if (forked)
                fork_draft(&r, &d, p);
            else
                possible = take_schema(&r, &d, p);
        }
        if (possible && !forked) add_out(&r, d.done);
    }
    *out = r.out;
    return r.n_out;
}
