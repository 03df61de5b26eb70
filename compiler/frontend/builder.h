// Builder: the graph of a family for one config, with every weight checked against the source.
#ifndef ADALLM_COMPILER_BUILDER_H
#define ADALLM_COMPILER_BUILDER_H
#include "compiler/frontend/family.h"
#include "compiler/frontend/source.h"
#include "compiler/ir/graph.h"

// What becomes of the output head: the linear of the graph's head whose weight is of kind `head`, or `embed`
// where the embedding is tied.
typedef struct {
    WeightFormat format; // WF_E4M3 or WF_NVFP4: what it is to be
    QuantMethod method;  // of NVFP4
    // Filled in.
    bool kept;    // it is stored in NVFP4, and stays as it is
    bool tied;    // the embedding table stays beside it
    WeightId id;  // its weight in the graph
    Weight plain; // that weight if it were not quantised
} BuilderHead;

typedef struct {
    const Config *config;
    WeightSource *source;
    bool random;          // declare weights to the source instead of expecting them there
    WeightFormat linears; // of random decoder linears
    bool a8;              // activations of NVFP4 linears are quantised (recipe: gemm: w4a8)
    Source *place;        // where errors about tensors point: the checkpoint
    BuilderHead *head;    // NULL: as it is
} BuilderInput;

// The height of the embedding table, by its tensor; 0 when the source has none.
uint64_t builder_vocab_rows(const Config *c, WeightSource *source);

// NULL after errors: E_TENSOR_MISSING and E_TENSOR_SHAPE list all tensors concerned.
Graph *builder_graph(Arena *a, const BuilderInput *in, Diags *d);
#endif
