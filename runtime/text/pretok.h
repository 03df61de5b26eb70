// Pretok: cuts normalised text into words with the split pattern of the tokenizer, run by PCRE2.
//
// Which characters are letters, numbers or spaces is fixed by the tokenizer's reference (Unicode 16.0), not
// by the Unicode tables of the installed PCRE2. So PCRE2 never sees the text itself: it sees one ASCII byte a
// character that stands for its class, and runs the pattern unchanged over these.
#ifndef ADALLM_TEXT_PRETOK_H
#define ADALLM_TEXT_PRETOK_H
#include "runtime/base/err.h"
#include "runtime/base/str.h"

enum { CLASS_LETTER = 1, CLASS_NUMBER = 2, CLASS_SPACE = 4, CLASS_WORD = 8, CLASS_NFC = 16 };
// Classes of a code point: Unicode 16.0 \p{L}, \p{N}, White_Space, \w; CLASS_NFC: assigned in Unicode 9.0,
// the version by which text is normalised.
uint32_t pretok_class(uint32_t cp);

typedef struct Pretok Pretok;
Pretok *pretok_new(Arena *arena, uint32_t pattern, Err *e); // TOK_PATTERN_*; NULL on failure

typedef struct {
    const Pretok *pretok;
    Str text;
    StrBuf classes;      // a byte a character
    size_t at, class_at; // how far the words reach, in bytes and in characters
    void *match;
} PretokWords;

bool pretok_begin(PretokWords *w, const Pretok *pretok, Err *e); // w can then take many texts
void pretok_text(PretokWords *w, Str utf8);                      // the next text to cut, valid UTF-8
// The next word, never empty; false at the end of the text, with e->code set on failure.
bool pretok_next(PretokWords *w, Str *word, Err *e);
void pretok_end(PretokWords *w);
#endif
