// The fp32 evaluator of the graph: the oracle. One plain reference function an op, before any pass.
#ifndef ADALLM_IR_EVAL_H
#define ADALLM_IR_EVAL_H
#include "compiler/frontend/source.h"
#include "compiler/ir/graph.h"
#include "runtime/base/pool.h"

// EXACT: everything in fp32, the truth of the graph. KV_E4M3: every key and value passes through the cache's
// format with the node's scales before attention reads it, the truth of the plan.
typedef enum { EVAL_EXACT, EVAL_KV_E4M3 } EvalKv;

// Runs the graph over one sequence of n ids at positions 0..n-1, logits after every position.
// logits: [n, vocab] f32, written; `vocab` is the last dimension of the output. Weights are read row by row
// and never held whole. False: unknown id, missing weight, unreadable weight.
bool eval_graph(const Graph *g, WeightSource *src, Pool *pool, const int32_t *ids, uint32_t n, EvalKv kv,
                float *logits, Err *e);
uint32_t eval_vocab(const Graph *g); // last dimension of the output
#endif
