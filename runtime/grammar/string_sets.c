#include "runtime/grammar/string_sets.h"

#include <stdlib.h>

#include "runtime/base/num.h"
#include "runtime/grammar/json_rules.h"

// A grammar that is one string without bounds.
static Grammar *any_string(void) {
    Err e = {0};
    Build b;
    JsonRules j;
    build_begin(&b, &e);
    json_rules_begin(&b, &j);
    uint32_t root = build_rule(&b, NULL);
    json_push_string(&b, &j, 0, NFA_NO_END);
    build_define(&b, root);
    Grammar *g = automaton_make(&b, root);
    CHECK(g && g->n_counted == 1);
    return g;
}

typedef struct {
    const Grammar *g;
    const GrammarVocab *v;
    const Walker *w;
    uint32_t *ids, *begun; // tokens that stay inside, with the characters that they begin
    uint32_t n, cap;
    StringExit *exits;
    size_t n_exits, cap_exits;
} Found;

static void add_token(Found *f, uint32_t id, uint32_t begun) {
    if (f->n == f->cap) {
        f->cap = MAX(f->cap * 2, 1024u);
        f->ids = xrealloc(f->ids, f->cap, sizeof *f->ids);
        f->begun = xrealloc(f->begun, f->cap, sizeof *f->begun);
    }
    f->ids[f->n] = id;
    f->begun[f->n++] = begun;
}

static void on_node(void *user, uint32_t node, const ParseSet *s) {
    Found *f = user;
    if (s->outside) {
        if (f->n_exits == f->cap_exits)
            f->exits =
                xrealloc(f->exits, f->cap_exits = MAX(f->cap_exits * 2, (size_t)256), sizeof *f->exits);
        f->exits[f->n_exits++] = (StringExit){node, s->outside_count};
        return;
    }
    const Parse *p = &f->w->parses[s->first];
    uint32_t begun = p->count + !!(f->g->flags[p->state] & STATE_INSIDE);
    for (uint32_t id = f->v->token[node]; id != VOCAB_NONE; id = f->v->same[id]) add_token(f, id, begun);
}

static void keep(GrammarVocab *v, const Found *f, StringSet *out) {
    Arena *a = &v->arena;
    for (uint32_t i = 0; i < f->n; i++) out->n_counts = MAX(out->n_counts, f->begun[i] + 1);
    out->mask = ARENA_ARRAY(a, uint32_t, v->n_words);
    out->ids = ARENA_ARRAY(a, uint32_t, f->n);
    out->ids_at = ARENA_ARRAY(a, uint32_t, out->n_counts + 1);
    for (uint32_t i = 0; i < f->n; i++) out->ids_at[f->begun[i] + 1]++;
    for (uint32_t k = 0; k < out->n_counts; k++) out->ids_at[k + 1] += out->ids_at[k];
    uint32_t *next = xmalloc((out->n_counts + 1) * sizeof *next);
    memcpy(next, out->ids_at, (out->n_counts + 1) * sizeof *next);
    for (uint32_t i = 0; i < f->n; i++) {
        out->ids[next[f->begun[i]]++] = f->ids[i];
        mask_set(out->mask, f->ids[i]);
    }
    free(next);
    out->exits = ARENA_ARRAY(a, StringExit, f->n_exits);
    out->n_exits = f->n_exits;
    if (f->n_exits) memcpy(out->exits, f->exits, f->n_exits * sizeof *f->exits);
}

void string_sets_make(GrammarVocab *v) {
    Grammar *g = any_string();
    Walker w;
    walker_init(&w);
    w.g = g;
    w.exact_counts = true;
    v->n_strings = g->counted[0].n;
    v->strings = ARENA_ARRAY(&v->arena, StringSet, v->n_strings);
    ParseSet *sets = xmalloc((v->len_max + 1) * sizeof *sets);
    for (uint32_t i = 0; i < v->n_strings; i++) {
        Found f = {.g = g, .v = v, .w = &w};
        w.n_parses = w.n_frames = 0;
        ParseSet s = set_begin(&w);
        set_add(&w, &s, (Parse){.frame = FRAME_OUTSIDE, .state = (uint16_t)(g->counted[0].first + i)});
        Walk k = {.v = v, .w = &w, .on_node = on_node, .user = &f, .sets = sets};
        walk_nodes(&k, 0, v->n_nodes, s);
        keep(v, &f, &v->strings[i]);
        free(f.ids);
        free(f.begun);
        free(f.exits);
    }
    free(sets);
    walker_free(&w);
    grammar_free(g);
}
