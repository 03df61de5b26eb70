// Detok: ids in, pieces of text out. Emits what no continuation can change and nothing else, so that pieces
// are always whole UTF-8 and, joined, equal tokenizer_decode of all ids.
#ifndef ADALLM_TEXT_DETOK_H
#define ADALLM_TEXT_DETOK_H
#include "runtime/text/tokenizer.h"

typedef struct {
    const Tokenizer *tok;
    bool skip_special; // control tokens vanish
    bool run_broken;   // the open run of byte tokens can no longer become UTF-8 (byte fallback)
    StrBuf held;       // byte level: an unfinished character, <= 3 bytes; byte fallback: the open run
    size_t checked;    // byte fallback: bytes of `held` known to be whole characters
} Detok;

void detok_begin(Detok *d, const Tokenizer *tok, bool skip_special);
void detok_push(Detok *d, uint32_t id, StrBuf *out); // appends the text settled by this id
void detok_flush(Detok *d, StrBuf *out);             // end of the stream: appends what was held back
void detok_end(Detok *d);                            // frees; d may be begun again
#endif
