// Bpe: one word to ids by byte-pair merges, lowest rank first, leftmost first, in O(n log n).
#ifndef ADALLM_TEXT_BPE_H
#define ADALLM_TEXT_BPE_H
#include "runtime/text/tokenizer_internal.h"

typedef struct BpeSymbol BpeSymbol;
typedef struct BpePair BpePair;
typedef struct {
    const Tokenizer *tok;
    BpeSymbol *symbols;
    BpePair *heap;
    size_t n, n_heap, cap; // symbols; pairs; room for symbols, and for twice as many pairs
} Bpe;

void bpe_begin(Bpe *b, const Tokenizer *tok);
void bpe_word(Bpe *b, Str word, Ids *out); // appends the ids of one word, valid UTF-8 (TOK_SPACE_MARKED)
void bpe_end(Bpe *b);
bool bpe_knows_char(const Tokenizer *tok, uint32_t cp); // one token of the vocabulary is this character
#endif
