// gather_rows: out[r] = x[rows[r]], act rows with all that belongs to them. A block a row.
#include "templates/lib/args.cuh"

template <class S> __device__ void gather_rows(const Args<4> &a) {
    static_assert(S::x_pitch >= act_pitch(S::hidden, false) && S::x_pitch % 16 == 0,
                  "x is rows of activations");
    constexpr uint32_t UNITS = S::x_pitch / 16;
    const uint32_t n_rows = ((const uint32_t *)a.p[3])[COUNT_ROWS];
    for (uint32_t row = blockIdx.x; row < n_rows; row += gridDim.x) {
        const uint4 *from = (const uint4 *)a.p[0] + (uint64_t)((const uint32_t *)a.p[1])[row] * UNITS;
        uint4 *to = (uint4 *)a.p[2] + (uint64_t)row * UNITS;
#pragma unroll 4
        for (uint32_t i = threadIdx.x; i < UNITS; i += S::threads) to[i] = from[i];
    }
}

#ifndef INSTANCE
struct GatherRows {
    static constexpr uint32_t hidden = 4096, x_pitch = 8208, threads = 256, shared_bytes = 0;
};
extern "C" __global__ void __launch_bounds__(256) gather_rows_sample(const __grid_constant__ Args<4> args) {
    gather_rows<GatherRows>(args);
}
#endif
