// Rewriting: what graph passes that copy node by node share.
#ifndef ADALLM_PASSES_REWRITE_H
#define ADALLM_PASSES_REWRITE_H
#include "compiler/ir/graph.h"

typedef struct {
    const Graph *in;
    Graph *out;
    ValueId *map; // [in->n_values]: the value of `out` that stands for each of `in`; NO_ID: none yet
    Diags *d;
} Rewrite;

Rewrite rewrite_begin(const Graph *g, Diags *d); // `out` is empty, in the arena of g

// Adds a node like `n` with these inputs (values of `out`); its results are not mapped. NO_ID on an error.
ValueId rewrite_node(Rewrite *r, const Node *n, const ValueId *inputs, uint32_t n_inputs);
// The same with the mapped inputs of n, and maps its results. False on an error.
bool rewrite_copy(Rewrite *r, const Node *n);
// A weight node for weight `id` of `out`. NO_ID on an error.
ValueId rewrite_weight(Rewrite *r, WeightId id, int32_t layer, const char *origin);

// A weight of g with the same content (type, parts and shares, data, add), whatever its name; NO_ID: none.
WeightId rewrite_find_weight(const Graph *g, const Weight *like);

// live[v]: value v reaches an output. In the arena.
const bool *rewrite_live(const Graph *g);
#endif
