// What a quantised output head costs, measured while compiling.
#ifndef ADALLM_VERBS_COMPILE_HEAD_H
#define ADALLM_VERBS_COMPILE_HEAD_H
#include "compiler/frontend/model.h"
#include "compiler/pack/pack.h"

// Runs the fp32 evaluator over pseudo-random ids with the head as stored and as compiled, and compares the
// distributions of the ids below `vocab` after every position: two passes over the weights. With a head that
// is not quantised out->positions is 0.
bool head_measure(Arena *a, const Model *m, uint32_t vocab, Pool *pool, PackHead *out, Diags *d);
#endif
