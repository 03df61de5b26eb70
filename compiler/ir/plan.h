// Plan: what is launched. The same rows as the artifact's plan section (runtime/format.h), in growable
// arrays, with the strings still as pointers and with everything `--explain` shows. Prints to text and parses
// back (IR.md).
#ifndef ADALLM_IR_PLAN_H
#define ADALLM_IR_PLAN_H
#include "compiler/ir/graph.h"
#include "runtime/format.h"

// One value of a kernel's spec, in the order of templates.def.
typedef struct {
    const char *key;
    char kind; // 'u', 'f', 'n' as in templates.def
    uint64_t u;
    double f;
    const char *n;
} SpecField;

typedef struct PlanKernel PlanKernel;
struct PlanKernel {
    const char *name;      // symbol: "linear_nvfp4_n1536_k640"; equal specs share one kernel
    const char *template_; // row of templates.def
    SpecField *spec;       // the fields of the template, then its schedule fields, if the target has them
    uint32_t n_spec;
    uint32_t threads;
    uint64_t shared_bytes;
    const PlanKernel *parts; // of a chain (PlanChain): copies of the kernels that it stands for, in order
    uint32_t n_parts;
};

typedef struct {
    const char *name;
    AdaSpace space;
    AdaRole role;
    uint32_t index;                     // KV group of block tables and pools
    uint32_t program;                   // owner of a scratch buffer; UINT32_MAX: all
    uint64_t offset, bytes;             // offset: set by memplan for scratch
    uint32_t first_launch, last_launch; // inside the program, inclusive
} PlanBuffer;

typedef struct {
    AdaLaunchKind kind;
    uint32_t kernel;
    AdaArg args[16];
    uint32_t n_args;
    uint32_t grid, count, rows, cols;
    uint64_t bytes_read, bytes_written, flops;
    double predicted_us;
    const char *origin; // "layer 3: rms_norm add (models/families/qwen3.yaml:31)"
} PlanLaunch;

typedef struct {
    AdaProgramKind kind;
    uint32_t bucket, first_launch, n_launches;
} PlanProgram;

// Launches that may run as one (AdaChain).
typedef struct {
    uint32_t kernel, first_launch, n_launches, grid;
    bool together; // blocks wait for each other
    double predicted_us;
} PlanChain;

// VALUES: the tensor itself in `layout`; its rows (parts one after the other) are `stack` times `rows` of
// `cols`, and each stack (expert) is padded to whole tiles by itself. A vector is one row.
// ROW_SCALES: f32[stack * rows] (cols 1), each row's NVFP4 global scale; for 16-bit weights what undoes the
// layout's factor.
// BOUND: f32[1], at least the magnitude of every value of the weight.
typedef enum {
    PLAN_WEIGHT_VALUES,
    PLAN_WEIGHT_ROW_SCALES,
    PLAN_WEIGHT_BOUND,
    PLAN_WEIGHT_KINDS
} PlanWeightKind;
typedef struct {
    const char *name;
    PlanWeightKind kind;
    AdaLayout layout;
    WeightId weight;            // in the graph: parts, shard rules, constant data
    uint64_t rows, cols, stack; // of one rank
    uint64_t bytes;             // packed, of one rank
    bool same_on_all_ranks;
} PlanWeight;

// A kernel that was considered for some launches and not taken, with the reason; shown by --explain.
typedef struct {
    const char *what;   // "linear n=1536 k=640 format=nvfp4"
    const char *reason; // "rows_per_block 4: predicted 12.1 us against 9.8 us"
} PlanRejected;

// A kernel that the compiler of its code found unfit, so that no further plan takes it.
typedef struct {
    PlanKernel kernel;
    const char *reason; // "spills 32 bytes"
} PlanRefusal;
typedef struct {
    PlanRefusal *items;
    uint32_t n;
} PlanRefusals;

typedef struct {
    Arena *arena;
    const Graph *graph; // after the last graph pass
    const char *target; // "host"
    PlanBuffer *buffers;
    uint32_t n_buffers;
    PlanKernel *kernels;
    uint32_t n_kernels;
    PlanLaunch *launches;
    uint32_t n_launches;
    PlanProgram *programs;
    uint32_t n_programs;
    PlanChain *chains; // in order of their launches
    uint32_t n_chains;
    PlanWeight *weights;
    uint32_t n_weights;
    PlanRejected *rejected;
    uint32_t n_rejected;
    AdaKvGroup kv[ADA_KV_GROUPS_MAX];
    uint32_t n_kv_groups;
    uint32_t n_ranks, vocab_rows, vocab, hidden, n_layers, context, seqs_max, tokens_max, rows_max,
        page_tokens;
    uint64_t scratch_bytes;
    struct PlanWork *work; // between the passes (passes/plan_work.h), NULL in a plan that was parsed
} Plan;

void plan_print(const Plan *p, StrBuf *out);
Plan *plan_parse(Arena *a, const Source *src, Diags *d); // without graph
// Independent of the planner (shares no code with passes/memplan.c): every index in range, every argument
// within its buffer, lifetimes cover all uses, no two scratch buffers of a program that are live together
// overlap, alignment 256, kernels' argument counts and spec fields as templates.def says. Adds E_PLAN_INVALID
// errors.
bool plan_verify(const Plan *p, Diags *d);
#endif
