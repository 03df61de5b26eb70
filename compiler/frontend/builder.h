// Builder: the graph of a family for one config, with every weight checked against the source.
#ifndef ADALLM_COMPILER_BUILDER_H
#define ADALLM_COMPILER_BUILDER_H
#include "compiler/frontend/family.h"
#include "compiler/frontend/source.h"

typedef struct {
    const Config *config;
    WeightSource *source;
    bool random;          // declare weights to the source instead of expecting them there
    WeightFormat linears; // of random decoder linears
    bool a8;              // activations of NVFP4 linears are quantised (recipe: gemm: w4a8)
    Source *place;        // where errors about tensors point: the checkpoint
} BuilderInput;

// The height of the embedding table, by its tensor; 0 when the source has none.
uint64_t builder_vocab_rows(const Config *c, WeightSource *source);

// NULL after errors: E_TENSOR_MISSING and E_TENSOR_SHAPE list all tensors concerned.
Graph *builder_graph(Arena *a, const BuilderInput *in, Diags *d);
#endif
