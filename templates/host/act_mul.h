// act_mul: out[t, i] = act(x[t, i]) * x[t, F + i].
#ifndef ADALLM_HOST_ACT_MUL_H
#define ADALLM_HOST_ACT_MUL_H
#include "templates/host/tiles.h"

typedef struct {
    uint32_t f, act, out_pitch; // out_pitch: GPUs
} ActMulSpec;

INLINE void act_mul(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, ActMulSpec s) {
    Range tokens = range_of_block(((const uint32_t *)args[2])[COUNT_TOKENS], block, n_blocks);
    (void)scratch;
    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        const float *gate = (const float *)args[0] + (size_t)t * 2 * s.f, *up = gate + s.f;
        float *out = (float *)args[1] + (size_t)t * s.f;
        for (uint32_t i = 0; i < s.f; i += 8) {
            uint32_t lanes = s.f - i;
            f32x8 g = f32x8_load_part(gate + i, lanes);
            f32x8 y =
                (s.act == ACT_SILU ? f32x8_silu(g) : f32x8_gelu_tanh(g)) * f32x8_load_part(up + i, lanes);
            f32x8_store_part(out + i, y, lanes);
        }
    }
}
#endif
