#include "compiler/frontend/jinja_lex.h"

#include <stdlib.h>

#include "runtime/base/num.h"

void jinja_lex_start(JinjaLexer *lex, Arena *a, const Source *src, Diags *d) {
    *lex = (JinjaLexer){.arena = a, .src = src, .diags = d, .line_starting = true};
}

void jinja_lex_free(JinjaLexer *lex) { free(lex->toks); }

static bool fail(JinjaLexer *lex, ErrCode code, size_t begin, size_t end, const char *why) {
    return diag_error(lex->diags, code, (Span){lex->src, begin, end}, "%s", why);
}

static char peek(const JinjaLexer *lex, size_t at) {
    return at < lex->src->text.len ? lex->src->text.ptr[at] : '\0';
}

static bool looking_at(const JinjaLexer *lex, size_t at, const char *word) {
    Str t = lex->src->text;
    return at <= t.len && str_starts(str_from(t, at), str_of(word));
}

size_t jinja_space(Str s, size_t at) {
    const unsigned char *p = (const unsigned char *)s.ptr + at;
    size_t left = s.len - at;
    if (!left) return 0;
    if ((p[0] >= 0x09 && p[0] <= 0x0D) || (p[0] >= 0x1C && p[0] <= 0x20)) return 1;
    if (left >= 2 && p[0] == 0xC2 && (p[1] == 0x85 || p[1] == 0xA0)) return 2;
    if (left < 3) return 0;
    uint32_t c = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    bool wide = c == 0xE19A80 || (c >= 0xE28080 && c <= 0xE2808A) || c == 0xE280A8 || c == 0xE280A9 ||
                c == 0xE280AF || c == 0xE2819F || c == 0xE38080;
    return wide ? 3 : 0;
}

static size_t skip_space(const JinjaLexer *lex, size_t at) {
    for (size_t n; at < lex->src->text.len && (n = jinja_space(lex->src->text, at)); at += n) {
    }
    return at;
}

// End of s without trailing whitespace.
static size_t trimmed_end(Str s, size_t begin, size_t end) {
    while (end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)s.ptr[at] & 0xC0) == 0x80) at--;
        if (jinja_space((Str){s.ptr, end}, at) != end - at) break;
        end = at;
    }
    return end;
}

// Where the text [begin, tag) ends once `-` or lstrip_blocks have worked; `sign` is what follows the opening.
static size_t text_end(const JinjaLexer *lex, size_t begin, size_t tag, char sign, bool is_print) {
    Str t = lex->src->text;
    if (sign == '-') return trimmed_end(t, begin, tag);
    if (sign == '+' || is_print) return tag;
    size_t line = tag;
    while (line > begin && t.ptr[line - 1] != '\n') line--;
    if (line == begin && !lex->line_starting) return tag;
    size_t at = line;
    for (size_t n; at < tag && (n = jinja_space(t, at)); at += n) {
    }
    return at == tag ? line : tag;
}

// Past a closing mark that began at `at` with optional sign; block marks swallow one newline.
static size_t past_close(const JinjaLexer *lex, size_t at, bool is_print) {
    char sign = peek(lex, at);
    if (sign == '-') return skip_space(lex, at + 3);
    if (sign == '+') return at + 3;
    return at + 2 + (!is_print && peek(lex, at + 2) == '\n');
}

// ---- inside of a tag -----------------------------------------------------------------------------

