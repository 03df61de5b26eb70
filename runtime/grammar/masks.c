// The mask of a state. States are of three kinds: inside of a JSON string, where the vocabulary knows
// what stays inside (string_sets.h); others that much of the vocabulary can follow, for which what stays
// inside of their rule is found once and cached; and the rest, whose part of the tree is small and walked
// each time. Where a token leaves the rule of the first two kinds, the walk goes on with what the rule
// returns to.
#include "runtime/grammar/masks.h"

#include <stdlib.h>

#include "runtime/base/num.h"

enum {
    WIDE_PART =
        16, // of the nodes below the bytes that may follow: from a 16th on a state is of the second kind
    CACHE_FROM = 256,   // steps of walking from which a mask is worth keeping
    STEPS_MAX = 4 << 20 // steps of walking for one mask: about 0.2 s
};

GrammarMasks *grammar_masks_new(const GrammarVocab *v, size_t bytes_max) {
    GrammarMasks *m = xmalloc(sizeof *m);
    *m = (GrammarMasks){.v = v};
    walker_init(&m->w);
    cache_init(&m->cache, bytes_max);
    m->sets = xmalloc((v->len_max + 1) * sizeof *m->sets);
    m->states = xmalloc((v->len_max + 1) * sizeof *m->states);
    m->frame_name = xmalloc(WALK_FRAMES_MAX * sizeof *m->frame_name);
    m->outside_mask = xmalloc(v->n_words * sizeof *m->outside_mask);
    return m;
}

void grammar_masks_free(GrammarMasks *m) {
    if (!m) return;
    walker_free(&m->w);
    cache_free(&m->cache);
    free(m->sets);
    free(m->states);
    free(m->frame_name);
    free(m->outside_mask);
    free(m->exits);
    free(m);
}

GrammarStats grammar_stats(const GrammarMasks *m) {
    return (GrammarStats){m->n_masks, m->n_hits, m->cache.bytes};
}

// ---- keys ------------------------------------------------------------------------------------------------
typedef struct {
    size_t len; // 0: too long to be cached
    uint8_t bytes[CACHE_KEY_MAX];
} Key;

static void key_add(Key *k, const void *p, size_t n) {
    memcpy(k->bytes + k->len, p, n);
    k->len += n;
}

// A count from which no token reaches a bound is as good as any other.
static uint32_t key_count(const GrammarMasks *m, const Grammar *g, const GrammarConfig *c) {
    uint16_t i = g->counted_of[c->state];
    if (i == STATE_NONE) return 0;
    const Counted *bounds = &g->counted[i];
    uint32_t len_max = m->v->len_max;
    bool far = bounds->count_max == NFA_NO_END || bounds->count_max - c->count > len_max;
    if (far && c->count >= bounds->count_min) return NFA_NO_END;
    return c->count;
}

static void state_key(const GrammarMasks *m, const GrammarState *s, Key *k) {
    k->len = 0;
    size_t need = 16 + s->n_configs * 8u + s->n_frames * 4u;
    if (need > CACHE_KEY_MAX) return;
    uint16_t head[4] = {s->n_configs, s->n_frames, s->can_end, 0};
    key_add(k, &s->grammar->serial, 8);
    key_add(k, head, sizeof head);
    for (uint32_t i = 0; i < s->n_configs; i++) {
        GrammarConfig c = s->configs[i];
        c.count = key_count(m, s->grammar, &c);
        key_add(k, &c, sizeof c);
    }
    for (uint32_t i = 0; i < s->n_frames; i++) key_add(k, &s->frames[i], 4);
}

static void wide_key(const Grammar *g, uint16_t state, Key *k) {
    k->len = 0;
    key_add(k, &g->serial, 8);
    key_add(k, &state, 2);
}

// ---- walking ---------------------------------------------------------------------------------------------
static Walk walk_begin(GrammarMasks *m, uint32_t *mask) {
    return (Walk){.v = m->v, .w = &m->w, .mask = mask, .sets = m->sets, .states = m->states};
}

// Nodes below the bytes that may follow in this state.
static uint64_t width(const GrammarMasks *m, uint16_t state) {
    const GrammarVocab *v = m->v;
    uint64_t n = 0;
    for (uint32_t node = 0; node < v->n_nodes; node = v->past[node])
        if (grammar_next(m->w.g, state, v->byte[node]) != STATE_NONE) n += v->past[node] - node;
    return n;
}

