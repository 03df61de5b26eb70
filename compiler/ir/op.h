// What op.def says about each op, as a table, and the shape rules (shape.c) that graph_add and graph_verify
// share.
#ifndef ADALLM_IR_OP_H
#define ADALLM_IR_OP_H
#include "compiler/ir/graph.h"

enum { OPF_PURE = 1, OPF_EFFECT = 2, OPF_FUSED = 4 };
enum { RESULTS_MAX = 2, INPUTS_MAX = 8, ATTRS_MAX = 8 };

// One node whose types are being inferred or checked.
typedef struct {
    const Graph *g;
    Op op;
    const Type *in; // [n_in]
    uint32_t n_in;
    const Attr *attrs; // as op.def orders them
    Type out[RESULTS_MAX];
    Diags *d;
    Span at;
    const char *what; // how errors name the node: "`linear`" or "%5 `linear`"
} ShapeQuery;

typedef struct {
    const char *name;
    uint32_t min_inputs, max_inputs, n_results;
    const char *attrs; // "eps:r form:n"
    uint32_t flags;
    bool (*shape)(ShapeQuery *q); // fills q->out, or adds an error and returns false
} OpInfo;

const OpInfo *op_info(Op op);
const char *const *op_names(void); // [OP_COUNT], for "did you mean"

// Steps through the attributes of an op: *cursor starts as op_info(op)->attrs; false at the end.
bool op_next_attr(const char **cursor, Str *key, AttrKind *kind);

// Checks the number of inputs and runs the op's rule.
bool shape_infer(ShapeQuery *q);

void type_print(Type t, StrBuf *out); // "f32[T,512]"
// Elements of a type with `t` tokens and `r` rows; false on overflow.
bool type_count(Type type, uint64_t t, uint64_t r, uint64_t *out);
#endif
