#include "runtime/grammar/charset.h"

#include <pthread.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "runtime/base/num.h"
#include "runtime/grammar/dfa.h"

void charset_add(CharSet *s, uint32_t lo, uint32_t hi) {
    if (s->n == s->cap) {
        s->cap = MAX(s->cap * 2, (size_t)16);
        s->ranges = xrealloc(s->ranges, s->cap, sizeof *s->ranges);
    }
    s->ranges[s->n++] = (CharRange){lo, hi};
}

void charset_add_set(CharSet *s, const CharSet *more) {
    for (size_t i = 0; i < more->n; i++) charset_add(s, more->ranges[i].lo, more->ranges[i].hi);
}

void charset_free(CharSet *s) {
    free(s->ranges);
    *s = (CharSet){0};
}

static int by_lo(const void *x, const void *y) {
    const CharRange *a = x, *b = y;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

// Ascending, neither overlapping nor touching.
static void normalise(CharSet *s) {
    if (!s->n) return;
    qsort(s->ranges, s->n, sizeof *s->ranges, by_lo);
    size_t n = 0;
    for (size_t i = 1; i < s->n; i++) {
        CharRange *last = &s->ranges[n], r = s->ranges[i];
        if (r.lo <= last->hi + 1)
            last->hi = MAX(last->hi, r.hi);
        else
            s->ranges[++n] = r;
    }
    s->n = n + 1;
}

void charset_negate(CharSet *s) {
    normalise(s);
    CharSet out = {0};
    uint32_t next = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->ranges[i].lo > next) charset_add(&out, next, s->ranges[i].lo - 1);
        next = s->ranges[i].hi + 1;
    }
    if (next <= CHAR_LAST) charset_add(&out, next, CHAR_LAST);
    charset_free(s);
    *s = out;
}

// Runs of characters of one category, found once.
typedef struct {
    uint32_t lo, hi;
    utf8proc_category_t category;
} CategoryRun;
static CategoryRun *runs;
static size_t n_runs;

static void find_runs(void) {
    size_t cap = 0;
    for (uint32_t c = 0; c <= CHAR_LAST; c++) {
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
        if (n_runs && runs[n_runs - 1].category == category) {
            runs[n_runs - 1].hi = c;
            continue;
        }
        if (n_runs == cap) runs = xrealloc(runs, cap = MAX(cap * 2, (size_t)4096), sizeof *runs);
        runs[n_runs++] = (CategoryRun){c, c, category};
    }
}

bool charset_add_category(CharSet *s, Str name, bool negated) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_runs);
    CharSet found = {0};
    for (size_t i = 0; i < n_runs; i++) {
        const char *is = utf8proc_category_string((utf8proc_int32_t)runs[i].lo);
        if (name.len && name.len <= 2 && !memcmp(is, name.ptr, name.len))
            charset_add(&found, runs[i].lo, runs[i].hi);
    }
    bool any = found.n > 0;
    if (any && negated) charset_negate(&found);
    if (any) charset_add_set(s, &found);
    charset_free(&found);
    return any;
}

