// Words of the IR's text form (IR.md), for both levels: the lexer, and how names and numbers are written.
#ifndef ADALLM_IR_TEXT_H
#define ADALLM_IR_TEXT_H
#include "runtime/base/diag.h"

enum { CONSTANT_SHOWN_MAX = 64 };

bool text_is_word_char(char c);           // of names that need no quotes, and of numbers
void text_print_name(Str s, StrBuf *out); // as a word, else quoted with \hh for what cannot stand in quotes
void text_print_double(double x, StrBuf *out); // fewest digits that read back the same
void text_print_float(float x, StrBuf *out);

typedef enum { TOK_END, TOK_WORD, TOK_QUOTED, TOK_PUNCT, TOK_BAD } TokenKind;
typedef struct {
    TokenKind kind;
    Str s; // as written; without the quotes when quoted
    size_t begin, end;
} Token;

typedef struct {
    const Source *src;
    Arena *arena;
    Diags *d;
    size_t at;
    Token tok; // the current one
} Lexer;

// Spaces, newlines and `#` comments stand between tokens. Starts at the first token.
Lexer lex_open(Arena *a, const Source *src, Diags *d);
void lex_next(Lexer *l);
Span lex_span(const Lexer *l); // of the current token

// All below add E_IR_SYNTAX at the current token on failure; lex_error always returns false.
bool lex_error(Lexer *l, const char *expected);
bool lex_is(const Lexer *l, char punct); // no error
bool lex_is_word(const Lexer *l, const char *word);
bool lex_take(Lexer *l, char punct); // when it is there; no error
bool lex_expect(Lexer *l, char punct);
bool lex_u64(Lexer *l, uint64_t max, uint64_t *out);
bool lex_i64(Lexer *l, int64_t *out);
bool lex_real(Lexer *l, double *out);
bool lex_name(Lexer *l, Str *out); // word or quoted, copied to the arena, NUL-terminated
// When the current token is `;`: the rest of its line without "; ", copied to the arena; else empty.
Str lex_place(Lexer *l);
#endif
