// The form of a matrix product for many tokens: a block computes WARPS_M x MT row tiles for 8 COLS tokens.
// Weights stream from memory through the registers of the warp that owns the rows, as in stream.cuh; the
// activations pass through shared memory in chunks of CHUNK stages, BUFFERS of them, for all warps. K is
// summed as in stream.cuh: slice by slice, one chain of mma each. With PARTS > 1 that many blocks share the
// slices of a tile: each leaves the sums of its slices in `work`, and the last one to arrive adds them up.
#ifndef ADALLM_LIB_PANEL_CUH
#define ADALLM_LIB_PANEL_CUH
#include "templates/lib/stage.cuh"

// Row tiles of a block. From 16 column tiles on (prefill), two warps share two row tiles, each has half of
// the tokens.
__host__ __device__ constexpr uint32_t panel_tiles(uint32_t cols, uint32_t warps) {
    return cols >= 16 ? warps / 2 * 2 : warps;
}

template <Format F, uint32_t K, uint32_t COLS, uint32_t WARPS, uint32_t PARTS> struct Panel {
    static constexpr bool WIDE = COLS >= 16;
    static constexpr uint32_t STAGES = stages_of(K), BYTES = stage_bytes(F), TOKENS = COLS * TILE_TOKENS;
    static constexpr uint32_t WARPS_N = WIDE ? 2 : 1, WARPS_M = WARPS / WARPS_N, THREADS = WARPS * 32;
    static constexpr uint32_t MT = WIDE ? 2 : 1,
                              NT = COLS / WARPS_N; // row and column tiles of a warp
    static constexpr uint32_t BLOCK_TILES = WARPS_M * MT;
    static constexpr uint32_t CHUNK = WIDE ? 2 : 4, BUFFERS = WIDE ? 3 : 2;
    static constexpr uint32_t STAGE_BYTES = TOKENS * 128, CHUNK_BYTES = CHUNK * STAGE_BYTES;
    static constexpr uint32_t DEPTH = F == FORMAT_NVFP4 ? CHUNK : CHUNK / 2; // stages in flight a warp
    static constexpr uint32_t GROUP = WARPS > 8 ? 2 : NT < 4 ? NT : 4;
    static constexpr uint32_t PART_SLICES = SLICES / PARTS;
    static constexpr bool EVEN = STAGES % (SLICES * CHUNK) == 0; // slices end where chunks do
    static_assert(WARPS % WARPS_N == 0 && COLS % WARPS_N == 0 && SLICES % PARTS == 0, "even shares");

    // Shared memory of a block, and bytes of `work` for an item of the launch behind its counters.
    static constexpr uint32_t shared_bytes = BUFFERS * CHUNK_BYTES;
    static constexpr uint64_t work_bytes = (uint64_t)SLICES * MT * NT * THREADS * 16;

    const uint8_t *w;          // first row tile of the block
    uint32_t n_tiles;          // of them, at most BLOCK_TILES; the others are read as the last one
    const uint8_t *const *row; // [TOKENS] in shared memory: rows of activations; NULL: none
    uint8_t *shared;
    const uint8_t *at[MT]; // the lane's codes of stage 0
    Stage<F> ring[DEPTH][MT];
    float sum[MT][NT][4], acc[MT][NT][4];

    // Activations of the chunk that starts at `stage`. In an odd row the 16-byte pieces of a pair are
    // swapped: reads of one piece of two rows then meet no bank conflict.
    __device__ __forceinline__ void fetch(uint32_t stage, uint32_t end, uint32_t buffer) const {
        const uint32_t base = shared_address(shared) + buffer * CHUNK_BYTES;
#pragma unroll
        for (uint32_t i = threadIdx.x; i < TOKENS * 8; i += THREADS) {
            const uint32_t token = i / 8, piece = i % 8, to = base + token * 128 + (piece ^ (token & 1)) * 16;
            const uint8_t *from = row[token];
            if (!from) continue; // whatever stands there is multiplied and thrown away
            from += stage * 128 + piece * 16;
#pragma unroll
            for (uint32_t s = 0; s < CHUNK; s++)
                if (EVEN || stage + s < end) cp_async_16(to + s * STAGE_BYTES, from + s * 128);
        }
    }

    __device__ __forceinline__ void multiply(const Stage<F> (&stage)[MT], const uint8_t *x) {
        const uint32_t lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
        const uint8_t *mine = x + (threadIdx.x / 32 % WARPS_N * NT * TILE_TOKENS + g) * 128;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) { // two k-steps each
            uint32_t a[MT][2][4];
#pragma unroll
            for (uint32_t m = 0; m < MT; m++) stage[m].pair(half, a[m]);
                // Two products into the same sums are GROUP * MT products apart.
#pragma unroll
            for (uint32_t n0 = 0; n0 < NT; n0 += GROUP) {
                uint4 b[GROUP];
#pragma unroll
                for (uint32_t n = 0; n < GROUP; n++)
                    b[n] = *(const uint4 *)(mine + (n0 + n) * TILE_TOKENS * 128 +
                                            ((2 * q + half) ^ (g & 1)) * 16);
#pragma unroll
                for (uint32_t n = 0; n < GROUP; n++)
#pragma unroll
                    for (uint32_t m = 0; m < MT; m++)
                        mma_m16n8k16_f32_f16(acc[m][n0 + n], a[m][0], b[n].x, b[n].y);
#pragma unroll
                for (uint32_t n = 0; n < GROUP; n++)
#pragma unroll
                    for (uint32_t m = 0; m < MT; m++)
                        mma_m16n8k16_f32_f16(acc[m][n0 + n], a[m][1], b[n].z, b[n].w);
            }
        }
    }

    // Calls use(row tile of the block, column tile, sums) for the lane's parts of all of the warp's tiles.
    template <class Use> __device__ __forceinline__ void each_sum(Use use) {
        const uint32_t warp = threadIdx.x / 32;
#pragma unroll
        for (uint32_t m = 0; m < MT; m++)
#pragma unroll
            for (uint32_t n = 0; n < NT; n++)
                if (warp / WARPS_N * MT + m < n_tiles)
                    use(warp / WARPS_N * MT + m, warp % WARPS_N * NT + n, sum[m][n]);
    }

    __device__ __forceinline__ static void zero(float (&s)[MT][NT][4]) {
#pragma unroll
        for (uint32_t m = 0; m < MT; m++)
#pragma unroll
            for (uint32_t n = 0; n < NT; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
    }

    __device__ __forceinline__ static float4 *part_at(float4 *partial, uint32_t slice, uint32_t m,
                                                      uint32_t n) {
        return partial + ((slice * MT + m) * NT + n) * THREADS + threadIdx.x;
    }

    // A slice is done: its sums are added, or left for whoever comes last.
    __device__ __forceinline__ void end_slice(uint32_t slice, float4 *partial) {
#pragma unroll
        for (uint32_t m = 0; m < MT; m++)
#pragma unroll
            for (uint32_t n = 0; n < NT; n++) {
                float(&a)[4] = acc[m][n];
                if constexpr (PARTS == 1) {
#pragma unroll
                    for (uint32_t i = 0; i < 4; i++) sum[m][n][i] += a[i];
                } else {
                    __stcg(part_at(partial, slice, m, n), make_float4(a[0], a[1], a[2], a[3]));
                }
                a[0] = a[1] = a[2] = a[3] = 0;
            }
    }

    // True in the block that arrives last at `counter`, which then is zero again.
    __device__ __forceinline__ static bool last_arrives(uint32_t *counter) {
        __shared__ bool last;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            last = atomicAdd(counter, 1) == PARTS - 1;
            if (last) *counter = 0;
        }
        __syncthreads();
        if (last) __threadfence();
        return last;
    }

    __device__ __forceinline__ void add_parts(float4 *partial) {
        zero(sum);
#pragma unroll 1
        for (uint32_t s = 0; s < SLICES; s++)
#pragma unroll
            for (uint32_t m = 0; m < MT; m++)
#pragma unroll
                for (uint32_t n = 0; n < NT; n++) {
                    const float4 v = __ldcg(part_at(partial, s, m, n));
                    sum[m][n][0] += v.x, sum[m][n][1] += v.y, sum[m][n][2] += v.z, sum[m][n][3] += v.w;
                }
    }

    __device__ __forceinline__ void load(uint32_t stage, Stage<F> (&to)[MT]) const {
#pragma unroll
        for (uint32_t m = 0; m < MT; m++) to[m].load(at[m] + (uint64_t)stage * BYTES, threadIdx.x % 32);
    }

    // Starts the weights of the block's part on their way.
    __device__ __forceinline__ void open(uint32_t part) {
        const uint32_t first = slice_begin(STAGES, part * PART_SLICES),
                       end = slice_begin(STAGES, (part + 1) * PART_SLICES);
#pragma unroll
        for (uint32_t m = 0; m < MT; m++) {
            const uint32_t tile = min(threadIdx.x / 32 / WARPS_N * MT + m, n_tiles - 1);
            at[m] = w + (uint64_t)tile * STAGES * BYTES;
        }
#pragma unroll
        for (uint32_t d = 0; d < DEPTH; d++)
            if (first + d < end) load(first + d, ring[d]);
    }

    // After open(part); rows stand in `row`. Fills `sum`; returns whether the block has the sums of all
    // slices, which one block of every PARTS has. Every thread of the block calls it.
    __device__ __forceinline__ bool run(uint32_t part, float4 *partial, uint32_t *counter) {
        const uint32_t first = slice_begin(STAGES, part * PART_SLICES),
                       end = slice_begin(STAGES, (part + 1) * PART_SLICES);
        uint32_t slice = part * PART_SLICES, buffer = 0, free_buffer = BUFFERS - 1;
        zero(acc);
        if constexpr (PARTS == 1) zero(sum);
#pragma unroll
        for (uint32_t b = 0; b < BUFFERS - 1; b++) {
            if (first + b * CHUNK < end) fetch(first + b * CHUNK, end, b);
            cp_async_commit();
        }
        for (uint32_t chunk = first; chunk < end; chunk += CHUNK) {
            cp_async_wait<BUFFERS - 2>();
            __syncthreads();
            const uint32_t ahead = chunk + (BUFFERS - 1) * CHUNK;
            if (ahead < end) fetch(ahead, end, free_buffer);
            cp_async_commit();
            const uint8_t *x = shared + buffer * CHUNK_BYTES;
            if (EVEN && chunk == slice_begin(STAGES, slice + 1)) end_slice(slice++, partial);
#pragma unroll
            for (uint32_t d = 0; d < CHUNK; d++) {
                const uint32_t stage = chunk + d;
                if (!EVEN) {
                    if (stage >= end) break;
                    for (; stage == slice_begin(STAGES, slice + 1); slice++) end_slice(slice, partial);
                }
                multiply(ring[d % DEPTH], x + d * STAGE_BYTES);
                if (stage + DEPTH < end) load(stage + DEPTH, ring[d % DEPTH]);
            }
            buffer = buffer + 1 == BUFFERS ? 0 : buffer + 1;
            free_buffer = free_buffer + 1 == BUFFERS ? 0 : free_buffer + 1;
        }
        for (; slice < (part + 1) * PART_SLICES; slice++) end_slice(slice, partial);
        if constexpr (PARTS == 1) return true;
        if (!last_arrives(counter)) return false;
        add_parts(partial);
        return true;
    }
};
#endif
