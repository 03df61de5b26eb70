// sample: next[r] from logits[r] over the ids below vocab. Temperature 0: the largest, lowest id on a tie.
// Else softmax(logits / temperature), cut to the top_k largest, then to the smallest set of at least top_p of
// what is left, then to min_p of the largest, and one draw whose random number is a function of (seed, step)
// alone. Logits are adjusted first, in a copy, when the row says so (lib/abi.h); logprobs are of the logits
// as they came.
#ifndef ADALLM_HOST_SAMPLE_H
#define ADALLM_HOST_SAMPLE_H
#include "templates/host/math.h"

typedef struct {
    uint32_t vocab_rows, vocab, rows_max;
} SampleSpec;

// What may still be drawn: ids ascending, each with its weight e^((logit - max) / temperature).
enum { SAMPLE_BINS = 2048, SAMPLE_CHUNK = 64 };
typedef struct {
    double mass[SAMPLE_BINS];
    uint32_t n;
    float *e;        // [vocab]; all 1 while only ranks matter
    uint32_t *id;    // [vocab]
    float *adjusted; // [vocab]
} SampleSet;

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

// Bin of the histogram, from the top, in which the running sum reaches `target`; *above: the sum before it.
INLINE uint32_t sample_bin(const double *mass, uint32_t bins, double target, double *above) {
    uint32_t lowest = 0;
    for (uint32_t bin = bins; bin-- > 0;) {
        if (mass[bin] == 0) continue;
        lowest = bin;
        if (*above + mass[bin] >= target) return bin;
        *above += mass[bin];
    }
    *above -= mass[lowest]; // rounding: all are needed
    return lowest;
}

// Keeps the largest ids whose weights reach `target` together, lowest ids first among equal logits. Radix
// select over 11 + 11 + 10 bits of the key; what lies below the first bin is dropped before the finer ones
// are looked at.
SHARED void sample_cut(const float *logits, double target, SampleSet *s) {
    uint32_t prefix = 0, mask = 0, shift = 21, bits = 11, kept = 0;
    double above = 0;
    for (;;) {
        memset(s->mass, 0, sizeof s->mass);
        for (uint32_t i = 0; i < s->n; i++) {
            uint32_t key = sample_key(logits[s->id[i]]);
            if ((key & mask) == prefix) s->mass[key >> shift & ((1u << bits) - 1)] += (double)s->e[i];
        }
        prefix |= sample_bin(s->mass, 1u << bits, target, &above) << shift;
        mask |= ((1u << bits) - 1) << shift;
        if (shift == 0) break;
        kept = 0;
        for (uint32_t i = 0; i < s->n; i++) {
            s->id[kept] = s->id[i], s->e[kept] = s->e[i];
            kept += (sample_key(logits[s->id[kept]]) & mask) >= prefix;
        }
        s->n = kept;
        bits = shift == 21 ? 11 : 10, shift = shift == 21 ? 10 : 0;
    }
    kept = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t key = sample_key(logits[s->id[i]]);
        if (key < prefix || (key == prefix && above >= target)) continue;
        if (key == prefix) above += (double)s->e[i];
        s->id[kept] = s->id[i], s->e[kept++] = s->e[i];
    }
    s->n = kept;
}

INLINE double sample_total(const SampleSet *s) {
    double total = 0;
    for (uint32_t i = 0; i < s->n; i++) total += (double)s->e[i];
    return total;
}

