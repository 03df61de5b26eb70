#include "runtime/grammar/dfa.h"

#include <stdlib.h>

#include "runtime/base/num.h"

// Growing lists on the heap, and the table that numbers keys (sets of nodes, pairs of states).
typedef struct {
    uint32_t *keys; // all keys, one behind the other
    size_t n_keys_len, cap_keys;
    uint32_t *at; // [n + 1] where key i begins
    uint32_t n, cap;
    uint32_t *slots; // index + 1; 0 is free
    size_t mask;
} Numbering;

typedef struct {
    DfaState *states;
    DfaEdge *edges;
    DfaCall *calls;
    size_t n_states, cap_states, n_edges, cap_edges, n_calls, cap_calls;
} Draft;

#define GROW(ptr, n, cap)                                                                                    \
    do {                                                                                                     \
        if ((n) >= (cap)) {                                                                                  \
            (cap) = MAX((cap)*2, (size_t)64);                                                                \
            (ptr) = xrealloc((ptr), (cap), sizeof *(ptr));                                                   \
        }                                                                                                    \
    } while (0)

static uint64_t key_hash(const uint32_t *key, size_t len) {
    return str_hash((Str){(const char *)key, len * sizeof *key});
}

static void number_rehash(Numbering *t) {
    size_t cap = t->mask ? (t->mask + 1) * 2 : 256;
    free(t->slots);
    t->slots = calloc(cap, sizeof *t->slots);
    CHECK(t->slots);
    t->mask = cap - 1;
    for (uint32_t i = 0; i < t->n; i++) {
        size_t at = key_hash(t->keys + t->at[i], t->at[i + 1] - t->at[i]) & t->mask;
        while (t->slots[at]) at = (at + 1) & t->mask;
        t->slots[at] = i + 1;
    }
}

static void number_add(Numbering *t, const uint32_t *key, size_t len) {
    if (t->n_keys_len + len > t->cap_keys) {
        t->cap_keys = MAX(t->cap_keys * 2, t->n_keys_len + len + 256);
        t->keys = xrealloc(t->keys, t->cap_keys, sizeof *t->keys);
    }
    if (t->n + 2 > t->cap) {
        t->cap = MAX(t->cap * 2, 64u);
        t->at = xrealloc(t->at, t->cap, sizeof *t->at);
    }
    if (len) memcpy(t->keys + t->n_keys_len, key, len * sizeof *key);
    t->at[t->n] = (uint32_t)t->n_keys_len;
    t->n_keys_len += len;
    t->at[++t->n] = (uint32_t)t->n_keys_len;
}

// The number of this key, the next free one if it is new.
static uint32_t number_of(Numbering *t, const uint32_t *key, size_t len) {
    if (!t->slots || t->n * 2 > t->mask) number_rehash(t);
    size_t at = key_hash(key, len) & t->mask;
    for (; t->slots[at]; at = (at + 1) & t->mask) {
        uint32_t i = t->slots[at] - 1;
        if (t->at[i + 1] - t->at[i] == len && (!len || !memcmp(t->keys + t->at[i], key, len * sizeof *key)))
            return i;
    }
    number_add(t, key, len);
    t->slots[at] = t->n;
    return t->n - 1;
}

static void number_free(Numbering *t) {
    free(t->keys);
    free(t->at);
    free(t->slots);
}

static void draft_state(Draft *d, bool final) {
    GROW(d->states, d->n_states, d->cap_states);
    d->states[d->n_states++] = (DfaState){(uint32_t)d->n_edges, (uint32_t)d->n_calls, final};
}

static void draft_edge(Draft *d, uint8_t lo, uint8_t hi, uint32_t to) {
    size_t from = d->states[d->n_states - 1].edge0;
    DfaEdge *last = d->n_edges > from ? &d->edges[d->n_edges - 1] : NULL;
    if (last && last->to == to && last->hi + 1 == lo) {
        last->hi = hi;
        return;
    }
    GROW(d->edges, d->n_edges, d->cap_edges);
    d->edges[d->n_edges++] = (DfaEdge){lo, hi, to};
}

static void draft_call(Draft *d, uint32_t rule, uint32_t to) {
    GROW(d->calls, d->n_calls, d->cap_calls);
    d->calls[d->n_calls++] = (DfaCall){rule, to};
}

static void draft_free(Draft *d) {
    free(d->states);
    free(d->edges);
    free(d->calls);
}

static const Dfa *draft_finish(Build *b, Draft *d) {
    Dfa *out = NULL;
    if (!b->failed) {
        out = ARENA_NEW(&b->arena, Dfa);
        *out =
            (Dfa){(uint32_t)d->n_states, ARENA_ARRAY(&b->arena, DfaState, d->n_states + 1),
                  ARENA_ARRAY(&b->arena, DfaEdge, d->n_edges), ARENA_ARRAY(&b->arena, DfaCall, d->n_calls)};
        memcpy(out->states, d->states, d->n_states * sizeof *d->states);
        out->states[out->n] = (DfaState){(uint32_t)d->n_edges, (uint32_t)d->n_calls, false};
        if (d->n_edges) memcpy(out->edges, d->edges, d->n_edges * sizeof *d->edges);
        if (d->n_calls) memcpy(out->calls, d->calls, d->n_calls * sizeof *d->calls);
    }
    draft_free(d);
    return out;
}