static Tok *add_tok(JinjaLexer *lex, TokKind kind, size_t begin, size_t end) {
    if (lex->n_toks == lex->cap_toks) {
        lex->cap_toks = MAX(lex->cap_toks * 2, (size_t)32);
        lex->toks = xrealloc(lex->toks, lex->cap_toks, sizeof *lex->toks);
    }
    Tok *t = &lex->toks[lex->n_toks++];
    *t = (Tok){.kind = kind, .s = str_sub(lex->src->text, begin, end), .begin = begin, .end = end};
    return t;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

// One escape of a string literal, as Python's unicode-escape reads it; *at is behind the backslash.
static bool lex_escape(JinjaLexer *lex, size_t *at, StrBuf *out) {
    static const char names[] = "ntrabfv\\'\"", values[] = "\n\t\r\a\b\f\v\\'\"";
    size_t begin = *at - 1;
    char c = peek(lex, *at);
    const char *simple = c ? strchr(names, c) : NULL;
    if (simple) return buf_putc(out, values[simple - names]), ++*at, true;
    if (c == '\n') return ++*at, true;
    if (c == 'N')
        return fail(lex, E_TEMPLATE_UNSUPPORTED, begin, *at + 1, "\\N{...} in a string is not supported");
    int base = c >= '0' && c <= '7' ? 8 : 16;
    size_t width = base == 8 ? 3 : c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0, n = 0;
    if (!width) return buf_putc(out, '\\'), true;
    size_t p = *at + (base == 16);
    uint32_t value = 0;
    for (; n < width && digit_of(peek(lex, p)) < base; n++, p++)
        value = value * (uint32_t)base + (uint32_t)digit_of(peek(lex, p));
    if (base == 16 && n < width)
        return fail(lex, E_TEMPLATE, begin, p, "an escape with too few hexadecimal digits");
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
        return fail(lex, E_TEMPLATE_UNSUPPORTED, begin, p, "an escape that is no Unicode character");
    *at = p;
    return buf_utf8(out, value), true;
}

static bool lex_string(JinjaLexer *lex, size_t *at) {
    size_t begin = *at, p = begin + 1;
    char quote = peek(lex, begin);
    StrBuf value = {0};
    bool ok = true;
    while (ok && p < lex->src->text.len && peek(lex, p) != quote) {
        char c = peek(lex, p++);
        if (c == '\\')
            ok = lex_escape(lex, &p, &value);
        else
            buf_putc(&value, c);
    }
    if (ok && p >= lex->src->text.len)
        ok = fail(lex, E_TEMPLATE, begin, begin + 1, "a string that does not end");
    if (ok) add_tok(lex, TOK_STRING, begin, p + 1)->s = str_dup(lex->arena, buf_view(&value));
    buf_free(&value);
    *at = p + 1;
    return ok;
}

static size_t digits(const JinjaLexer *lex, size_t at) {
    while (digit_of(peek(lex, at)) < 10) at++;
    return at;
}

static bool lex_number(JinjaLexer *lex, size_t *at) {
    size_t begin = *at, p = digits(lex, begin);
    bool real = false;
    if (peek(lex, p) == '.' && digit_of(peek(lex, p + 1)) < 10) p = digits(lex, p + 1), real = true;
    if (peek(lex, p) == 'e' || peek(lex, p) == 'E') {
        size_t q = p + 1 + (peek(lex, p + 1) == '+' || peek(lex, p + 1) == '-');
        if (digit_of(peek(lex, q)) < 10) p = digits(lex, q), real = true;
    }
    char next = peek(lex, p);
    if (next == '_' || (next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z'))
        return fail(lex, E_TEMPLATE_UNSUPPORTED, begin, p + 1, "only plain decimal numbers are supported");
    Tok *t = add_tok(lex, real ? TOK_FLOAT : TOK_INT, begin, p);
    bool ok = real ? str_to_double(t->s, &t->real) : str_to_i64(t->s, &t->i);
    *at = p;
    return ok || fail(lex, E_TEMPLATE_UNSUPPORTED, begin, p, "a number that is too large");
}

static bool name_char(char c, bool first) {
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9');
}

typedef struct {
    char open[JINJA_NESTING_MAX];
    size_t at[JINJA_NESTING_MAX];
    size_t n;
} Brackets;

static bool not_closed(JinjaLexer *lex, const Brackets *b) {
    size_t at = b->at[b->n - 1];
    return fail(lex, E_TEMPLATE, at, at + 1, "a bracket that is not closed");
}

static bool lex_bracket(JinjaLexer *lex, Brackets *b, char c, size_t at) {
    static const char open[] = "([{", close[] = ")]}";
    if (strchr(open, c)) {
        if (b->n == JINJA_NESTING_MAX)
            return fail(lex, E_TEMPLATE, at, at + 1, "brackets nested too deeply (over 100)");
        b->open[b->n] = c;
        b->at[b->n++] = at;
        return true;
    }
    const char *closing = strchr(close, c);
    if (!closing) return true;
    if (!b->n) return fail(lex, E_TEMPLATE, at, at + 1, "a closing bracket without its opening one");
    if (b->open[b->n - 1] != open[closing - close]) return not_closed(lex, b);
    b->n--;
    return true;
}

static bool lex_operator(JinjaLexer *lex, Brackets *brackets, size_t *at) {
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (size_t i = 0; i < COUNT_OF(ops); i++) {
        if (!looking_at(lex, *at, ops[i])) continue;
        size_t len = strlen(ops[i]);
        if (len == 1 && !lex_bracket(lex, brackets, ops[i][0], *at)) return false;
        add_tok(lex, TOK_OP, *at, *at + len);
        *at += len;
        return true;
    }
    return fail(lex, E_TEMPLATE, *at, *at + 1, "a character that has no meaning here");
}

static bool at_close(const JinjaLexer *lex, size_t at, bool is_print) {
    if (is_print) return looking_at(lex, at, "}}") || looking_at(lex, at, "-}}");
    return looking_at(lex, at, "%}") || looking_at(lex, at, "-%}") || looking_at(lex, at, "+%}");
}

// Tokens from `at` to the closing mark.
static bool lex_tag(JinjaLexer *lex, size_t tag, size_t at, bool is_print, Piece *out) {
    Brackets brackets = {.n = 0};
    lex->n_toks = 0;
    for (;;) {
        at = skip_space(lex, at);
        if (at >= lex->src->text.len) {
            if (brackets.n) return not_closed(lex, &brackets);
            return fail(lex, E_TEMPLATE, tag, tag + 2,
                        is_print ? "`{{` without its `}}`" : "`{%` without its `%}`");
        }
        if (!brackets.n && at_close(lex, at, is_print)) break;
        char c = peek(lex, at);
        bool ok;
        if (name_char(c, true)) {
            size_t begin = at;
            while (name_char(peek(lex, at), false)) at++;
            ok = add_tok(lex, TOK_NAME, begin, at) != NULL;
        } else if (c == '"' || c == '\'') {
            ok = lex_string(lex, &at);
        } else if (c >= '0' && c <= '9') {
            ok = lex_number(lex, &at);
        } else {
            ok = lex_operator(lex, &brackets, &at);
        }
        if (!ok) return false;
    }
    add_tok(lex, TOK_END, at, at + 2);
    lex->at = past_close(lex, at, is_print);
    lex->line_starting = lex->src->text.ptr[lex->at - 1] == '\n';
    *out = (Piece){is_print ? PIECE_PRINT : PIECE_BLOCK, {0}, lex->toks, tag, lex->at};
    return true;
}

// ---- between tags --------------------------------------------------------------------------------

static size_t find(const JinjaLexer *lex, size_t at, const char *mark) {
    Str t = lex->src->text;
    if (at >= t.len) return t.len;
    const char *p = memmem(t.ptr + at, t.len - at, mark, strlen(mark));
    return p ? (size_t)(p - t.ptr) : t.len;
}

static bool skip_comment(JinjaLexer *lex, size_t tag, size_t body) {
    size_t end = find(lex, body, "#}");
    if (end == lex->src->text.len) return fail(lex, E_TEMPLATE, tag, tag + 2, "`{#` without its `#}`");
    bool sign = end > body && (peek(lex, end - 1) == '-' || peek(lex, end - 1) == '+');
    lex->at = past_close(lex, end - sign, false);
    lex->line_starting = peek(lex, lex->at - 1) == '\n';
    return true;
}

// `{% raw %}` from `tag` on: *body is where the text starts. False: some other block.
static bool at_raw(const JinjaLexer *lex, size_t at, const char *word, size_t *close) {
    at = skip_space(lex, at);
    if (!looking_at(lex, at, word)) return false;
    at = skip_space(lex, at + strlen(word));
    if (!at_close(lex, at, false)) return false;
    *close = at;
    return true;
}

static size_t sign_at(const JinjaLexer *lex, size_t at) {
    return peek(lex, at) == '-' || peek(lex, at) == '+';
}

static bool lex_raw(JinjaLexer *lex, size_t tag, size_t close, Piece *out) {
    size_t body =
        peek(lex, close) == '-' ? skip_space(lex, close + 3) : close + 2 + (peek(lex, close) == '+');
    lex->line_starting = peek(lex, body - 1) == '\n';
    for (size_t end = body; (end = find(lex, end, "{%")) < lex->src->text.len; end += 2) {
        size_t sign = sign_at(lex, end + 2), end_close;
        if (!at_raw(lex, end + 2 + sign, "endraw", &end_close)) continue;
        size_t stop = text_end(lex, body, end, sign ? peek(lex, end + 2) : '\0', false);
        *out = (Piece){PIECE_TEXT, str_sub(lex->src->text, body, stop), NULL, body, stop};
        lex->at = past_close(lex, end_close, false);
        lex->line_starting = peek(lex, lex->at - 1) == '\n';
        return true;
    }
    return fail(lex, E_TEMPLATE, tag, tag + 2, "`{% raw %}` without its `{% endraw %}`");
}

static size_t find_tag(const JinjaLexer *lex, size_t at) {
    for (Str t = lex->src->text; (at = find(lex, at, "{")) < t.len; at++) {
        char c = peek(lex, at + 1);
        if (c == '{' || c == '%' || c == '#') return at;
    }
    return lex->src->text.len;
}

bool jinja_lex_next(JinjaLexer *lex, Piece *out) {
    Str t = lex->src->text;
    for (;;) {
        if (!lex->pending) {
            if (lex->at >= t.len) return *out = (Piece){PIECE_EOF, {0}, NULL, t.len, t.len}, true;
            lex->tag = find_tag(lex, lex->at);
            bool is_print = peek(lex, lex->tag + 1) == '{';
            size_t begin = lex->at, end = lex->tag == t.len ? t.len
                                                            : text_end(lex, begin, lex->tag,
                                                                       peek(lex, lex->tag + 2), is_print);
            lex->pending = lex->tag < t.len;
            lex->at = lex->tag;
            if (end > begin)
                return *out = (Piece){PIECE_TEXT, str_sub(t, begin, end), NULL, begin, end}, true;
            continue;
        }
        lex->pending = false;
        size_t tag = lex->tag, inside = tag + 2 + sign_at(lex, tag + 2), close;
        char kind = peek(lex, tag + 1);
        if (kind == '#') {
            if (!skip_comment(lex, tag, inside)) return false;
        } else if (kind == '%' && at_raw(lex, inside, "raw", &close)) {
            if (!lex_raw(lex, tag, close, out)) return false;
            if (out->text.len) return true;
        } else {
            return lex_tag(lex, tag, inside, kind == '{', out);
        }
    }
}
