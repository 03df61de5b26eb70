// The form of a matrix product for 17 to 64 tokens: every warp of a block owns MT row tiles and streams
// their weights from memory through registers, as in stream.cuh; the activations pass through shared memory
// in chunks of CHUNK stages, for all warps.
#ifndef ADALLM_LIB_PANEL_CUH
#define ADALLM_LIB_PANEL_CUH
#include "templates/lib/product.cuh"
#include "templates/lib/sums.cuh"

// WHOLE: no block has fewer row tiles than others.
template <Format F, bool E4M3, uint32_t K, uint32_t COLS, uint32_t WARPS, uint32_t MT, uint32_t PARTS,
          bool WHOLE = false>
struct Panel : Sums<MT, COLS, 1, WARPS * 32, PARTS> {
    using Base = Sums<MT, COLS, 1, WARPS * 32, PARTS>;
    static constexpr uint32_t STAGES = stages_of(K), BYTES = stage_bytes(F), TOKENS = COLS * TILE_TOKENS;
    static constexpr uint32_t THREADS = WARPS * 32, BLOCK_TILES = WARPS * MT;
    static constexpr uint32_t CHUNK = 4, BUFFERS = 2, STAGE_BYTES = TOKENS * x_stage_bytes(E4M3),
                              CHUNK_BYTES = CHUNK * STAGE_BYTES;
    static constexpr uint32_t DEPTH = F == FORMAT_NVFP4 ? CHUNK / MT : CHUNK / 2 / MT; // stages in flight
    static constexpr uint32_t GROUP = 4; // products into the same sums are so many apart
    static constexpr bool EVEN =
        slice_chunk(STAGES, slice_length(STAGES), CHUNK) == CHUNK; // slices end where chunks do
    static constexpr uint32_t x_bytes = BUFFERS * CHUNK_BYTES, shared_bytes = x_bytes + Base::kept_bytes;
    static_assert(COLS % GROUP == 0, "column tiles come in whole groups");

    const uint8_t *w;          // first row tile of the block
    uint32_t n_tiles;          // of them, at most BLOCK_TILES; the others are read as the last one
    const uint8_t *const *row; // [TOKENS] in shared memory: rows of activations, as fetch_rows wants them
    uint8_t *shared;
    const uint8_t *at[WHOLE ? 1 : MT]; // stage 0 of the warp's tiles
    Stage<F> ring[DEPTH][MT];

    __device__ __forceinline__ void multiply(const Stage<F> (&stage)[MT], const uint8_t *x) {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (uint32_t s = 0; s < Step<F, E4M3>::PER_STAGE; s++) {
            Step<F, E4M3> step[MT];
#pragma unroll
            for (uint32_t m = 0; m < MT; m++) step[m].load(stage[m], s);
#pragma unroll
            for (uint32_t n0 = 0; n0 < COLS; n0 += GROUP) {
                uint4 b[GROUP];
#pragma unroll
                for (uint32_t n = 0; n < GROUP; n++)
                    b[n] = load_tokens<E4M3>(x + (n0 + n) * TILE_TOKENS * x_stage_bytes(E4M3), lane / 4,
                                             lane % 4, s);
#pragma unroll
                for (uint32_t i = 0; i < step[0].MMAS; i++)
#pragma unroll
                    for (uint32_t n = 0; n < GROUP; n++)
#pragma unroll
                        for (uint32_t m = 0; m < MT; m++) step[m].multiply(i, this->acc[m][n0 + n], b[n]);
            }
        }
    }

    __device__ __forceinline__ void load(uint32_t stage, Stage<F> (&to)[MT]) const {
#pragma unroll
        for (uint32_t m = 0; m < MT; m++)
            to[m].load((WHOLE ? at[0] + m * (STAGES * BYTES) : at[m]) + (uint64_t)stage * BYTES,
                       threadIdx.x % 32);
    }

    // What a block works on. It is read again after the products: nothing of it
    // then takes a register while they run.
    struct Place {
        uint32_t n_tok, part, item, block, token0, n_tiles;
        __device__ __forceinline__ uint32_t first() const { return block * BLOCK_TILES; } // row tile
        __device__ __forceinline__ uint32_t n_columns() const { return min(n_tok - token0, TOKENS); }
    };
    template <uint32_t TILES>
    __device__ __forceinline__ static Place place(const void *counts, uint32_t count) {
        constexpr uint32_t ROW_BLOCKS = (TILES + BLOCK_TILES - 1) / BLOCK_TILES;
        Place p = {((const volatile uint32_t *)counts)[count], block_index()};
        p.item = p.part / PARTS, p.part %= PARTS;
        p.block = p.item % ROW_BLOCKS, p.token0 = p.item / ROW_BLOCKS * TOKENS;
        p.n_tiles = min(TILES - p.block * BLOCK_TILES, BLOCK_TILES);
        return p;
    }

    // Starts the weights of the block's part on their way.
    __device__ __forceinline__ void open(uint32_t part) {
        const uint32_t first = slice_begin<STAGES>(part * Base::PART_SLICES),
                       end = slice_begin<STAGES>((part + 1) * Base::PART_SLICES);
#pragma unroll
        for (uint32_t m = 0; m < (WHOLE ? 1 : MT); m++)
            at[m] = w + (uint64_t)min(threadIdx.x / 32 * MT + m, n_tiles - 1) * STAGES * BYTES;
#pragma unroll
        for (uint32_t d = 0; d < DEPTH; d++)
            if (first + d < end) load(first + d, ring[d]);
    }

