// Which tokens meet in which expert. A pair is (token, j): its number is token * topk + j, ids[pair] its
// expert. An item is up to COLUMNS pairs of one expert; experts ascend over the items, pairs within them, so
// that all blocks of a launch agree on the items without talking to each other.
#ifndef ADALLM_LIB_EXPERTS_CUH
#define ADALLM_LIB_EXPERTS_CUH
#include "templates/lib/args.cuh"

template <uint32_t EXPERTS, uint32_t COLUMNS, uint32_t THREADS> struct Experts {
    static_assert(THREADS % 32 == 0, "whole warps");
    static constexpr uint32_t WARPS = THREADS / 32;
    uint32_t count[EXPERTS], first[EXPERTS]; // pairs of an expert; its first item
    uint32_t per_warp[WARPS];
    uint32_t n_items, expert, block;
    uint32_t pair[COLUMNS]; // of the item that find() found
    uint32_t n;             // of them

    // Every thread of the block calls it, once; ends with all in place.
    __device__ __forceinline__ void open(const int32_t *ids, uint32_t n_pairs) {
        for (uint32_t e = threadIdx.x; e < EXPERTS; e += THREADS) count[e] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n_pairs; i += THREADS)
            if ((uint32_t)ids[i] < EXPERTS) atomicAdd(&count[ids[i]], 1);
        __syncthreads();
        if (threadIdx.x < 32) {
            uint32_t before = 0;
            for (uint32_t base = 0; base < EXPERTS; base += 32) {
                const uint32_t e = base + threadIdx.x;
                const uint32_t items = e < EXPERTS ? (count[e] + COLUMNS - 1) / COLUMNS : 0;
                uint32_t up_to = items;
                for (uint32_t d = 1; d < 32; d *= 2) {
                    const uint32_t lower = __shfl_up_sync(~0u, up_to, d);
                    if (threadIdx.x >= d) up_to += lower;
                }
                if (e < EXPERTS) first[e] = before + up_to - items;
                before += __shfl_sync(~0u, up_to, 31);
            }
            if (threadIdx.x == 0) n_items = before;
        }
        __syncthreads();
    }

    // Fills expert, pair, n. Every thread of the block calls it; begins and ends with a barrier.
    __device__ __forceinline__ void find(const int32_t *ids, uint32_t n_pairs, uint32_t item) {
        __syncthreads();
        for (uint32_t e = threadIdx.x; e < EXPERTS; e += THREADS)
            if (item >= first[e] && item - first[e] < (count[e] + COLUMNS - 1) / COLUMNS)
                expert = e, block = item - first[e];
        __syncthreads();
        const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const uint32_t share = (n_pairs + THREADS - 1) / THREADS * 32, begin = min(warp * share, n_pairs),
                       end = min(begin + share, n_pairs);
        uint32_t mine = 0;
        for (uint32_t base = begin; base < end; base += 32)
            mine += __popc(__ballot_sync(~0u, base + lane < end && (uint32_t)ids[base + lane] == expert));
        if (lane == 0) per_warp[warp] = mine;
        __syncthreads();
        uint32_t rank = 0;
        for (uint32_t w = 0; w < warp; w++) rank += per_warp[w];
        for (uint32_t base = begin; base < end; base += 32) {
            const bool is = base + lane < end && (uint32_t)ids[base + lane] == expert;
            const uint32_t all = __ballot_sync(~0u, is), at = rank + __popc(all & ((1u << lane) - 1));
            if (is && at / COLUMNS == block) pair[at % COLUMNS] = base + lane;
            rank += __popc(all);
        }
        if (threadIdx.x == 0) n = min(count[expert] - block * COLUMNS, COLUMNS);
        __syncthreads();
    }
};
#endif
