// Functions of analysis, of fp32. Errors are relative unless said otherwise, and hold for every argument; NaN
// stays NaN.
#ifndef ADALLM_LIB_MATH_CUH
#define ADALLM_LIB_MATH_CUH
#include "templates/lib/ptx.cuh"

// e^x within 4e-7, held inside [1e-38, 2e38]: x = (n + r) ln2, 2^r by the hardware (2^-22), 2^n as an
// exponent.
__device__ __forceinline__ float exp_f32(float x) {
    constexpr float LOG2E = 0x1.715476p0f, LOG2E_LOW = 0x1.4ae0cp-26f, ROUND = 12582912.0f;
    x = x < -87.33f ? -87.33f : x > 88.37f ? 88.37f : x;
    const float shifted = fmaf(x, LOG2E, ROUND), n = shifted - ROUND;
    const float r = fmaf(x, LOG2E_LOW, fmaf(x, LOG2E, -n));
    return ex2_approx(r) * __uint_as_float((__float_as_uint(shifted) << 23) + 0x3F800000);
}

// Within 1e-6.
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + exp_f32(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3). Within 1e-6 for x > 0; below, the
// rounding of u counts as often as u is large: 1e-7 |x| absolute.
__device__ __forceinline__ float gelu_tanh(float x) {
    const float u = 0.7978845608f * fmaf(0.044715f * x * x, x, x);
    return __fdividef(x, 1.0f + exp_f32(-2.0f * u));
}

// Within 1e-6. Odd series below 1/4, where the quotient would cancel.
__device__ __forceinline__ float tanh_f32(float x) {
    const float s = x * x;
    float p = fmaf(62.0f / 2835, s, -17.0f / 315);
    p = fmaf(p, s, 2.0f / 15);
    p = fmaf(p, s, -1.0f / 3);
    const float small = fmaf(p * s, x, x);
    const float large = 1.0f - __fdividef(2.0f, exp_f32(x + x) + 1.0f);
    return s < 0.0625f ? small : large;
}

__device__ __forceinline__ float softcap(float x, float cap) { return cap * tanh_f32(x * (1.0f / cap)); }

// sin and cos of an angle in [0, 2^21], absolute error 1.2e-7. n quarter turns are taken off in three steps;
// the first is exact: unless n is 0 both operands are multiples of 2^-24, and the result is below 1. Taylor
// on |r| <= 0.86.
__device__ __forceinline__ void sincos_f32(float angle, float *sine, float *cosine) {
    const int n = __float2int_rn(angle * 0.636619772f);
    float r = fmaf((float)n, -0x1.921fb6p0f, angle);
    r = fmaf((float)n, 0x1.777a5cp-25f, r);
    r = fmaf((float)n, 0x1.ee59dap-50f, r);
    const float s = r * r;
    float si = fmaf(1.0f / 362880, s, -1.0f / 5040);
    si = fmaf(si, s, 1.0f / 120);
    si = fmaf(si, s, -1.0f / 6);
    si = fmaf(si * s, r, r);
    float co = fmaf(-1.0f / 3628800, s, 1.0f / 40320);
    co = fmaf(co, s, -1.0f / 720);
    co = fmaf(co, s, 1.0f / 24);
    co = fmaf(co, s, -0.5f);
    co = fmaf(co, s, 1.0f);
    const float a = n & 1 ? co : si, b = n & 1 ? si : co;
    *sine = n & 2 ? -a : a;
    *cosine = (n + 1) & 2 ? -b : b;
}
#endif