    __device__ __forceinline__ void fetch(uint32_t stage, uint32_t end, uint32_t buffer) const {
        fetch_rows<E4M3, TOKENS, CHUNK, THREADS>(row, stage, EVEN ? CHUNK : end - stage,
                                                 shared_address(shared) + buffer * CHUNK_BYTES);
    }

    // After open(part); rows stand in `row`. Fills `sum`; returns whether the block has the sums of all
    // slices. Every thread of the block calls it.
    template <class Counter>
    __device__ __forceinline__ bool run(uint32_t part, float4 *partial, Counter counter) {
        const uint32_t first = slice_begin<STAGES>(part * Base::PART_SLICES),
                       end = slice_begin<STAGES>((part + 1) * Base::PART_SLICES);
        uint32_t slice = part * Base::PART_SLICES, buffer = 0;
        this->begin(shared + x_bytes);
        if (first < end) fetch(first, end, 0);
        cp_async_commit();
        for (uint32_t chunk = first; chunk < end; chunk += CHUNK) {
            cp_async_wait<0>();
            __syncthreads();
            if (chunk + CHUNK < end) fetch(chunk + CHUNK, end, buffer ^ 1);
            cp_async_commit();
            const uint8_t *x = shared + buffer * CHUNK_BYTES;
            if (EVEN && chunk == slice_begin<STAGES>(slice + 1)) this->end_slice(slice++, partial);
#pragma unroll
            for (uint32_t d = 0; d < CHUNK; d++) {
                const uint32_t stage = chunk + d;
                if (!EVEN) {
                    if (stage >= end) break;
                    for (; stage == slice_begin<STAGES>(slice + 1); slice++) this->end_slice(slice, partial);
                }
                multiply(ring[d % DEPTH], x + d * STAGE_BYTES);
                if (stage + DEPTH < end) load(stage + DEPTH, ring[d % DEPTH]);
            }
            buffer ^= 1;
        }
        do this->end_slice(slice, partial); // the last one, and the empty ones behind it
        while (++slice % Base::PART_SLICES);
        if (first >= end) cp_async_wait<0>(); // no chunk has: what the end of the product reads is there
        return this->end(partial, counter);
    }
};

template <class S, uint32_t TILES>
using PanelOf = Panel<S::format, S::x_e4m3 != 0, S::k, S::cols, S::groups, S::round, S::parts,
                      TILES % (S::groups * S::round) == 0>;

// A block of a launch in this form: the columns are the rows of x, x_pitch bytes apart, counts[count] of
// them. row_scale(first row tile of the block, i): the factor of its row i; NULL: there is none.
// make_store(place, factors of the block's rows and columns) is asked by all threads once the sums are there;
// what it returns is called with (row tile of the launch, first column of a column tile, sums).
template <class S, uint32_t TILES, class RowScale, class MakeStore>
__device__ __forceinline__ void panel_product(const void *x_rows, const void *w, const void *counts,
                                              uint32_t count, void *work_bytes, uint8_t *shared,
                                              RowScale row_scale, MakeStore make_store) {
    using P = PanelOf<S, TILES>;
    constexpr uint32_t ROWS = P::BLOCK_TILES * TILE_ROWS;
    __shared__ const uint8_t *row[P::TOKENS];
    __shared__ ProductFactors<ROWS, P::TOKENS> near;
    static_assert(S::shared_bytes >= P::shared_bytes && S::threads == P::THREADS, "as cuda_linear.c chooses");
    const uint8_t *x = (const uint8_t *)x_rows;
    const auto begin = P::template place<TILES>(counts, count);
    if (begin.token0 >= begin.n_tok) return;
    P panel;
    panel.w = (const uint8_t *)w + (uint64_t)begin.block * P::BLOCK_TILES * P::STAGES * P::BYTES;
    panel.n_tiles = begin.n_tiles;
    panel.row = row, panel.shared = shared;
    panel.open(begin.part);
    for (uint32_t t = threadIdx.x; t < P::TOKENS; t += P::THREADS) {
        row[t] = x + (uint64_t)(begin.token0 + min(t, begin.n_columns() - 1)) * S::x_pitch;
        near.fetch_x(t, x_meta<S>(row[t]));
    }
    for (uint32_t i = threadIdx.x; i < ROWS; i += P::THREADS) {
        const float *scale = row_scale(begin.first(), i);
        if (scale) near.fetch_row(i, scale);
    }
    __syncthreads();
    uint8_t *work = (uint8_t *)work_bytes;
    if (!panel.run(begin.part, (float4 *)(work + WORK_COUNTERS_BYTES + begin.item * P::work_bytes),
                   [&] { return (uint32_t *)work_bytes + block_index() / S::parts; }))
        return;
    const auto end = P::template place<TILES>(counts, count);
    const auto store = make_store(end, near);
    panel.each_sum(end.n_tiles, [&](uint32_t t, uint32_t c, const float(&sums)[4]) {
        store(end.first() + t, end.token0 + c * TILE_TOKENS, sums);
    });
}
#endif
