// Where a token's keys and values live (picture in templates.def), and E4M3.
#ifndef ADALLM_HOST_KV_H
#define ADALLM_HOST_KV_H
#include "templates/host/math.h"

INLINE uint8_t *kv_page(const uint8_t *pool, const int32_t *block_table, uint32_t slot, uint32_t page,
                        uint32_t pages_per_seq, uint32_t page_bytes) {
    return (uint8_t *)pool +
           (size_t)block_table[(size_t)slot * pages_per_seq + page % pages_per_seq] * page_bytes;
}

// n of 8 values, the others zero: what follows a row may be NaN, and zero times NaN is not zero.
INLINE f32x8 e4m3_load_part(const uint8_t *p, uint32_t n) {
    if (n >= 8) return e4m3_load(p);
    uint8_t lanes[8] = {0};
    for (uint32_t i = 0; i < n; i++) lanes[i] = p[i];
    return e4m3_load(lanes);
}

// Round to nearest even, saturate at 448; NaN gives NaN.
INLINE uint8_t e4m3_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t mag = u & 0x7FFFFFFF, sign = u >> 24 & 0x80, code;
    if (mag > 0x7F800000) return 0x7F;
    if (mag >= 0x43E00000) return (uint8_t)(sign | 0x7E);
    if (mag < 0x3C800000) { // below 2^-6: multiples of 2^-9, rounded by adding 2^14, whose last bit is 2^-9
        float m;
        memcpy(&m, &mag, 4);
        m += 0x1p14f;
        memcpy(&code, &m, 4);
        return (uint8_t)(sign | (code & 0xF));
    }
    code = (mag + 0x7FFFF + (mag >> 20 & 1) - 0x3C000000) >> 20;
    return (uint8_t)(sign | u32_min(code, 0x7E));
}
#endif
