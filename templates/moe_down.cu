// moe_down: out[t, j] = h[t, j] . w[e] * row_scale[e] with e = ids[t, j], the experts of a token apart
// (moe_combine adds them up).
#include "templates/lib/expert_product.cuh"
#include "templates/lib/product.cuh"

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
    expert_product<S, TILES>(w, block, n, shared, x_row,
                             [&](uint32_t tile, uint32_t column, const float(&sums)[4]) {
                                 product_store<Store>(
                                     tile, column, n, sums, row_scale, nullptr,
                                     [&](uint32_t c) { return x_meta<S>(x_row(c)); }, out_row);
                             });
}

template <class S> __device__ void moe_down(const Args<7> &a) {
    static_assert(S::each, "on a GPU the experts of a token stay apart");
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr uint32_t BLOCKS = expert_units<S>(row_tiles(S::n));
    each_expert_unit<S::experts, S::topk, S::cols * TILE_TOKENS, S::threads, BLOCKS>(
        (const int32_t *)a.p[3], (const uint32_t *)a.p[6],
        [&](const ExpertItem &item, uint32_t block) { moe_down_item<S>(a, item, block, shared); });
}

#ifndef INSTANCE
struct MoeDownSample {
    static constexpr uint32_t experts = 128, topk = 8, n = 2048, k = 768, x_pitch = act_pitch(768, false),
                              x_e4m3 = 0, each = 1, tiled = 0, cols = 1, groups = 2, round = 8, per_sm = 1,
                              threads = 512, shared_bytes = 8 * 4096;
    static constexpr Format format = FORMAT_NVFP4;
};
struct MoeDownSamplePanel : MoeDownSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 8, round = 1, threads = 256, shared_bytes = 65536;
};
struct MoeDownE4m3 : MoeDownSample {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(768);
};
struct MoeDownE4m3Panel : MoeDownSamplePanel {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(768), shared_bytes = 32768;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads, S::per_sm)                                      \
        name(const __grid_constant__ Args<7> args) {                                                         \
        moe_down<S>(args);                                                                                   \
    }
SAMPLE(moe_down_sample, MoeDownSample)
SAMPLE(moe_down_sample_panel, MoeDownSamplePanel)
SAMPLE(moe_down_e4m3, MoeDownE4m3)
SAMPLE(moe_down_e4m3_panel, MoeDownE4m3Panel)
#endif