// ---- subset construction ---------------------------------------------------------------------------------
typedef struct {
    Build *b;
    Frag f;
    Numbering sets;
    Draft draft;
    uint32_t *seen, epoch; // [nodes since f.begin] epoch in which a node entered the set
    uint32_t *set, *todo;  // [nodes]
    size_t n_set, n_todo;
} Subset;

static void set_begin(Subset *s) {
    s->epoch++;
    s->n_set = 0;
}

static void visit(Subset *s, uint32_t node) {
    if (node == NFA_NONE || s->seen[node - s->f.begin] == s->epoch) return;
    s->seen[node - s->f.begin] = s->epoch;
    s->todo[s->n_todo++] = node;
}

// Adds a node and what is reached from it without a byte. Only nodes that matter are kept: bytes, calls, the
// end.
static void set_add(Subset *s, uint32_t first) {
    visit(s, first);
    while (s->n_todo) {
        uint32_t i = s->todo[--s->n_todo];
        const NfaNode *n = &s->b->nodes[i];
        if (n->kind != NFA_SPLIT || i == s->f.end) s->set[s->n_set++] = i;
        if (n->kind != NFA_SPLIT) continue;
        visit(s, n->out);
        visit(s, n->other);
    }
}

static int by_value(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static uint32_t set_number(Subset *s) {
    if (s->n_set > 1) qsort(s->set, s->n_set, sizeof *s->set, by_value);
    build_work(s->b, 4 * s->n_set + 1);
    uint32_t number = number_of(&s->sets, s->set, s->n_set);
    if (s->sets.n > GRAMMAR_STATES_MAX)
        build_fail(s->b, E_LIMIT, "a rule of the constraint needs more than %d states", GRAMMAR_STATES_MAX);
    return number;
}

// The nodes of one kind to the front; their number.
static size_t gather(const Subset *s, uint32_t *set, size_t n, NfaKind kind) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->b->nodes[set[i]].kind != kind) continue;
        uint32_t node = set[i];
        set[i] = set[found];
        set[found++] = node;
    }
    return found;
}

// Where bytes begin to be treated otherwise: cut[i] for byte i.
static void find_cuts(const Subset *s, const uint32_t *set, size_t n, bool cut[257]) {
    memset(cut, 0, 257);
    for (size_t i = 0; i < n; i++) {
        const NfaNode *node = &s->b->nodes[set[i]];
        cut[node->lo] = cut[node->hi + 1] = true;
    }
}

static void byte_edges(Subset *s, uint32_t *set, size_t n_set) {
    size_t n = gather(s, set, n_set, NFA_BYTES);
    bool cut[257];
    find_cuts(s, set, n, cut);
    for (uint32_t lo = 0, hi; n && lo < 256 && !s->b->failed; lo = hi + 1) {
        for (hi = lo; hi < 255 && !cut[hi + 1]; hi++) {
        }
        set_begin(s);
        for (size_t i = 0; i < n; i++) {
            const NfaNode *node = &s->b->nodes[set[i]];
            if (node->lo <= lo && lo <= node->hi) set_add(s, node->out);
        }
        build_work(s->b, n);
        if (s->n_set) draft_edge(&s->draft, (uint8_t)lo, (uint8_t)hi, set_number(s));
    }
}

static int by_rule(const void *x, const void *y, void *nodes) {
    const NfaNode *n = nodes;
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    if (n[a].other != n[b].other) return n[a].other < n[b].other ? -1 : 1;
    return a < b ? -1 : a > b;
}

static void call_edges(Subset *s, uint32_t *set, size_t n) {
    const NfaNode *nodes = s->b->nodes;
    size_t n_calls = gather(s, set, n, NFA_CALL);
    if (n_calls > 1) qsort_r(set, n_calls, sizeof *set, by_rule, s->b->nodes);
    build_work(s->b, 4 * n_calls);
    for (size_t i = 0, k; i < n_calls && !s->b->failed; i = k) {
        uint32_t rule = nodes[set[i]].other;
        set_begin(s);
        for (k = i; k < n_calls && nodes[set[k]].other == rule; k++) set_add(s, nodes[set[k]].out);
        draft_call(&s->draft, rule, set_number(s));
    }
}

const Dfa *dfa_make(Build *b, Frag f) {
    if (b->failed) return NULL;
    size_t n = b->n_nodes - f.begin;
    Subset s = {.b = b, .f = f};
    s.seen = calloc(n + 1, sizeof *s.seen);
    s.set = xmalloc((n + 1) * sizeof *s.set);
    s.todo = xmalloc((n + 1) * sizeof *s.todo);
    uint32_t *set = xmalloc((n + 1) * sizeof *set);
    CHECK(s.seen);
    set_begin(&s);
    set_add(&s, f.start);
    set_number(&s);
    for (uint32_t i = 0; i < s.sets.n && !b->failed; i++) {
        size_t len = s.sets.at[i + 1] - s.sets.at[i]; // copied: the keys move while sets are added
        if (len) memcpy(set, s.sets.keys + s.sets.at[i], len * sizeof *set);
        bool final = false;
        for (size_t k = 0; k < len; k++) final |= set[k] == f.end;
        draft_state(&s.draft, final);
        byte_edges(&s, set, len);
        call_edges(&s, set, len);
    }
    free(s.seen);
    free(s.set);
    free(s.todo);
    free(set);
    number_free(&s.sets);
    return draft_finish(b, &s.draft);
}

