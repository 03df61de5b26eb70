// attention: one query row against the paged cache, causal, the last `window` keys (0: all). Online softmax
// over the pages of absolute positions, oldest first, keys in order: what a token sums, and in which order,
// follows from its position alone. Keys outside [first, pos] are never read into a sum: their pages may hold
// anything. The cache's scales are folded: k_scale into the softmax scale, v_scale into the result.
#ifndef ADALLM_HOST_ATTENTION_H
#define ADALLM_HOST_ATTENTION_H
#include "templates/host/kv.h"

typedef struct {
    uint32_t heads, kv_heads, head_dim;
    float scale;
    uint32_t window;
    float softcap;
    uint32_t page_tokens, page_bytes, pages_per_seq, out_pitch, next_bytes; // the last two: GPUs
} AttentionSpec;

enum { ATTENTION_PAIR = 2 }; // query heads that share one expansion of a key

// State of the softmax of one query head.
typedef struct {
    float max, sum, factor;
} SoftmaxState;

// Columns left at i, at least; a constant for the sizes that models have.
INLINE uint32_t attention_lanes(uint32_t d, uint32_t i) { return d % 8 == 0 ? 8 : d - i; }

// score[h][j] = q[h] . k[j] of n_heads heads for n_keys keys, 4 at a time at most.
INLINE void attention_dots(const float *q, const uint8_t *k, uint32_t n_keys, uint32_t n_heads, float *score,
                           uint32_t score_stride, uint32_t d) {
    f32x8 acc[4][ATTENTION_PAIR];
    for (uint32_t j = 0; j < n_keys; j++)
        for (uint32_t h = 0; h < n_heads; h++) acc[j][h] = f32x8_set1(0);
    for (uint32_t i = 0; i < d; i += 8)
        for (uint32_t j = 0; j < n_keys; j++) {
            f32x8 key = e4m3_load_part(k + j * d + i, attention_lanes(d, i));
            for (uint32_t h = 0; h < n_heads; h++)
                acc[j][h] = f32x8_fma(key, f32x8_load_part(q + h * d + i, attention_lanes(d, i)), acc[j][h]);
        }
    for (uint32_t j = 0; j < n_keys; j++)
        for (uint32_t h = 0; h < n_heads; h++) score[h * score_stride + j] = f32x8_sum(acc[j][h]);
}

// o[h][D] = o[h] * factor[h] + sum of p[h][j] v[j]; n_vectors x 8 columns from `col` on.
INLINE void attention_values(const float *p, uint32_t p_stride, const uint8_t *v, uint32_t n_keys,
                             uint32_t n_heads, uint32_t col, uint32_t n_vectors, const SoftmaxState *state,
                             float *o, uint32_t d) {
    f32x8 acc[ATTENTION_PAIR][4];
    for (uint32_t h = 0; h < n_heads; h++)
        for (uint32_t i = 0; i < n_vectors; i++)
            acc[h][i] = f32x8_load_part(o + h * d + col + i * 8, attention_lanes(d, col + i * 8)) *
                        f32x8_set1(state[h].factor);
    for (uint32_t j = 0; j < n_keys; j++)
        for (uint32_t i = 0; i < n_vectors; i++) {
            f32x8 value = e4m3_load_part(v + j * d + col + i * 8, attention_lanes(d, col + i * 8));
            for (uint32_t h = 0; h < n_heads; h++)
                acc[h][i] = f32x8_fma(value, f32x8_set1(p[h * p_stride + j]), acc[h][i]);
        }
    for (uint32_t h = 0; h < n_heads; h++)
        for (uint32_t i = 0; i < n_vectors; i++)
            f32x8_store_part(o + h * d + col + i * 8, acc[h][i], attention_lanes(d, col + i * 8));
}

