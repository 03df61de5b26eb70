// A unit of work of a linear of experts: some row tiles of one expert's weights for the columns of an item,
// in either form of a product.
#ifndef ADALLM_LIB_EXPERT_PRODUCT_CUH
#define ADALLM_LIB_EXPERT_PRODUCT_CUH
#include "templates/lib/experts.cuh"
#include "templates/lib/link.cuh"
#include "templates/lib/panel.cuh"
#include "templates/lib/stream.cuh"

// The row tiles of a unit in decode form: of one round.
template <uint32_t MOST_> struct ExpertRound {
    static constexpr uint32_t MOST = MOST_;
    uint32_t first, n;
    __device__ __forceinline__ StreamShare operator()() const { return {first, n}; }
};

// Row tiles of a unit, and units of an expert that has `tiles` of them.
template <class S> constexpr uint32_t EXPERT_UNIT_TILES = S::tiled ? S::groups *S::round : S::round;
template <class S> __host__ __device__ constexpr uint32_t expert_units(uint32_t tiles) {
    return (tiles + EXPERT_UNIT_TILES<S> - 1) / EXPERT_UNIT_TILES<S>;
}

// Unit `block` of the weights at `w` (TILES row tiles) for n columns. x_row(column): rows of activations.
// store(row tile, first column of a column tile, sums): as in product.cuh. Every thread of the block calls
// it.
template <class S, uint32_t TILES, class XRow, class Store>
__device__ __forceinline__ void expert_product(const uint8_t *w, uint32_t block, uint32_t n, uint8_t *shared,
                                               XRow x_row, Store store) {
    if constexpr (S::tiled) {
        using P = Panel<S::format, S::x_e4m3 != 0, S::k, S::cols, S::groups, S::round, 1>;
        __shared__ const uint8_t *row[P::TOKENS];
        P panel;
        panel.w = w + (uint64_t)block * P::BLOCK_TILES * P::STAGES * P::BYTES;
        panel.n_tiles = min(TILES - block * P::BLOCK_TILES, P::BLOCK_TILES);
        panel.row = row, panel.shared = shared;
        panel.open(0);
        for (uint32_t c = threadIdx.x; c < P::TOKENS; c += P::THREADS) row[c] = x_row(min(c, n - 1));
        __syncthreads();
        panel.run(0, nullptr, [] { return (uint32_t *)nullptr; });
        panel.each_sum(panel.n_tiles, [&](uint32_t t, uint32_t c, const float(&sums)[4]) {
            store(block * P::BLOCK_TILES + t, c * TILE_TOKENS, sums);
        });
    } else {
        const uint32_t first = block * S::round;
        stream_tiles<Stream<S::format, S::x_e4m3 != 0, S::k, S::cols, S::groups>, S::round,
                     Alone<S::threads>>(
            w, ExpertRound<S::round>{first, min(S::round, TILES - first)},
            [&] {
                StreamColumns<S::cols, S::x_e4m3 != 0> columns;
                columns.open(n, x_row);
                return columns;
            },
            (float4 *)shared, [] {},
            [&](uint32_t tile, uint32_t c, const float(&sums)[4]) { store(tile, c * TILE_TOKENS, sums); });
    }
}
#endif
