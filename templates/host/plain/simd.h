// Eight fp32 lanes in plain C with GCC's vector types: the twin of ../v3/simd.h for any x86-64. Correct, not
// fast; products are rounded before they are added.
#ifndef ADALLM_HOST_SIMD_H
#define ADALLM_HOST_SIMD_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
// One copy an image, however many instances call it.
#define SHARED static __attribute__((noinline, noclone, unused))
#define LANES  SHARED // functions worth inlining only where lanes are registers

typedef float f32x8 __attribute__((vector_size(32), aligned(32)));
typedef int32_t i32x8 __attribute__((vector_size(32), aligned(32)));

INLINE f32x8 f32x8_set1(float x) { return (f32x8){x, x, x, x, x, x, x, x}; }
INLINE f32x8 f32x8_load(const float *p) {
    f32x8 v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void f32x8_store(float *p, f32x8 v) { memcpy(p, &v, sizeof v); }
INLINE f32x8 f32x8_fma(f32x8 a, f32x8 b, f32x8 c) { return a * b + c; }
INLINE float f32_fma(float a, float b, float c) { return a * b + c; }
INLINE f32x8 f32x8_round(f32x8 x) { // |x| < 2^22
    const f32x8 magic = f32x8_set1(0x1.8p23f);
    return x + magic - magic;
}
INLINE i32x8 f32x8_to_i32(f32x8 x) {
    i32x8 r;
    for (int i = 0; i < 8; i++) r[i] = (int32_t)x[i];
    return r;
}

LANES f32x8 scales_load(const uint8_t *p) {
    i32x8 b;
    for (int i = 0; i < 8; i++) b[i] = p[i] << 20;
    return (f32x8)b * f32x8_set1(0x1p120f);
}

LANES void nvfp4_expand(const uint8_t *p, f32x8 w[8]) {
    static const float value[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};
    for (int column = 0; column < 8; column++)
        for (int row = 0; row < 8; row++) {
            uint8_t both = p[row / 4 * 16 + column / 2 * 4 + row % 4];
            w[column][row] = value[column % 2 ? both >> 4 : both & 15];
        }
}

INLINE void bf16_expand(const uint8_t *p, f32x8 w[2]) {
    i32x8 both;
    memcpy(&both, p, sizeof both);
    w[0] = (f32x8)(both << 16);
    w[1] = (f32x8)(both & (int32_t)0xFFFF0000);
}

// Exponent and mantissa fields move to fp32's, 2^112 makes up for the bias; exact for finite values.
INLINE void f16_expand(const uint8_t *p, f32x8 w[2]) {
    i32x8 both;
    memcpy(&both, p, sizeof both);
    for (int odd = 0; odd < 2; odd++) {
        i32x8 bits = odd ? both >> 16 : both;
        f32x8 size = (f32x8)((bits & 0x7FFF) << 13) * f32x8_set1(0x1p112f);
        w[odd] = (f32x8)((i32x8)size | (bits & 0x8000) << 16);
    }
}

#define E4M3_SCALE 1.0f
LANES f32x8 e4m3_load(const uint8_t *p) {
    i32x8 b;
    for (int i = 0; i < 8; i++)
        b[i] = (int32_t)((uint32_t)(p[i] & 0x80) << 24 | (uint32_t)(p[i] & 0x7F) << 20);
    return (f32x8)b * f32x8_set1(0x1p120f);
}
#endif
