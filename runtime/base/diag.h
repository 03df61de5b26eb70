// Diags: the user's errors, each with its place. Collected, so that one run reports all of them.
//
//     models/q.yaml:3:9: error E0203: `batch` must be a list of 1 to 8 integers, not a string
//         batch: eight
//                ^~~~~
//     hint: write `batch: [1, 2, 4, 8]`
#ifndef ADALLM_BASE_DIAG_H
#define ADALLM_BASE_DIAG_H
#include <stdio.h>

#include "runtime/base/err.h"
#include "runtime/base/str.h"

typedef struct {
    const char *name; // as the user wrote the path
    Str text;         // whole contents, for line, column and caret; empty if there is no text to show
} Source;

typedef struct {
    const Source *src; // NULL: no place
    size_t begin, end; // byte offsets into src->text
} Span;

#define SPAN_NONE      ((Span){0})
#define SPAN_FILE(src) ((Span){(src), (size_t)-1, (size_t)-1}) // the file as a whole: no line, no caret

typedef struct Diag Diag;
typedef struct {
    Arena *arena;
    Diag *first, *last;
    size_t n_errors, n_max; // n_max 0 means 20: later ones are counted, not kept
} Diags;

// Always return false.
bool diag_error(Diags *d, ErrCode code, Span at, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
bool diag_err(Diags *d, Span at, const Err *e); // an Err becomes a diagnostic
void diag_hint(Diags *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); // belongs to the last error
// Adds "did you mean `x`?" when one of the names is close to `word` (edit distance <= 1 + len/4).
void diag_did_you_mean(Diags *d, Str word, const char *const *names, size_t n_names);
const char *nearest_name(Str word, const char *const *names, size_t n_names); // NULL when nothing is close

void diags_print(const Diags *d, const char *program, FILE *out);
int diags_exit_code(const Diags *d);             // of the first error; 0 when there is none
const char *diags_first_message(const Diags *d); // for tests; NULL when there is none
ErrCode diags_first_code(const Diags *d);
void span_line_col(Span at, size_t *line, size_t *col); // 1-based; column counts characters, not bytes
#endif
