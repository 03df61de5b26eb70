#include "runtime/grammar/automaton.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/dfa.h"

enum { TABLE_BYTES_MAX = 32 << 20, NEED_NEVER = 0xFFFF };

// The rules side by side: states have the numbers that they will have.
typedef struct {
    Build *b;
    uint32_t n_states;
    uint32_t *first;   // [rules] number of the first state
    uint16_t *need;    // [states] frames needed to the end of the rule; NEED_NEVER: there is no way
    bool *nullable;    // [states] the end can be reached without a byte
    uint16_t *rule_of; // [states]
    uint8_t class_of[256];
    uint32_t n_classes;
} Plan;

static const DfaState *state_of(const Plan *p, uint32_t s) {
    uint32_t rule = p->rule_of[s];
    return &p->b->rules[rule].dfa->states[s - p->first[rule]];
}

static const Dfa *dfa_of(const Plan *p, uint32_t s) { return p->b->rules[p->rule_of[s]].dfa; }

static void number_states(Plan *p) {
    Build *b = p->b;
    p->first = ARENA_ARRAY(&b->arena, uint32_t, b->n_rules);
    for (size_t r = 0; r < b->n_rules; r++) {
        p->first[r] = p->n_states;
        p->n_states += b->rules[r].dfa->n;
    }
    p->need = ARENA_ARRAY(&b->arena, uint16_t, p->n_states);
    p->nullable = ARENA_ARRAY(&b->arena, bool, p->n_states);
    p->rule_of = ARENA_ARRAY(&b->arena, uint16_t, p->n_states);
    for (size_t r = 0, s = 0; r < b->n_rules; r++)
        for (uint32_t i = 0; i < b->rules[r].dfa->n; i++) p->rule_of[s++] = (uint16_t)r;
}

static uint16_t need_now(const Plan *p, uint32_t s) {
    const DfaState *st = state_of(p, s);
    const Dfa *d = dfa_of(p, s);
    uint32_t first = p->first[p->rule_of[s]], best = st->final ? 0 : NEED_NEVER;
    for (uint32_t i = st->edge0; i < st[1].edge0; i++) best = MIN(best, p->need[first + d->edges[i].to]);
    for (uint32_t i = st->call0; i < st[1].call0; i++) {
        uint32_t inside = p->need[p->first[d->calls[i].rule]], after = p->need[first + d->calls[i].to];
        if (inside != NEED_NEVER && after != NEED_NEVER) best = MIN(best, MAX(inside + 1, after));
    }
    return (uint16_t)best;
}

// Least fixed points by sweeps. A sweep backwards settles chains at once, so their number is that of calls in
// calls; the work budget stops what is made to be slow.
static void find_needs(Plan *p) {
    for (uint32_t s = 0; s < p->n_states; s++) p->need[s] = NEED_NEVER;
    for (bool changed = true; changed && build_work(p->b, 4 * (uint64_t)p->n_states);) {
        changed = false;
        for (uint32_t s = p->n_states; s-- > 0;) {
            uint16_t need = need_now(p, s);
            changed |= need != p->need[s];
            p->need[s] = need;
        }
    }
}

static bool nullable_now(const Plan *p, uint32_t s) {
    const DfaState *st = state_of(p, s);
    const Dfa *d = dfa_of(p, s);
    uint32_t first = p->first[p->rule_of[s]];
    bool yes = st->final;
    for (uint32_t i = st->call0; i < st[1].call0 && !yes; i++)
        yes = p->nullable[p->first[d->calls[i].rule]] && p->nullable[first + d->calls[i].to];
    return yes;
}

static void find_nullable(Plan *p) {
    for (bool changed = true; changed && build_work(p->b, 2 * (uint64_t)p->n_states);) {
        changed = false;
        for (uint32_t s = p->n_states; s-- > 0;) {
            bool yes = !p->nullable[s] && nullable_now(p, s);
            changed |= yes;
            p->nullable[s] |= yes;
        }
    }
}

// ---- left recursion --------------------------------------------------------------------------------------
// Rules that rule r can call before its first byte, into list; their number.
static size_t left_calls(Plan *p, uint32_t r, uint32_t *list, uint32_t *todo, bool *seen) {
    const Dfa *d = p->b->rules[r].dfa;
    size_t n = 0, n_todo = 0;
    memset(seen, 0, d->n);
    todo[n_todo++] = 0;
    seen[0] = true;
    while (n_todo) {
        const DfaState *st = &d->states[todo[--n_todo]];
        for (uint32_t i = st->call0; i < st[1].call0; i++) {
            uint32_t callee = d->calls[i].rule, to = d->calls[i].to;
            list[n++] = callee;
            if (!p->nullable[p->first[callee]] || seen[to]) continue;
            seen[to] = true;
            todo[n_todo++] = to;
        }
    }
    build_work(p->b, d->n + n);
    return n;
}

