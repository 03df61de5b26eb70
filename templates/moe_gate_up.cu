// moe_gate_up: gate_up of each token's experts: out[t, j] with the weights of expert ids[t, j].
#include "templates/lib/expert_product.cuh"
#include "templates/lib/product.cuh"

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
            product_end_row<S>(x_meta<S>(x_row(i / STAGE_COLS)), out_row(i / STAGE_COLS), w_bound,
                               i % STAGE_COLS);
    expert_product<S, TILES>(
        w, block, n, shared, x_row, [&](uint32_t tile, uint32_t column, const float(&sums)[4]) {
            product_store_gated<S>(
                tile, column, n, sums, row_scale, row_scale + S::f,
                [&](uint32_t c) { return gated_token(x_meta<S>(x_row(c)), w_bound); }, out_row);
        });
}

template <class S> __device__ void moe_gate_up(const Args<7> &a) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr uint32_t BLOCKS = expert_units<S>((S::f + 7) / 8);
    const float w_bound = *(const float *)a.p[3];
    each_expert_unit<S::experts, S::topk, S::cols * TILE_TOKENS, S::threads, BLOCKS>(
        (const int32_t *)a.p[4], (const uint32_t *)a.p[6], [&](const ExpertItem &item, uint32_t block) {
            moe_gate_up_item<S>(a, item, block, w_bound, shared);
        });
}

#ifndef INSTANCE
struct MoeGateUpSample {
    static constexpr uint32_t experts = 128, topk = 8, f = 768, k = 2048, x_pitch = act_pitch(2048, false),
                              x_e4m3 = 0, out_pitch = act_pitch(768, false), tiled = 0, cols = 1, groups = 2,
                              round = 6, per_sm = 1, threads = 512, shared_bytes = 6 * 4096;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr Act act = ACT_SILU;
};
struct MoeGateUpSamplePanel : MoeGateUpSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 8, round = 1, threads = 256, shared_bytes = 65536;
};
struct MoeGateUpE4m3 : MoeGateUpSample {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(2048);
};
struct MoeGateUpE4m3Panel : MoeGateUpSamplePanel {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(2048), shared_bytes = 32768;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads, S::per_sm)                                      \
        name(const __grid_constant__ Args<7> args) {                                                         \
        moe_gate_up<S>(args);                                                                                \
    }
SAMPLE(moe_gate_up_sample, MoeGateUpSample)
SAMPLE(moe_gate_up_sample_panel, MoeGateUpSamplePanel)
SAMPLE(moe_gate_up_e4m3, MoeGateUpE4m3)
SAMPLE(moe_gate_up_e4m3_panel, MoeGateUpE4m3Panel)
#endif
