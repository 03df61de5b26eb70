// advance: the drawn tokens become the next step's input: ids[r] = next[r], pos[r] += 1; and the host finds
// them, with their status, in the step's slot of the ring. One block.
#ifndef ADALLM_HOST_ADVANCE_H
#define ADALLM_HOST_ADVANCE_H
#include "templates/host/math.h"

typedef struct {
    uint32_t rows_max;
} AdvanceSpec;

INLINE void advance(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, AdvanceSpec s) {
    const int32_t *next = args[0];
    int32_t *ids = args[1], *pos = args[2];
    uint32_t *counts = args[3];
    const uint32_t *status = args[4];
    const uint32_t step = counts[COUNT_STEP];
    RingSlot *slot = (RingSlot *)(void *)((char *)args[5] + step % RING_SLOTS * RING_SLOT_BYTES(s.rows_max));
    int32_t *told = (int32_t *)(slot + 1);
    uint32_t *told_status = (uint32_t *)told + s.rows_max;
    (void)scratch, (void)n_blocks;
    if (block) return;
    for (uint32_t r = 0; r < counts[COUNT_ROWS]; r++) {
        ids[r] = next[r], pos[r]++;
        told[r] = next[r], told_status[r] = status[r];
    }
    counts[COUNT_STEP] = step + 1;
    slot->done = step + 1;
}
#endif
