// Split: finds added tokens in text, as the reference does: leftmost, of these the longest, with their
// conditions on the neighbourhood; what lies between is text for the model.
#ifndef ADALLM_TEXT_TOKENIZER_SPLIT_H
#define ADALLM_TEXT_TOKENIZER_SPLIT_H
#include "runtime/text/tokenizer_internal.h"

uint32_t tok_trie_find(const TokNode *nodes, size_t n, Str whole); // TOK_NONE when no token is spelled so

typedef struct {
    const Tokenizer *tok;
    const TokNode *nodes;
    size_t n_nodes;
    bool special;     // control tokens count
    Str text;         // valid UTF-8
    size_t at;        // the search goes on here
    size_t settled;   // text before this has been given out
    uint32_t pending; // token to give out next, after the text before it; TOK_NONE
    bool first[256];  // bytes that a token starts with
} TokSplit;

void tok_split_begin(TokSplit *s, const Tokenizer *tok, bool normalized, bool special);
void tok_split_text(TokSplit *s, Str text); // the next text to split
// The next part: *id is a token, or TOK_NONE and *piece is text, not empty. False at the end.
bool tok_split_next(TokSplit *s, uint32_t *id, Str *piece);
#endif
