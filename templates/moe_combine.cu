// moe_combine: out[t] = sum over j of weights[t, j] * parts[t, j], j ascending; with `add` out[t] += that.
#include "templates/lib/args.cuh"

template <class S> __device__ void moe_combine(const Args<4> &a) {
    constexpr uint32_t WIDTH = S::n % 4 ? 1 : 4, UNITS = S::n / WIDTH;
    const uint32_t n_units = ((const uint32_t *)a.p[3])[COUNT_TOKENS] * UNITS;
    for (uint32_t item = blockIdx.x * S::threads + threadIdx.x; item < n_units;
         item += gridDim.x * S::threads) {
        const uint32_t token = item / UNITS, col = item % UNITS * WIDTH;
        const float *part = (const float *)a.p[0] + (uint64_t)token * S::topk * S::n + col;
        const float *weight = (const float *)a.p[1] + (uint64_t)token * S::topk;
        float *out = (float *)a.p[2] + (uint64_t)token * S::n + col;
        float sum[WIDTH] = {}, before[WIDTH] = {};
        if constexpr (S::add) {
#pragma unroll
            for (uint32_t i = 0; i < WIDTH; i++) before[i] = out[i];
        }
#pragma unroll 8
        for (uint32_t j = 0; j < S::topk; j++) {
            const float w = weight[j];
            if constexpr (WIDTH == 4) {
                const float4 v = *(const float4 *)(part + (uint64_t)j * S::n);
                sum[0] = fmaf(w, v.x, sum[0]), sum[1] = fmaf(w, v.y, sum[1]);
                sum[2] = fmaf(w, v.z, sum[2]), sum[3] = fmaf(w, v.w, sum[3]);
            } else {
                sum[0] = fmaf(w, part[(uint64_t)j * S::n], sum[0]);
            }
        }
        if constexpr (S::add)
#pragma unroll
            for (uint32_t i = 0; i < WIDTH; i++) sum[i] = __fadd_rn(before[i], sum[i]);
        if constexpr (WIDTH == 4)
            *(float4 *)out = make_float4(sum[0], sum[1], sum[2], sum[3]);
        else
            *out = sum[0];
    }
}

#ifndef INSTANCE
struct MoeCombine {
    static constexpr uint32_t topk = 8, n = 2048, add = 1, threads = 64, shared_bytes = 0;
};
struct MoeCombineOdd {
    static constexpr uint32_t topk = 3, n = 50, add = 0, threads = 64, shared_bytes = 0;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<4> args) {    \
        moe_combine<S>(args);                                                                                \
    }
SAMPLE(moe_combine_sample, MoeCombine)
SAMPLE(moe_combine_odd, MoeCombineOdd)
#endif
