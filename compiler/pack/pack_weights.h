// The weights section: where each weight of each rank goes, and the stream that fills it.
#ifndef ADALLM_PACK_PACK_WEIGHTS_H
#define ADALLM_PACK_PACK_WEIGHTS_H
#include "compiler/frontend/source.h"
#include "compiler/ir/plan.h"

// Receives the section's bytes in order.
typedef struct {
    bool (*write)(void *ctx, const void *data, size_t len, Err *e);
    void *ctx;
} WeightSink;

// Places all weights: bindings [n_weights * n_ranks], in the arena; *total is the size of the section. Ranks
// that hold the same bytes share them. Adds E_PLAN_INVALID for a weight whose size is not what its parts and
// layout give.
const AdaBinding *weights_place(Arena *a, const Plan *p, uint64_t *total, Diags *d);

// Reads, packs and writes everything that was placed. *read_bytes counts what the source gave.
bool weights_write(const Plan *p, const AdaBinding *bindings, WeightSource *src, Pool *pool, WeightSink sink,
                   uint64_t *read_bytes, Diags *d);
#endif