// Takes away rules that call nothing that is left, until none goes: what stays calls itself.
static bool check_left_recursion(Plan *p) {
    Build *b = p->b;
    uint32_t *todo = ARENA_ARRAY(&b->arena, uint32_t, p->n_states + 1);
    bool *seen = ARENA_ARRAY(&b->arena, bool, p->n_states + 1),
         *gone = ARENA_ARRAY(&b->arena, bool, b->n_rules);
    size_t n_calls = 0;
    for (size_t r = 0; r < b->n_rules; r++) n_calls += b->rules[r].dfa->states[b->rules[r].dfa->n].call0;
    uint32_t *list = ARENA_ARRAY(&b->arena, uint32_t, n_calls + 1);
    uint32_t *at = ARENA_ARRAY(&b->arena, uint32_t, b->n_rules + 1);
    for (uint32_t r = 0; r < b->n_rules; r++)
        at[r + 1] = at[r] + (uint32_t)left_calls(p, r, list + at[r], todo, seen);
    for (bool changed = true; changed && build_work(b, n_calls + b->n_rules);) {
        changed = false;
        for (size_t r = b->n_rules; r-- > 0;) {
            bool stays = gone[r];
            for (uint32_t i = at[r]; i < at[r + 1] && !stays; i++) stays = !gone[list[i]];
            if (!stays) gone[r] = changed = true;
        }
    }
    for (size_t r = 0; r < b->n_rules && !b->failed; r++)
        if (!gone[r])
            build_fail(b, E_GRAMMAR,
                       "rule `%s` can begin with itself (left recursion), or calls one that can",
                       b->rules[r].name ? b->rules[r].name : "(made by the compiler)");
    return !b->failed;
}

// ---- tables ----------------------------------------------------------------------------------------------
// Splits classes until the bytes of one lead to the same state everywhere.
static void find_classes(Plan *p) {
    bool cut[257] = {0};
    for (size_t r = 0; r < p->b->n_rules; r++) {
        const Dfa *d = p->b->rules[r].dfa;
        for (uint32_t i = 0; i < d->states[d->n].edge0; i++)
            cut[d->edges[i].lo] = cut[d->edges[i].hi + 1] = true;
    }
    p->n_classes = 1;
    for (uint32_t c = 0; c < 256; c++) {
        if (c && cut[c]) p->n_classes++;
        p->class_of[c] = (uint8_t)(p->n_classes - 1);
    }
}

static uint32_t live_calls(const Plan *p, uint32_t s, Call *out) {
    const DfaState *st = state_of(p, s);
    const Dfa *d = dfa_of(p, s);
    uint32_t first = p->first[p->rule_of[s]], n = 0;
    for (uint32_t i = st->call0; i < st[1].call0; i++) {
        uint32_t enter = p->first[d->calls[i].rule], back = first + d->calls[i].to;
        if (p->need[enter] == NEED_NEVER || p->need[back] == NEED_NEVER) continue;
        if (out) out[n] = (Call){(uint16_t)enter, (uint16_t)back, p->need[enter]};
        n++;
    }
    return n;
}

static void fill_calls(const Plan *p, Grammar *g) {
    uint32_t *at = ARENA_ARRAY(&g->arena, uint32_t, p->n_states + 1);
    for (uint32_t s = 0; s < p->n_states; s++) at[s + 1] = at[s] + live_calls(p, s, NULL);
    Call *calls = ARENA_ARRAY(&g->arena, Call, at[p->n_states]);
    for (uint32_t s = 0; s < p->n_states; s++) live_calls(p, s, calls + at[s]);
    g->call_at = at;
    g->calls = calls;
}

static void fill_next(const Plan *p, Grammar *g) {
    size_t n = (size_t)p->n_states * p->n_classes;
    uint16_t *next = ARENA_ARRAY(&g->arena, uint16_t, n);
    memset(next, 0xFF, n * sizeof *next);
    for (uint32_t s = 0; s < p->n_states; s++) {
        const DfaState *st = state_of(p, s);
        const Dfa *d = dfa_of(p, s);
        for (uint32_t i = st->edge0; i < st[1].edge0; i++) {
            uint32_t to = p->first[p->rule_of[s]] + d->edges[i].to;
            if (p->need[to] == NEED_NEVER) continue;
            for (uint32_t c = p->class_of[d->edges[i].lo]; c <= p->class_of[d->edges[i].hi]; c++)
                next[(size_t)s * p->n_classes + c] = (uint16_t)to;
        }
    }
    g->next = next;
}

