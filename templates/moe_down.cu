// moe_down: out[t, j] = h[t, j] . w[e] * row_scale[e] with e = ids[t, j], the experts of a token apart
// (moe_combine adds them up).
#include "templates/lib/experts.cuh"
#include "templates/lib/panel.cuh"
#include "templates/lib/product.cuh"
#include "templates/lib/stream.cuh"

template <class S> struct MoeDownStore : S {
    static constexpr uint32_t has_bias = 0, add = 0;
    static constexpr float softcap = 0;
};

template <class S>
__device__ __forceinline__ void moe_down_item(const Args<7> &a, const ExpertItem &item, uint32_t block,
                                              uint8_t *shared) {
    constexpr uint32_t TILES = row_tiles(S::n);
    using Store = MoeDownStore<S>;
    const uint8_t *h = (const uint8_t *)a.p[0];
    float *out = (float *)a.p[5];
    const uint32_t expert = item.expert, n = item.n;
    const uint8_t *w =
        (const uint8_t *)a.p[1] + (uint64_t)expert * TILES * stages_of(S::k) * stage_bytes(S::format);
    const float *row_scale = (const float *)a.p[2] + (uint64_t)expert * S::n;
    const auto x_row = [&](uint32_t c) { return h + (uint64_t)item.pair(c) * S::x_pitch; };
    const auto out_row = [&](uint32_t c) { return out + (uint64_t)item.pair(c) * S::n; };
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
            product_store<Store>(block * P::BLOCK_TILES + t, c * TILE_TOKENS, n, sums, row_scale, nullptr,
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
                product_store<Store>(tile, c * TILE_TOKENS, n, sums, row_scale, nullptr, x_row, out_row);
            });
    }
}

template <class S> __device__ void moe_down(const Args<7> &a) {
    static_assert(S::each, "on a GPU the experts of a token stay apart");
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr uint32_t TILES = row_tiles(S::n), EACH = S::tiled ? S::groups * S::round : S::round,
                       BLOCKS = (TILES + EACH - 1) / EACH;
    each_expert_unit<S::experts, S::topk, S::cols * TILE_TOKENS, S::threads, BLOCKS>(
        (const int32_t *)a.p[3], (const uint32_t *)a.p[6],
        [&](const ExpertItem &item, uint32_t block) { moe_down_item<S>(a, item, block, shared); });
}

#ifndef INSTANCE
struct MoeDownSample {
    static constexpr uint32_t experts = 128, topk = 8, n = 2048, k = 768, x_pitch = act_pitch(768, false),
                              each = 1, tiled = 0, cols = 1, groups = 2, round = 8, per_sm = 1, threads = 512,
                              shared_bytes = 8 * 4096;
    static constexpr Format format = FORMAT_NVFP4;
};
struct MoeDownSamplePanel : MoeDownSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 8, round = 1, threads = 256, shared_bytes = 65536;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads, S::per_sm)                                      \
        name(const __grid_constant__ Args<7> args) {                                                         \
        moe_down<S>(args);                                                                                   \
    }
SAMPLE(moe_down_sample, MoeDownSample)
SAMPLE(moe_down_sample_panel, MoeDownSamplePanel)
#endif
