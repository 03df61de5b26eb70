#include "runtime/text/nfc.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "runtime/base/err.h"
#include "runtime/base/num.h"
#include "runtime/text/pretok.h"
#include "runtime/text/tokenizer_utf8.h"

// Decomposed text. utf8proc has the tables and the composition; the ordering of marks is done here, because
// its own is quadratic in the length of a run of marks.
typedef struct {
    utf8proc_int32_t *cp;
    size_t n, cap;
} Chars;

enum { DECOMPOSED_MAX = 16 }; // code points one can become; Unicode needs 4

// U+11A7 stands just before the trailing consonants of Hangul; utf8proc 2.8 takes it for one and drops it.
static bool is_inert(uint32_t cp) { return cp == 0x11A7 || !(pretok_class(cp) & CLASS_NFC); }
static int order_of(utf8proc_int32_t cp) { return utf8proc_get_property(cp)->combining_class; }

static void decompose(Chars *out, uint32_t cp) {
    if (out->cap - out->n < DECOMPOSED_MAX) {
        out->cap = out->cap * 2 + 64;
        out->cp = xrealloc(out->cp, out->cap, sizeof *out->cp);
    }
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out->cp + out->n, DECOMPOSED_MAX,
                                                 UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
    CHECK(n > 0 && n <= DECOMPOSED_MAX);
    out->n += (size_t)n;
}

// Stable counting sort of one run of marks by combining class (1..254), through `scratch` of the same length.
static void order_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *scratch) {
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++) at[order_of(marks[i]) + 1]++;
    for (size_t c = 1; c < COUNT_OF(at); c++) at[c] += at[c - 1];
    for (size_t i = 0; i < n; i++) scratch[at[order_of(marks[i])]++] = marks[i];
    memcpy(marks, scratch, n * sizeof *marks);
}

static void order_all(Chars *c) {
    utf8proc_int32_t *scratch = xmalloc(c->n * sizeof *scratch);
    for (size_t i = 0, end; i < c->n; i = end + 1) {
        for (end = i; end < c->n && order_of(c->cp[end]); end++) {
        }
        bool sorted = true;
        for (size_t k = i + 1; k < end; k++) sorted &= order_of(c->cp[k - 1]) <= order_of(c->cp[k]);
        if (!sorted) order_marks(c->cp + i, end - i, scratch);
    }
    free(scratch);
}

// Composes the collected text and appends it; an inert code point ends it on both sides.
static void compose(Chars *c, StrBuf *out) {
    if (!c->n) return;
    order_all(c);
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(c->cp, (utf8proc_ssize_t)c->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    CHECK(n >= 0);
    for (utf8proc_ssize_t i = 0; i < n; i++) buf_utf8(out, (uint32_t)c->cp[i]);
    c->n = 0;
}

static bool is_plain(Str s) { // all below U+0300, where nothing decomposes that would not compose again
    for (size_t i = 0; i < s.len; i++)
        if ((uint8_t)s.ptr[i] >= 0xCC) return false;
    return true;
}

Str nfc_normalize(Str utf8, StrBuf *scratch) {
    if (is_plain(utf8)) return utf8;
    Chars chars = {0};
    scratch->len = 0;
    for (size_t i = 0; i < utf8.len;) {
        uint32_t len;
        uint32_t cp = utf8_take((const uint8_t *)utf8.ptr + i, &len);
        if (is_inert(cp)) {
            compose(&chars, scratch);
            buf_utf8(scratch, cp);
        } else {
            decompose(&chars, cp);
        }
        i += len;
    }
    compose(&chars, scratch);
    free(chars.cp);
    return buf_view(scratch);
}
