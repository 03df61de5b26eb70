// Tokenizer: text to ids and back, exactly as the tokenizer.json of the checkpoint says, from the packed
// section that adallmc wrote (tokenizer_format.h). The section is used in place and never trusted.
// A Tokenizer does not change after it is opened: any number of threads may use one at the same time.
#ifndef ADALLM_TEXT_TOKENIZER_H
#define ADALLM_TEXT_TOKENIZER_H
#include "runtime/base/err.h"
#include "runtime/base/str.h"

typedef struct Tokenizer Tokenizer;

typedef struct {
    uint32_t *ptr; // heap-owned; free with ids_free
    size_t n, cap;
} Ids;
void ids_add(Ids *ids, uint32_t id);
void ids_free(Ids *ids);

// Checks every offset, count and id of the section, then refers to it: `section` must be aligned to 8 bytes
// and outlive the tokenizer. Everything else lives in the arena. NULL and E_TOKENIZER when it is damaged.
Tokenizer *tokenizer_open(Arena *arena, const void *section, size_t len, Err *e);

typedef struct {
    bool special;     // control tokens spelled in the text count; false takes them as plain text
    bool add_special; // put the model's own tokens around it (Gemma: <bos>; Qwen: none)
} EncodeOptions;

// Appends the ids of `text` to *out. Text must be UTF-8 (E_TEXT names the first bad byte) of at most
// TOKENIZER_TEXT_MAX bytes (E_LIMIT). Needs O(n log n) time, O(n) heap memory and little stack.
// An id may be >= the rows of the embedding table when the checkpoint's tokenizer has more tokens than its
// model: whoever runs ids checks them.
#define TOKENIZER_TEXT_MAX ((size_t)256 << 20)
bool tokenizer_check_text(Str text, Err *e); // UTF-8 and not too long
bool tokenizer_encode(const Tokenizer *tok, Str text, EncodeOptions options, Ids *out, Err *e);

// Appends the text of n ids to *out: always UTF-8 (broken parts become U+FFFD). Ids that are no token vanish,
// control tokens too if skip_special.
void tokenizer_decode(const Tokenizer *tok, const uint32_t *ids, size_t n, bool skip_special, StrBuf *out);

size_t tokenizer_size(const Tokenizer *tok);                  // largest id + 1
bool tokenizer_is_token(const Tokenizer *tok, uint32_t id);   // false for gaps and ids >= tokenizer_size
bool tokenizer_is_special(const Tokenizer *tok, uint32_t id); // a control token
// Bytes that the token adds to the output, not UTF-8 in general; empty for ids that are no token.
Str tokenizer_token_bytes(const Tokenizer *tok, uint32_t id);

#define TOKEN_NONE UINT32_MAX
// Id of an added token by its content, else of a vocabulary entry by its bytes (byte-level) or its spelling
// in tokenizer.json (Gemma); TOKEN_NONE when there is none.
uint32_t tokenizer_id_of(const Tokenizer *tok, Str content);
#endif