// The candidates for the k largest among what may be drawn, which is above -infinity: the k-th largest of the
// maxima of chunks is at most the k-th largest logit, so that what is smaller, nearly all, need not be
// ranked.
INLINE void sample_candidates(const float *logits, uint32_t n, uint32_t k, SampleSet *s) {
    const uint32_t n_chunks = k ? n / SAMPLE_CHUNK : 0;
    float *max = s->e + n_chunks, least = -__builtin_inff();
    if (n_chunks > k) {
        for (uint32_t c = 0; c < n_chunks; c++) {
            f32x8 best = f32x8_load(logits + c * SAMPLE_CHUNK);
            for (uint32_t i = 8; i < SAMPLE_CHUNK; i += 8) {
                f32x8 x = f32x8_load(logits + c * SAMPLE_CHUNK + i);
                best = f32x8_select(x > best, x, best);
            }
            max[c] = best[0], s->id[c] = c, s->e[c] = 1;
            for (uint32_t i = 1; i < 8; i++) max[c] = best[i] > max[c] ? best[i] : max[c];
        }
        s->n = n_chunks;
        sample_cut(max, k, s);
        least = max[s->id[0]];
        for (uint32_t i = 1; i < s->n; i++) least = max[s->id[i]] < least ? max[s->id[i]] : least;
    }
    s->n = 0;
    for (uint32_t i = 0; i < n;) {
        if (i % SAMPLE_CHUNK == 0 && i / SAMPLE_CHUNK < n_chunks && n_chunks > k &&
            max[i / SAMPLE_CHUNK] < least) {
            i += SAMPLE_CHUNK;
            continue;
        }
        s->id[s->n] = i;
        s->n += logits[i] >= least && logits[i] > -__builtin_inff();
        i++;
    }
}

SHARED uint32_t sample_draw(const float *logits, uint32_t n, float max, const SamplingRow *row,
                            SampleSet *s) {
    sample_candidates(logits, n, row->top_k, s);
    for (uint32_t i = 0; i < s->n; i++) s->e[i] = 1;
    if (row->top_k && row->top_k < s->n) sample_cut(logits, row->top_k, s);
    for (uint32_t i = 0; i < s->n; i++) s->e[i] = logits[s->id[i]];
    for (uint32_t i = 0; i < s->n; i += 8) {
        f32x8 x = (f32x8_load_part(s->e + i, s->n - i) - f32x8_set1(max)) / f32x8_set1(row->temperature);
        f32x8_store_part(s->e + i, f32x8_exp(x), s->n - i);
    }
    if (row->top_p < 1) sample_cut(logits, (double)row->top_p * sample_total(s), s);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n && row->min_p > 0; i++) {
        s->id[kept] = s->id[i], s->e[kept] = s->e[i];
        kept += s->e[i] >= row->min_p;
    }
    if (row->min_p > 0) s->n = kept;
    const double target = sample_uniform(row->seed, row->step) * sample_total(s);
    double sum = 0;
    uint32_t i = 0;
    while (i + 1 < s->n && (sum += (double)s->e[i]) <= target) i++;
    return s->id[i];
}

typedef struct {
    uint16_t *counts; // [TOKEN_COLS]
    const TokenLists *lists;
    const uint32_t *mask; // [TOKEN_COLS / 32]
    LogprobRow *logprobs;
} SampleState;

INLINE float sample_penalised(const SamplingRow *row, float x, uint16_t count) {
    uint32_t drawn = count & COUNT_MOST;
    if (count) x = x > 0 ? x / row->repetition : x * row->repetition;
    return drawn ? x - (float)drawn * row->frequency - row->presence : x;
}

INLINE float sample_finite(float x) {
    const float most = 0x1.FFFFFEp127f;
    return x > most ? most : x < -most ? -most : x;
}

// The logits that are drawn from.
SHARED void sample_adjust(const float *logits, uint32_t n, const SamplingRow *row, const SampleState *state,
                          float *out) {
    const float none = -__builtin_inff();
    const uint32_t bits = row->features;
    memcpy(out, logits, n * sizeof *out);
    for (uint32_t j = 0; bits & SAMPLE_BIAS && j < row->n_bias; j++) {
        uint32_t id = (uint32_t)state->lists->bias_id[j];
        if (id < n) out[id] += state->lists->bias[j];
    }
    for (uint32_t i = 0; bits & SAMPLE_PENALTIES && i < n; i++)
        out[i] = sample_penalised(row, out[i], state->counts[i]);
    for (uint32_t i = 0; i < n; i++) out[i] = sample_finite(out[i]);
    for (uint32_t i = 0; bits & SAMPLE_MASK && i < n; i++)
        out[i] = state->mask[i / 32] >> i % 32 & 1 ? out[i] : none;
    for (uint32_t j = 0; bits & SAMPLE_STOP && row->step < row->min_tokens && j < row->n_stop; j++) {
        uint32_t id = (uint32_t)state->lists->stop[j];
        if (id < n) out[id] = none;
    }
}

