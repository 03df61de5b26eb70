// What a tokenizer.json says, checked: between its reading (tokenizer_pipeline.c, tokenizer_vocab.c) and its
// packing (tokenizer_section.c).
#ifndef ADALLM_FRONTEND_TOKENIZER_SPEC_H
#define ADALLM_FRONTEND_TOKENIZER_SPEC_H
#include "runtime/base/json.h"
#include "runtime/text/tokenizer_format.h"

typedef struct {
    Str spelling;  // as in the file; ptr NULL for a gap
    uint8_t flags; // TOK_*
    bool in_vocab; // an entry of the model's vocabulary (an added token may be one too)
    bool added, normalized;
} SpecToken;

typedef struct {
    uint32_t left, right, id; // its rank is its index
} SpecMerge;

typedef struct {
    uint32_t *slots; // ids; TOK_NONE is free
    size_t cap;
} SpecTable; // spelling -> id, for all tokens

typedef struct {
    Arena *arena;
    const Source *src;
    Diags *d;
    uint64_t vocab_rows;
    TokKind kind;
    uint32_t flags, pattern;
    SpecToken *tokens; // [n_ids]
    size_t n_ids;
    SpecTable table;
    SpecMerge *merges;
    size_t n_merges;
    uint32_t byte_ids[256];
    uint32_t prefix[TOK_AFFIX_MAX], suffix[TOK_AFFIX_MAX];
    size_t n_prefix, n_suffix;
} TokSpec;

// Each adds located errors and returns false when the file is broken or describes what is not run here.
bool tokenizer_read_pipeline(TokSpec *s, const Json *root);  // normalizer, pre_tokenizer, decoder, model kind
bool tokenizer_read_vocab(TokSpec *s, const Json *root);     // model.vocab, added_tokens, bytes
bool tokenizer_read_merges(TokSpec *s, const Json *root);    // model.merges
bool tokenizer_read_affixes(TokSpec *s, const Json *root);   // post_processor
void tokenizer_write_section(const TokSpec *s, StrBuf *out); // cannot fail

uint32_t spec_find(const TokSpec *s, Str spelling); // id, or TOK_NONE

// The bytes behind a spelling of the byte level ("Ġthe" -> " the"); false when a character stands for none.
bool byte_level_decode(Str spelling, StrBuf *out);
// "<0x41>" -> 0x41; -1 when the spelling is no byte token.
int byte_token_value(Str spelling);
bool looks_like_byte_token(Str spelling); // six bytes, "<0x" ... ">"

bool spec_broken(TokSpec *s, const Json *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool spec_unsupported(TokSpec *s, const Json *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#endif
