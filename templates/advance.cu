// advance: the drawn tokens become the next step's input: ids[r] = next[r], pos[r] += 1; and the host finds
// them, with their status, in the step's slot of the ring, which is its own memory. One block.
#include "templates/lib/args.cuh"

template <class S> __device__ void advance(const Args<6> &a) {
    const int32_t *next = (const int32_t *)a.p[0];
    int32_t *ids = (int32_t *)a.p[1], *pos = (int32_t *)a.p[2];
    uint32_t *counts = (uint32_t *)a.p[3];
    const uint32_t *status = (const uint32_t *)a.p[4];
    const uint32_t n_rows = counts[COUNT_ROWS], step = counts[COUNT_STEP];
    RingSlot *slot = (RingSlot *)((uint8_t *)a.p[5] + step % RING_SLOTS * RING_SLOT_BYTES(S::rows_max));
    int32_t *told = (int32_t *)(slot + 1);
    uint32_t *told_status = (uint32_t *)told + S::rows_max;
    if (blockIdx.x) return;
    for (uint32_t r = threadIdx.x; r < n_rows; r += S::threads) {
        const int32_t id = next[r];
        ids[r] = id, told[r] = id, told_status[r] = status[r];
        pos[r]++;
    }
    __threadfence_system(); // the host sees `done` after all of them
    __syncthreads();
    if (threadIdx.x) return;
    counts[COUNT_STEP] = step + 1;
    *(volatile uint32_t *)&slot->done = step + 1;
}

#ifndef INSTANCE
struct Advance {
    static constexpr uint32_t rows_max = 64, threads = 64, shared_bytes = 0;
};
extern "C" __global__ void __launch_bounds__(64) advance_sample(const __grid_constant__ Args<6> args) {
    advance<Advance>(args);
}
#endif