const Dfa *dfa_pop(Build *b) {
    Frag f = nfa_take(b);
    const Dfa *d = dfa_make(b, f);
    if (d) b->n_nodes = f.begin;
    return d;
}

// ---- products --------------------------------------------------------------------------------------------
uint32_t dfa_next(const Dfa *d, uint32_t state, uint8_t byte) {
    if (state == NFA_NONE) return NFA_NONE;
    for (uint32_t i = d->states[state].edge0; i < d->states[state + 1].edge0; i++)
        if (d->edges[i].lo <= byte && byte <= d->edges[i].hi) return d->edges[i].to;
    return NFA_NONE;
}

bool dfa_matches(const Dfa *d, Str text) {
    uint32_t s = 0;
    for (size_t i = 0; i < text.len && s != NFA_NONE; i++) s = dfa_next(d, s, (uint8_t)text.ptr[i]);
    return s != NFA_NONE && d->states[s].final;
}

static void mark_cuts(const Dfa *d, uint32_t state, bool cut[257]) {
    if (state == NFA_NONE) return;
    for (uint32_t i = d->states[state].edge0; i < d->states[state + 1].edge0; i++)
        cut[d->edges[i].lo] = cut[d->edges[i].hi + 1] = true;
}

static void product_state(Build *b, const Dfa *x, const Dfa *y, DfaProduct kind, Numbering *pairs,
                          Draft *draft, uint32_t i) {
    uint32_t sx = pairs->keys[2 * i], sy = pairs->keys[2 * i + 1];
    bool in_y = sy != NFA_NONE && y->states[sy].final, cut[257] = {0};
    draft_state(draft, x->states[sx].final && in_y == (kind == DFA_BOTH));
    mark_cuts(x, sx, cut);
    mark_cuts(y, sy, cut);
    for (uint32_t lo = 0, hi; lo < 256; lo = hi + 1) {
        for (hi = lo; hi < 255 && !cut[hi + 1]; hi++) {
        }
        uint32_t to[2] = {dfa_next(x, sx, (uint8_t)lo), dfa_next(y, sy, (uint8_t)lo)};
        if (to[0] == NFA_NONE || (kind == DFA_BOTH && to[1] == NFA_NONE)) continue;
        draft_edge(draft, (uint8_t)lo, (uint8_t)hi, number_of(pairs, to, 2));
    }
    build_work(b, 64);
    if (pairs->n > GRAMMAR_STATES_MAX)
        build_fail(b, E_LIMIT, "a rule of the constraint needs more than %d states", GRAMMAR_STATES_MAX);
}

// alive[s]: some text ends from s.
static void find_alive(const Draft *d, bool *alive) {
    for (size_t s = 0; s < d->n_states; s++) alive[s] = d->states[s].final;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t s = d->n_states; s-- > 0;) {
            size_t end = s + 1 < d->n_states ? d->states[s + 1].edge0 : d->n_edges;
            for (size_t i = d->states[s].edge0; i < end && !alive[s]; i++)
                if (alive[d->edges[i].to]) alive[s] = changed = true;
        }
    }
}

static void trim(Draft *d) {
    bool *alive = xmalloc(d->n_states * sizeof *alive);
    uint32_t *name = xmalloc(d->n_states * sizeof *name), n = 0;
    find_alive(d, alive);
    alive[0] = true;
    for (size_t s = 0; s < d->n_states; s++) name[s] = alive[s] ? n++ : NFA_NONE;
    Draft out = {0};
    for (size_t s = 0; s < d->n_states; s++) {
        if (!alive[s]) continue;
        size_t end = s + 1 < d->n_states ? d->states[s + 1].edge0 : d->n_edges;
        draft_state(&out, d->states[s].final);
        for (size_t i = d->states[s].edge0; i < end; i++)
            if (alive[d->edges[i].to]) draft_edge(&out, d->edges[i].lo, d->edges[i].hi, name[d->edges[i].to]);
    }
    free(alive);
    free(name);
    draft_free(d);
    *d = out;
}

const Dfa *dfa_product(Build *b, const Dfa *x, const Dfa *y, DfaProduct kind) {
    if (b->failed) return NULL;
    Numbering pairs = {0};
    Draft draft = {0};
    number_of(&pairs, (uint32_t[2]){0, 0}, 2);
    for (uint32_t i = 0; i < pairs.n && !b->failed; i++) product_state(b, x, y, kind, &pairs, &draft, i);
    number_free(&pairs);
    if (!b->failed) trim(&draft);
    return draft_finish(b, &draft);
}
