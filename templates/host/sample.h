// sample: next[r] from logits[r] over the ids below vocab. Temperature 0: the largest, lowest id on a tie.
// Else softmax(logits / temperature), cut to the top_k largest, then to the smallest set of at least top_p of
// what is left, then to min_p of the largest, and one draw whose random number is a function of (seed, step)
// alone.
#ifndef ADALLM_HOST_SAMPLE_H
#define ADALLM_HOST_SAMPLE_H
#include "templates/host/math.h"

typedef struct {
    uint32_t vocab_rows, vocab;
} SampleSpec;

enum { SAMPLE_BINS = 2048 };
typedef struct {
    double mass[SAMPLE_BINS];
    float e[]; // [vocab_rows]: e^((logit - max) / temperature); 0: cut
} SampleScratch;

// SplitMix64's finaliser over both words: 53 random bits in [0, 1).
INLINE uint64_t sample_mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
INLINE double sample_uniform(uint64_t seed, uint64_t step) {
    uint64_t z = sample_mix(sample_mix(seed + 0x9E3779B97F4A7C15u) + step * 0x9E3779B97F4A7C15u);
    return (double)(z >> 11) * 0x1p-53;
}

// Integers in the order of the floats; -0 counts as 0.
INLINE uint32_t sample_key(float x) {
    uint32_t u;
    x += 0.0f;
    memcpy(&u, &x, 4);
    return u ^ (u >> 31 ? 0xFFFFFFFFu : 0x80000000u);
}

// False when a logit is not finite.
INLINE int sample_max(const float *logits, uint32_t n, float *max) {
    f32x8 best = f32x8_set1(logits[0]);
    i32x8 bad = {0};
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        f32x8 x = f32x8_load(logits + i);
        best = f32x8_select(x > best, x, best);
        bad |= x - x != 0;
    }
    float m = logits[0];
    int any = 0;
    for (; i < n; i++) m = logits[i] > m ? logits[i] : m, any |= logits[i] - logits[i] != 0;
    for (i = 0; i < 8; i++) m = best[i] > m ? best[i] : m, any |= bad[i];
    *max = m;
    return !any;
}

INLINE uint32_t sample_first_equal(const float *logits, float max) {
    uint32_t i = 0;
    while (logits[i] != max) i++;
    return i;
}

// Keeps the largest ids whose weights (their e, or 1 each) reach `target` together, lowest ids first among
// equal logits; sets e of the others to 0. Radix select over 11 + 11 + 10 bits of the key.
SHARED void sample_cut(const float *logits, uint32_t n, int by_count, double target, SampleScratch *s) {
    uint32_t prefix = 0, mask = 0;
    double above = 0;
    for (uint32_t shift = 21, bits = 11;; shift = shift == 21 ? 10 : 0, bits = shift ? 11 : 10) {
        const uint32_t bins = 1u << bits;
        memset(s->mass, 0, sizeof s->mass);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t key = sample_key(logits[i]);
            if ((key & mask) == prefix && s->e[i] != 0)
                s->mass[key >> shift & (bins - 1)] += by_count ? 1 : (double)s->e[i];
        }
        uint32_t bin = bins, lowest = 0;
        while (bin-- > 0) {
            if (s->mass[bin] == 0) continue;
            lowest = bin;
            if (above + s->mass[bin] >= target) break;
            above += s->mass[bin];
        }
        if (bin == UINT32_MAX) bin = lowest, above -= s->mass[lowest]; // rounding: all are needed
        prefix |= bin << shift, mask |= (bins - 1) << shift;
        if (shift == 0) break;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = sample_key(logits[i]);
        if (key < prefix || (key == prefix && above >= target))
            s->e[i] = 0;
        else if (key == prefix)
            above += by_count ? 1 : (double)s->e[i];
    }
}

INLINE double sample_total(const float *e, uint32_t n) {
    double total = 0;
    for (uint32_t i = 0; i < n; i++) total += e[i];
    return total;
}

INLINE uint32_t sample_draw(const float *logits, uint32_t n, float max, const SamplingRow *row,
                            SampleScratch *s) {
    for (uint32_t i = 0; i < n; i += 8) {
        f32x8 x = (f32x8_load_part(logits + i, n - i) - f32x8_set1(max)) / f32x8_set1(row->temperature);
        f32x8_store_part(s->e + i, f32x8_exp(x), n - i);
    }
    if (row->top_k && row->top_k < n) sample_cut(logits, n, 1, row->top_k, s);
    if (row->top_p < 1) sample_cut(logits, n, 0, (double)row->top_p * sample_total(s->e, n), s);
    if (row->min_p > 0)
        for (uint32_t i = 0; i < n; i++)
            if (s->e[i] < row->min_p) s->e[i] = 0;
    const double target = sample_uniform(row->seed, row->step) * sample_total(s->e, n);
    double sum = 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s->e[i] == 0) continue;
        last = i, sum += s->e[i];
        if (sum > target) break;
    }
    return last;
}

INLINE void sample(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, SampleSpec s) {
    SamplingRow *sampling = args[1];
    int32_t *next = args[2];
    uint32_t *status = args[3];
    Range rows = range_of_block(((const uint32_t *)args[4])[COUNT_ROWS], block, n_blocks);
    for (uint32_t r = rows.begin; r < rows.end; r++) {
        const float *logits = (const float *)args[0] + (size_t)r * s.vocab_rows;
        float max;
        int finite = sample_max(logits, s.vocab, &max);
        status[r] = finite ? ROW_OK : ROW_NOT_FINITE;
        if (!finite)
            next[r] = 0;
        else if (sampling[r].temperature > 0)
            next[r] = (int32_t)sample_draw(logits, s.vocab, max, &sampling[r], scratch);
        else
            next[r] = (int32_t)sample_first_equal(logits, max);
        sampling[r].step++;
    }
}
#endif
