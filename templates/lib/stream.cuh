// Decode form of a matrix product: every block owns row tiles, and its warps stream their weights from memory
// through registers. Warp (group, slice) of a block takes row tiles group, group + GROUPS, ... and slice
// `slice` of K: all its weights are one run of stages a tile. Tokens are the 8 columns of mma, COLS times.
#ifndef ADALLM_LIB_STREAM_CUH
#define ADALLM_LIB_STREAM_CUH
#include "templates/lib/stage.cuh"

template <bool VALUE> struct Constant { static constexpr bool value = VALUE; };

// Stages in flight a warp: as many as wanted, or fewer (more than half) where a slice of `most` stages then
// leaves less of its last chunk empty.
__host__ __device__ constexpr uint32_t stream_depth(uint32_t most, uint32_t wanted) {
    uint32_t best = wanted;
    for (uint32_t d = wanted; 2 * d > wanted; d--)
        if ((most + d - 1) / d * d < (most + best - 1) / best * best) best = d;
    return most < best ? most : best;
}

// Rows of activations, a column each: lane (g, q) reads 32 bytes of row g of every column tile. Columns
// beyond the last repeat it: what they sum is thrown away.
template <uint32_t COLS> struct StreamColumns {
    const uint8_t *row[COLS]; // the lane's bytes of stage 0
    __device__ __forceinline__ void load(uint32_t stage, uint4 (&x)[COLS][2]) const {
#pragma unroll
        for (uint32_t c = 0; c < COLS; c++) {
            x[c][0] = *(const uint4 *)(row[c] + stage * 128);
            x[c][1] = *(const uint4 *)(row[c] + stage * 128 + 16);
        }
    }
};

template <Format F, uint32_t COLS>
__device__ __forceinline__ void stream_stage(const Stage<F> &stage, const uint4 (&x)[COLS][2],
                                             float (&acc)[COLS][4]) {
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t a[2][4];
        stage.pair(half, a);
#pragma unroll
        for (uint32_t c = 0; c < COLS; c++) {
            mma_m16n8k16_f32_f16(acc[c], a[0], x[c][half].x, x[c][half].y);
            mma_m16n8k16_f32_f16(acc[c], a[1], x[c][half].z, x[c][half].w);
        }
    }
}

// Row tiles [first, first + n) of the weight at `w`, of K columns. Calls out(tile, column tile, sums) once
// for each of them, by some warp, where `sums` is the lane's part of mma's D: rows g, g + 8 of the tile,
// columns 2q, 2q + 1. ROUND: row tiles whose partial sums fit `shared`, which holds 2 x ROUND x COLS x 4 KiB,
// or half of it when ROUND >= n. make_columns() is asked once the first weights are on their way: it may wait
// for counts. Every thread of the block calls it.
template <Format F, uint32_t K, uint32_t COLS, uint32_t GROUPS, uint32_t ROUND, class Columns, class Idle,
          class Out>
__device__ __forceinline__ void stream_tiles(const uint8_t *w, uint32_t first, uint32_t n,
                                             Columns make_columns, float4 *shared, Idle idle, Out out) {
    constexpr uint32_t STAGES = stages_of(K), BYTES = stage_bytes(F), WARPS = GROUPS * SLICES;
    constexpr uint32_t MOST = (STAGES + SLICES - 1) / SLICES; // stages of a slice
    constexpr uint32_t LEAST =
        STAGES / SLICES >= 4 ? STAGES / SLICES : MOST; // of a slice; a short rest is cheap
    constexpr uint32_t DEPTH = stream_depth(LEAST, F == FORMAT_NVFP4 ? (COLS > 1 ? 4 : 8) : 2);
    constexpr bool EVEN = STAGES % (SLICES * DEPTH) == 0; // every chunk is full
    static_assert(ROUND % GROUPS == 0, "all groups of a block do as many tiles in a round");
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, slice = warp % SLICES,
                   group = warp / SLICES;
    const uint32_t begin = slice_begin(STAGES, slice), n_stages = slice_begin(STAGES, slice + 1) - begin;
    const uint8_t *at = w + ((uint64_t)(first + group) * STAGES + begin) * BYTES;

    Stage<F> ring[DEPTH];
    uint4 x[COLS][2];
#pragma unroll
    for (uint32_t d = 0; d < DEPTH; d++)
        if (group < n && d < n_stages) ring[d].load(at + d * BYTES, lane);
    const StreamColumns<COLS> columns = make_columns();
    columns.load(begin, x);

    for (uint32_t round0 = 0, buffer = 0; round0 < n; round0 += ROUND, buffer ^= 1) {
        float4 *part = shared + buffer * (ROUND * COLS * SLICES * 32);
        const uint32_t round_end = min(round0 + ROUND, n);
        for (uint32_t t = round0 + group; t < round_end; t += GROUPS) {
            float acc[COLS][4] = {};
#pragma unroll 1 // more would cost registers
            for (uint32_t base = 0; base < n_stages; base += DEPTH) {
                // Where the ring goes on: this tile, or the next one of the group.
                const bool same = base + DEPTH < n_stages;
                const uint32_t left = same ? n_stages - base - DEPTH : t + GROUPS < n ? n_stages : 0;
                const uint8_t *next = same ? at + DEPTH * BYTES
                                           : at - (uint64_t)base * BYTES + (uint64_t)GROUPS * STAGES * BYTES;
                if (left == 0) idle();
                // Whole chunks, the most, without a question for every stage.
                const auto chunk = [&](auto whole) {
#pragma unroll
                    for (uint32_t d = 0; d < DEPTH; d++) {
                        if (whole.value || base + d < n_stages) {
                            uint4 x_next[COLS][2];
                            columns.load(begin + (base + d + 1 < n_stages ? base + d + 1 : 0), x_next);
                            stream_stage<F, COLS>(ring[d], x, acc);
#pragma unroll
                            for (uint32_t c = 0; c < COLS; c++)
                                x[c][0] = x_next[c][0], x[c][1] = x_next[c][1];
                        }
                        if (whole.value ? left != 0 : d < left) ring[d].load(next + d * BYTES, lane);
                    }
                };
                if (EVEN || (COLS == 1 && base + DEPTH <= n_stages && (left >= DEPTH || left == 0)))
                    chunk(Constant<true>());
                else
                    chunk(Constant<false>());
                at = next;
            }
            if (n_stages == 0) at += (uint64_t)GROUPS * STAGES * BYTES;
#pragma unroll
            for (uint32_t c = 0; c < COLS; c++)
                part[(((t - round0) * COLS + c) * SLICES + slice) * 32 + lane] =
                    make_float4(acc[c][0], acc[c][1], acc[c][2], acc[c][3]);
        }
        __syncthreads();
        for (uint32_t u = warp; u < (round_end - round0) * COLS; u += WARPS) {
            float sums[4] = {};
#pragma unroll
            for (uint32_t s = 0; s < SLICES; s++) {
                const float4 v = part[(u * SLICES + s) * 32 + lane];
                sums[0] += v.x, sums[1] += v.y, sums[2] += v.z, sums[3] += v.w;
            }
            out(first + round0 + u / COLS, u % COLS, sums);
        }
    }
}
#endif