// Scores of one page become probabilities against the running maximum.
INLINE void attention_softmax(float *score, uint32_t n_keys, SoftmaxState *state, float scale,
                              float softcap) {
    float max = state->max;
    for (uint32_t j = 0; j < n_keys; j += 8) {
        f32x8 y = f32x8_load(score + j) * f32x8_set1(scale);
        if (softcap != 0) y = f32x8_softcap(y, softcap);
        f32x8_store(score + j, y);
    }
    for (uint32_t j = 0; j < n_keys; j++) max = score[j] > max ? score[j] : max;
    state->factor = f32_exp(state->max - max);
    float sum = state->sum * state->factor;
    for (uint32_t j = 0; j < n_keys; j += 8)
        f32x8_store(score + j, f32x8_exp(f32x8_load(score + j) - f32x8_set1(max)));
    for (uint32_t j = 0; j < n_keys; j++) sum += score[j];
    state->sum = sum, state->max = max;
}

// n_heads query heads of one token that share a KV head.
INLINE void attention_heads(const float *q, const uint8_t *pool, const int32_t *block_table, uint32_t slot,
                            uint32_t pos, uint32_t kv_head, uint32_t n_heads, const float *kv_scale, float *o,
                            float *score, AttentionSpec s) {
    const uint32_t d = s.head_dim, stride = (s.page_tokens + 7) / 8 * 8;
    const uint32_t first = s.window && pos >= s.window ? pos - s.window + 1 : 0;
    SoftmaxState state[ATTENTION_PAIR];
    for (uint32_t h = 0; h < n_heads; h++) {
        state[h] = (SoftmaxState){.max = -3e38f};
        memset(o + h * d, 0, d * sizeof(float));
    }
    memset(score, 0, n_heads * stride * sizeof(float)); // lanes past the last key must be ordinary numbers
    for (uint32_t page = first / s.page_tokens; page <= pos / s.page_tokens; page++) {
        const uint8_t *k = kv_page(pool, block_table, slot, page, s.pages_per_seq, s.page_bytes) +
                           (size_t)kv_head * s.page_tokens * d;
        const uint8_t *v = k + (size_t)s.kv_heads * s.page_tokens * d;
        uint32_t begin = page * s.page_tokens, skip = first > begin ? first - begin : 0;
        uint32_t n_keys = u32_min(s.page_tokens, pos - begin + 1) - skip, j = 0;
        k += skip * d, v += skip * d;
        for (; j + 4 <= n_keys; j += 4) attention_dots(q, k + j * d, 4, n_heads, score + j, stride, d);
        for (; j < n_keys; j++) attention_dots(q, k + j * d, 1, n_heads, score + j, stride, d);
        for (uint32_t h = 0; h < n_heads; h++)
            attention_softmax(score + h * stride, n_keys, &state[h], s.scale * kv_scale[0] * E4M3_SCALE,
                              s.softcap);
        uint32_t col = 0;
        for (; col + 32 <= d; col += 32)
            attention_values(score, stride, v, n_keys, n_heads, col, 4, state, o, d);
        for (; col < d; col += 8) attention_values(score, stride, v, n_keys, n_heads, col, 1, state, o, d);
    }
    for (uint32_t h = 0; h < n_heads; h++) {
        f32x8 factor = f32x8_set1(kv_scale[1] * E4M3_SCALE / state[h].sum);
        for (uint32_t i = 0; i < d; i += 8)
            f32x8_store_part(o + h * d + i, f32x8_load_part(o + h * d + i, attention_lanes(d, i)) * factor,
                             attention_lanes(d, i));
    }
}

INLINE void attention(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, AttentionSpec s) {
    const float *q = args[0], *kv_scale = args[2];
    const int32_t *block_table = args[3], *pos = args[4], *slot = args[5];
    float *out = args[6];
    const uint32_t n_tok = ((const uint32_t *)args[7])[COUNT_TOKENS], group = s.heads / s.kv_heads;
    const uint32_t pair = group % ATTENTION_PAIR ? 1 : ATTENTION_PAIR, per_token = s.heads / pair;
    Range items = range_of_block(n_tok * per_token, block, n_blocks);
    for (uint32_t i = items.begin; i < items.end; i++) {
        uint32_t t = i / per_token, head = i % per_token * pair;
        size_t place = ((size_t)t * s.heads + head) * s.head_dim;
        attention_heads(q + place, args[1], block_table, (uint32_t)slot[t], (uint32_t)pos[t], head / group,
                        pair, kv_scale, out + place, scratch, s);
    }
}
#endif
