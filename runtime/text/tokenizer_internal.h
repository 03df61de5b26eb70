// What the files of the tokenizer share: the section as checked views.
#ifndef ADALLM_TEXT_TOKENIZER_INTERNAL_H
#define ADALLM_TEXT_TOKENIZER_INTERNAL_H
#include "runtime/text/pretok.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_format.h"

struct Tokenizer {
    uint32_t kind, flags, n_ids;
#define TOK_ARRAY(name, type)                                                                                \
    const type *name;                                                                                        \
    size_t n_##name;
    TOK_ARRAYS
#undef TOK_ARRAY
    const Pretok *pretok; // byte level only
};

static inline Str tok_out(const Tokenizer *t, uint32_t id) {
    return (Str){(const char *)t->out + t->out_at[id], t->out_at[id + 1] - t->out_at[id]};
}
static inline Str tok_text(const Tokenizer *t, uint32_t id) {
    return (Str){(const char *)t->text + t->text_at[id], t->text_at[id + 1] - t->text_at[id]};
}
uint32_t tok_vocab_find(const Tokenizer *t, Str text); // TOK_NONE when it is no entry of the vocabulary
#endif
