// What the artifact says about the model beside its plan: facts for the manifest, and the golden self-test.
#ifndef ADALLM_VERBS_COMPILE_FACTS_H
#define ADALLM_VERBS_COMPILE_FACTS_H
#include "compiler/frontend/model.h"
#include "compiler/pack/pack.h"

// Fills everything of PackFacts; hashes every file of the model that was read.
bool facts_fill(Arena *a, Model *m, bool has_chat, Pool *pool, PackFacts *out, Diags *d);

// n pseudo-random ids below `vocab`, the same for every model of that vocabulary; fewer are a prefix of more.
const int32_t *facts_ids(Arena *a, uint32_t n, uint32_t vocab);
double facts_weights(const Graph *g); // elements of all its weights
// A prompt of pseudo-random ids and the evaluator's logits at some columns after every position. The larger
// the model the shorter the prompt: one pass over its weights dominates.
bool facts_selftest(Arena *a, const Model *m, Pool *pool, PackSelftest *out, Diags *d);
#endif
