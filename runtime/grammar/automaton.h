// The compiled grammar: one table over all rules, and what walking it needs to know of every state.
#ifndef ADALLM_GRAMMAR_AUTOMATON_H
#define ADALLM_GRAMMAR_AUTOMATON_H
#include "runtime/grammar/nfa.h"

enum { STATE_NONE = 0xFFFF };

// What a state is, bits.
enum {
    STATE_FINAL = 1,  // its rule may end here
    STATE_PLAIN = 2,  // without calls, not in a counted rule
    STATE_LEAVES = 4, // final, and nothing else: a call that returns here need not remember it
    STATE_BYTES = 8,  // some byte leads on
    STATE_BODY = 16,  // of a counted string: between two characters
    STATE_INSIDE = 32 // of a counted string: inside of a character
};

typedef struct {
    uint16_t enter, back; // first state of the rule, state after it
    uint16_t need;        // frames that the rule needs at least below its own
} Call;

// A JSON string with bounds on its characters. All of them have the same automaton, at another place.
typedef struct {
    uint16_t first, n; // states
    uint32_t count_min, count_max;
} Counted;

struct Grammar {
    uint64_t serial; // never used again in this process
    Arena arena;
    uint32_t n_states, n_classes, n_counted;
    uint16_t start;
    uint8_t class_of[256];   // bytes of one class lead to the same states everywhere
    const uint16_t *next;    // [n_states, n_classes] STATE_NONE: no way
    const uint8_t *flags;    // [n_states]
    const uint16_t *need;    // [n_states] frames needed at least to get to the end of the rule
    const uint32_t *call_at; // [n_states + 1] into calls
    const Call *calls;
    const uint16_t *counted_of; // [n_states] index into counted, STATE_NONE
    const Counted *counted;
};

static inline uint16_t grammar_next(const Grammar *g, uint16_t state, uint8_t byte) {
    return g->next[(uint32_t)state * g->n_classes + g->class_of[byte]];
}

// Frees b. The text of the grammar is that of rule `start`; every rule has a body. NULL when the build
// failed, no text is matched, or a rule can call itself before the first byte.
Grammar *automaton_make(Build *b, uint32_t start);
#endif
