// act_mul: out[t, i] = act(x[t, i]) * x[t, F + i] as act rows. A block a token, the row in registers.
#include "templates/lib/act.cuh"
#include "templates/lib/math.cuh"

template <class S> __device__ void act_mul(const Args<3> &a) {
    static_assert(S::out_pitch >= act_pitch(S::f, false) && S::out_pitch % 16 == 0,
                  "out is rows of activations");
    using Share = RowShare<S::f, S::threads>;
    __shared__ BlockPartials partials;
    const uint32_t n_tokens = ((const uint32_t *)a.p[2])[COUNT_TOKENS];
    uint32_t turn = 0;
    for (uint32_t token = blockIdx.x; token < n_tokens; token += gridDim.x, turn ^= 1) {
        const float *x = (const float *)a.p[0] + (uint64_t)token * 2 * S::f;
        float v[Share::EACH][Share::WIDTH], up[Share::EACH][Share::WIDTH];
        Share::load(x, v);
        Share::load(x + S::f, up);
        RowStats stats = {0, 0, 0};
#pragma unroll
        for (uint32_t j = 0; j < Share::EACH; j++)
#pragma unroll
            for (uint32_t i = 0; i < Share::WIDTH; i++) {
                const float gate = v[j][i],
                            y = (S::act == ACT_SILU ? silu(gate) : gelu_tanh(gate)) * up[j][i];
                v[j][i] = y;
                stats.most = __uint_as_float(max(__float_as_uint(stats.most), __float_as_uint(fabsf(y))));
                stats.l1 += fabsf(y);
            }
        stats = block_stats<S::threads>(stats, partials, turn);
        act_store<S::f, S::threads, false>((uint8_t *)a.p[1] + (uint64_t)token * S::out_pitch, v, stats.most,
                                           stats.l1);
    }
}

#ifndef INSTANCE
struct ActMulSilu {
    static constexpr uint32_t f = 12288, out_pitch = 24592, threads = 1024, shared_bytes = 0;
    static constexpr Act act = ACT_SILU;
};
struct ActMulGelu : ActMulSilu {
    static constexpr uint32_t f = 21504, out_pitch = 43024;
    static constexpr Act act = ACT_GELU_TANH;
};
struct ActMulOdd : ActMulSilu {
    static constexpr uint32_t f = 21, out_pitch = 144, threads = 32;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<3> args) {    \
        act_mul<S>(args);                                                                                    \
    }
SAMPLE(act_mul_silu, ActMulSilu)
SAMPLE(act_mul_gelu, ActMulGelu)
SAMPLE(act_mul_odd, ActMulOdd)
#endif
