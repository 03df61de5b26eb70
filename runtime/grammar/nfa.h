// How a rule is put together: fragments of a nondeterministic automaton over bytes and calls of rules, on a
// stack (Thompson's construction). Front ends push fragments and combine them; dfa.h makes the result
// deterministic.
#ifndef ADALLM_GRAMMAR_NFA_H
#define ADALLM_GRAMMAR_NFA_H
#include "runtime/grammar/grammar.h"

typedef struct Dfa Dfa;

typedef enum { NFA_SPLIT, NFA_BYTES, NFA_CALL } NfaKind;
enum { NFA_NONE = UINT32_MAX, NFA_NO_END = UINT32_MAX };

typedef struct {
    uint8_t kind, lo, hi; // BYTES: the bytes lo to hi
    uint32_t out;         // next node, NFA_NONE at the end of a fragment
    uint32_t other;       // SPLIT: another next node, or NFA_NONE; CALL: the rule
} NfaNode;

// Nodes [begin, begin of the next fragment on the stack), entered at `start`; `end` is a SPLIT without ways
// on.
typedef struct {
    uint32_t begin, start, end;
} Frag;

// A rule once it is deterministic. counted: the JSON string rule with these bounds on its characters.
typedef struct {
    const char *name; // for messages; NULL: made by the compiler
    const Dfa *dfa;
    bool counted;
    uint32_t count_min, count_max; // count_max NFA_NO_END: no bound
} Rule;

// One compilation. The first error stays in *err; after it every function returns at once.
typedef struct {
    Arena arena; // everything but the stacks
    Err *err;
    bool failed;
    uint64_t work; // steps taken, at most GRAMMAR_WORK_MAX
    NfaNode *nodes;
    size_t n_nodes, cap_nodes;
    Frag *frags;
    size_t n_frags, cap_frags;
    Rule *rules;
    size_t n_rules, cap_rules;
    uint32_t n_states; // of all rules
} Build;

void build_begin(Build *b, Err *e);
void build_free(Build *b);
bool build_fail(Build *b, ErrCode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool build_work(Build *b, uint64_t steps);       // false when the time is used up
uint32_t build_rule(Build *b, const char *name); // a new rule without a body
// The fragment on top of the stack, which must be the only one, becomes the body of the rule.
void build_define(Build *b, uint32_t rule);

// Each pushes one fragment.
void nfa_empty(Build *b);
void nfa_never(Build *b); // matches nothing
void nfa_range(Build *b, uint8_t lo, uint8_t hi);
void nfa_bytes(Build *b, Str bytes);
void nfa_call(Build *b, uint32_t rule);
void nfa_dfa(Build *b, const Dfa *d); // a copy
// Each pops n fragments and pushes one.
void nfa_cat(Build *b, size_t n);
void nfa_alt(Build *b, size_t n);                             // n >= 1
void nfa_repeat(Build *b, uint32_t n_least, uint32_t n_most); // of the top one; NFA_NO_END: any number

// By hand: fresh nodes, edges between them, and the fragment of all nodes since `begin`.
uint32_t nfa_node(Build *b);
void nfa_edge(Build *b, uint32_t from, uint32_t to);
Frag nfa_take(Build *b); // pops; its nodes stay
void nfa_push(Build *b, Frag f);
#endif
