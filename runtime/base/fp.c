#include "runtime/base/fp.h"

#include <math.h>

const float e2m1_value[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3FF;
    if (exp == 31) return f32_from_bits(sign | 0x7F800000 | man << 13);
    if (exp) return f32_from_bits(sign | (exp + 112) << 23 | man << 13);
    float v = (float)man * 0x1p-24f; // zero or subnormal
    return sign ? -v : v;
}

uint16_t f32_to_f16(float x) {
    uint32_t u = f32_bits(x), mag = u & 0x7FFFFFFF;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (mag > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (mag >= 0x477FF000) return (uint16_t)(sign | 0x7C00); // >= 65520 rounds to infinity
    if (mag < 0x38800000)                                    // below 2^-14: a multiple of 2^-24
        return (uint16_t)(sign | (uint16_t)nearbyintf(f32_from_bits(mag) * 0x1p24f));
    uint32_t r = mag + 0xFFF + (mag >> 13 & 1);
    return (uint16_t)(sign | (r - 0x38000000) >> 13);
}

float e4m3_to_f32(uint8_t b) {
    uint32_t sign = (uint32_t)(b & 0x80) << 24, exp = b >> 3 & 15, man = b & 7;
    if ((b & 0x7F) == 0x7F) return f32_from_bits(sign | 0x7FC00000);
    if (exp) return f32_from_bits(sign | (exp + 120) << 23 | man << 20);
    float v = (float)man * 0x1p-9f;
    return sign ? -v : v;
}

uint8_t f32_to_e4m3(float x) {
    uint32_t u = f32_bits(x), mag = u & 0x7FFFFFFF;
    uint8_t sign = (uint8_t)(u >> 24 & 0x80);
    if (mag > 0x7F800000) return 0x7F;
    if (mag >= 0x43E00000) return (uint8_t)(sign | 0x7E); // >= 448
    if (mag < 0x3C800000)                                 // below 2^-6: a multiple of 2^-9
        return (uint8_t)(sign | (uint8_t)nearbyintf(f32_from_bits(mag) * 0x1p9f));
    uint32_t r = mag + 0x7FFFF + (mag >> 20 & 1);
    uint32_t code = (r - 0x3C000000) >> 20;
    return (uint8_t)(sign | (code > 0x7E ? 0x7E : code));
}
