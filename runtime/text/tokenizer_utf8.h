// One character of UTF-8 at a time, strictly (no surrogates, no overlong forms).
#ifndef ADALLM_TEXT_TOKENIZER_UTF8_H
#define ADALLM_TEXT_TOKENIZER_UTF8_H
#include "runtime/base/str.h"

typedef enum { UTF8_OK, UTF8_BAD, UTF8_CUT } Utf8Kind;
typedef struct {
    Utf8Kind kind;
    uint32_t cp;  // when OK
    uint32_t len; // OK: 1..4; BAD: its maximal subpart, 1..3; CUT: the 1..3 bytes of an unfinished character
} Utf8;

// The character at the start of s, which is not empty. BAD as soon as no continuation could make it OK
// (Unicode 16, table 3-7; one U+FFFD stands for one maximal subpart).
static inline Utf8 utf8_first(const uint8_t *s, size_t len) {
    uint8_t c = s[0], lo = 0x80, hi = 0xBF;
    if (c < 0x80) return (Utf8){UTF8_OK, c, 1};
    if (c < 0xC2 || c > 0xF4) return (Utf8){UTF8_BAD, 0, 1};
    uint32_t need = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    uint32_t cp = c & (0x7Fu >> need);
    if (c == 0xE0) lo = 0xA0;
    if (c == 0xED) hi = 0x9F;
    if (c == 0xF0) lo = 0x90;
    if (c == 0xF4) hi = 0x8F;
    for (uint32_t i = 1; i < need; i++) {
        if (i == len) return (Utf8){UTF8_CUT, 0, i};
        if (s[i] < lo || s[i] > hi) return (Utf8){UTF8_BAD, 0, i};
        cp = cp << 6 | (s[i] & 0x3F);
        lo = 0x80, hi = 0xBF;
    }
    return (Utf8){UTF8_OK, cp, need};
}

// The same for text that is known to be UTF-8.
static inline uint32_t utf8_take(const uint8_t *s, uint32_t *len) {
    uint8_t c = s[0];
    *len = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    uint32_t cp = *len == 1 ? c : c & (0x7Fu >> *len);
    for (uint32_t i = 1; i < *len; i++) cp = cp << 6 | (s[i] & 0x3F);
    return cp;
}
#endif
