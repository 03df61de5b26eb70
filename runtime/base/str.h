// Str: a view of bytes that somebody else owns. StrBuf: a growable byte buffer on the heap.
#ifndef ADALLM_BASE_STR_H
#define ADALLM_BASE_STR_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/arena.h"

typedef struct {
    const char *ptr; // not NUL-terminated in general
    size_t len;      // bytes
} Str;

#define STR(literal) ((Str){(literal), sizeof(literal) - 1})
#define STR_FMT      "%.*s"
#define STR_ARG(s)   (int)(s).len, (s).ptr

static inline Str str_of(const char *s) { return (Str){s, strlen(s)}; }
static inline bool str_eq(Str a, Str b) { return a.len == b.len && (!a.len || !memcmp(a.ptr, b.ptr, a.len)); }
static inline bool str_is(Str a, const char *b) { return str_eq(a, str_of(b)); }
static inline Str str_from(Str s, size_t begin) {
    return (Str){begin ? s.ptr + begin : s.ptr, s.len - begin};
}
static inline Str str_sub(Str s, size_t begin, size_t end) {
    return (Str){begin ? s.ptr + begin : s.ptr, end - begin};
}
bool str_starts(Str s, Str prefix);
bool str_ends(Str s, Str suffix);
int str_cmp(Str a, Str b);              // byte order, shorter first on a tie
Str str_dup(Arena *a, Str s);           // NUL-terminated copy
bool str_to_u64(Str s, uint64_t *out);  // decimal digits only, whole string, no overflow
bool str_to_i64(Str s, int64_t *out);   // optional leading '-'
bool str_to_double(Str s, double *out); // locale-free, whole string, finite
uint64_t str_hash(Str s);               // FNV-1a 64; for tables, never for integrity
bool str_utf8_ok(Str s);                // all of it is well-formed UTF-8
size_t str_utf8_len(Str s);             // bytes of the well-formed UTF-8 character that s begins with, or 0
size_t edit_distance(Str a, Str b);     // Levenshtein, strings over 64 bytes count as their length

typedef struct {
    char *ptr;
    size_t len, cap;
} StrBuf;

void buf_reserve(StrBuf *b, size_t extra);
void buf_add(StrBuf *b, const void *p, size_t len);
void buf_str(StrBuf *b, Str s);
void buf_puts(StrBuf *b, const char *s);
void buf_putc(StrBuf *b, char c);
void buf_printf(StrBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_utf8(StrBuf *b, uint32_t codepoint); // appends the UTF-8 form; codepoint <= 0x10FFFF
static inline Str buf_view(const StrBuf *b) { return (Str){b->ptr, b->len}; }
const char *buf_cstr(StrBuf *b); // NUL-terminates without counting the NUL
void buf_free(StrBuf *b);
#endif
