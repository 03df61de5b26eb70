// Eight fp32 lanes on x86-64-v3 (AVX2, FMA, F16C). The plain twin is ../plain/simd.h; codegen picks one by
// include path.
#ifndef ADALLM_HOST_SIMD_H
#define ADALLM_HOST_SIMD_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
// One copy an image, however many instances call it.
#define SHARED static __attribute__((noinline, noclone, unused))
#define LANES  INLINE // functions worth inlining only where lanes are registers

typedef float f32x8 __attribute__((vector_size(32), aligned(32)));
typedef int32_t i32x8 __attribute__((vector_size(32), aligned(32)));

INLINE f32x8 f32x8_set1(float x) { return (f32x8)_mm256_set1_ps(x); }
INLINE f32x8 f32x8_load(const float *p) { return (f32x8)_mm256_loadu_ps(p); }
INLINE void f32x8_store(float *p, f32x8 v) { _mm256_storeu_ps(p, (__m256)v); }
INLINE f32x8 f32x8_fma(f32x8 a, f32x8 b, f32x8 c) {
    return (f32x8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
INLINE float f32_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
INLINE f32x8 f32x8_round(f32x8 x) {
    return (f32x8)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE i32x8 f32x8_to_i32(f32x8 x) { return (i32x8)_mm256_cvtps_epi32((__m256)x); } // rounds to nearest

// Eight block scales, E4M3 without sign: exponent and mantissa fields move to fp16's, 2^8 makes up for the
// bias; exact, subnormals included.
LANES f32x8 scales_load(const uint8_t *p) {
    __m128i h = _mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
    return (f32x8)_mm256_mul_ps(_mm256_cvtph_ps(h), _mm256_set1_ps(0x1p8f));
}

// 8 rows x 8 columns of E2M1 in 32 bytes (picture in compiler/pack/layout.h) -> w[column] with a row a lane.
// The upper two bytes of a code's fp32 form come from two 16-entry tables; interleaving them with each other
// and with zeros puts them in place.
LANES void nvfp4_expand(const uint8_t *p, f32x8 w[8]) {
    const __m256i top = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40, (char)0x80, (char)0xBF, (char)0xBF,
                      (char)0xBF, (char)0xC0, (char)0xC0, (char)0xC0, (char)0xC0));
    const __m256i next = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, (char)0x80, (char)0xC0, 0, 0x40, (char)0x80, (char)0xC0, 0, 0, (char)0x80,
                      (char)0xC0, 0, 0x40, (char)0x80, (char)0xC0));
    const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    __m256i both = _mm256_loadu_si256((const __m256i *)p);
    for (int odd = 0; odd < 2; odd++) {
        __m256i code = _mm256_and_si256(odd ? _mm256_srli_epi16(both, 4) : both, low);
        __m256i hi = _mm256_shuffle_epi8(top, code), lo = _mm256_shuffle_epi8(next, code);
        __m256i a = _mm256_unpacklo_epi8(lo, hi), b = _mm256_unpackhi_epi8(lo, hi);
        w[0 + odd] = (f32x8)_mm256_unpacklo_epi16(zero, a);
        w[2 + odd] = (f32x8)_mm256_unpackhi_epi16(zero, a);
        w[4 + odd] = (f32x8)_mm256_unpacklo_epi16(zero, b);
        w[6 + odd] = (f32x8)_mm256_unpackhi_epi16(zero, b);
    }
}

// 8 rows x 2 columns of bf16 in 32 bytes, a row a 32-bit word, even column low.
INLINE void bf16_expand(const uint8_t *p, f32x8 w[2]) {
    __m256i both = _mm256_loadu_si256((const __m256i *)p);
    w[0] = (f32x8)_mm256_slli_epi32(both, 16);
    w[1] = (f32x8)_mm256_and_si256(both, _mm256_set1_epi32((int)0xFFFF0000u));
}

// 8 rows x 2 columns of fp16 in 32 bytes, a row a 32-bit word, even column low.
INLINE void f16_expand(const uint8_t *p, f32x8 w[2]) {
    __m256i both = _mm256_loadu_si256((const __m256i *)p);
    __m256i even = _mm256_and_si256(both, _mm256_set1_epi32(0xFFFF)), odd = _mm256_srli_epi32(both, 16);
    __m256i rows = _mm256_permute4x64_epi64(_mm256_packus_epi32(even, odd), 0xD8); // 8 even, 8 odd
    w[0] = (f32x8)_mm256_cvtph_ps(_mm256_castsi256_si128(rows));
    w[1] = (f32x8)_mm256_cvtph_ps(_mm256_extracti128_si256(rows, 1));
}

// Eight E4M3 values times 2^-8 (E4M3_SCALE undoes it): the fields fit fp16's with a smaller bias.
#define E4M3_SCALE 0x1p8f
LANES f32x8 e4m3_load(const uint8_t *p) {
    __m128i b = _mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)p));
    __m128i h = _mm_and_si128(_mm_srai_epi16(b, 1), _mm_set1_epi16((short)0xBFFF));
    return (f32x8)_mm256_cvtph_ps(h);
}
#endif
