// Graph: what is computed. SSA over typed values; shapes are fixed but for two symbolic dimensions.
// IR.md has the text form; op.def declares every op. Graphs live in an arena and only grow; a pass builds a
// new graph.
#ifndef ADALLM_IR_GRAPH_H
#define ADALLM_IR_GRAPH_H
#include "runtime/base/diag.h"

typedef enum {
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_I32,
    DT_NVFP4,
    DT_E4M3,
    DT_KV,
    DT_COUNT
} DType; // DT_E4M3: with a scale a row. DT_KV: "this layer's cache is written"

enum { DIM_T = -1, DIM_R = -2, RANK_MAX = 4 }; // T: tokens of the step. R: rows of T that get logits.

typedef struct {
    DType dtype;
    uint32_t rank;
    int64_t dim[RANK_MAX]; // > 0, or DIM_T / DIM_R
} Type;

typedef uint32_t ValueId, NodeId, WeightId;
#define NO_ID UINT32_MAX

typedef enum {
#define OP(name, ...) OP_##name,
#include "compiler/ir/op.def"
#undef OP
    OP_COUNT
} Op;

typedef enum { ATTR_INT, ATTR_REAL, ATTR_NAME } AttrKind;
typedef struct {
    const char *key; // as in op.def
    AttrKind kind;
    union {
        int64_t i;
        double real;
        const char *name;
    };
} Attr;

typedef struct {
    Op op;
    const ValueId *inputs;
    uint32_t n_inputs;
    ValueId result; // first result; a node with n_results 2 also defines result + 1
    uint32_t n_results;
    const Attr *attrs; // in the order of op.def
    uint32_t n_attrs;
    int32_t layer;      // decoder layer, -1 outside
    const char *origin; // "models/families/qwen3.yaml:31", or the pass that made it
} Node;

typedef struct {
    Type type;
    NodeId def;
} Value;

// How tensor parallel ranks divide one stored tensor. ROWS by `units` (heads; 0: single rows): rank r of n
// takes units [r*units/n, (r+1)*units/n), or shares unit r*units/n when there are fewer units than ranks (KV
// heads). COLS: equal parts. ROWS of a vector (a part with one row: biases) divides its elements the same
// way.
typedef enum { SHARD_NONE, SHARD_ROWS, SHARD_COLS } ShardRule;

typedef struct {
    Str tensor;          // canonical checkpoint name
    uint64_t rows, cols; // of the whole tensor; a vector has 1 row
    ShardRule rule;
    uint32_t units;
} WeightPart;

typedef struct {
    uint64_t row, rows, col, cols; // rows [row, row + rows), columns [col, col + cols) of the stored tensor
} PartSlice;
// What rank `rank` of `n_ranks` sees of a part. False: the rule does not divide (the shard pass refuses
// that).
bool part_slice(const WeightPart *p, uint32_t rank, uint32_t n_ranks, PartSlice *out);

// A parameter: parts stacked along rows (q, k, v of a fused projection; experts; vectors end to end), or
// inline constant data.
typedef struct {
    Str name;  // unique in the graph
    Type type; // what one rank sees
    WeightPart *parts;
    uint32_t n_parts;
    const float *data; // a constant: f32, product(dims) values; then n_parts is 0
    float add;         // added to every element when read (Gemma's 1 + w); set by the fold pass, else 0
} Weight;

typedef struct {
    Arena *arena;
    Node *nodes;
    uint32_t n_nodes, cap_nodes;
    Value *values;
    uint32_t n_values, cap_values;
    Weight *weights;
    uint32_t n_weights, cap_weights;
    uint32_t n_ranks; // 1 until the shard pass
} Graph;

Graph *graph_new(Arena *a);

// Appends a node; its result types come from the shape rule of the op. `attrs` may come in any order; all
// that op.def declares must be there. On a wrong arity, attribute, type or shape adds a located error
// (E_IR_INVALID, at `at`) and returns NO_ID. Returns the first result (NO_ID - 1 never; 0 results: returns
// 0).
ValueId graph_add(Graph *g, Op op, const ValueId *inputs, uint32_t n_inputs, const Attr *attrs,
                  uint32_t n_attrs, int32_t layer, const char *origin, Span at, Diags *d);
WeightId graph_add_weight(Graph *g, Weight w); // copied; parts and data must live as long as the graph
WeightId graph_find_weight(const Graph *g, Str name);

const Attr *node_attr(const Node *n, const char *key); // NULL when the op does not declare it
int64_t node_int(const Node *n, const char *key);      // CHECKs that it exists
double node_real(const Node *n, const char *key);
const char *node_name(const Node *n, const char *key);
const Weight *node_weight(const Graph *g, const Node *n); // of an OP_weight node
const Node *value_node(const Graph *g, ValueId v);        // the node that defines v

const char *op_name(Op op);
bool op_find(Str name, Op *out);
const char *dtype_name(DType t);
bool type_eq(Type a, Type b);

// Text form. print -> parse gives an equal graph (constants print their data when they have at most 64
// values, else `hidden`: parsed back, their `data` is NULL).
void graph_print(const Graph *g, StrBuf *out);
Graph *graph_parse(Arena *a, const Source *src, Diags *d);
// Checks everything the text form and the passes rely on: one definition before every use, types by the shape
// rules, weights declared and used with their shapes, attributes complete. Adds E_IR_INVALID errors that name
// the node.
bool graph_verify(const Graph *g, Diags *d);
#endif
