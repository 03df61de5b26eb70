// Decode form of a matrix product: every block owns row tiles, and its warps stream their weights from memory
// through registers. Warp (group, slice) of a block takes row tiles group, group + GROUPS, ... and slice
// `slice` of K: all its weights are one run of stages a tile. Tokens are the 8 columns of mma, COLS times.
#ifndef ADALLM_LIB_STREAM_CUH
#define ADALLM_LIB_STREAM_CUH
#include "templates/lib/stage.cuh"

constexpr uint32_t PART_BYTES = SLICES * 512; // partial sums of a row tile and 8 tokens, a float4 a lane

template <bool VALUE> struct Constant { static constexpr bool value = VALUE; };

// Stages in flight a warp: as many as wanted, or fewer (half at least) where slices then are whole chunks, or
// leave less of the last chunk empty.
__host__ __device__ constexpr uint32_t stream_depth(uint32_t stages, uint32_t wanted) {
    const uint32_t length = slice_length(stages), whole = slice_chunk(stages, length, wanted);
    if (2 * whole >= wanted) return whole;
    uint32_t best = wanted;
    for (uint32_t d = wanted; 2 * d > wanted; d--)
        if ((length + d - 1) / d * d < (length + best - 1) / best * best) best = d;
    return length < best ? length : best;
}

// Rows of activations, a column each: lane (g, q) reads x_lane_bytes of row g of every column tile. Columns
// beyond the last repeat it: what they sum is thrown away.
template <uint32_t COLS, bool E4M3> struct StreamColumns {
    static constexpr uint32_t EACH = x_lane_bytes(E4M3) / 16;
    const uint8_t *row[COLS]; // the lane's bytes of stage 0
    // row_of(token): its activations; n: tokens, at least one row is there.
    template <class RowOf> __device__ __forceinline__ void open(uint32_t n, RowOf row_of) {
        const uint32_t lane = thread_index() % 32;
#pragma unroll
        for (uint32_t c = 0; c < COLS; c++)
            row[c] = row_of(min(c * TILE_TOKENS + lane / 4, max(n, 1u) - 1)) + lane % 4 * x_lane_bytes(E4M3);
    }
    __device__ __forceinline__ void load(uint32_t stage, uint4 (&x)[COLS][EACH]) const {
#pragma unroll
        for (uint32_t c = 0; c < COLS; c++) {
            x[c][0] = *(const uint4 *)(row[c] + stage * x_stage_bytes(E4M3));
            if constexpr (EACH == 2) x[c][1] = *(const uint4 *)(row[c] + stage * x_stage_bytes(E4M3) + 16);
        }
    }
};

// The row tiles of a block.
struct StreamShare {
    uint32_t first, n;
};
// Row tiles that a block has at most: one round, where there is no room for the sums of a second.
template <class S> __host__ __device__ constexpr uint32_t stream_most() {
    const uint32_t sums = S::shared_bytes - S::fold * x_pitch_least<S>();
    return sums < 2 * S::round * S::cols * PART_BYTES ? S::round : ~0u;
}

// TILES dealt evenly. GRID: blocks of the launch; 0: it is not known before. MOST: that a block may have.
template <uint32_t TILES, uint32_t GRID, uint32_t MOST_> struct StreamDeal {
    static constexpr uint32_t MOST = MOST_;
    static_assert(TILES < 1 << 22, "products with up to 1023 blocks fit 32 bits");
    __device__ __forceinline__ StreamShare operator()() const {
        const uint32_t grid = GRID ? GRID : gridDim.x, block = block_index(), first = TILES * block / grid;
        return {first, TILES * (block + 1) / grid - first};
    }
};

// How the warps of a block deal row tiles of K columns among themselves.
template <Format F, bool E4M3_, uint32_t K, uint32_t COLS_, uint32_t GROUPS_> struct Stream {
    static constexpr Format FORMAT = F;
    static constexpr bool E4M3 = E4M3_; // rows of activations
    static constexpr uint32_t COLS = COLS_, GROUPS = GROUPS_, STAGES = stages_of(K), BYTES = stage_bytes(F);
    static constexpr uint32_t WANTED = F == FORMAT_NVFP4 ? (COLS > 1 ? 4 : 8) : F == FORMAT_E4M3 ? 4 : 2;
    static constexpr uint32_t DEPTH = stream_depth(STAGES, WANTED);
    static constexpr bool EVEN =
        slice_chunk(STAGES, slice_length(STAGES), DEPTH) == DEPTH; // every chunk is full
};