// Insertion into the largest so far: most logits are smaller than all of them.
SHARED void sample_logprobs(const float *logits, uint32_t n, float max, uint32_t top, uint32_t drawn,
                            LogprobRow *out) {
    double sum = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)f32_exp(logits[i] - max);
        if (kept == top && (!top || logits[i] <= out->logprob[kept])) continue;
        uint32_t at = kept < top ? ++kept : kept;
        for (; at > 1 && logits[i] > out->logprob[at - 1]; at--)
            out->logprob[at] = out->logprob[at - 1], out->id[at] = out->id[at - 1];
        out->logprob[at] = logits[i], out->id[at] = (int32_t)i;
    }
    // ln sum, 1 <= sum <= n: Newton on e^y = sum from its power of two.
    double y = 0;
    for (double left = sum; left > 1; left /= 2) y += 0.6931471805599453;
    for (int i = 0; i < 6; i++) y += sum * (double)f32_exp((float)-y) - 1;
    out->id[0] = (int32_t)drawn, out->logprob[0] = logits[drawn];
    out->n = 1 + kept, out->reserved = 0;
    for (uint32_t i = 0; i <= kept; i++) out->logprob[i] = (float)((double)out->logprob[i] - (double)max - y);
}

// Status of the row; *next is the id.
INLINE uint32_t sample_row(const float *logits, uint32_t n, SamplingRow *row, const SampleState *state,
                           SampleSet *set, int32_t *next) {
    float raw_max, max;
    *next = 0;
    if (!sample_max(logits, n, &raw_max)) return ROW_NOT_FINITE;
    const float *from = logits;
    max = raw_max;
    if (row->features & SAMPLE_ADJUSTS) {
        sample_adjust(logits, n, row, state, set->adjusted);
        from = set->adjusted;
        (void)sample_max(from, n, &max);
        if (max == -__builtin_inff()) return ROW_NONE_ALLOWED;
    }
    uint32_t id = row->temperature > 0 ? sample_draw(from, n, max, row, set) : sample_first_equal(from, max);
    if (row->features & SAMPLE_GIVEN) id = (uint32_t)row->seed;
    *next = (int32_t)id;
    if (row->features & SAMPLE_LOGPROBS)
        sample_logprobs(logits, n, raw_max, u32_min(u32_min(row->top_logprobs, LOGPROBS_MAX), n), id,
                        state->logprobs);
    if (row->features & SAMPLE_PENALTIES && (state->counts[id] & COUNT_MOST) < COUNT_MOST)
        state->counts[id]++;
    return ROW_OK;
}

INLINE void sample(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, SampleSpec s) {
    SamplingRow *sampling = args[1];
    int32_t *next = args[2];
    uint32_t *status = args[3];
    const uint32_t *counts = args[4];
    const size_t cols = TOKEN_COLS(s.vocab), ring = (size_t)(counts[COUNT_STEP] % RING_SLOTS) * s.rows_max;
    Range rows = range_of_block(counts[COUNT_ROWS], block, n_blocks);
    SampleSet *set = scratch;
    set->e = (float *)(set + 1), set->id = (uint32_t *)(set->e + s.vocab);
    set->adjusted = (float *)(set->id + s.vocab);
    for (uint32_t r = rows.begin; r < rows.end; r++) {
        SamplingRow *row = &sampling[r];
        const SampleState state = {
            row->features & SAMPLE_PENALTIES ? (uint16_t *)args[6] + row->slot * cols : NULL,
            (const TokenLists *)args[7] + row->slot,
            row->features & SAMPLE_MASK ? (const uint32_t *)args[8] + row->slot * cols / 32 : NULL,
            (LogprobRow *)args[9] + ring + r};
        status[r] = sample_row((const float *)args[0] + (size_t)r * s.vocab_rows, s.vocab, row, &state, set,
                               &next[r]);
        row->step++;
    }
}
#endif
