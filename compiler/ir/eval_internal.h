// Inside of the evaluator: one call is one node on one rank.
#ifndef ADALLM_IR_EVAL_INTERNAL_H
#define ADALLM_IR_EVAL_INTERNAL_H
#include "compiler/ir/eval.h"
#include "compiler/ir/op.h"

// A weight opened for reading: where each part's rows of this rank begin in the stack.
typedef struct {
    const Weight *w;
    WeightInfo *infos; // [n_parts]
    PartSlice *slices; // [n_parts]
    uint64_t *first;   // [n_parts + 1], rank-local rows; a vector is one row
    uint64_t rows, cols;
} EvalWeight;

typedef struct {
    const Graph *g;
    WeightSource *src;
    Pool *pool;
    const int32_t *ids;
    uint32_t n; // tokens
    EvalKv kv;
    float *logits;
    float **values; // [n_values * n_ranks]; i32 values lie in the same four bytes; NULL: dead, or a matrix
    Err *e;
} Eval;

typedef struct {
    Eval *ev;
    const Node *node;
    uint32_t rank;
    const float *in[INPUTS_MAX];
    float *out[RESULTS_MAX];
} EvalCall;

#define OP(name, ...) bool eval_##name(EvalCall *c);
#include "compiler/ir/op.def"
#undef OP

Type eval_type(const EvalCall *c, uint32_t input);
uint64_t eval_dim(const Eval *ev, int64_t dim);        // tokens for T and R
uint64_t eval_last(const EvalCall *c, uint32_t input); // last dimension
uint64_t eval_rows(const EvalCall *c, uint32_t input); // product of the others
const float *eval_value(const Eval *ev, ValueId v, uint32_t rank);

// Opens the weight that is the call's input `input`; frees nothing on failure but what it took.
bool eval_open_weight(EvalCall *c, uint32_t input, EvalWeight *out);
void eval_close_weight(EvalWeight *w);
// Rows [row, row + n_rows) of the rank's stack as fp32 [n_rows, cols]; any thread.
bool eval_weight_rows(const Eval *ev, const EvalWeight *w, uint64_t row, uint64_t n_rows, float *out, Err *e);

// Sum of x[i] * y[i]: eight partial sums, carried into double every 256 elements; the order depends on k
// alone.
double eval_dot(const float *x, const float *y, uint64_t k);

// out[p][row] = dot(x_of[p], weight row `first_row + row`) + bias[row] for the `n` vectors x_of[p] and every
// row below `rows`, on all threads. out[p] has `rows` values.
bool eval_matmul(EvalCall *c, const EvalWeight *w, uint64_t first_row, uint64_t rows, const float *const *x,
                 float *const *out, uint64_t n, const float *bias);

typedef float (*EvalFn)(float);
EvalFn eval_activation(const char *name); // "silu" or "gelu_tanh"
void eval_norm_rows(const float *x, const float *w, double eps, uint64_t rows, uint64_t n, float *out);
void eval_rope_heads(const float *x, const int32_t *pos, const float *inv_freq, float factor, uint64_t n_tok,
                     uint64_t heads, uint64_t head_dim, float *out);
#endif