template <Format F, uint32_t COLS, bool E4M3>
__device__ __forceinline__ void
stream_stage(const Stage<F> &stage, const uint4 (&x)[COLS][Step<F, E4M3>::PER_STAGE], float (&acc)[COLS][4]) {
#pragma unroll
    for (uint32_t s = 0; s < Step<F, E4M3>::PER_STAGE; s++) {
        Step<F, E4M3> step;
        step.load(stage, s);
#pragma unroll
        for (uint32_t c = 0; c < COLS; c++)
#pragma unroll
            for (uint32_t i = 0; i < Step<F, E4M3>::MMAS; i++) step.multiply(i, acc[c], x[c][s]);
    }
}

// The block's share of the row tiles at `w`. Calls out(tile, column tile, sums) once for each of them and
// each column tile, by some warp, where `sums` is the lane's part of mma's D: rows g, g + 8 of the tile,
// columns 2q, 2q + 1. ROUND: row tiles whose partial sums fit `shared`, which holds 2 x ROUND x COLS x 4 KiB,
// or half of it when the block has no more tiles than that. share() says which row tiles these are, at most
// Share::MOST: it is asked again where keeping them would cost registers. make_columns() is asked once
// Link::EARLY stages a warp are on their way: it may wait for what it needs. Every thread of the block calls
// it.
template <class T, uint32_t ROUND, class Link, class Share, class Columns, class Idle, class Out>
__device__ __forceinline__ void stream_tiles(const void *w, Share share, Columns make_columns, float4 *shared,
                                             Idle idle, Out out) {
    constexpr uint32_t STAGES = T::STAGES, BYTES = T::BYTES, DEPTH = T::DEPTH, COLS = T::COLS,
                       GROUPS = T::GROUPS, WARPS = Link::THREADS / 32,
                       EACH = Step<T::FORMAT, T::E4M3>::PER_STAGE;
    static_assert(ROUND % GROUPS == 0, "all groups of a block do as many tiles in a round");
    static_assert(WARPS >= GROUPS * SLICES, "a warp for every slice");
    const uint32_t thread = thread_index(), warp = thread / 32, lane = thread % 32, slice = warp % SLICES,
                   group = warp / SLICES, n = share().n;
    const uint32_t begin = slice_begin<STAGES>(slice), n_stages = slice_stages<STAGES>(slice),
                   mine = group < GROUPS && group < n ? n_stages : 0;
    const uint8_t *at = (const uint8_t *)w + ((uint64_t)(share().first + group) * STAGES + begin) * BYTES;
    if constexpr (Link::OPAQUE) asm("" : "+l"(at)); // one address, not an offset of its own for every slot

    Stage<T::FORMAT> ring[DEPTH];
    uint4 x[COLS][EACH];
#pragma unroll
    for (uint32_t d = 0; d < DEPTH && d < Link::EARLY; d++)
        if (d < mine) ring[d].template load<true>(at + d * BYTES, lane);
    const StreamColumns<COLS, T::E4M3> columns = make_columns();
    columns.load(n_stages ? begin : 0, x); // a slice may be empty
#pragma unroll
    for (uint32_t d = Link::EARLY; d < DEPTH; d++)
        if (d < mine) ring[d].template load<true>(at + d * BYTES, lane);

    const auto round = [&](uint32_t round0, float4 *part) {
        const uint32_t round_end = Share::MOST <= ROUND ? n : min(round0 + ROUND, n);
        for (uint32_t t = round0 + group; t < round_end && group < GROUPS; t += GROUPS) {
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
                            uint4 x_next[COLS][EACH];
                            columns.load(begin + (base + d + 1 < n_stages ? base + d + 1 : 0), x_next);
                            stream_stage<T::FORMAT, COLS, T::E4M3>(ring[d], x, acc);
#pragma unroll
                            for (uint32_t c = 0; c < COLS; c++)
#pragma unroll
                                for (uint32_t s = 0; s < EACH; s++) x[c][s] = x_next[c][s];
                        }
                        if (whole.value ? left != 0 : d < left)
                            ring[d].template load<true>(next + d * BYTES, lane);
                    }
                };
                if (T::EVEN || (COLS == 1 && base + DEPTH <= n_stages && (left >= DEPTH || left == 0)))
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
        cp_async_wait_all(); // what out() reads in shared memory
        __syncthreads();
        const uint32_t tile0 = share().first + round0;
        for (uint32_t u = thread_index() / 32; u < (round_end - round0) * COLS; u += WARPS) {
            float sums[4] = {};
#pragma unroll
            for (uint32_t s = 0; s < SLICES; s++) {
                const float4 v = part[(u * SLICES + s) * 32 + lane];
                sums[0] += v.x, sums[1] += v.y, sums[2] += v.z, sums[3] += v.w;
            }
            out(tile0 + u / COLS, u % COLS, sums);
        }
    };
    if constexpr (Share::MOST <= ROUND) {
        round(0, shared);
    } else {
        for (uint32_t round0 = 0; round0 < n; round0 += ROUND)
            round(round0, shared + round0 / ROUND % 2 * (ROUND * COLS * SLICES * 32));
    }
}
#endif
