// What the files behind grammar_masks_new share.
#ifndef ADALLM_GRAMMAR_MASKS_H
#define ADALLM_GRAMMAR_MASKS_H
#include "runtime/grammar/cache.h"
#include "runtime/grammar/walk.h"

struct GrammarMasks {
    const GrammarVocab *v;
    Walker w;
    ParseSet *sets;   // [len_max + 1]
    uint16_t *states; // [len_max + 1]
    Cache cache;
    uint64_t n_masks, n_hits;
    GrammarState draft;     // what grammar_accept makes before it takes it
    uint16_t *frame_name;   // [WALK_FRAMES_MAX] frames of the walker in the state under way
    uint32_t *outside_mask; // [n_words]
    uint32_t *exits;        // nodes found by the walk under way
    uint32_t n_exits, cap_exits;
};

// Between states, which are kept, and sets of parses, which are worked with. state_load forgets all sets
// before.
ParseSet state_load(GrammarMasks *m, const GrammarState *s);
void state_store(GrammarMasks *m, const ParseSet *set, GrammarState *s);
#endif
