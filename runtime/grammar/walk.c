#include "runtime/grammar/walk.h"

#include <stdlib.h>

#include "runtime/base/num.h"

void walker_init(Walker *w) {
    *w = (Walker){.parses = xmalloc(WALK_PARSES_MAX * sizeof(Parse)),
                  .frames = xmalloc(WALK_FRAMES_MAX * sizeof(Frame)),
                  .n_steps_max = UINT64_MAX};
}

void walker_free(Walker *w) {
    free(w->parses);
    free(w->frames);
}

uint32_t frame_depth(const Walker *w, uint32_t frame) {
    return frame >= FRAME_OUTSIDE ? 0 : w->frames[frame].depth;
}

ParseSet set_begin(const Walker *w) { return (ParseSet){.first = w->n_parses, .frames_end = w->n_frames}; }

void set_drop(Walker *w, const ParseSet *s) { w->n_parses = s->first; }

static bool same_frames(const Walker *w, uint32_t x, uint32_t y) {
    while (x != y) {
        if (x >= FRAME_OUTSIDE || y >= FRAME_OUTSIDE) return false;
        const Frame *a = &w->frames[x], *b = &w->frames[y];
        if (a->state != b->state || a->depth != b->depth) return false;
        x = a->parent, y = b->parent;
    }
    return true;
}

void set_add(Walker *w, ParseSet *s, Parse p) {
    for (uint32_t i = 0; i < s->n; i++) {
        const Parse *q = &w->parses[s->first + i];
        if (q->state == p.state && q->count == p.count && same_frames(w, q->frame, p.frame)) return;
    }
    if (s->n == GRAMMAR_CONFIGS_MAX || w->n_parses == WALK_PARSES_MAX) return;
    w->parses[w->n_parses++] = p;
    s->n++;
}

void set_add_return(Walker *w, ParseSet *s, uint32_t frame) {
    if (frame == FRAME_BOTTOM) {
        s->end = true;
    } else if (frame != FRAME_OUTSIDE) {
        Frame f = w->frames[frame];
        set_add(w, s, (Parse){.frame = f.parent, .state = f.state});
    }
}

// The frame for a call; frames of this set are looked through first, so that equal ones are one.
static bool push_frame(Walker *w, uint32_t from, uint32_t parent, uint16_t state, uint32_t *out) {
    for (uint32_t i = from; i < w->n_frames; i++)
        if (w->frames[i].parent == parent && w->frames[i].state == state) return *out = i, true;
    if (w->n_frames == WALK_FRAMES_MAX) return false;
    w->frames[w->n_frames] = (Frame){parent, state, (uint16_t)(frame_depth(w, parent) + 1)};
    return *out = w->n_frames++, true;
}

static void enter(Walker *w, ParseSet *s, uint32_t frames_from, Parse p, const Call *call) {
    const Grammar *g = w->g;
    bool leaves = g->flags[call->back] & STATE_LEAVES; // nothing to come back to
    uint32_t depth = frame_depth(w, p.frame), frame = p.frame;
    uint32_t most = MAX(depth + !leaves + call->need, depth + g->need[call->back]);
    w->deepest = MAX(w->deepest, most);
    if (most > GRAMMAR_DEPTH_MAX) return;
    if (leaves || push_frame(w, frames_from, p.frame, call->back, &frame))
        set_add(w, s, (Parse){.frame = frame, .state = call->enter});
}

void set_close(Walker *w, ParseSet *s) {
    const Grammar *g = w->g;
    uint32_t frames_from = s->frames_end;
    for (uint32_t i = 0; i < s->n; i++) {
        Parse p = w->parses[s->first + i];
        if ((g->flags[p.state] & STATE_FINAL) && p.frame == FRAME_OUTSIDE)
            s->outside = true, s->outside_count = p.count;
        else if (g->flags[p.state] & STATE_FINAL)
            set_add_return(w, s, p.frame);
        for (uint32_t c = g->call_at[p.state]; c < g->call_at[p.state + 1]; c++)
            enter(w, s, frames_from, p, &g->calls[c]);
    }
    s->frames_end = w->n_frames;
}

// Goes from state p->state of a counted string to `to`; false where its bounds forbid it.
static bool count_step(const Walker *w, Parse *p, uint16_t to) {
    const Grammar *g = w->g;
    const Counted *c = &g->counted[g->counted_of[p->state]];
    uint8_t from_flags = g->flags[p->state], to_flags = g->flags[to];
    if (from_flags & STATE_BODY) {
        if (to_flags & STATE_FINAL) return p->count >= c->count_min;
        if (p->count >= c->count_max) return false;
    }
    bool starts = p->state == c->first;
    if (!(to_flags & STATE_BODY) || starts) return true;
    if (w->exact_counts || c->count_max != NFA_NO_END || p->count < c->count_min) p->count++;
    return true;
}

