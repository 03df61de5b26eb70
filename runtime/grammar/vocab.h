// The tokens of a tokenizer as a prefix tree, in the order of a walk that goes down first:
//
//     node       0  1  2  3  4     tokens  "a" "ab" "abc" "ax" "b"
//     byte       a  b  c  x  b
//     depth      1  2  3  2  1
//     past       4  3  3  4  5     first node behind the subtree: where to go on when a node is no way
#ifndef ADALLM_GRAMMAR_VOCAB_H
#define ADALLM_GRAMMAR_VOCAB_H
#include "runtime/grammar/automaton.h"

enum { VOCAB_NONE = UINT32_MAX };

// A node where a string's closing quote ends, and the characters written until there.
typedef struct {
    uint32_t node, count;
} StringExit;

// What may follow in one state of a JSON string, as long as it goes on: the same for all strings.
typedef struct {
    uint32_t *mask;   // [words] tokens that stay inside
    uint32_t *ids;    // the same tokens, ascending by the characters that they begin
    uint32_t *ids_at; // [n_counts + 1] those that begin k characters are ids[ids_at[k]] to ids[ids_at[k + 1]]
    uint32_t n_counts; // characters that a token begins, at most, plus one
    StringExit *exits;
    size_t n_exits;
} StringSet;

struct GrammarVocab {
    Arena arena;
    uint32_t n_vocab, n_words; // n_words: of a mask
    uint32_t n_nodes, len_max; // longest token
    uint8_t *byte;             // [n_nodes]
    uint16_t *depth;           // [n_nodes]
    uint32_t *past;            // [n_nodes]
    uint32_t *token;           // [n_nodes] id that ends here, VOCAB_NONE
    uint32_t *same;            // [n_vocab] another id with the same bytes, VOCAB_NONE
    uint32_t n_same;           // ids that have one: 0 in most vocabularies
    uint32_t *text_at;         // [n_vocab + 1]
    char *text;                // bytes of all tokens
    uint32_t *eos;
    size_t n_eos;
    StringSet *strings; // [n_strings] by state, counted from the first one of the rule
    uint32_t n_strings;
};

static inline Str vocab_bytes(const GrammarVocab *v, uint32_t id) {
    return (Str){v->text + v->text_at[id], v->text_at[id + 1] - v->text_at[id]};
}
static inline void mask_set(uint32_t *mask, uint32_t id) { mask[id / 32] |= 1u << id % 32; }
// All ids that end at this node.
static inline void mask_set_node(uint32_t *mask, const GrammarVocab *v, uint32_t node) {
    uint32_t id = v->token[node];
    if (id == VOCAB_NONE) return;
    mask_set(mask, id);
    if (!v->n_same) return;
    while ((id = v->same[id]) != VOCAB_NONE) mask_set(mask, id);
}
#endif
