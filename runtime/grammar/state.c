#include "runtime/base/num.h"
#include "runtime/grammar/masks.h"

enum { CHUNK = 16 }; // bytes between two times that old parses and frames are given up

void grammar_copy(GrammarState *to, const GrammarState *from) {
    memcpy(to, from, offsetof(GrammarState, configs) + from->n_configs * sizeof from->configs[0]);
    memcpy(to->frames, from->frames, from->n_frames * sizeof from->frames[0]);
}

ParseSet state_load(GrammarMasks *m, const GrammarState *s) {
    Walker *w = &m->w;
    w->g = s->grammar;
    w->n_parses = 0;
    w->n_frames = s->n_frames;
    for (uint32_t i = 0; i < s->n_frames; i++) {
        GrammarFrame f = s->frames[i];
        w->frames[i] = (Frame){f.parent == GRAMMAR_NO_FRAME ? FRAME_BOTTOM : f.parent, f.state, f.depth};
    }
    ParseSet set = set_begin(w);
    for (uint32_t i = 0; i < s->n_configs; i++) {
        GrammarConfig c = s->configs[i];
        uint32_t frame = c.frame == GRAMMAR_NO_FRAME ? FRAME_BOTTOM : c.frame;
        w->parses[w->n_parses++] = (Parse){frame, c.count, c.state};
    }
    set.n = s->n_configs;
    set.end = s->can_end;
    return set;
}

static bool find_frame(const GrammarState *s, uint16_t parent, uint16_t state, uint16_t *out) {
    for (uint32_t i = s->n_frames; i-- > 0;)
        if (s->frames[i].parent == parent && s->frames[i].state == state) return *out = (uint16_t)i, true;
    return false;
}

// The frame of the state that says the same as one of the walker's, made with all below it if need be. False:
// there is no room.
static bool name_frame(GrammarMasks *m, GrammarState *s, uint32_t frame, uint16_t *out) {
    uint32_t chain[GRAMMAR_DEPTH_MAX + 1], n = 0;
    for (; frame < FRAME_OUTSIDE && m->frame_name[frame] == GRAMMAR_NO_FRAME;
         frame = m->w.frames[frame].parent)
        chain[n++] = frame;
    uint16_t at = frame < FRAME_OUTSIDE ? m->frame_name[frame] : GRAMMAR_NO_FRAME;
    while (n-- > 0) {
        const Frame *f = &m->w.frames[chain[n]];
        uint16_t parent = at;
        if (!find_frame(s, parent, f->state, &at)) {
            if (s->n_frames == GRAMMAR_FRAMES_MAX) return false;
            at = s->n_frames++;
            s->frames[at] = (GrammarFrame){parent, f->state, f->depth};
        }
        m->frame_name[chain[n]] = at;
    }
    return *out = at, true;
}

void state_store(GrammarMasks *m, const ParseSet *set, GrammarState *s) {
    const Walker *w = &m->w;
    *s = (GrammarState){.grammar = w->g, .can_end = set->end};
    memset(m->frame_name, 0xFF, w->n_frames * sizeof *m->frame_name);
    for (uint32_t i = 0; i < set->n; i++) {
        const Parse *p = &w->parses[set->first + i];
        uint16_t frame;
        if (!(w->g->flags[p->state] & STATE_BYTES) || !name_frame(m, s, p->frame, &frame)) continue;
        s->configs[s->n_configs++] = (GrammarConfig){p->state, frame, p->count};
    }
}

void grammar_start(GrammarMasks *m, const Grammar *g, GrammarState *s) {
    Walker *w = &m->w;
    w->g = g;
    w->n_parses = w->n_frames = 0;
    ParseSet set = set_begin(w);
    set_add(w, &set, (Parse){.frame = FRAME_BOTTOM, .state = g->start});
    set_close(w, &set);
    state_store(m, &set, s);
}

static bool accept_chunk(GrammarMasks *m, GrammarState *s, Str bytes) {
    ParseSet set = state_load(m, s);
    for (size_t i = 0; i < bytes.len; i++) {
        set = walker_step(&m->w, &set, (uint8_t)bytes.ptr[i]);
        if (!set.n && !set.end) return false;
    }
    state_store(m, &set, s);
    return true;
}

bool grammar_accept_bytes(GrammarMasks *m, GrammarState *s, Str bytes) {
    if (s->ended) return !bytes.len;
    grammar_copy(&m->draft, s);
    for (size_t i = 0; i < bytes.len; i += CHUNK)
        if (!accept_chunk(m, &m->draft, str_sub(bytes, i, MIN(i + CHUNK, bytes.len)))) return false;
    grammar_copy(s, &m->draft);
    return true;
}

static bool is_eos(const GrammarVocab *v, uint32_t token) {
    for (size_t i = 0; i < v->n_eos; i++)
        if (v->eos[i] == token) return true;
    return false;
}

bool grammar_accept(GrammarMasks *m, GrammarState *s, uint32_t token) {
    if (s->ended || token >= m->v->n_vocab) return false;
    if (is_eos(m->v, token)) {
        if (!s->can_end) return false;
        s->n_configs = s->n_frames = 0;
        s->can_end = false;
        s->ended = true;
        return true;
    }
    Str bytes = vocab_bytes(m->v, token);
    return bytes.len && grammar_accept_bytes(m, s, bytes);
}

// The only byte that leads on; false when there is none or another.
static bool only_byte(const GrammarMasks *m, const ParseSet *set, uint8_t *out) {
    const Walker *w = &m->w;
    uint32_t n = 0;
    for (uint32_t c = 0; c < 256 && n < 2; c++)
        for (uint32_t i = 0; i < set->n; i++)
            if (grammar_next(w->g, w->parses[set->first + i].state, (uint8_t)c) != STATE_NONE) {
                n++;
                *out = (uint8_t)c;
                break;
            }
    return n == 1;
}

size_t grammar_forced(GrammarMasks *m, const GrammarState *s, char *out, size_t cap) {
    ParseSet set = state_load(m, s);
    size_t n = 0;
    uint8_t byte;
    while (n < cap && !set.end && only_byte(m, &set, &byte)) {
        ParseSet next = walker_step(&m->w, &set, byte);
        if (!next.n && !next.end) break;
        out[n++] = (char)byte;
        set = next;
    }
    return n;
}