// What follows where the rules of these parses end.
static ParseSet returns_of(GrammarMasks *m, const Parse *parses, uint32_t n) {
    ParseSet s = set_begin(&m->w);
    for (uint32_t i = 0; i < n; i++) set_add_return(&m->w, &s, parses[i].frame);
    set_close(&m->w, &s);
    return s;
}

static void go_on_at(GrammarMasks *m, uint32_t node, ParseSet returns, uint32_t *mask) {
    const GrammarVocab *v = m->v;
    if (!returns.n || v->past[node] == node + 1) return;
    Walk k = walk_begin(m, mask);
    walk_nodes(&k, node + 1, v->past[node], returns);
}

// ---- strings ---------------------------------------------------------------------------------------------
static void add_inside(const GrammarMasks *m, const StringSet *set, uint32_t room, uint32_t *mask) {
    if (room + 1 >= set->n_counts) {
        for (uint32_t i = 0; i < m->v->n_words; i++) mask[i] |= set->mask[i];
        return;
    }
    for (uint32_t i = 0; i < set->ids_at[room + 1]; i++) mask_set(mask, set->ids[i]);
}

// Parses in one state of one string with one count; `room` more characters may come, `need` must.
static void add_string(GrammarMasks *m, const Parse *parses, uint32_t n, uint32_t *mask) {
    const Grammar *g = m->w.g;
    const GrammarVocab *v = m->v;
    const Counted *c = &g->counted[g->counted_of[parses[0].state]];
    const StringSet *set = &v->strings[parses[0].state - c->first];
    uint32_t count = parses[0].count, need = c->count_min > count ? c->count_min - count : 0;
    uint32_t room = c->count_max == NFA_NO_END ? NFA_NO_END - 1 : c->count_max - count;
    uint32_t n_frames = m->w.n_frames;
    m->w.n_steps += CACHE_FROM;
    add_inside(m, set, room, mask);
    ParseSet returns = returns_of(m, parses, n);
    for (size_t i = 0; i < set->n_exits; i++) {
        StringExit e = set->exits[i];
        if (e.count < need || e.count > room) continue;
        mask_set_node(mask, v, e.node);
        go_on_at(m, e.node, returns, mask);
    }
    set_drop(&m->w, &returns);
    m->w.n_frames = n_frames;
}

// ---- wide states -----------------------------------------------------------------------------------------
static void on_leave(void *user, uint32_t node) {
    GrammarMasks *m = user;
    if (m->v->past[node] == node + 1) return; // nothing can come behind
    if (m->n_exits == m->cap_exits) {
        m->cap_exits = MAX(m->cap_exits * 2, 1024u);
        m->exits = xrealloc(m->exits, m->cap_exits, sizeof *m->exits);
    }
    m->exits[m->n_exits++] = node;
}

static void take_cached(GrammarMasks *m, const CacheEntry *e) {
    memcpy(m->outside_mask, e->mask, e->n_words * sizeof *e->mask);
    if (e->n_exits > m->cap_exits) m->exits = xrealloc(m->exits, m->cap_exits = e->n_exits, sizeof *m->exits);
    if (e->n_exits) memcpy(m->exits, e->exits, e->n_exits * sizeof *e->exits);
    m->n_exits = e->n_exits;
    m->w.n_steps += e->n_steps; // as if it were walked: what is refused must not depend on the cache
}

// What stays inside of the rule of this state, whatever it returns to. In m->outside_mask and m->exits; the
// frames that it takes are returned.
static uint32_t find_inside(GrammarMasks *m, uint16_t state) {
    Key key;
    wide_key(m->w.g, state, &key);
    const CacheEntry *e = cache_find(&m->cache, key.bytes, key.len);
    if (e) {
        take_cached(m, e);
        return e->deepest;
    }
    uint64_t before = m->w.n_steps;
    memset(m->outside_mask, 0, m->v->n_words * sizeof *m->outside_mask);
    m->n_exits = 0;
    m->w.deepest = 0;
    Walk k = walk_begin(m, m->outside_mask);
    k.on_leave = on_leave;
    k.user = m;
    walk_inside(&k, state);
    CacheEntry made = {.n_words = m->v->n_words,
                       .mask = m->outside_mask,
                       .n_exits = m->n_exits,
                       .exits = m->exits,
                       .deepest = m->w.deepest,
                       .n_steps = m->w.n_steps - before};
    if (!walker_is_spent(&m->w)) cache_add(&m->cache, key.bytes, key.len, &made);
    return m->w.deepest;
}

