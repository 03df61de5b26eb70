// Number formats, exact: E2M1, E4M3FN, fp16, bf16 <-> fp32. Rounding is to nearest, ties to even.
// Source: OCP 8-bit and MX specifications; restated in the format notes of ARCHITECTURE.md.
#ifndef ADALLM_BASE_FP_H
#define ADALLM_BASE_FP_H
#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline float bf16_to_f32(uint16_t h) { return f32_from_bits((uint32_t)h << 16); }
static inline uint16_t f32_to_bf16(float x) { // NaN stays a quiet NaN
    uint32_t u = f32_bits(x);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float x); // overflow gives infinity

// E4M3FN: bias 7, max 448, 0x7F and 0xFF are NaN, no infinity, min subnormal 2^-9.
float e4m3_to_f32(uint8_t b);
uint8_t f32_to_e4m3(float x); // saturates to +-448; NaN gives 0x7F

extern const float e2m1_value[16]; // code -> value; 8 is -0
#endif
