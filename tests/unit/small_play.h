// The small model played on the null device: what a token becomes depends on every earlier token of its
// sequence, read back through the block tables. A page mixed up, a position off by one, a stale row: all
// change it. truth() says what it must be.
#ifndef ADALLM_TESTS_SMALL_PLAY_H
#define ADALLM_TESTS_SMALL_PLAY_H
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/device/null.h"
#include "runtime/exec/exec.h"
#include "tests/unit/small_model.h"
#include "tests/unit/unit.h"

// ---- the kernels -----------------------------------------------------------------------------------------

static inline uint32_t mix(uint32_t h, uint32_t x) { return (h * 31 + x * 17 + 5) % 65521; }

static inline int32_t *cell(int32_t *pool, const int32_t *table, int32_t slot, int32_t pos, uint32_t pages) {
    int32_t page = table[(uint32_t)slot * pages + (uint32_t)pos / SMALL_PAGE % pages];
    return &pool[page * SMALL_PAGE + pos % SMALL_PAGE];
}

static inline void play_body(void *const *args) {
    const int32_t *ids = args[0], *pos = args[1], *slot = args[2], *full = args[3], *ring = args[4];
    int32_t *pool0 = args[5], *pool1 = args[6];
    float *hidden = args[7];
    uint32_t n = ((const uint32_t *)args[8])[COUNT_TOKENS];
    for (uint32_t t = 0; t < n; t++) {
        *cell(pool0, full, slot[t], pos[t], SMALL_FULL_PAGES) = ids[t];
        *cell(pool1, ring, slot[t], pos[t], SMALL_RING_PAGES) = ids[t];
    }
    for (uint32_t t = 0; t < n; t++) {
        uint32_t h = 1;
        for (int32_t q = 0; q <= pos[t]; q++)
            h = mix(h, (uint32_t)*cell(pool0, full, slot[t], q, SMALL_FULL_PAGES));
        for (int32_t q = MAX(0, pos[t] - SMALL_WINDOW + 1); q <= pos[t]; q++)
            h = mix(h, (uint32_t)*cell(pool1, ring, slot[t], q, SMALL_RING_PAGES));
        hidden[t] = (float)h;
    }
}

static inline float logit(float hidden, uint32_t v) { return (float)(mix((uint32_t)hidden, v * v) % 997); }

static inline void play_head(void *const *args) {
    const float *hidden = args[0];
    const int32_t *rows = args[1];
    float *logits = args[2];
    uint32_t n = ((const uint32_t *)args[3])[COUNT_ROWS];
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t v = 0; v < SMALL_VOCAB; v++) logits[r * SMALL_VOCAB + v] = logit(hidden[rows[r]], v);
}

// Greedy, shifted by seed and step, so that a wrong sampling row shows. One seed repeats itself.
enum { REPEATING_SEED = 4 };
static inline int32_t pick(const float *logits, uint64_t seed, uint64_t step) {
    if (seed == REPEATING_SEED) return (int32_t)(step % 5);
    uint32_t best = 0;
    for (uint32_t v = 1; v < SMALL_VOCAB; v++)
        if (logits[v] > logits[best]) best = v;
    return (int32_t)((best + seed * 3 + step) % SMALL_VOCAB);
}

// A function of how often each id was seen.
static inline int32_t pick_counted(const uint16_t *counts) {
    uint32_t h = 1;
    for (uint32_t id = 0; id < SMALL_VOCAB; id++) h = mix(h, counts[id]);
    return (int32_t)(h % SMALL_VOCAB);
}

// What a row asks for beside that, by the state of its slot: each answer shows that the state arrived.
static inline int32_t pick_by_state(const SamplingRow *row, void *const *args) {
    const uint16_t *counts = (const uint16_t *)args[5] + row->slot * TOKEN_COLS(SMALL_VOCAB);
    const TokenLists *lists = (const TokenLists *)args[6] + row->slot;
    const uint32_t *mask = (const uint32_t *)args[7] + row->slot * TOKEN_COLS(SMALL_VOCAB) / 32;
    int32_t id = 0;
    if (row->features & SAMPLE_PENALTIES) id = pick_counted(counts);
    if (row->features & SAMPLE_BIAS) id = lists->bias_id[row->n_bias - 1];
    if (row->features & SAMPLE_STOP && row->step < row->min_tokens) id = lists->stop[row->n_stop - 1] + 1;
    if (row->features & SAMPLE_MASK) // the first allowed; SMALL_VOCAB: none is
        for (id = 0; id < SMALL_VOCAB && !(mask[id / 32] >> id % 32 & 1);) id++;
    return id;
}

