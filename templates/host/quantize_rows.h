// quantize_rows: out[t] = x[t] rounded to E4M3 with a scale for each row (QUANTIZE_MOST in lib/abi.h).
#ifndef ADALLM_HOST_QUANTIZE_ROWS_H
#define ADALLM_HOST_QUANTIZE_ROWS_H
#include "templates/host/kv.h"

typedef struct {
    uint32_t k, rows_each, count, x_pitch, out_pitch; // pitches: GPUs
} QuantizeRowsSpec;

// The largest magnitude; NaN if there is one, as its bits are above all others.
INLINE float quantize_most(const float *x, uint32_t n) {
    uint32_t most = 0;
    float result;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7FFFFFFF;
        most = bits > most ? bits : most;
    }
    memcpy(&result, &most, 4);
    return result;
}

INLINE void quantize_rows(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch,
                          QuantizeRowsSpec s) {
    const uint32_t n_rows = ((const uint32_t *)args[2])[s.count] * s.rows_each;
    Range rows = range_of_block(n_rows, block, n_blocks);
    (void)scratch;
    for (uint32_t r = rows.begin; r < rows.end; r++) {
        const float *x = (const float *)args[0] + (size_t)r * s.k;
        float *out = (float *)args[1] + (size_t)r * s.k;
        const float most = quantize_most(x, s.k);
        const float inverse = most < QUANTIZE_LEAST ? 0 : QUANTIZE_MOST / most,
                    scale = most < QUANTIZE_LEAST ? 0 : most / QUANTIZE_MOST;
        for (uint32_t i = 0; i < s.k; i += 8) {
            uint8_t codes[8] = {0};
            const uint32_t n = u32_min(s.k - i, 8);
            for (uint32_t j = 0; j < n; j++) codes[j] = e4m3_of(x[i + j] * inverse);
            f32x8_store_part(out + i, e4m3_load(codes) * f32x8_set1(E4M3_SCALE) * f32x8_set1(scale), n);
        }
    }
}
#endif
