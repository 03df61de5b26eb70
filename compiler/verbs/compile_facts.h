// What the artifact says about the model beside its plan: facts for the manifest, and the golden self-test.
#ifndef ADALLM_VERBS_COMPILE_FACTS_H
#define ADALLM_VERBS_COMPILE_FACTS_H
#include "compiler/frontend/model.h"
#include "compiler/pack/pack.h"

// Fills everything of PackFacts; hashes every file of the model that was read.
bool facts_fill(Arena *a, Model *m, bool has_chat, Pool *pool, PackFacts *out, Diags *d);

// A prompt of pseudo-random ids and the evaluator's logits at some columns after every position. The larger
// the model the shorter the prompt: one pass over its weights dominates.
bool facts_selftest(Arena *a, const Model *m, Pool *pool, PackSelftest *out, Diags *d);
#endif