static inline void play_sample(void *const *args) {
    const float *logits = args[0];
    SamplingRow *sampling = args[1];
    int32_t *next = args[2];
    uint32_t *status = args[3];
    uint32_t n = ((const uint32_t *)args[4])[COUNT_ROWS];
    for (uint32_t r = 0; r < n; r++) {
        next[r] = sampling[r].features & SAMPLE_GIVEN ? (int32_t)sampling[r].seed
                  : sampling[r].features & SAMPLE_ADJUSTS
                      ? pick_by_state(&sampling[r], args)
                      : pick(logits + r * SMALL_VOCAB, sampling[r].seed, sampling[r].step);
        if (sampling[r].features & SAMPLE_LOGPROBS && next[r] < SMALL_VOCAB)
            ((LogprobRow *)args[8] + ((const uint32_t *)args[4])[COUNT_STEP] % RING_SLOTS * SMALL_ROWS)[r] =
                (LogprobRow){.id = {next[r]},
                             .logprob = {logits[r * SMALL_VOCAB + (uint32_t)next[r]]},
                             .n = 1 + sampling[r].top_logprobs};
        if (sampling[r].features & SAMPLE_PENALTIES && next[r] < SMALL_VOCAB)
            ((uint16_t *)args[5] + sampling[r].slot * TOKEN_COLS(SMALL_VOCAB))[next[r]]++;
        sampling[r].step++;
        status[r] = sampling[r].temperature < 0 ? ROW_NOT_FINITE
                    : next[r] == SMALL_VOCAB    ? ROW_NONE_ALLOWED
                                                : ROW_OK;
    }
}

static inline void small_play(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    (void)ctx, (void)n_args;
    if (!strcmp(kernel, "body")) play_body(args);
    if (!strcmp(kernel, "head")) play_head(args);
    if (!strcmp(kernel, "sample")) play_sample(args);
    if (strcmp(kernel, "advance") != 0) return;
    int32_t *ids = args[1], *pos = args[2];
    uint32_t *counts = args[3];
    RingSlot *slot =
        (RingSlot *)((uint8_t *)args[5] + counts[COUNT_STEP] % RING_SLOTS * RING_SLOT_BYTES(SMALL_ROWS));
    int32_t *told = (int32_t *)(slot + 1);
    for (uint32_t r = 0; r < counts[COUNT_ROWS]; r++) {
        ids[r] = told[r] = ((const int32_t *)args[0])[r], pos[r]++;
        told[SMALL_ROWS + r] = ((const int32_t *)args[4])[r];
    }
    __atomic_store_n(&slot->done, ++counts[COUNT_STEP], __ATOMIC_RELEASE);
}

static inline float hidden_after(const int32_t *ids, uint32_t n) {
    uint32_t h = 1;
    for (uint32_t q = 0; q < n; q++) h = mix(h, (uint32_t)ids[q]);
    for (uint32_t q = n > SMALL_WINDOW ? n - SMALL_WINDOW : 0; q < n; q++) h = mix(h, (uint32_t)ids[q]);
    return (float)h;
}

static inline int32_t truth(const int32_t *ids, uint32_t n, uint64_t seed, uint64_t step) {
    float logits[SMALL_VOCAB];
    for (uint32_t v = 0; v < SMALL_VOCAB; v++) logits[v] = logit(hidden_after(ids, n), v);
    return pick(logits, seed, step);
}

// The same with penalties.
static inline int32_t truth_counted(const int32_t *ids, uint32_t n_prompt, uint32_t n) {
    uint16_t counts[SMALL_VOCAB] = {0};
    for (uint32_t i = 0; i < n; i++) {
        if (i < n_prompt)
            counts[ids[i]] = COUNT_PROMPT;
        else
            counts[ids[i]]++;
    }
    return pick_counted(counts);
}

// ---- the bench -------------------------------------------------------------------------------------------

typedef struct {
    Arena arena;
    Artifact artifact;
    Exec *x;
} Bench;

static inline void bench_open(Bench *b, uint32_t n_ranks, ExecOptions options) {
    char path[] = "/tmp/adallm-test-XXXXXX";
    close(mkstemp(path));
    *b = (Bench){0};
    Pool *pool = pool_new(1);
    SmallModel *m = ARENA_NEW(&b->arena, SmallModel);
    Diags d = {.arena = &b->arena};
    PackReport report;
    Err e;
    small_model(m, &b->arena, n_ranks, pool);
    assert_true(pack_artifact(&m->input, path, &report, &d));
    if (!artifact_open(&b->artifact, path, ARTIFACT_ALL, pool, &e)) fail_msg("%s", e.msg);
    options.driver = "null";
    b->x = exec_open(&b->artifact, &options, &e);
    if (!b->x) fail_msg("%s", e.msg);
    for (uint32_t r = 0; r < n_ranks; r++) null_on_launch(exec_device(b->x, r), small_play, NULL);
    unlink(path);
    pool_free(pool);
}

static inline void bench_close(Bench *b) {
    exec_close(b->x);
    artifact_close(&b->artifact);
    arena_free(&b->arena);
}

#endif
