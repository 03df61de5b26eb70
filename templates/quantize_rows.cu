// quantize_rows: act rows to E4M3 rows with a scale each (args.cuh; QUANTIZE_MOST in abi.h). A block a row,
// the row in registers.
#include "templates/lib/act.cuh"

// By the first S::threads threads of the block.
template <class S> __device__ __forceinline__ void quantize_each_row(const Args<3> &a) {
    static_assert(S::k % 16 == 0, "columns of NVFP4 weights");
    static_assert(S::x_pitch >= act_pitch(S::k, false) && S::x_pitch % 16 == 0, "x is rows of activations");
    static_assert(S::out_pitch >= e4m3_pitch(S::k) && S::out_pitch % 16 == 0, "out is E4M3 rows");
    using Share = RowShare<S::k, S::threads>;
    __shared__ BlockPartials partials;
    const uint32_t n_rows = ((const uint32_t *)a.p[2])[S::count] * S::rows_each;
    uint32_t turn = 0;
    for (uint32_t r = block_index(); r < n_rows; r += gridDim.x, turn ^= 1) {
        const uint8_t *x = (const uint8_t *)a.p[0] + (uint64_t)r * S::x_pitch;
        const float x_scale = act_meta(x, S::k)->scale;
        float v[Share::EACH][Share::WIDTH];
        RowStats stats = {0, 0, 0};
#pragma unroll
        for (uint32_t j = 0; j < Share::EACH; j++) {
            const float4 h = Share::holds(j) ? act_load4(x, Share::column(j), x_scale) : float4{0, 0, 0, 0};
            v[j][0] = h.x, v[j][1] = h.y, v[j][2] = h.z, v[j][3] = h.w;
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                const float y = fabsf(v[j][i]);
                stats.most = __uint_as_float(max(__float_as_uint(stats.most), __float_as_uint(y)));
                stats.l1 += y;
            }
        }
        stats = block_stats<S::threads>(stats, partials, turn);
        e4m3_store<S::k, S::threads>((uint8_t *)a.p[1] + (uint64_t)r * S::out_pitch, v, stats.most, stats.l1);
    }
}

template <class S> __device__ void quantize_rows(const Args<3> &a) { quantize_each_row<S>(a); }

#ifndef INSTANCE
struct QuantizeSample {
    static constexpr uint32_t k = 4096, rows_each = 1, count = 0, x_pitch = act_pitch(4096, false),
                              out_pitch = e4m3_pitch(4096), threads = 512, shared_bytes = 0;
};
struct QuantizeSampleExperts : QuantizeSample {
    static constexpr uint32_t k = 768, rows_each = 8, x_pitch = act_pitch(768, false),
                              out_pitch = e4m3_pitch(768), threads = 192;
};
struct QuantizeSampleOdd : QuantizeSample {
    static constexpr uint32_t k = 688, count = 1, x_pitch = act_pitch(688, false),
                              out_pitch = e4m3_pitch(688), threads = 192;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<3> args) {    \
        quantize_rows<S>(args);                                                                              \
    }
SAMPLE(quantize_rows_sample, QuantizeSample)
SAMPLE(quantize_rows_experts, QuantizeSampleExperts)
SAMPLE(quantize_rows_odd, QuantizeSampleOdd)
#endif
