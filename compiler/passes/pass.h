// Passes: passes.def lists them in order, one a file; a Graph goes in, a Plan comes out.
#ifndef ADALLM_PASSES_PASS_H
#define ADALLM_PASSES_PASS_H
#include "compiler/ir/graph.h"
#include "compiler/ir/plan.h"

typedef struct Target Target; // compiler/targets/target.h

// What the passes may ask. Buckets ascend; everything is validated before the first pass.
typedef struct {
    Arena *arena;
    const Target *target;
    uint32_t n_ranks;
    uint32_t context;        // tokens of the longest sequence
    uint32_t vocab;          // ids below this may be sampled; 0: all rows of the logits
    const uint32_t *buckets; // batch sizes of the decode programs
    uint32_t n_buckets;
    uint32_t prefill_tokens;      // most tokens of one prefill step
    const PlanRefusals *refusals; // kernels not to be chosen; NULL: none
    const char *dump_after;       // print the IR after this pass; NULL: none; "all": every pass
    const char *dump_dir;         // into DIR/<n>_<pass>.ir; NULL: to stdout
} PassContext;

// A graph pass builds and returns a new graph (or the one it got when nothing changes), or adds errors and
// returns NULL. A plan pass fills in its part of the plan, or adds errors and returns false.
#define PASS_GRAPH(name)  Graph *pass_##name(Graph *g, const PassContext *c, Diags *d);
#define PASS_PLAN(name)   bool pass_##name(Plan *p, const PassContext *c, Diags *d);
#define PASS(name, level) PASS_##level(name)
#include "compiler/passes/passes.def"
#undef PASS
#undef PASS_GRAPH
#undef PASS_PLAN

// Runs all graph passes, or all plan passes on an empty plan for `g`. NULL after adding errors; an unknown
// dump_after is an E_OPTION_VALUE. Debug builds print, re-parse and verify the IR after every pass.
Graph *passes_run_graph(Graph *g, const PassContext *c, Diags *d);
Plan *passes_run_plan(Graph *g, const PassContext *c, Diags *d);
#endif
