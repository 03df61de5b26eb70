#include "runtime/text/detok.h"

#include "runtime/base/num.h"
#include "runtime/text/tokenizer_internal.h"
#include "runtime/text/tokenizer_utf8.h"

enum { REPLACEMENT = 0xFFFD };

void detok_begin(Detok *d, const Tokenizer *tok, bool skip_special) {
    *d = (Detok){.tok = tok, .skip_special = skip_special};
}

void detok_end(Detok *d) { buf_free(&d->held); }

static void replace(StrBuf *out, size_t n) {
    for (size_t i = 0; i < n; i++) buf_utf8(out, REPLACEMENT);
}

// Byte level: all bytes are one stream. Emits its whole characters, keeps an unfinished one.
static void push_stream(Detok *d, Str bytes, StrBuf *out) {
    buf_str(&d->held, bytes);
    size_t at = 0;
    while (at < d->held.len) {
        Utf8 u = utf8_first((const uint8_t *)d->held.ptr + at, d->held.len - at);
        if (u.kind == UTF8_CUT) break;
        if (u.kind == UTF8_OK)
            buf_add(out, d->held.ptr + at, u.len);
        else
            replace(out, 1);
        at += u.len;
    }
    d->held.len -= at;
    if (at && d->held.len) memmove(d->held.ptr, d->held.ptr + at, d->held.len);
}

// Byte fallback: a run of byte tokens is UTF-8 as a whole, or each of its bytes is U+FFFD.
static void push_run(Detok *d, Str byte, StrBuf *out) {
    if (d->run_broken) {
        replace(out, 1);
        return;
    }
    buf_str(&d->held, byte);
    while (d->checked < d->held.len) {
        Utf8 u = utf8_first((const uint8_t *)d->held.ptr + d->checked, d->held.len - d->checked);
        if (u.kind == UTF8_CUT) return;
        if (u.kind == UTF8_BAD) {
            replace(out, d->held.len);
            d->held.len = d->checked = 0;
            d->run_broken = true;
            return;
        }
        d->checked += u.len;
    }
}

static void close_run(Detok *d, StrBuf *out) {
    if (d->checked == d->held.len)
        buf_str(out, buf_view(&d->held));
    else
        replace(out, d->held.len);
    d->held.len = d->checked = 0;
    d->run_broken = false;
}

void detok_push(Detok *d, uint32_t id, StrBuf *out) {
    const Tokenizer *t = d->tok;
    if (!tokenizer_is_token(t, id) || (d->skip_special && (t->id_flags[id] & TOK_SPECIAL))) return;
    if (t->kind == TOK_BYTE_LEVEL) {
        push_stream(d, tok_out(t, id), out);
    } else if (t->id_flags[id] & TOK_BYTE) {
        push_run(d, tok_out(t, id), out);
    } else {
        close_run(d, out);
        buf_str(out, tok_out(t, id));
    }
}

void detok_flush(Detok *d, StrBuf *out) {
    if (d->tok->kind == TOK_BYTE_LEVEL) {
        if (d->held.len) replace(out, 1);
        d->held.len = 0;
    } else {
        close_run(d, out);
    }
}
