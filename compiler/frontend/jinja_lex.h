// Jinja source to pieces: text, {{ ... }} and {% ... %}, whitespace control already applied.
#ifndef ADALLM_FRONTEND_JINJA_LEX_H
#define ADALLM_FRONTEND_JINJA_LEX_H
#include "runtime/base/diag.h"

typedef enum {
    TOK_NAME,
    TOK_STRING,
    TOK_INT,
    TOK_FLOAT,
    TOK_OP,
    TOK_END // of the tag; begin and end are those of its closing mark
} TokKind;

typedef struct {
    TokKind kind;
    Str s;             // name or operator as written, value of a string
    int64_t i;         // TOK_INT
    double real;       // TOK_FLOAT
    size_t begin, end; // in the template
} Tok;

typedef enum { PIECE_EOF, PIECE_TEXT, PIECE_PRINT, PIECE_BLOCK } PieceKind;

typedef struct {
    PieceKind kind;
    Str text;          // PIECE_TEXT
    const Tok *toks;   // PIECE_PRINT, PIECE_BLOCK: ends with TOK_END; valid until the next call
    size_t begin, end; // in the template
} Piece;

typedef struct {
    Arena *arena;
    const Source *src;
    Diags *diags;
    size_t at;
    bool line_starting; // the last piece ended with a newline
    bool pending;       // a text was returned, the tag behind it is next
    size_t tag;         // where that tag begins
    Tok *toks;          // heap
    size_t n_toks, cap_toks;
} JinjaLexer;

enum { JINJA_NESTING_MAX = 100 }; // brackets within brackets, blocks within blocks

// Newlines of src->text must be \n only. jinja_lex_free releases the tokens.
void jinja_lex_start(JinjaLexer *lex, Arena *a, const Source *src, Diags *d);
bool jinja_lex_next(JinjaLexer *lex, Piece *out); // false after one located error
void jinja_lex_free(JinjaLexer *lex);

size_t jinja_space(Str s,
                   size_t at); // bytes of the whitespace character (Python's str.isspace) at `at`, or 0
#endif
