#include "runtime/base/str.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/num.h"

bool str_starts(Str s, Str prefix) { return s.len >= prefix.len && str_eq((Str){s.ptr, prefix.len}, prefix); }

bool str_ends(Str s, Str suffix) {
    return s.len >= suffix.len && str_eq((Str){s.ptr + s.len - suffix.len, suffix.len}, suffix);
}

int str_cmp(Str a, Str b) {
    size_t n = MIN(a.len, b.len);
    int c = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

Str str_dup(Arena *a, Str s) { return (Str){arena_strndup(a, s.ptr, s.len), s.len}; }

bool str_to_u64(Str s, uint64_t *out) {
    uint64_t v = 0;
    if (!s.len) return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') return false;
        if (!u64_mul(v, 10, &v) || !u64_add(v, (uint64_t)(s.ptr[i] - '0'), &v)) return false;
    }
    *out = v;
    return true;
}

bool str_to_i64(Str s, int64_t *out) {
    bool neg = s.len && s.ptr[0] == '-';
    uint64_t v;
    if (!str_to_u64(neg ? str_from(s, 1) : s, &v) || v > (uint64_t)INT64_MAX + (neg ? 1 : 0)) return false;
    *out = neg ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool str_to_double(Str s, double *out) {
    char tmp[512], *end;
    if (!s.len || s.len >= sizeof tmp || strchr(" \t\n+iInNxX", s.ptr[0])) return false;
    memcpy(tmp, s.ptr, s.len);
    tmp[s.len] = 0;
    static locale_t c_locale;
    if (!c_locale) c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    *out = strtod_l(tmp, &end, c_locale);
    return end == tmp + s.len && isfinite(*out) && !strpbrk(tmp, "xXnN");
}

size_t str_utf8_len(Str s) {
    if (!s.len) return 0;
    const unsigned char *p = (const unsigned char *)s.ptr;
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || s.len < n) return 0;
    // the second byte of a character is narrowed where the first leaves overlong forms, surrogates or >
    // 10FFFF
    unsigned char low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return n;
}

bool str_utf8_ok(Str s) {
    size_t n = 1;
    while (s.len && (n = str_utf8_len(s))) s = str_from(s, n);
    return n > 0;
}

uint64_t str_hash(Str s) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.len; i++) h = (h ^ (unsigned char)s.ptr[i]) * 0x100000001b3u;
    return h;
}

size_t edit_distance(Str a, Str b) {
    enum { CAP = 64 };
    if (a.len > CAP || b.len > CAP) return MAX(a.len, b.len);
    size_t row[CAP + 1];
    for (size_t j = 0; j <= b.len; j++) row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t sub = diag + (a.ptr[i - 1] != b.ptr[j - 1]);
            diag = row[j];
            row[j] = MIN(sub, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b.len];
}

void buf_reserve(StrBuf *b, size_t extra) {
    size_t need;
    if (!size_add(b->len, extra, &need)) need = SIZE_MAX;
    if (need <= b->cap) return;
    size_t cap = b->cap > SIZE_MAX / 2 ? need : MAX(need, b->cap * 2);
    b->cap = MAX(cap, (size_t)64);
    b->ptr = xrealloc(b->ptr, b->cap, 1);
}

void buf_add(StrBuf *b, const void *p, size_t len) {
    buf_reserve(b, len);
    if (len) memcpy(b->ptr + b->len, p, len);
    b->len += len;
}

void buf_str(StrBuf *b, Str s) { buf_add(b, s.ptr, s.len); }
void buf_puts(StrBuf *b, const char *s) { buf_add(b, s, strlen(s)); }
void buf_putc(StrBuf *b, char c) { buf_add(b, &c, 1); }

void buf_printf(StrBuf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, fmt, ap);
    buf_reserve(b, (size_t)len + 1);
    vsnprintf(b->ptr + b->len, (size_t)len + 1, fmt, again);
    b->len += (size_t)len;
    va_end(again);
    va_end(ap);
}

void buf_utf8(StrBuf *b, uint32_t c) {
    unsigned char u[4];
    if (c < 0x80) {
        buf_putc(b, (char)c);
        return;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) u[i] = (unsigned char)(0x80 | (c & 0x3F));
    u[0] = (unsigned char)((0xF00 >> n) | c);
    buf_add(b, u, n);
}

const char *buf_cstr(StrBuf *b) {
    buf_reserve(b, 1);
    b->ptr[b->len] = 0;
    return b->ptr;
}

void buf_free(StrBuf *b) {
    free(b->ptr);
    *b = (StrBuf){0};
}
