// What the sampler should do, in doubles and with a full sort.
#ifndef ADALLM_TESTS_SAMPLE_REFERENCE_H
#define ADALLM_TESTS_SAMPLE_REFERENCE_H
#include <math.h>
#include <stdlib.h>

#include "tests/kernels/harness.h"

typedef struct {
    float logit;
    uint32_t id;
} Ranked;

static inline int by_rank(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

// p[id] after temperature, top_k, top_p, min_p; 0: cut. Ids within 1e-6 of a boundary are `unsure`.
static inline void reference(const float *logits, uint32_t n, const SamplingRow *row, double *p,
                             bool *unsure) {
    Ranked *rank = xmalloc(n * sizeof *rank);
    for (uint32_t i = 0; i < n; i++) rank[i] = (Ranked){logits[i], i}, p[i] = 0, unsure[i] = false;
    qsort(rank, n, sizeof *rank, by_rank);
    uint32_t kept = row->top_k ? MIN(row->top_k, n) : n;
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < kept; i++)
        total += p[rank[i].id] =
            exp(((double)logits[rank[i].id] - (double)rank[0].logit) / (double)row->temperature);
    for (uint32_t i = 0; i < kept; i++) {
        double before = sum / total, e = p[rank[i].id];
        sum += e;
        unsure[rank[i].id] = fabs(before - (double)row->top_p) < 1e-6 || fabs(e - (double)row->min_p) < 1e-6;
        if ((row->top_p < 1 && before >= (double)row->top_p) || e < (double)row->min_p) p[rank[i].id] = 0;
    }
    free(rank);
    total = 0;
    for (uint32_t i = 0; i < n; i++) total += p[i];
    for (uint32_t i = 0; i < n; i++) p[i] /= total;
}

// The random number of a draw: SplitMix64's finaliser over both words, 53 bits.
static inline double reference_uniform(uint64_t seed, uint64_t step) {
    uint64_t z = seed + 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 2; i++) {
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u, z = (z ^ z >> 27) * 0x94D049BB133111EBu, z ^= z >> 31;
        if (i == 0) z += step * 0x9E3779B97F4A7C15u;
    }
    return (double)(z >> 11) * 0x1p-53;
}

// The logits that are drawn from, in the order that templates/lib/abi.h gives.
static inline void reference_adjust(float *x, uint32_t n, const SamplingRow *row, const uint16_t *counts,
                                    const TokenLists *lists, const uint32_t *mask) {
    for (uint32_t j = 0; row->features & SAMPLE_BIAS && j < row->n_bias; j++)
        x[lists->bias_id[j]] += lists->bias[j];
    for (uint32_t i = 0; row->features & SAMPLE_PENALTIES && i < n; i++) {
        uint32_t drawn = counts[i] & COUNT_MOST;
        if (counts[i]) x[i] = x[i] > 0 ? x[i] / row->repetition : x[i] * row->repetition;
        if (drawn) x[i] = x[i] - (float)drawn * row->frequency - row->presence;
    }
    for (uint32_t i = 0; row->features & SAMPLE_MASK && i < n; i++)
        if (!(mask[i / 32] >> i % 32 & 1)) x[i] = -INFINITY;
    for (uint32_t j = 0; row->features & SAMPLE_STOP && row->step < row->min_tokens && j < row->n_stop; j++)
        x[lists->stop[j]] = -INFINITY;
}
#endif