static void fill_counted(const Plan *p, Grammar *g, uint8_t *flags) {
    const Build *b = p->b;
    uint16_t *of = ARENA_ARRAY(&g->arena, uint16_t, p->n_states);
    Counted *counted = ARENA_ARRAY(&g->arena, Counted, b->n_rules);
    memset(of, 0xFF, p->n_states * sizeof *of);
    for (size_t r = 0; r < b->n_rules; r++) {
        const Rule *rule = &b->rules[r];
        if (!rule->counted) continue;
        uint32_t first = p->first[r], body = first + dfa_next(rule->dfa, 0, '"');
        for (uint32_t s = first; s < first + rule->dfa->n; s++) {
            of[s] = (uint16_t)g->n_counted;
            flags[s] &= (uint8_t)~STATE_PLAIN;
            if (s != first && s != body && !(flags[s] & STATE_FINAL)) flags[s] |= STATE_INSIDE;
        }
        flags[body] |= STATE_BODY;
        counted[g->n_counted++] =
            (Counted){(uint16_t)first, (uint16_t)rule->dfa->n, rule->count_min, rule->count_max};
    }
    g->counted_of = of;
    g->counted = counted;
}

static void fill_flags(const Plan *p, Grammar *g) {
    uint8_t *flags = ARENA_ARRAY(&g->arena, uint8_t, p->n_states);
    for (uint32_t s = 0; s < p->n_states; s++) {
        bool bytes = false, calls = g->call_at[s + 1] > g->call_at[s], final = state_of(p, s)->final;
        for (uint32_t c = 0; c < p->n_classes && !bytes; c++)
            bytes = g->next[(size_t)s * p->n_classes + c] != STATE_NONE;
        flags[s] = (uint8_t)((final ? STATE_FINAL : 0) | (bytes ? STATE_BYTES : 0) |
                             (calls ? 0 : STATE_PLAIN) | (final && !calls && !bytes ? STATE_LEAVES : 0));
    }
    fill_counted(p, g, flags);
    uint16_t *need = ARENA_ARRAY(&g->arena, uint16_t, p->n_states);
    memcpy(need, p->need, p->n_states * sizeof *need);
    g->flags = flags;
    g->need = need;
}

static Grammar *make_tables(Plan *p, uint32_t start) {
    static atomic_uint_fast64_t serial;
    find_classes(p);
    if ((size_t)p->n_states * p->n_classes * sizeof(uint16_t) > TABLE_BYTES_MAX) {
        build_fail(p->b, E_LIMIT, "the automaton of the constraint needs more than %d MiB",
                   TABLE_BYTES_MAX >> 20);
        return NULL;
    }
    Grammar *g = xmalloc(sizeof *g);
    *g = (Grammar){.serial = ++serial,
                   .n_states = p->n_states,
                   .n_classes = p->n_classes,
                   .start = (uint16_t)p->first[start]};
    memcpy(g->class_of, p->class_of, sizeof g->class_of);
    fill_calls(p, g);
    fill_next(p, g);
    fill_flags(p, g);
    return g;
}

static Grammar *make(Build *b, uint32_t start) {
    Plan p = {.b = b};
    number_states(&p);
    if (p.n_states >= GRAMMAR_STATES_MAX) {
        build_fail(b, E_LIMIT, "the constraint needs more than %d states", GRAMMAR_STATES_MAX);
        return NULL;
    }
    find_needs(&p);
    find_nullable(&p);
    if (b->failed || !check_left_recursion(&p)) return NULL;
    uint16_t need = p.need[p.first[start]];
    if (need == NEED_NEVER)
        build_fail(b, E_GRAMMAR, "no text can match the constraint");
    else if (need > GRAMMAR_DEPTH_MAX)
        build_fail(b, E_LIMIT, "every text of the constraint is nested more than %d deep", GRAMMAR_DEPTH_MAX);
    return b->failed ? NULL : make_tables(&p, start);
}

Grammar *automaton_make(Build *b, uint32_t start) {
    Grammar *g = b->failed ? NULL : make(b, start);
    build_free(b);
    return g;
}

void grammar_free(Grammar *g) {
    if (!g) return;
    arena_free(&g->arena);
    free(g);
}

size_t grammar_bytes(const Grammar *g) { return sizeof *g + g->arena.used_bytes; }