ParseSet walker_step(Walker *w, const ParseSet *from, uint8_t byte) {
    const Grammar *g = w->g;
    ParseSet s = set_begin(w);
    w->n_steps += from->n;
    for (uint32_t i = 0; i < from->n; i++) {
        Parse p = w->parses[from->first + i];
        uint16_t to = grammar_next(g, p.state, byte);
        if (to == STATE_NONE) continue;
        if (g->counted_of[p.state] != STATE_NONE && !count_step(w, &p, to)) continue;
        uint32_t most = frame_depth(w, p.frame) + g->need[to];
        w->deepest = MAX(w->deepest, most);
        if (most > GRAMMAR_DEPTH_MAX) continue;
        p.state = to;
        set_add(w, &s, p);
    }
    set_close(w, &s);
    return s;
}

// The commonest step: one parse, to a state from which nothing is reached without a byte but the end of the
// text, or of what is known.
static bool plain_step(Walker *w, const ParseSet *from, uint8_t byte, ParseSet *out) {
    const Grammar *g = w->g;
    if (from->n != 1) return false;
    Parse p = w->parses[from->first];
    uint8_t flags = g->flags[p.state];
    if (!(flags & STATE_PLAIN)) return false;
    uint16_t to = grammar_next(g, p.state, byte);
    *out = (ParseSet){.first = w->n_parses, .frames_end = w->n_frames};
    if (to == STATE_NONE) return true;
    flags = g->flags[to];
    if (!(flags & STATE_PLAIN) || g->need[to] > g->need[p.state] || w->n_parses == WALK_PARSES_MAX)
        return false;
    if (flags & STATE_FINAL) {
        if (p.frame < FRAME_OUTSIDE) return false;
        out->end = p.frame == FRAME_BOTTOM;
        out->outside = p.frame == FRAME_OUTSIDE;
    }
    w->parses[w->n_parses++] = (Parse){.frame = p.frame, .count = p.count, .state = to};
    out->n = 1;
    return true;
}

static void reach(Walk *k, uint32_t node, const ParseSet *s) {
    if (k->mask) mask_set_node(k->mask, k->v, node);
    if (k->on_node) k->on_node(k->user, node, s);
    if (k->on_leave && s->outside) k->on_leave(k->user, node);
}

void walk_nodes(Walk *k, uint32_t begin, uint32_t end, ParseSet s) {
    const GrammarVocab *v = k->v;
    Walker *w = k->w;
    if (begin >= end) return;
    k->sets[v->depth[begin] - 1] = s;
    for (uint32_t node = begin; node < end && !walker_is_spent(w);) {
        const ParseSet *from = &k->sets[v->depth[node] - 1];
        ParseSet *to = &k->sets[v->depth[node]];
        w->n_parses = from->first + from->n;
        w->n_frames = from->frames_end;
        w->n_steps++;
        if (!plain_step(w, from, v->byte[node], to)) *to = walker_step(w, from, v->byte[node]);
        if (!to->n && !to->end && !to->outside) {
            node = v->past[node];
            continue;
        }
        reach(k, node, to);
        node = to->n ? node + 1 : v->past[node];
    }
    w->n_parses = s.first + s.n;
    w->n_frames = s.frames_end;
}

// A step that is not plain, with everything below the node.
static void leave_plain(Walk *k, uint32_t node, uint16_t from) {
    const GrammarVocab *v = k->v;
    Walker *w = k->w;
    ParseSet s = set_begin(w);
    set_add(w, &s, (Parse){.frame = FRAME_OUTSIDE, .state = from});
    ParseSet to = walker_step(w, &s, v->byte[node]);
    if (to.n || to.outside) reach(k, node, &to);
    if (to.n) walk_nodes(k, node + 1, v->past[node], to);
    w->n_parses = s.first;
    w->n_frames = s.frames_end;
}

void walk_inside(Walk *k, uint16_t state) {
    const GrammarVocab *v = k->v;
    Walker *w = k->w;
    const Grammar *g = w->g;
    k->states[0] = state;
    for (uint32_t node = 0; node < v->n_nodes && !walker_is_spent(w);) {
        w->n_steps++;
        uint16_t depth = v->depth[node], from = k->states[depth - 1];
        uint16_t to = grammar_next(g, from, v->byte[node]);
        uint8_t flags = to == STATE_NONE ? 0 : g->flags[to];
        if (to == STATE_NONE || !(flags & STATE_PLAIN)) {
            if (to != STATE_NONE) leave_plain(k, node, from);
            node = v->past[node];
            continue;
        }
        k->states[depth] = to;
        w->deepest = MAX(w->deepest, g->need[to]);
        mask_set_node(k->mask, v, node);
        if (flags & STATE_FINAL) k->on_leave(k->user, node);
        node++;
    }
}
