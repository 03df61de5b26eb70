// advance: the drawn tokens become the next step's input: ids[r] = next[r], pos[r] += 1.
#ifndef ADALLM_HOST_ADVANCE_H
#define ADALLM_HOST_ADVANCE_H
#include "templates/host/math.h"

typedef struct {
    uint32_t none;
} AdvanceSpec;

INLINE void advance(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, AdvanceSpec s) {
    const int32_t *next = args[0];
    int32_t *ids = args[1], *pos = args[2];
    Range rows = range_of_block(((const uint32_t *)args[3])[COUNT_ROWS], block, n_blocks);
    (void)scratch, (void)s;
    for (uint32_t r = rows.begin; r < rows.end; r++) ids[r] = next[r], pos[r]++;
}
#endif
