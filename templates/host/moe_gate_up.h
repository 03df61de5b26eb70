// moe_gate_up: gate_up of each token's experts: out[t, j] with the weights of expert ids[t, j].
#ifndef ADALLM_HOST_MOE_GATE_UP_H
#define ADALLM_HOST_MOE_GATE_UP_H
#include "templates/host/gate_up.h"

typedef struct {
    uint32_t experts, topk, f, k, format, act, x_pitch, x_e4m3, out_pitch; // the last three: GPUs
} MoeGateUpSpec;

INLINE void moe_gate_up(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch,
                        MoeGateUpSpec s) {
    enum { STRIDE = PASS_ROWS + TILE_ROWS };
    const float *x = args[0], *row_scale = args[2];
    const uint8_t *w = args[1];
    const int32_t *ids = args[4];
    float *out = args[5];
    const uint32_t n_pairs = ((const uint32_t *)args[6])[COUNT_TOKENS] * s.topk;
    const size_t expert_bytes = u32_div_up(2 * s.f, TILE_ROWS) * tile_bytes(s.format, s.k);
    TileScratch *ts = scratch;
    Range groups = range_of_block(u32_div_up(s.f, GROUP_ROWS), block, n_blocks);
    const uint32_t begin = groups.begin * GROUP_ROWS, end = u32_min(groups.end * GROUP_ROWS, s.f);

    for (uint32_t e = 0; e < s.experts; e++)
        for (uint32_t next = 0, n; (n = expert_tokens(ids, n_pairs, e, &next, ts)) != 0;) {
            const uint8_t *we = w + e * expert_bytes;
            const float *scale = row_scale + (size_t)e * 2 * s.f;
            for (uint32_t i = 0; i < n; i++) ts->x[i] = x + (size_t)(ts->id[i] / s.topk) * s.k;
            for (uint32_t row = begin; row < end; row += PASS_ROWS) {
                uint32_t n_rows = u32_min(PASS_ROWS, end - row);
                tiles_rows(s.format, we, s.k, row, n_rows, n, ts, ts->acc, STRIDE);
                tiles_rows(s.format, we, s.k, s.f + row, n_rows, n, ts, ts->acc2, STRIDE);
                for (uint32_t i = 0; i < n; i++)
                    gate_up_store(ts->acc + i * STRIDE, ts->acc2 + i * STRIDE + (s.f + row) % TILE_ROWS,
                                  scale + row, scale + s.f + row, n_rows, s.act,
                                  out + (size_t)ts->id[i] * s.f + row);
            }
        }
}
#endif
