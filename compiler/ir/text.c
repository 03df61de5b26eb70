#include "compiler/ir/text.h"

static void skip_space(Lexer *l) {
    Str t = l->src->text;
    while (l->at < t.len) {
        char c = t.ptr[l->at];
        if (c == '#')
            while (l->at < t.len && t.ptr[l->at] != '\n') l->at++;
        else if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
            l->at++;
        else
            return;
    }
}

static bool is_word(char c) { return c && text_is_word_char(c); }

void lex_next(Lexer *l) {
    Str t = l->src->text;
    skip_space(l);
    size_t begin = l->at, end = begin;
    l->tok = (Token){TOK_END, {t.ptr + begin, 0}, begin, begin};
    if (begin == t.len) return;
    char c = t.ptr[begin];
    if (c == '"') {
        for (end++; end < t.len && t.ptr[end] != '"' && t.ptr[end] != '\n';) end++;
        bool closed = end < t.len && t.ptr[end] == '"';
        l->tok = (Token){closed ? TOK_QUOTED : TOK_BAD, str_sub(t, begin + 1, end), begin, end + closed};
    } else if (is_word(c)) {
        while (end < t.len && is_word(t.ptr[end])) end++;
        l->tok = (Token){TOK_WORD, str_sub(t, begin, end), begin, end};
    } else {
        bool known = c && strchr("@%=:,;[](){}", c);
        l->tok = (Token){known ? TOK_PUNCT : TOK_BAD, str_sub(t, begin, begin + 1), begin, begin + 1};
    }
    l->at = l->tok.end;
}

Lexer lex_open(Arena *a, const Source *src, Diags *d) {
    Lexer l = {.src = src, .arena = a, .d = d};
    lex_next(&l);
    return l;
}

Span lex_span(const Lexer *l) { return (Span){l->src, l->tok.begin, l->tok.end}; }

bool lex_error(Lexer *l, const char *expected) {
    if (l->tok.kind == TOK_END)
        return diag_error(l->d, E_IR_SYNTAX, lex_span(l), "the text ends where %s should stand", expected);
    if (l->tok.kind == TOK_BAD && l->src->text.ptr[l->tok.begin] == '"')
        return diag_error(l->d, E_IR_SYNTAX, lex_span(l), "a quoted name does not end on its line");
    size_t len = l->tok.s.len > 60 ? 60 : l->tok.s.len;
    return diag_error(l->d, E_IR_SYNTAX, lex_span(l), "`%.*s` stands where %s should", (int)len, l->tok.s.ptr,
                      expected);
}

bool lex_is(const Lexer *l, char punct) { return l->tok.kind == TOK_PUNCT && l->tok.s.ptr[0] == punct; }
bool lex_is_word(const Lexer *l, const char *word) {
    return l->tok.kind == TOK_WORD && str_is(l->tok.s, word);
}

bool lex_take(Lexer *l, char punct) {
    if (!lex_is(l, punct)) return false;
    lex_next(l);
    return true;
}

bool lex_expect(Lexer *l, char punct) {
    char expected[] = {'`', punct, '`', 0};
    return lex_take(l, punct) || lex_error(l, expected);
}

bool lex_u64(Lexer *l, uint64_t max, uint64_t *out) {
    if (l->tok.kind != TOK_WORD || !str_to_u64(l->tok.s, out)) return lex_error(l, "a whole number");
    if (*out > max)
        return diag_error(l->d, E_IR_SYNTAX, lex_span(l), "%llu is too large, at most %llu is possible",
                          (unsigned long long)*out, (unsigned long long)max);
    lex_next(l);
    return true;
}

bool lex_i64(Lexer *l, int64_t *out) {
    if (l->tok.kind != TOK_WORD || !str_to_i64(l->tok.s, out)) return lex_error(l, "an integer");
    lex_next(l);
    return true;
}

bool lex_real(Lexer *l, double *out) {
    if (l->tok.kind != TOK_WORD || !str_to_double(l->tok.s, out)) return lex_error(l, "a finite number");
    lex_next(l);
    return true;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unquote(Lexer *l, Str *out) {
    Str s = l->tok.s;
    char *p = arena_alloc(l->arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '\\') {
            p[n++] = s.ptr[i];
            continue;
        }
        int high = i + 2 < s.len ? hex_digit(s.ptr[i + 1]) : -1,
            low = high < 0 ? -1 : hex_digit(s.ptr[i + 2]);
        if (low < 0 || high + low == 0)
            return diag_error(
                l->d, E_IR_SYNTAX, lex_span(l),
                "a backslash in a quoted name must be followed by two hexadecimal digits, not 00");
        p[n++] = (char)(high * 16 + low);
        i += 2;
    }
    *out = (Str){p, n};
    return true;
}

bool lex_name(Lexer *l, Str *out) {
    if (l->tok.kind == TOK_WORD)
        *out = str_dup(l->arena, l->tok.s);
    else if (l->tok.kind != TOK_QUOTED)
        return lex_error(l, "a name");
    else if (memchr(l->tok.s.ptr, 0, l->tok.s.len))
        return diag_error(l->d, E_IR_SYNTAX, lex_span(l), "a name holds a zero byte");
    else if (!unquote(l, out))
        return false;
    lex_next(l);
    return true;
}

Str lex_place(Lexer *l) {
    if (!lex_is(l, ';')) return (Str){"", 0};
    Str t = l->src->text;
    size_t begin = l->at, end;
    if (begin < t.len && t.ptr[begin] == ' ') begin++;
    for (end = begin; end < t.len && t.ptr[end] != '\n' && t.ptr[end] != '\r' && t.ptr[end];) end++;
    l->at = end;
    lex_next(l);
    return str_dup(l->arena, str_sub(t, begin, end));
}
