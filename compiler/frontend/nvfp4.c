#include "compiler/frontend/nvfp4.h"

#include <math.h>

#include "runtime/base/fp.h"
#include "runtime/base/num.h"

enum { B = NVFP4_BLOCK, SCALE_LAST = 0x7E };

// Loops over the 16 values of a block have a constant trip count and no order between iterations, so that
// the compiler turns each into a few vector instructions.

float nvfp4_global(float amax) {
    float g = amax / 2688.0f;
    return g > 0 ? g : 1.0f;
}

static float block_amax(const float *x) {
    uint32_t m[B];
    for (int i = 0; i < B; i++) m[i] = f32_bits(x[i]) & 0x7FFFFFFF; // magnitudes compare as integers
    for (int w = B / 2; w; w /= 2)
        for (int i = 0; i < w; i++) m[i] = MAX(m[i], m[i + w]);
    return f32_from_bits(m[0]);
}

// Nearest E2M1 magnitude, ties to the even code: the comparisons alternate between > and >=.
static void encode_block(const float *x, float d, uint8_t *codes) {
    uint32_t c[B];
    for (int i = 0; i < B; i++) {
        float y = x[i] / d, a = fabsf(y);
        c[i] = (uint32_t)(a > 0.25f) + (uint32_t)(a >= 0.75f) + (uint32_t)(a > 1.25f) +
               (uint32_t)(a >= 1.75f) + (uint32_t)(a > 2.5f) + (uint32_t)(a >= 3.5f) + (uint32_t)(a > 5.0f) +
               ((uint32_t)(y < 0) << 3);
    }
    for (int i = 0; i < B / 2; i++) codes[i] = (uint8_t)(c[2 * i] | c[2 * i + 1] << 4);
}

static uint8_t max_scale(float amax, float global) {
    float s = amax / (6.0f * global);
    if (s == 0) s = 1.0f;
    return f32_to_e4m3(fminf(fmaxf(s, 0x1p-9f), 448.0f));
}

void nvfp4_quantize_max(const float *x, size_t n_blocks, float global, uint8_t *codes, uint8_t *scales) {
    for (size_t b = 0; b < n_blocks; b++, x += B, codes += B / 2) {
        scales[b] = max_scale(block_amax(x), global);
        encode_block(x, e4m3_to_f32(scales[b]) * global, codes);
    }
}

typedef struct {
    double error;   // of the block
    double flushed; // the part of it that comes from values rounded to zero
} BlockError;

static inline float pick(bool take, float v) { return take ? v : 0.0f; }

// Adding and subtracting 1.5 * 2^23 * step rounds to a multiple of step, ties to the even multiple; the steps
// of E2M1 are 0.5 below 2, 1 below 4, then 2. That equals encode_block's comparisons in half the work.
static BlockError block_error(const float *x, float d) {
    const float magic = 0x1.8p23f;
    float e[B], z[B];
    for (int i = 0; i < B; i++) {
        float a = fabsf(x[i]) / d, top = a < 6.0f ? a : 6.0f;
        float m = 0.5f * magic + pick(a >= 2.0f, 0.5f * magic) + pick(a >= 4.0f, magic);
        float q = (top + m) - m;
        e[i] = (a - q) * (a - q);
        z[i] = pick(q == 0.0f, e[i]);
    }
    for (int w = B / 2; w; w /= 2)
        for (int i = 0; i < w; i++) e[i] += e[i + w], z[i] += z[i + w];
    double unit = (double)d * d;
    return (BlockError){unit * e[0], unit * z[0]};
}

double nvfp4_block_error(const float *x, float global, uint8_t scale) {
    return block_error(x, e4m3_to_f32(scale) * global).error;
}

// Two bounds keep the sweep short. With E the error of the scale that maps the largest value m to 6:
// - a scale d saturates m at 6d, so its error is at least (m - 6d)^2: no d below (m - sqrt E)/6 can win;
// - values up to d/4 round to zero, so the error is at least the sum of their squares, and that sum only
//   grows with d: once it exceeds the least error known, no larger d can win.
// SLACK is far above the rounding errors of the sums, so a scale that ties is never cut off.
static uint8_t mse_scale(const float *x, float global) {
    const double slack = 1.0001;
    float amax = block_amax(x);
    uint8_t start = max_scale(amax, global);
    double bound = block_error(x, e4m3_to_f32(start) * global).error, least = INFINITY;
    double low = ((double)amax - sqrt(bound) * slack) / (6 * slack) / (double)global;
    int first = low > 0 ? f32_to_e4m3((float)low) - 1 : 1;
    uint8_t best = start;
    for (int s = MAX(first, 1); s <= SCALE_LAST; s++) {
        BlockError e = block_error(x, e4m3_to_f32((uint8_t)s) * global);
        if (e.error < least) least = e.error, best = (uint8_t)s;
        if (e.flushed > slack * fmin(bound, least)) break;
    }
    return best;
}

void nvfp4_quantize_mse(const float *x, size_t n_blocks, float global, uint8_t *codes, uint8_t *scales) {
    for (size_t b = 0; b < n_blocks; b++, x += B, codes += B / 2) {
        scales[b] = mse_scale(x, global);
        encode_block(x, e4m3_to_f32(scales[b]) * global, codes);
    }
}

void nvfp4_dequantize(const uint8_t *codes, const uint8_t *scales, size_t n_blocks, float global,
                      float *out) {
    for (size_t b = 0; b < n_blocks; b++, codes += B / 2, out += B) {
        float s = e4m3_to_f32(scales[b]), lut[16];
        for (int i = 0; i < 16; i++) lut[i] = e2m1_value[i] * s * global; // the first product is exact
        for (int i = 0; i < B / 2; i++) {
            out[2 * i] = lut[codes[i] & 15];
            out[2 * i + 1] = lut[codes[i] >> 4];
        }
    }
}

double nvfp4_squared_error(const float *x, const uint8_t *codes, const uint8_t *scales, size_t n_blocks,
                           float global) {
    double sum = 0;
    for (size_t b = 0; b < n_blocks; b++) {
        float y[B];
        nvfp4_dequantize(codes + b * (B / 2), scales + b, 1, global, y);
        for (int i = 0; i < B; i++) {
            double e = (double)x[b * B + (size_t)i] - (double)y[i];
            sum += e * e;
        }
    }
    return sum;
}
