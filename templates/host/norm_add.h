// norm_add: residual += has_post ? norm(branch) * post_w : branch, when has_branch; then out = norm(residual)
// * w, when has_out. norm(x) = x / sqrt(mean(x^2) + eps).
#ifndef ADALLM_HOST_NORM_ADD_H
#define ADALLM_HOST_NORM_ADD_H
#include "templates/host/math.h"

typedef struct {
    uint32_t hidden;
    float eps;
    uint32_t has_branch, has_post, has_out, count, out_pitch, wide, e4m3, next_bytes; // the last four: GPUs
} NormAddSpec;

INLINE void norm_add(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, NormAddSpec s) {
    Range tokens = range_of_block(((const uint32_t *)args[5])[s.count], block, n_blocks);
    (void)scratch;
    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        const size_t first = (size_t)t * s.hidden;
        float *residual = (float *)args[0] + first;
        if (s.has_branch) {
            const float *branch = (const float *)args[1] + first, *post_w = args[2];
            f32x8 factor = f32x8_set1(s.has_post ? rms_factor(branch, s.hidden, s.eps) : 1);
            for (uint32_t i = 0; i < s.hidden; i += 8) {
                uint32_t lanes = s.hidden - i;
                f32x8 b = f32x8_load_part(branch + i, lanes);
                if (s.has_post) b = b * factor * f32x8_load_part(post_w + i, lanes);
                f32x8_store_part(residual + i, f32x8_load_part(residual + i, lanes) + b, lanes);
            }
        }
        if (s.has_out) {
            const float *w = args[3];
            float *out = (float *)args[4] + first;
            f32x8 factor = f32x8_set1(rms_factor(residual, s.hidden, s.eps));
            for (uint32_t i = 0; i < s.hidden; i += 8) {
                uint32_t lanes = s.hidden - i;
                f32x8 y = f32x8_load_part(residual + i, lanes) * factor * f32x8_load_part(w + i, lanes);
                f32x8_store_part(out + i, y, lanes);
            }
        }
    }
}
#endif
