// Deterministic automata over bytes and calls: from fragments (subset construction), and products of two.
#ifndef ADALLM_GRAMMAR_DFA_H
#define ADALLM_GRAMMAR_DFA_H
#include "runtime/grammar/nfa.h"

typedef struct {
    uint8_t lo, hi;
    uint32_t to;
} DfaEdge;
typedef struct {
    uint32_t rule, to;
} DfaCall;
typedef struct {
    uint32_t edge0, call0; // first of its edges and calls; they end where the next state's begin
    bool final;
} DfaState;

// State 0 is the start. Edges of a state ascend and do not overlap; a state has at most one call of a rule.
struct Dfa {
    uint32_t n;
    DfaState *states; // [n + 1]
    DfaEdge *edges;
    DfaCall *calls;
};

// In the arena of b; NULL when that failed.
const Dfa *dfa_make(Build *b, Frag f);
const Dfa *dfa_pop(Build *b); // of the fragment on top, which is popped with its nodes
// Texts that both match, or those of x that y does not match. Neither may have calls. States from which no
// text ends are gone, but for the start.
typedef enum { DFA_BOTH, DFA_WITHOUT } DfaProduct;
const Dfa *dfa_product(Build *b, const Dfa *x, const Dfa *y, DfaProduct kind);
uint32_t dfa_next(const Dfa *d, uint32_t state, uint8_t byte); // NFA_NONE: none
bool dfa_matches(const Dfa *d, Str text);                      // without calls
#endif
