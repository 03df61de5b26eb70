// Writing rows of activations (args.cuh): a block holds a row of K values in its registers.
#ifndef ADALLM_LIB_ACT_CUH
#define ADALLM_LIB_ACT_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/ptx.cuh"
#include "templates/lib/reduce.cuh"

// Which values a thread holds: WIDTH neighbours each, EACH times; value [j][i] is column(j) + i of the row
// and has a meaning when holds(j).
template <uint32_t K, uint32_t THREADS> struct RowShare {
    static constexpr uint32_t WIDTH = K % 4 ? 1 : 4, UNITS = K / WIDTH;
    static constexpr uint32_t EACH = (UNITS + THREADS - 1) / THREADS;
    static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
    static __device__ __forceinline__ uint32_t column(uint32_t j) {
        return (threadIdx.x + j * THREADS) * WIDTH;
    }
    static __device__ __forceinline__ bool holds(uint32_t j) {
        return (j + 1) * THREADS <= UNITS || threadIdx.x + j * THREADS < UNITS;
    }
    // The thread's values of f32 [K] at p; zeros where it holds none.
    static __device__ __forceinline__ void load(const float *p, float (&v)[EACH][WIDTH]) {
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++) {
            if constexpr (WIDTH == 4) {
                const float4 x = holds(j) ? *(const float4 *)(p + column(j)) : make_float4(0, 0, 0, 0);
                v[j][0] = x.x, v[j][1] = x.y, v[j][2] = x.z, v[j][3] = x.w;
            } else {
                v[j][0] = holds(j) ? p[column(j)] : 0;
            }
        }
    }
    static __device__ __forceinline__ void store(float *p, const float (&v)[EACH][WIDTH]) {
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++) {
            if (!holds(j)) continue;
            if constexpr (WIDTH == 4)
                *(float4 *)(p + column(j)) = make_float4(v[j][0], v[j][1], v[j][2], v[j][3]);
            else
                p[column(j)] = v[j][0];
        }
    }
};

// The power of two that brings `most`, the largest magnitude of a row or a bound of it, into [2^14, 2^15);
// *inverse: what values are multiplied with. Rows of zeros have 1. Infinity and NaN give a finite scale: they
// show in the halves.
__device__ __forceinline__ float act_scale(float most, float *inverse) {
    const uint32_t bits = __float_as_uint(most) & 0x7FFFFFFF;
    const uint32_t exponent = bits == 0 ? 127 : max((int)(bits >> 23) - 14, 1);
    *inverse = __uint_as_float((254 - exponent) << 23);
    return __uint_as_float(exponent << 23);
}

// Rounding to halves may add to the sum of magnitudes, and it was summed in fp32.
constexpr float ACT_L1_SLACK = 1 + 0x1p-10f;

// Writes the row: halves, zeros behind them, meta, and with WIDE the values. `most`: the largest magnitude,
// within a few ulp. `l1`: the sum of magnitudes.
template <uint32_t K, uint32_t THREADS, bool WIDE>
__device__ __forceinline__ void
act_store(void *row, const float (&v)[RowShare<K, THREADS>::EACH][RowShare<K, THREADS>::WIDTH], float most,
          float l1) {
    using Share = RowShare<K, THREADS>;
    constexpr uint32_t PADDING = act_halves(K) - K;
    uint16_t *halves = (uint16_t *)row;
    float inverse;
    const float scale = act_scale(most, &inverse);
#pragma unroll
    for (uint32_t j = 0; j < Share::EACH; j++) {
        if (!Share::holds(j)) continue;
        if constexpr (Share::WIDTH == 4) {
            uint2 h;
            h.x = cvt_rn_f16x2_f32(v[j][0] * inverse, v[j][1] * inverse);
            h.y = cvt_rn_f16x2_f32(v[j][2] * inverse, v[j][3] * inverse);
            *(uint2 *)(halves + Share::column(j)) = h;
        } else {
            halves[Share::column(j)] = cvt_rn_f16_f32(v[j][0] * inverse);
        }
    }
    if constexpr (PADDING != 0)
        for (uint32_t i = threadIdx.x; i < PADDING; i += THREADS) halves[K + i] = 0;
    if (threadIdx.x == 0) *(float4 *)act_meta(row, K) = make_float4(scale, l1 * ACT_L1_SLACK, 0, 0);
    if constexpr (WIDE) Share::store((float *)((char *)row + act_wide_offset(K)), v);
}

// Writes the E4M3 row (args.cuh): codes, zeros behind them, meta. `most`: the largest magnitude,
// within a few ulp: what is then above 448 is 448.
template <uint32_t K, uint32_t THREADS>
__device__ __forceinline__ void e4m3_store(void *row, const float (&v)[RowShare<K, THREADS>::EACH][4],
                                           float most, float l1) {
    using Share = RowShare<K, THREADS>;
    constexpr uint32_t PADDING = (act_halves(K) - K) / 4;
    const bool none = most < QUANTIZE_LEAST;
    const float inverse = none ? 0 : __fdiv_rn(QUANTIZE_MOST, most);
#pragma unroll
    for (uint32_t j = 0; j < Share::EACH; j++) {
        if (!Share::holds(j)) continue;
        *(uint32_t *)((char *)row + e4m3_place(Share::column(j))) =
            cvt_rn_satfinite_e4m3x2_f32(v[j][2] * inverse, v[j][0] * inverse) |
            (uint32_t)cvt_rn_satfinite_e4m3x2_f32(v[j][3] * inverse, v[j][1] * inverse) << 16;
    }
    if constexpr (PADDING != 0)
        for (uint32_t i = threadIdx.x; i < PADDING; i += THREADS)
            *(uint32_t *)((char *)row + e4m3_place(K + 4 * i)) = 0;
    // A value of the row is at most half a step, 1/16 of it or 2^-10 scales, larger than what it was made of.
    const float scale = none ? 0 : __fdiv_rn(most, QUANTIZE_MOST);
    if (threadIdx.x == 0)
        *(float4 *)e4m3_meta(row, K) =
            make_float4(scale, (l1 * (1 + 0x1p-4f) + K * 0x1p-10f * scale) * ACT_L1_SLACK, 0, 0);
}

enum RowForm { ROW_HALVES, ROW_WIDE, ROW_E4M3 };
template <uint32_t K, uint32_t THREADS, RowForm FORM>
__device__ __forceinline__ void
row_store(void *row, const float (&v)[RowShare<K, THREADS>::EACH][RowShare<K, THREADS>::WIDTH], float most,
          float l1) {
    if constexpr (FORM == ROW_E4M3)
        e4m3_store<K, THREADS>(row, v, most, l1);
    else
        act_store<K, THREADS, FORM == ROW_WIDE>(row, v, most, l1);
}

// Four values of a row from column `i` on, a multiple of 4: exact.
__device__ __forceinline__ float4 act_load4(const void *row, uint32_t i, float scale) {
    const uint2 h = *(const uint2 *)((const uint16_t *)row + i);
    return make_float4(cvt_f32_f16((uint16_t)h.x) * scale, cvt_f32_f16((uint16_t)(h.x >> 16)) * scale,
                       cvt_f32_f16((uint16_t)h.y) * scale, cvt_f32_f16((uint16_t)(h.y >> 16)) * scale);
}
#endif
