// gate_up: out[t, i] = act(x[t] . w[i] * row_scale[i]) * (x[t] . w[F + i] * row_scale[F + i]).
#ifndef ADALLM_HOST_GATE_UP_H
#define ADALLM_HOST_GATE_UP_H
#include "templates/host/tiles.h"

typedef struct {
    uint32_t f, k, format, act;
    uint32_t x_pitch, x_e4m3, out_pitch, norm; // and what follows: GPUs
    float eps;
    uint32_t next_bytes;
} GateUpSpec;

INLINE void gate_up_store(const float *gate, const float *up, const float *gate_scale, const float *up_scale,
                          uint32_t n_rows, uint32_t act, float *out) {
#pragma GCC unroll 1
    for (uint32_t r = 0; r < n_rows; r += 8) {
        uint32_t lanes = n_rows - r;
        f32x8 g = f32x8_load(gate + r) * f32x8_load_part(gate_scale + r, lanes);
        f32x8 u = f32x8_load_part(up + r, lanes) * f32x8_load_part(up_scale + r, lanes);
        f32x8_store_part(out + r, (act == ACT_SILU ? f32x8_silu(g) : f32x8_gelu_tanh(g)) * u, lanes);
    }
}

INLINE void gate_up(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, GateUpSpec s) {
    enum { STRIDE = PASS_ROWS + TILE_ROWS }; // up rows may start inside a tile
    const float *x = args[0], *row_scale = args[2];
    const uint8_t *w = args[1];
    float *out = args[4];
    const uint32_t n_tok = ((const uint32_t *)args[5])[COUNT_TOKENS];
    TileScratch *ts = scratch;
    Range groups = range_of_block(u32_div_up(s.f, GROUP_ROWS), block, n_blocks);
    const uint32_t end = u32_min(groups.end * GROUP_ROWS, s.f);

    for (uint32_t row = groups.begin * GROUP_ROWS; row < end; row += PASS_ROWS) {
        uint32_t n_rows = u32_min(PASS_ROWS, end - row);
        for (uint32_t t0 = 0; t0 < n_tok; t0 += PASS_TOKENS) {
            uint32_t n = u32_min(PASS_TOKENS, n_tok - t0);
            for (uint32_t t = 0; t < n; t++) ts->x[t] = x + (size_t)(t0 + t) * s.k;
            tiles_rows(s.format, w, s.k, row, n_rows, n, ts, ts->acc, STRIDE);
            tiles_rows(s.format, w, s.k, s.f + row, n_rows, n, ts, ts->acc2, STRIDE);
            for (uint32_t t = 0; t < n; t++)
                gate_up_store(ts->acc + t * STRIDE, ts->acc2 + t * STRIDE + (s.f + row) % TILE_ROWS,
                              row_scale + row, row_scale + s.f + row, n_rows, s.act,
                              out + (size_t)(t0 + t) * s.f + row);
        }
    }
}
#endif