// Parses in one wide state. False: so deep that the limit on depth may matter, which only a walk sees.
static bool add_wide(GrammarMasks *m, const Parse *parses, uint32_t n, uint32_t *mask) {
    uint32_t deepest = find_inside(m, parses[0].state), n_frames = m->w.n_frames;
    for (uint32_t i = 0; i < n; i++)
        if (frame_depth(&m->w, parses[i].frame) + deepest > GRAMMAR_DEPTH_MAX) return false;
    for (uint32_t i = 0; i < m->v->n_words; i++) mask[i] |= m->outside_mask[i];
    ParseSet returns = returns_of(m, parses, n);
    for (uint32_t i = 0; i < m->n_exits; i++) go_on_at(m, m->exits[i], returns, mask);
    set_drop(&m->w, &returns);
    m->w.n_frames = n_frames;
    return true;
}

// ---- all together ----------------------------------------------------------------------------------------
// Takes the parses in the state (and with the count) of parses[0] from the front of the list; those that stay
// keep their order.
static uint32_t take_alike(Parse *parses, uint32_t *n, Parse *out) {
    uint32_t n_out = 0, kept = 0;
    Parse first = parses[0];
    for (uint32_t i = 0; i < *n; i++) {
        if (parses[i].state == first.state && parses[i].count == first.count)
            out[n_out++] = parses[i];
        else
            parses[kept++] = parses[i];
    }
    *n = kept;
    return n_out;
}

static void add_parses(GrammarMasks *m, const ParseSet *all, uint32_t *mask) {
    Walker *w = &m->w;
    Parse left[GRAMMAR_CONFIGS_MAX], alike[GRAMMAR_CONFIGS_MAX];
    uint32_t n_left = all->n;
    if (n_left) memcpy(left, &w->parses[all->first], n_left * sizeof *left);
    ParseSet narrow = set_begin(w);
    while (n_left && !walker_is_spent(w)) {
        uint32_t n = take_alike(left, &n_left, alike);
        bool string = w->g->counted_of[alike[0].state] != STATE_NONE, done = string;
        if (string)
            add_string(m, alike, n, mask);
        else if (width(m, alike[0].state) >= m->v->n_nodes / WIDE_PART + 1)
            done = add_wide(m, alike, n, mask);
        for (uint32_t i = 0; i < n && !done; i++) set_add(w, &narrow, alike[i]);
    }
    Walk k = walk_begin(m, mask);
    if (narrow.n) walk_nodes(&k, 0, m->v->n_nodes, narrow);
}

static bool any_bit(const uint32_t *mask, uint32_t n_words) {
    for (uint32_t i = 0; i < n_words; i++)
        if (mask[i]) return true;
    return false;
}

bool grammar_mask(GrammarMasks *m, const GrammarState *s, uint32_t *mask) {
    const GrammarVocab *v = m->v;
    Key key;
    state_key(m, s, &key);
    m->n_masks++;
    const CacheEntry *e = key.len && !s->ended ? cache_find(&m->cache, key.bytes, key.len) : NULL;
    if (e) {
        m->n_hits++;
        memcpy(mask, e->mask, v->n_words * sizeof *mask);
        return any_bit(mask, v->n_words);
    }
    memset(mask, 0, v->n_words * sizeof *mask);
    if (s->ended) return false;
    ParseSet set = state_load(m, s);
    m->w.n_steps = 0;
    m->w.n_steps_max = STEPS_MAX;
    add_parses(m, &set, mask);
    m->w.n_steps_max = UINT64_MAX;
    if (m->w.n_steps > STEPS_MAX) {
        memset(mask, 0, v->n_words * sizeof *mask);
        return false;
    }
    for (size_t i = 0; i < v->n_eos && s->can_end; i++) mask_set(mask, v->eos[i]);
    CacheEntry made = {.n_words = v->n_words, .mask = mask};
    if (key.len && m->w.n_steps >= CACHE_FROM) cache_add(&m->cache, key.bytes, key.len, &made);
    return any_bit(mask, v->n_words);
}
