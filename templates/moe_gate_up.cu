// moe_gate_up: gate_up of each token's experts: out[t, j] with the weights of expert ids[t, j].
#include "templates/lib/experts.cuh"
#include "templates/lib/panel.cuh"
#include "templates/lib/product.cuh"
#include "templates/lib/stream.cuh"

template <class S>
__device__ __forceinline__ void moe_gate_up_item(const Args<7> &a, const ExpertItem &item, uint32_t block,
                                                 float w_bound, uint8_t *shared) {
    constexpr uint32_t TILES = (S::f + 7) / 8;
    const uint8_t *x = (const uint8_t *)a.p[0];
    uint8_t *out = (uint8_t *)a.p[5];
    const uint32_t expert = item.expert, n = item.n;
    const uint8_t *w =
        (const uint8_t *)a.p[1] + (uint64_t)expert * TILES * stages_of(S::k) * stage_bytes(S::format);
    const float *row_scale = (const float *)a.p[2] + (uint64_t)expert * 2 * S::f;
    const auto x_row = [&](uint32_t c) { return x + (uint64_t)(item.pair(c) / S::topk) * S::x_pitch; };
    const auto out_row = [&](uint32_t c) { return out + (uint64_t)item.pair(c) * S::out_pitch; };
    if (block == 0)
        for (uint32_t i = threadIdx.x; i < n * STAGE_COLS; i += S::threads)
            product_end_row<S>(x_row(i / STAGE_COLS), out_row(i / STAGE_COLS), w_bound, i % STAGE_COLS);
    if constexpr (S::tiled) {
        using P = Panel<S::format, S::k, S::cols, S::groups, S::round, 1>;
        __shared__ const uint8_t *row[P::TOKENS];
        P panel;
        panel.w = w + (uint64_t)block * P::BLOCK_TILES * P::STAGES * P::BYTES;
        panel.n_tiles = min(TILES - block * P::BLOCK_TILES, P::BLOCK_TILES);
        panel.row = row, panel.shared = shared;
        panel.open(0);
        for (uint32_t c = threadIdx.x; c < P::TOKENS; c += P::THREADS) row[c] = c < n ? x_row(c) : nullptr;
        __syncthreads();
        panel.run(0, nullptr, nullptr);
        panel.each_sum(panel.n_tiles, [&](uint32_t t, uint32_t c, const float(&sums)[4]) {
            product_store_gated<S>(block * P::BLOCK_TILES + t, c * TILE_TOKENS, n, sums, row_scale, w_bound,
                                   x_row, out_row);
        });
    } else {
        const uint32_t lane = threadIdx.x % 32, first = block * S::round;
        stream_tiles<S::format, S::k, S::cols, S::groups, S::round>(
            w, first, min(S::round, TILES - first),
            [&] {
                StreamColumns<S::cols> columns;
#pragma unroll
                for (uint32_t c = 0; c < S::cols; c++)
                    columns.row[c] = x_row(min(c * TILE_TOKENS + lane / 4, n - 1)) + lane % 4 * 32;
                return columns;
            },
            (float4 *)shared, [] {},
            [&](uint32_t tile, uint32_t c, const float(&sums)[4]) {
                product_store_gated<S>(tile, c * TILE_TOKENS, n, sums, row_scale, w_bound, x_row, out_row);
            });
    }
}

template <class S> __device__ void moe_gate_up(const Args<7> &a) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr uint32_t TILES = (S::f + 7) / 8, EACH = S::tiled ? S::groups * S::round : S::round,
                       BLOCKS = (TILES + EACH - 1) / EACH;
    const float w_bound = *(const float *)a.p[3];
    each_expert_unit<S::experts, S::topk, S::cols * TILE_TOKENS, S::threads, BLOCKS>(
        (const int32_t *)a.p[4], (const uint32_t *)a.p[6], [&](const ExpertItem &item, uint32_t block) {
            moe_gate_up_item<S>(a, item, block, w_bound, shared);
        });
}

#ifndef INSTANCE
struct MoeGateUpSample {
    static constexpr uint32_t experts = 128, topk = 8, f = 768, k = 2048, x_pitch = act_pitch(2048, false),
                              out_pitch = act_pitch(768, false), tiled = 0, cols = 1, groups = 2, round = 6,
                              per_sm = 1, threads = 512, shared_bytes = 6 * 4096;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr Act act = ACT_SILU;
};
struct MoeGateUpSamplePanel : MoeGateUpSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 8, round = 1, threads = 256, shared_bytes = 65536;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads, S::per_sm)                                      \
        name(const __grid_constant__ Args<7> args) {                                                         \
        moe_gate_up<S>(args);                                                                                \
    }
SAMPLE(moe_gate_up_sample, MoeGateUpSample)
SAMPLE(moe_gate_up_sample_panel, MoeGateUpSamplePanel)
#endif
