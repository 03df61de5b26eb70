#include "runtime/text/stop.h"

#include "runtime/base/num.h"

void stop_begin(Stop *s, const Str *strings, size_t n) { *s = (Stop){.strings = strings, .n = n}; }

void stop_end(Stop *s) { buf_free(&s->held); }

// Longest stop string that ends where the held text ends; 0 when there is none.
static size_t completed(Stop *s) {
    size_t longest = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->strings[i].len > longest && str_ends(buf_view(&s->held), s->strings[i]))
            longest = s->strings[i].len, s->which = i;
    return longest;
}

// Length of the longest end of the held text that a stop string begins with.
static size_t possible(const Stop *s) {
    size_t longest = 0;
    for (size_t i = 0; i < s->n; i++)
        for (size_t len = MIN(s->strings[i].len, s->held.len); len > longest; len--)
            if (!memcmp(s->held.ptr + s->held.len - len, s->strings[i].ptr, len)) longest = len;
    return longest;
}

bool stop_push(Stop *s, Str piece, StrBuf *out) {
    for (size_t i = 0; i < piece.len && !s->hit; i++) {
        buf_putc(&s->held, piece.ptr[i]);
        size_t cut = completed(s), keep = cut ? cut : possible(s);
        buf_add(out, s->held.ptr, s->held.len - keep);
        memmove(s->held.ptr, s->held.ptr + s->held.len - keep, keep);
        s->held.len = keep;
        s->hit = cut > 0;
    }
    return s->hit;
}

void stop_flush(Stop *s, StrBuf *out) {
    if (!s->hit) buf_str(out, buf_view(&s->held));
    s->held.len = 0;
}
