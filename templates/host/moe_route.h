// moe_route: the k experts with the largest logits (ties to the lowest index), largest first, and their share
// of the softmax over all experts, divided by the sum of the chosen when `norm`.
#ifndef ADALLM_HOST_MOE_ROUTE_H
#define ADALLM_HOST_MOE_ROUTE_H
#include "templates/host/math.h"

typedef struct {
    uint32_t experts, k, norm;
} MoeRouteSpec;

INLINE int moe_route_taken(const int32_t *ids, uint32_t n, uint32_t e) {
    for (uint32_t i = 0; i < n; i++)
        if ((uint32_t)ids[i] == e) return 1;
    return 0;
}

INLINE void moe_route(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, MoeRouteSpec s) {
    Range tokens = range_of_block(((const uint32_t *)args[3])[COUNT_TOKENS], block, n_blocks);
    (void)scratch;
    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        const float *logits = (const float *)args[0] + (size_t)t * s.experts;
        int32_t *ids = (int32_t *)args[1] + (size_t)t * s.k;
        float *weights = (float *)args[2] + (size_t)t * s.k, all = 0, chosen = 0;
        for (uint32_t j = 0; j < s.k; j++) {
            int32_t best = -1; // an id in any case, also among NaN
            for (uint32_t e = 0; e < s.experts; e++)
                if (!moe_route_taken(ids, j, e) && (best < 0 || logits[e] > logits[best])) best = (int32_t)e;
            ids[j] = best;
        }
        const float max = logits[ids[0]];
        for (uint32_t e = 0; e < s.experts; e++) all += f32_exp(logits[e] - max);
        for (uint32_t j = 0; j < s.k; j++) chosen += weights[j] = f32_exp(logits[ids[j]] - max) / all;
        for (uint32_t j = 0; j < s.k && s.norm; j++) weights[j] /= chosen;
    }
}
#endif
