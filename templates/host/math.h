// What the host kernels share: how a launch is cut, lanes at the end of a row, and the few functions of
// analysis they need. No libm: the same bits wherever the image runs.
#ifndef ADALLM_HOST_MATH_H
#define ADALLM_HOST_MATH_H
#include "simd.h"
#include "templates/lib/abi.h"

typedef struct {
    uint32_t begin, end;
} Range;

// The part of n pieces that one block of a launch takes.
INLINE Range range_of_block(uint32_t n, uint32_t block, uint32_t n_blocks) {
    return (Range){(uint32_t)((uint64_t)n * block / n_blocks),
                   (uint32_t)((uint64_t)n * (block + 1) / n_blocks)};
}

INLINE uint32_t u32_min(uint32_t a, uint32_t b) { return a < b ? a : b; }
INLINE uint32_t u32_div_up(uint32_t a, uint32_t by) { return (a + by - 1) / by; }

// n of 8 lanes; the others are zero, or left alone. The ends of rows are rare: not worth a copy in every
// kernel.
SHARED void f32_copy_tail(float *dst, const float *src, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) dst[i] = src[i];
}
INLINE f32x8 f32x8_load_part(const float *p, uint32_t n) {
    if (n >= 8) return f32x8_load(p);
    float lanes[8] = {0};
    f32_copy_tail(lanes, p, n);
    return f32x8_load(lanes);
}
INLINE void f32x8_store_part(float *p, f32x8 v, uint32_t n) {
    if (n >= 8) {
        f32x8_store(p, v);
        return;
    }
    float lanes[8];
    f32x8_store(lanes, v);
    f32_copy_tail(p, lanes, n);
}

INLINE f32x8 f32x8_select(i32x8 mask, f32x8 yes, f32x8 no) {
    return (f32x8)((mask & (i32x8)yes) | (~mask & (i32x8)no));
}
INLINE float f32x8_sum(f32x8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// e^x: x = n ln2 + r, Taylor to r^7 on |r| <= ln2 / 2 (relative error 1e-8 before rounding). Held inside
// [1e-38, 2e38]; NaN stays NaN.
LANES f32x8 f32x8_exp(f32x8 x) {
    const f32x8 lo = f32x8_set1(-87.33f), hi = f32x8_set1(88.37f);
    x = f32x8_select(x < lo, lo, f32x8_select(x > hi, hi, x));
    f32x8 n = f32x8_round(x * f32x8_set1(0x1.715476p0f));
    f32x8 r = f32x8_fma(n, f32x8_set1(-0x1.62e4p-1f), x); // 14 bits of ln2: n times it is exact
    r = f32x8_fma(n, f32x8_set1(-0x1.7f7d1cp-20f), r);
    f32x8 p = f32x8_set1(1.0f / 5040);
    p = f32x8_fma(p, r, f32x8_set1(1.0f / 720));
    p = f32x8_fma(p, r, f32x8_set1(1.0f / 120));
    p = f32x8_fma(p, r, f32x8_set1(1.0f / 24));
    p = f32x8_fma(p, r, f32x8_set1(1.0f / 6));
    p = f32x8_fma(p, r, f32x8_set1(0.5f));
    p = f32x8_fma(p, r, f32x8_set1(1));
    p = f32x8_fma(p, r, f32x8_set1(1));
    return p * (f32x8)((f32x8_to_i32(n) + 127) << 23) + (x - x); // a NaN has no place in the exponent
}
INLINE float f32_exp(float x) { return f32x8_exp(f32x8_set1(x))[0]; }

INLINE f32x8 f32x8_silu(f32x8 x) { return x / (f32x8_set1(1) + f32x8_exp(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3).
INLINE f32x8 f32x8_gelu_tanh(f32x8 x) {
    f32x8 u = f32x8_set1(0.7978845608f) * f32x8_fma(f32x8_set1(0.044715f) * x * x, x, x);
    return x / (f32x8_set1(1) + f32x8_exp(u * f32x8_set1(-2)));
}

// Odd series below 1/4, where the quotient would cancel.
LANES f32x8 f32x8_tanh(f32x8 x) {
    f32x8 s = x * x, p = f32x8_set1(62.0f / 2835);
    p = f32x8_fma(p, s, f32x8_set1(-17.0f / 315));
    p = f32x8_fma(p, s, f32x8_set1(2.0f / 15));
    p = f32x8_fma(p, s, f32x8_set1(-1.0f / 3));
    f32x8 small = f32x8_fma(p * s, x, x);
    f32x8 large = f32x8_set1(1) - f32x8_set1(2) / (f32x8_exp(x + x) + f32x8_set1(1));
    return f32x8_select(s < f32x8_set1(0.0625f), small, large);
}
INLINE f32x8 f32x8_softcap(f32x8 x, float cap) { return f32x8_set1(cap) * f32x8_tanh(x / f32x8_set1(cap)); }

// sin and cos of an fp32 angle below 2^30: quarter turns are taken off in double, where n pi/2 keeps all the
// bits that fp32 can ask for; Taylor on |r| <= pi/4.
INLINE void f32_sincos(float angle, float *sine, float *cosine) {
    double x = angle, turns = x * 0.63661977236758134308;
    int64_t n = (int64_t)(turns + (turns < 0 ? -0.5 : 0.5));
    double r = (x - (double)n * 0x1.921fb544p0) - (double)n * 0x1.0b4611a626331p-34, s = r * r;
    double si =
        r +
        r * s * (-1.0 / 6 + s * (1.0 / 120 + s * (-1.0 / 5040 + s * (1.0 / 362880 + s * (-1.0 / 39916800)))));
    double co =
        1 + s * (-0.5 + s * (1.0 / 24 + s * (-1.0 / 720 + s * (1.0 / 40320 + s * (-1.0 / 3628800 +
                                                                                  s * (1.0 / 479001600))))));
    double a = n & 1 ? co : si, b = n & 1 ? si : co;
    *sine = (float)(n & 2 ? -a : a);
    *cosine = (float)((n + 1) & 2 ? -b : b);
}

// Root mean square norm of a row: each lane sums every eighth square, in order.
INLINE float rms_factor(const float *x, uint32_t n, float eps) {
    f32x8 sum = f32x8_set1(0);
    for (uint32_t i = 0; i < n; i += 8) {
        f32x8 v = f32x8_load_part(x + i, n - i);
        sum = f32x8_fma(v, v, sum);
    }
    return 1.0f / __builtin_sqrtf(f32x8_sum(sum) / (float)n + eps);
}
#endif
