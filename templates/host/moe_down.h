// moe_down: out[t] = sum over the token's experts, in ascending order of expert, of weight * (h[t, j] . w[e]
// * row_scale[e]).
#ifndef ADALLM_HOST_MOE_DOWN_H
#define ADALLM_HOST_MOE_DOWN_H
#include "templates/host/tiles.h"

typedef struct {
    uint32_t experts, topk, n, k, format, x_pitch, x_e4m3, each; // the last three: GPUs
} MoeDownSpec;

INLINE void moe_down_add(const float *acc, const float *row_scale, uint32_t n_rows, float weight,
                         float *out) {
#pragma GCC unroll 1
    for (uint32_t r = 0; r < n_rows; r += 8) {
        uint32_t lanes = n_rows - r;
        f32x8 y = f32x8_load(acc + r) * f32x8_load_part(row_scale + r, lanes);
        f32x8_store_part(out + r, f32x8_fma(y, f32x8_set1(weight), f32x8_load_part(out + r, lanes)), lanes);
    }
}

INLINE void moe_down(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, MoeDownSpec s) {
    const float *h = args[0], *row_scale = args[2], *weights = args[4];
    const uint8_t *w = args[1];
    const int32_t *ids = args[3];
    float *out = args[5];
    const uint32_t n_tok = ((const uint32_t *)args[6])[COUNT_TOKENS], n_pairs = n_tok * s.topk;
    const size_t expert_bytes = u32_div_up(s.n, TILE_ROWS) * tile_bytes(s.format, s.k);
    TileScratch *ts = scratch;
    Range groups = range_of_block(u32_div_up(s.n, GROUP_ROWS), block, n_blocks);
    const uint32_t begin = groups.begin * GROUP_ROWS, end = u32_min(groups.end * GROUP_ROWS, s.n);
    if (begin >= end) return;

    for (uint32_t t = 0; t < n_tok; t++)
        memset(out + (size_t)t * s.n + begin, 0, (end - begin) * sizeof(float));
    for (uint32_t e = 0; e < s.experts; e++)
        for (uint32_t next = 0, n; (n = expert_tokens(ids, n_pairs, e, &next, ts)) != 0;) {
            for (uint32_t i = 0; i < n; i++) ts->x[i] = h + (size_t)ts->id[i] * s.k;
            for (uint32_t row = begin; row < end; row += PASS_ROWS) {
                uint32_t n_rows = u32_min(PASS_ROWS, end - row);
                tiles_rows(s.format, w + e * expert_bytes, s.k, row, n_rows, n, ts, ts->acc, PASS_ROWS);
                for (uint32_t i = 0; i < n; i++)
                    moe_down_add(ts->acc + i * PASS_ROWS, row_scale + (size_t)e * s.n + row, n_rows,
                                 weights[ts->id[i]], out + (size_t)(ts->id[i] / s.topk) * s.n + row);
            }
        }
}
#endif
