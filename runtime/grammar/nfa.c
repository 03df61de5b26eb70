#include "runtime/grammar/nfa.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/dfa.h"

void build_begin(Build *b, Err *e) { *b = (Build){.err = e}; }

void build_free(Build *b) {
    arena_free(&b->arena);
    free(b->nodes);
    free(b->frags);
    free(b->rules);
}

bool build_fail(Build *b, ErrCode code, const char *fmt, ...) {
    if (b->failed) return false;
    va_list ap;
    va_start(ap, fmt);
    char *text = arena_vprintf(&b->arena, fmt, ap);
    va_end(ap);
    b->failed = true;
    return err_set(b->err, code, "%s", text);
}

bool build_work(Build *b, uint64_t steps) {
    b->work += steps;
    if (b->work > GRAMMAR_WORK_MAX)
        build_fail(b, E_LIMIT, "the constraint takes too long to compile (%d steps)", GRAMMAR_WORK_MAX);
    return !b->failed;
}

uint32_t build_rule(Build *b, const char *name) {
    if (b->n_rules == GRAMMAR_RULES_MAX) {
        build_fail(b, E_LIMIT, "the constraint has more than %d rules", GRAMMAR_RULES_MAX);
        return 0;
    }
    if (b->n_rules == b->cap_rules) {
        b->cap_rules = MAX(b->cap_rules * 2, (size_t)64);
        b->rules = xrealloc(b->rules, b->cap_rules, sizeof *b->rules);
    }
    b->rules[b->n_rules] = (Rule){.name = name};
    return (uint32_t)b->n_rules++;
}

void build_define(Build *b, uint32_t rule) {
    if (b->failed) return;
    CHECK(b->n_frags == 1);
    const Dfa *d = dfa_make(b, nfa_take(b));
    b->n_nodes = 0;
    if (!d) return;
    b->rules[rule].dfa = d;
    b->n_states += d->n;
    if (b->n_states >= GRAMMAR_STATES_MAX)
        build_fail(b, E_LIMIT, "the constraint needs more than %d states", GRAMMAR_STATES_MAX);
}

// Index of the first of n new nodes; 0 once something failed, where nobody looks any more.
static uint32_t add_nodes(Build *b, size_t n) {
    if (b->failed || n > GRAMMAR_NODES_MAX - b->n_nodes) {
        build_fail(b, E_LIMIT, "a rule of the constraint has more than %d nodes", GRAMMAR_NODES_MAX);
        return 0;
    }
    if (b->n_nodes + n > b->cap_nodes) {
        b->cap_nodes = MAX(b->cap_nodes * 2, b->n_nodes + n + 64);
        b->nodes = xrealloc(b->nodes, b->cap_nodes, sizeof *b->nodes);
    }
    uint32_t first = (uint32_t)b->n_nodes;
    b->n_nodes += n;
    return first;
}

static uint32_t add(Build *b, NfaNode node) {
    uint32_t i = add_nodes(b, 1);
    if (!b->failed) b->nodes[i] = node;
    return i;
}

uint32_t nfa_node(Build *b) { return add(b, (NfaNode){NFA_SPLIT, 0, 0, NFA_NONE, NFA_NONE}); }

void nfa_edge(Build *b, uint32_t from, uint32_t to) {
    if (b->failed) return;
    NfaNode *n = &b->nodes[from];
    if (n->out == NFA_NONE) {
        n->out = to;
    } else if (n->other == NFA_NONE) {
        n->other = to;
    } else {
        uint32_t more = add(b, (NfaNode){NFA_SPLIT, 0, 0, n->other, to});
        if (!b->failed) b->nodes[from].other = more;
    }
}

void nfa_push(Build *b, Frag f) {
    if (b->failed) return;
    if (b->n_frags == b->cap_frags) {
        b->cap_frags = MAX(b->cap_frags * 2, (size_t)64);
        b->frags = xrealloc(b->frags, b->cap_frags, sizeof *b->frags);
    }
    b->frags[b->n_frags++] = f;
}

Frag nfa_take(Build *b) {
    if (b->failed) return (Frag){0};
    CHECK(b->n_frags);
    return b->frags[--b->n_frags];
}

void nfa_empty(Build *b) {
    uint32_t i = nfa_node(b);
    nfa_push(b, (Frag){i, i, i});
}

void nfa_never(Build *b) {
    uint32_t start = nfa_node(b), end = nfa_node(b);
    nfa_push(b, (Frag){start, start, end});
}

void nfa_range(Build *b, uint8_t lo, uint8_t hi) {
    uint32_t i = add(b, (NfaNode){NFA_BYTES, lo, hi, NFA_NONE, NFA_NONE}), end = nfa_node(b);
    if (!b->failed) b->nodes[i].out = end;
    nfa_push(b, (Frag){i, i, end});
}