// Space for ECMA-262 and others, beyond ASCII.
static void add_unicode_space(CharSet *c) {
    static const CharRange more[] = {{0x0B, 0x0B},     {0x1C, 0x1F},     {0x85, 0x85},     {0xA0, 0xA0},
                                     {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                     {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    for (size_t i = 0; i < COUNT_OF(more); i++) charset_add(c, more[i].lo, more[i].hi);
}

bool charset_add_class(CharSet *s, char letter) {
    CharSet c = {0};
    switch (letter | 0x20) {
    case 'd': charset_add(&c, '0', '9'); break;
    case 'w':
        charset_add(&c, '0', '9');
        charset_add(&c, 'A', 'Z');
        charset_add(&c, '_', '_');
        charset_add(&c, 'a', 'z');
        break;
    case 's':
        charset_add(&c, '\t', '\n');
        charset_add(&c, '\f', '\r');
        charset_add(&c, ' ', ' ');
        break;
    default: return false;
    }
    if (letter == 'S') add_unicode_space(&c);
    if (!(letter & 0x20)) charset_negate(&c);
    charset_add_set(s, &c);
    charset_free(&c);
    return true;
}

// ---- UTF-8 -----------------------------------------------------------------------------------------------
static size_t encode(uint32_t cp, uint8_t out[4]) {
    if (cp < 0x80) return out[0] = (uint8_t)cp, 1;
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; cp >>= 6) out[i] = 0x80 | (cp & 0x3F);
    out[0] = (uint8_t)((0xF00u >> n & 0xFF) | cp);
    return n;
}

// If all characters of r are not the same length with independent bytes, cuts r at the first place where
// they begin not to be, and puts what is behind into *rest.
static bool cut(CharRange *r, CharRange *rest) {
    static const uint32_t longest[] = {0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF};
    for (size_t i = 0; i < COUNT_OF(longest); i++)
        if (r->lo <= longest[i] && longest[i] < r->hi) {
            *rest = (CharRange){longest[i] + 1, r->hi};
            r->hi = longest[i];
            return true;
        }
    for (uint32_t bits = 6; bits < 21 && r->hi >= 0x80; bits += 6) {
        uint32_t low = (1u << bits) - 1;
        if ((r->lo & ~low) == (r->hi & ~low)) continue;
        uint32_t at = r->lo & low ? r->lo | low : (r->hi & ~low) - 1; // last one before the cut
        if (!(r->lo & low) && (r->hi & low) == low) continue;
        *rest = (CharRange){at + 1, r->hi};
        r->hi = at;
        return true;
    }
    return false;
}

// Pushes a fragment for each sequence of byte ranges; their number.
static size_t push_range(Build *b, CharRange whole) {
    CharRange todo[64] = {whole};
    size_t n_todo = 1, n = 0;
    while (n_todo && !b->failed) {
        CharRange r = todo[--n_todo], rest;
        while (cut(&r, &rest)) todo[n_todo++] = rest;
        if (r.lo >= 0xD800 && r.hi <= 0xDFFF) continue;
        uint8_t lo[4], hi[4];
        size_t len = encode(r.lo, lo);
        encode(r.hi, hi);
        for (size_t i = 0; i < len; i++) nfa_range(b, lo[i], hi[i]);
        nfa_cat(b, len);
        n++;
    }
    return n;
}

// The same for a character that a JSON string has to escape.
static size_t push_escape(Build *b, uint32_t c) {
    static const char letters[] = "\b\t\n\f\r\"\\", spelled[] = "btnfr\"\\";
    char text[8];
    const char *at = c ? strchr(letters, (int)c) : NULL;
    if (at)
        snprintf(text, sizeof text, "\\%c", spelled[at - letters]);
    else
        snprintf(text, sizeof text, "\\u%04x", c);
    nfa_bytes(b, str_of(text));
    return 1;
}

static size_t push_json_range(Build *b, CharRange r) {
    static const CharRange plain[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, CHAR_LAST}};
    size_t n = 0;
    for (uint32_t c = r.lo; c <= MIN(r.hi, 0x5Cu); c++)
        if (c < 0x20 || c == '"' || c == '\\') n += push_escape(b, c);
    for (size_t i = 0; i < COUNT_OF(plain); i++) {
        CharRange part = {MAX(r.lo, plain[i].lo), MIN(r.hi, plain[i].hi)};
        if (part.lo <= part.hi) n += push_range(b, part);
    }
    return n;
}

void nfa_charset(Build *b, const CharSet *s, bool json) {
    enum { SHARE_FROM = 8 }; // sequences; their common beginnings are then shared before copies are made
    CharSet sorted = {0};
    charset_add_set(&sorted, s);
    normalise(&sorted);
    size_t n = 0;
    for (size_t i = 0; i < sorted.n && !b->failed; i++)
        n += json ? push_json_range(b, sorted.ranges[i]) : push_range(b, sorted.ranges[i]);
    charset_free(&sorted);
    if (!n) {
        nfa_never(b);
        return;
    }
    nfa_alt(b, n);
    if (n < SHARE_FROM || b->failed) return;
    const Dfa *d = dfa_pop(b);
    if (d) nfa_dfa(b, d);
}

void nfa_char(Build *b, uint32_t cp, bool json) {
    CharRange one = {cp, cp};
    nfa_charset(b, &(CharSet){&one, 1, 1}, json);
}

void nfa_any_char(Build *b, bool json) {
    CharRange all = {0, CHAR_LAST};
    nfa_charset(b, &(CharSet){&all, 1, 1}, json);
}
