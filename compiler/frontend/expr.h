// Expressions of family files: numbers, names of config fields and layer flags, + - * / % **, comparisons,
// and, or, not, in, sqrt, min, max. Everything is a double; true is 1.
#ifndef ADALLM_COMPILER_EXPR_H
#define ADALLM_COMPILER_EXPR_H
#include "runtime/base/diag.h"

typedef struct {
    bool is_list;
    double num;
    const int64_t *items; // of a list; only `in` takes one
    uint32_t n_items;
} ExprValue;

typedef struct {
    bool (*lookup)(void *ctx, Str name, ExprValue *out); // false: no such name
    void *ctx;
    const char *const *names; // all names, for "did you mean"
    size_t n_names;
} ExprScope;

// Evaluates `text`, whose first byte stands at `at.begin` of at.src. Faults (E_FAMILY: syntax, unknown names,
// a result that is not finite) are located; false then.
bool expr_eval(Str text, Span at, const ExprScope *scope, double *out, Diags *d);
#endif