void nfa_bytes(Build *b, Str bytes) {
    uint32_t first = add_nodes(b, bytes.len + 1);
    if (b->failed) return;
    for (uint32_t i = 0; i < bytes.len; i++) {
        uint8_t c = (uint8_t)bytes.ptr[i];
        b->nodes[first + i] = (NfaNode){NFA_BYTES, c, c, first + i + 1, NFA_NONE};
    }
    uint32_t end = first + (uint32_t)bytes.len;
    b->nodes[end] = (NfaNode){NFA_SPLIT, 0, 0, NFA_NONE, NFA_NONE};
    nfa_push(b, (Frag){first, first, end});
}

void nfa_call(Build *b, uint32_t rule) {
    uint32_t i = add(b, (NfaNode){NFA_CALL, 0, 0, NFA_NONE, rule}), end = nfa_node(b);
    if (!b->failed) b->nodes[i].out = end;
    nfa_push(b, (Frag){i, i, end});
}

void nfa_dfa(Build *b, const Dfa *d) {
    if (b->failed) return;
    uint32_t first = add_nodes(b, d->n), end = nfa_node(b);
    if (b->failed) return;
    for (uint32_t s = 0; s < d->n; s++) b->nodes[first + s] = (NfaNode){NFA_SPLIT, 0, 0, NFA_NONE, NFA_NONE};
    for (uint32_t s = 0; s < d->n; s++) {
        const DfaState *st = &d->states[s];
        for (uint32_t i = st->edge0; i < st[1].edge0; i++)
            nfa_edge(b, first + s,
                     add(b, (NfaNode){NFA_BYTES, d->edges[i].lo, d->edges[i].hi, first + d->edges[i].to,
                                      NFA_NONE}));
        for (uint32_t i = st->call0; i < st[1].call0; i++)
            nfa_edge(b, first + s,
                     add(b, (NfaNode){NFA_CALL, 0, 0, first + d->calls[i].to, d->calls[i].rule}));
        if (st->final) nfa_edge(b, first + s, end);
    }
    nfa_push(b, (Frag){first, first, end});
}

void nfa_cat(Build *b, size_t n) {
    if (b->failed) return;
    CHECK(n && b->n_frags >= n);
    Frag *f = b->frags + b->n_frags - n;
    for (size_t i = 0; i + 1 < n; i++) nfa_edge(b, f[i].end, f[i + 1].start);
    f[0].end = f[n - 1].end;
    b->n_frags -= n - 1;
}

void nfa_alt(Build *b, size_t n) {
    if (b->failed || n == 1) return;
    CHECK(n && b->n_frags >= n);
    uint32_t start = nfa_node(b), end = nfa_node(b);
    Frag *f = b->frags + b->n_frags - n;
    for (size_t i = 0; i < n; i++) {
        nfa_edge(b, start, f[i].start);
        nfa_edge(b, f[i].end, end);
    }
    b->n_frags -= n - 1;
    f[0].start = start;
    f[0].end = end;
}

// A copy of the nodes [f.begin, to) behind all others.
static Frag copy(Build *b, Frag f, uint32_t to) {
    uint32_t first = add_nodes(b, to - f.begin);
    if (b->failed) return f;
    for (uint32_t i = f.begin; i < to; i++) {
        NfaNode n = b->nodes[i];
        if (n.out != NFA_NONE) n.out += first - f.begin;
        if (n.kind == NFA_SPLIT && n.other != NFA_NONE) n.other += first - f.begin;
        b->nodes[first + i - f.begin] = n;
    }
    return (Frag){first, f.start + first - f.begin, f.end + first - f.begin};
}

// x{2,4} is x x (x (x)?)?, x{2,} is x x x*, with one `end` that every optional copy can leave to.
void nfa_repeat(Build *b, uint32_t n_least, uint32_t n_most) {
    if (b->failed) return;
    if (n_most == 0) {
        nfa_take(b);
        nfa_empty(b);
        return;
    }
    bool loop = n_most == NFA_NO_END;
    uint32_t n = loop ? MAX(n_least, 1u) : n_most;
    Frag one = nfa_take(b);
    uint32_t to = (uint32_t)b->n_nodes, start = nfa_node(b), end = nfa_node(b), at = start;
    Frag f = one;
    build_work(b, (uint64_t)n * (to - one.begin));
    for (uint32_t i = 0; i < n && !b->failed; i++) {
        // The pristine original is copied before it is linked: the last copy is the original itself.
        f = i + 1 < n ? copy(b, one, to) : one;
        if (i >= n_least) nfa_edge(b, at, end);
        nfa_edge(b, at, f.start);
        at = f.end;
    }
    nfa_edge(b, at, end);
    if (loop) { // a node of its own: what stands before must not be entered again
        uint32_t again = nfa_node(b);
        nfa_edge(b, at, again);
        nfa_edge(b, again, f.start);
    }
    nfa_push(b, (Frag){one.begin, start, end});
}
