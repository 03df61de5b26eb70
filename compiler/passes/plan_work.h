// What the plan passes hand to each other beside the Plan itself:
//   layout    the KV groups and a PlanWeight for every weight
//   select    steps: every node as launches of templates on values
//   absorb    what a step does for its neighbour
//   prefetch  what a step fetches for the next product
//   choose    a kernel for every step and bucket
//   schedule  which program a step belongs to, and which values share storage
//   bucket    launches and buffers: the steps once for every bucket
//   chain     launches of decode steps that may run as one
//   memplan   offsets in the scratch arena
#ifndef ADALLM_PASSES_PLAN_WORK_H
#define ADALLM_PASSES_PLAN_WORK_H
#include "compiler/ir/template.h"
#include "compiler/passes/pass.h"
#include "compiler/targets/target.h"

// ROLE: a state buffer; id: AdaRole. POOL and TABLE: of the layer's KV group; id: decoder layer as KvLayer.
typedef enum {
    OPERAND_NONE,
    OPERAND_VALUE,  // id: ValueId
    OPERAND_WEIGHT, // id: index of Plan.weights
    OPERAND_ROLE,
    OPERAND_POOL,
    OPERAND_TABLE
} OperandKind;
typedef struct {
    OperandKind kind;
    uint32_t id;
    uint64_t offset; // of a weight, in bytes
} Operand;

// Arguments of linear and gate_up that depend on the bucket's kernel: x, or with `fold` the other two.
enum { PRODUCT_X = 0, PRODUCT_RESIDUAL = 7, PRODUCT_NORM_W = 8 };

typedef struct {
    KernelChoice choice;
    uint32_t kernel; // of Plan.kernels
    bool skip;       // not launched: the product behind it does this itself (choice.spared_us)
} StepKernel;

typedef struct {
    AdaLaunchKind kind;
    AdaProgramKind program;
    const char *template_; // NULL for collectives
    SpecField spec[TEMPLATE_FIELDS_MAX];
    uint32_t n_spec;
    Operand args[TEMPLATE_ARGS_MAX];
    uint32_t n_args;
    uint32_t count, cols;    // cols: collectives, f32 a row
    uint32_t norm;           // the step that a product with `fold` stands for too; NO_ID: none
    ValueId updated, update; // value `updated` becomes `update` in place; NO_ID: none
    // What it costs with `rows` tokens or rows: weight bytes are read once, or by each row in part (experts).
    uint64_t weight_bytes;
    double weight_share; // part of weight_bytes one row reads; 0: one row reads all
    uint64_t read_per_row, write_per_row, flops_per_row;
    uint64_t kv_per_sequence; // cache bytes read for each sequence
    const char *origin;
    StepKernel *kernels; // [buckets of its program]
} Step;

// Where a value lives. In-place and joined values share one; merge_heads and split_heads are other views.
typedef struct {
    const char *name;
    uint64_t row_bytes; // of one token or row
    uint32_t count;     // COUNT_TOKENS, COUNT_ROWS
    AdaRole role;       // NONE: scratch
} Storage;

typedef struct {
    uint32_t group;
    uint64_t page_offset; // of the layer inside a page of its group
} KvLayer;

typedef struct {
    uint32_t *items, n;
} BucketList;

typedef struct PlanWork {
    Graph *graph;                            // with the constants that the planner adds
    uint32_t *values_weight, *scales_weight; // [weights of the graph] -> index of Plan.weights, NO_ID
    uint32_t *bound_weight;                  // [weights of the graph] -> index of Plan.weights, NO_ID
    uint32_t *kv_scale; // [nodes] of rope_write, paged_attention -> index of Plan.weights
    KvLayer *kv;        // [nodes] of rope_write, paged_attention
    bool *wide;         // [values]: act rows that keep their f32 values, for linear_f32
    uint32_t *uses;     // [values]
    NodeId *only_user;  // [values], of the values with one use
    Step *steps;
    uint32_t n_steps, cap_steps;
    uint32_t *storage_of; // [values] -> storages, NO_ID: none
    uint64_t *offset_in;  // [values]: bytes from the start of the storage's row
    Storage *storages;
    uint32_t n_storages;
    BucketList buckets[ADA_PROGRAM_KINDS];
} PlanWork;

// Bytes of a row of k values as linears read it: f32, or on a GPU the act row of templates/lib/args.cuh.
uint64_t act_row_bytes(const Target *t, uint64_t k, bool wide);
// Bytes of a quantised row of k values: f32, or on a GPU the E4M3 row of templates/lib/args.cuh.
uint64_t e4m3_row_bytes(const Target *t, uint64_t k);
// Whether linears read this value, and whoever makes it writes act rows (schedule.c).
bool value_is_act(const PlanWork *w, ValueId v);
// The buckets of each kind of program, ascending (bucket.c).
void plan_buckets(const PassContext *c, const Plan *p, AdaProgramKind kind, BucketList *out);
// What a step reads, writes and computes with `rows` tokens or rows of at most `seqs` sequences.
void step_cost(const Step *s, uint32_t rows, uint32_t seqs, uint64_t *read, uint64_t *written,
               uint64_t *flops);
// "layer 3: norm_add (models/families/qwen3.yaml:31)"
const char *node_origin(Arena *a, const Node *n);
// `base`, or with a number behind it where a kernel has that name (choose.c).
const char *plan_kernel_name(Arena *a, const Plan *p, const char *base);
// Room for one more item; the old array stays behind in the arena.
void *plan_grow(Arena *a, void *items, uint32_t n, uint32_t *cap, size_t size);
#endif
