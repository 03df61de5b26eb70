// gather_rows: out[r] = x[rows[r]].
#ifndef ADALLM_HOST_GATHER_ROWS_H
#define ADALLM_HOST_GATHER_ROWS_H
#include "templates/host/math.h"

typedef struct {
    uint32_t hidden, x_pitch; // x_pitch: GPUs
} GatherRowsSpec;

INLINE void gather_rows(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch,
                        GatherRowsSpec s) {
    const float *x = args[0];
    const int32_t *rows = args[1];
    float *out = args[2];
    Range range = range_of_block(((const uint32_t *)args[3])[COUNT_ROWS], block, n_blocks);
    (void)scratch;
    for (uint32_t r = range.begin; r < range.end; r++)
        memcpy(out + (size_t)r * s.hidden, x + (size_t)(uint32_t)rows[r] * s.hidden,
               s.hidden * sizeof(float));
}
#endif
