// linear: out[t, n] = softcap(x[t] . w[n] * row_scale[n] + bias[n]).
#ifndef ADALLM_HOST_LINEAR_H
#define ADALLM_HOST_LINEAR_H
#include "templates/host/tiles.h"

typedef struct {
    uint32_t n, k, format, out_stride, has_bias;
    float softcap;                              // 0: none
    uint32_t count, x_pitch, x_e4m3, add, norm; // what follows count: GPUs
    float eps;
    uint32_t next_bytes;
} LinearSpec;

// One token's rows [row, row + n_rows).
INLINE void linear_store(const float *acc, uint32_t row, uint32_t n_rows, const float *row_scale,
                         const float *bias, float *out, LinearSpec s) {
#pragma GCC unroll 1
    for (uint32_t r = 0; r < n_rows; r += 8) {
        uint32_t lanes = n_rows - r;
        f32x8 y = f32x8_load(acc + r) * f32x8_load_part(row_scale + row + r, lanes);
        if (s.has_bias) y += f32x8_load_part(bias + row + r, lanes);
        if (s.softcap != 0) y = f32x8_softcap(y, s.softcap);
        f32x8_store_part(out + row + r, y, lanes);
    }
}

INLINE void linear(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, LinearSpec s) {
    const float *x = args[0], *row_scale = args[2], *bias = args[3];
    const uint8_t *w = args[1];
    float *out = args[4];
    const uint32_t n_tok = ((const uint32_t *)args[5])[s.count];
    TileScratch *ts = scratch;
    Range groups = range_of_block(u32_div_up(s.n, GROUP_ROWS), block, n_blocks);
    const uint32_t end = u32_min(groups.end * GROUP_ROWS, s.n);

    for (uint32_t row = groups.begin * GROUP_ROWS; row < end; row += PASS_ROWS) {
        uint32_t n_rows = u32_min(PASS_ROWS, end - row);
        for (uint32_t t0 = 0; t0 < n_tok; t0 += PASS_TOKENS) {
            uint32_t n = u32_min(PASS_TOKENS, n_tok - t0);
            for (uint32_t t = 0; t < n; t++) ts->x[t] = x + (size_t)(t0 + t) * s.k;
            tiles_rows(s.format, w, s.k, row, n_rows, n, ts, ts->acc, PASS_ROWS);
            for (uint32_t t = 0; t < n; t++)
                linear_store(ts->acc + t * PASS_ROWS, row, n_rows, row_scale, bias,
                             out + (size_t)(t0 + t) * s.out_stride, s);
        }
    }
}
#endif
