// Reductions over the lanes of a warp and the warps of a block, as fixed trees: the result depends on the
// values and the number of threads alone, and every thread gets the same bits.
#ifndef ADALLM_LIB_REDUCE_CUH
#define ADALLM_LIB_REDUCE_CUH
#include <stdint.h>

constexpr uint32_t WARPS_MAX = 32;

// Over groups of WIDTH lanes, a power of two.
template <uint32_t WIDTH = 32> __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (uint32_t offset = WIDTH / 2; offset; offset /= 2) v += __shfl_xor_sync(~0u, v, offset);
    return v;
}

// Of values that are not negative; a NaN without sign counts as larger than all.
__device__ __forceinline__ float warp_max(float v) {
    return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(v)));
}

// What the warps of a block tell each other. Reductions take turns between two halves, so that one barrier
// each is enough: who writes a half again has passed the barrier of the reduction between.
struct BlockPartials {
    float sum[2][WARPS_MAX];
    float2 row[2][WARPS_MAX]; // most, l1
};

__host__ __device__ constexpr uint32_t power_of_two_above(uint32_t n) {
    uint32_t p = 1;
    while (p < n) p *= 2;
    return p;
}

// The first THREADS threads of a block meet: others may be elsewhere.
template <uint32_t THREADS> __device__ __forceinline__ void sync_threads() {
    asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory");
}

// The first THREADS threads of the block call these, with equal `turn`: 0, 1, 0, 1, ... over all reductions
// of the kernel.
template <uint32_t THREADS>
__device__ __forceinline__ float block_sum(float v, BlockPartials &p, uint32_t turn) {
    constexpr uint32_t WARPS = THREADS / 32, WIDTH = power_of_two_above(WARPS);
    v = warp_sum(v);
    if constexpr (WARPS == 1) return v;
    const uint32_t lane = threadIdx.x % 32, place = lane % WIDTH;
    if (lane == 0) p.sum[turn][threadIdx.x / 32] = v;
    sync_threads<THREADS>();
    return warp_sum<WIDTH>(place < WARPS ? p.sum[turn][place] : 0);
}

struct RowStats {
    float squares, most, l1; // sum of squares; largest magnitude and sum of magnitudes, of other values
};
// In two halves: every thread leaves what it has, then, behind sync_threads(), gets what all have.
template <uint32_t THREADS>
__device__ __forceinline__ void block_stats_leave(RowStats v, BlockPartials &p, uint32_t turn) {
    v.squares = warp_sum(v.squares), v.most = warp_max(v.most), v.l1 = warp_sum(v.l1);
    if (threadIdx.x % 32 == 0) {
        p.sum[turn][threadIdx.x / 32] = v.squares;
        p.row[turn][threadIdx.x / 32] = make_float2(v.most, v.l1);
    }
}
template <uint32_t THREADS>
__device__ __forceinline__ RowStats block_stats_take(const BlockPartials &p, uint32_t turn) {
    constexpr uint32_t WARPS = THREADS / 32, WIDTH = power_of_two_above(WARPS);
    const uint32_t place = threadIdx.x % 32 % WIDTH;
    const bool some = place < WARPS;
    const float2 row = some ? p.row[turn][place] : make_float2(0, 0);
    RowStats v;
    v.squares = warp_sum<WIDTH>(some ? p.sum[turn][place] : 0);
    v.most = warp_max(row.x), v.l1 = warp_sum<WIDTH>(row.y);
    return v;
}
template <uint32_t THREADS>
__device__ __forceinline__ RowStats block_stats(RowStats v, BlockPartials &p, uint32_t turn) {
    block_stats_leave<THREADS>(v, p, turn);
    sync_threads<THREADS>();
    return block_stats_take<THREADS>(p, turn);
}
#endif
