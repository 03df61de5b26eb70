// rope_write: per token, the heads of q and k are normed (has_norm) and rotated; q goes to `q`, k / k_scale
// and v / v_scale go to the token's place in the cache as E4M3. Rotate-half: y[i] = x[i] c - x[i + D/2] s,
// y[i + D/2] = x[i + D/2] c + x[i] s, angle = pos * inv_freq[i].
#ifndef ADALLM_HOST_ROPE_WRITE_H
#define ADALLM_HOST_ROPE_WRITE_H
#include "templates/host/kv.h"

typedef struct {
    uint32_t heads, kv_heads, head_dim, has_norm;
    float eps, factor;                                           // cos and sin are multiplied by factor
    uint32_t page_tokens, page_bytes, pages_per_seq, next_bytes; // next_bytes: GPUs
} RopeWriteSpec;

// x[D] -> out[D]; turn: cos[D/2], then sin[D/2].
INLINE void rope_head(const float *x, const float *norm, const float *turn, float *out, RopeWriteSpec s) {
    const uint32_t half = s.head_dim / 2;
    const float factor = s.has_norm ? rms_factor(x, s.head_dim, s.eps) : 1;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        if (s.has_norm) a = a * factor * norm[i], b = b * factor * norm[i + half];
        out[i] = a * turn[i] - b * turn[i + half];
        out[i + half] = b * turn[i] + a * turn[i + half];
    }
}

INLINE void rope_write(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, RopeWriteSpec s) {
    const float *qkv = args[0], *q_norm = args[1], *k_norm = args[2], *inv_freq = args[3],
                *kv_scale = args[4];
    const int32_t *pos = args[5], *slot = args[6], *block_table = args[7];
    float *q = args[9], *turn = scratch, *rotated = turn + s.head_dim;
    const uint32_t d = s.head_dim, half = d / 2, row = (s.heads + 2 * s.kv_heads) * d;
    Range tokens = range_of_block(((const uint32_t *)args[10])[COUNT_TOKENS], block, n_blocks);

    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        const float *x = qkv + (size_t)t * row;
        for (uint32_t i = 0; i < half; i++) {
            float sine, cosine;
            f32_sincos((float)pos[t] * inv_freq[i], &sine, &cosine);
            turn[i] = cosine * s.factor, turn[half + i] = sine * s.factor;
        }
        for (uint32_t h = 0; h < s.heads; h++)
            rope_head(x + h * d, q_norm, turn, q + ((size_t)t * s.heads + h) * d, s);

        uint32_t p = (uint32_t)pos[t], line = p % s.page_tokens;
        uint8_t *page = kv_page(args[8], block_table, (uint32_t)slot[t], p / s.page_tokens, s.pages_per_seq,
                                s.page_bytes);
        uint8_t *k_out = page + line * d, *v_out = k_out + s.kv_heads * s.page_tokens * d;
        for (uint32_t h = 0; h < s.kv_heads; h++) {
            const float *v = x + (s.heads + s.kv_heads + h) * d;
            rope_head(x + (s.heads + h) * d, k_norm, turn, rotated, s);
            for (uint32_t i = 0; i < d; i++) {
                k_out[h * s.page_tokens * d + i] = e4m3_of(rotated[i] / kv_scale[0]);
                v_out[h * s.page_tokens * d + i] = e4m3_of(v[i] / kv_scale[1]);
            }
        }
    }
}
#endif
