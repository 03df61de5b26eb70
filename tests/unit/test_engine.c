// Batch and score on the null device, with kernels played by the test: what a token becomes depends on every
// earlier token of its sequence, read back through the block tables. A page mixed up, a position off by one,
// a stale row: all change it.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/device/null.h"
#include "runtime/engine/batch.h"
#include "runtime/engine/score.h"
#include "tests/unit/small_model.h"
#include "tests/unit/unit.h"

// ---- the kernels -----------------------------------------------------------------------------------------

static uint32_t mix(uint32_t h, uint32_t x) { return (h * 31 + x * 17 + 5) % 65521; }

static int32_t *cell(int32_t *pool, const int32_t *table, int32_t slot, int32_t pos, uint32_t pages) {
    int32_t page = table[(uint32_t)slot * pages + (uint32_t)pos / SMALL_PAGE % pages];
    return &pool[page * SMALL_PAGE + pos % SMALL_PAGE];
}

static void body(void *const *args) {
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

static float logit(float hidden, uint32_t v) { return (float)(mix((uint32_t)hidden, v * v) % 997); }

static void head(void *const *args) {
    const float *hidden = args[0];
    const int32_t *rows = args[1];
    float *logits = args[2];
    uint32_t n = ((const uint32_t *)args[3])[COUNT_ROWS];
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t v = 0; v < SMALL_VOCAB; v++) logits[r * SMALL_VOCAB + v] = logit(hidden[rows[r]], v);
}

// Greedy, shifted by seed and step, so that a wrong sampling row shows.
static int32_t pick(const float *logits, uint64_t seed, uint64_t step) {
    uint32_t best = 0;
    for (uint32_t v = 1; v < SMALL_VOCAB; v++)
        if (logits[v] > logits[best]) best = v;
    return (int32_t)((best + seed * 3 + step) % SMALL_VOCAB);
}

// What a row asks for beside that, by the state of its slot: each answer shows that the state arrived.
static int32_t pick_by_state(const SamplingRow *row, void *const *args) {
    const uint16_t *counts = (const uint16_t *)args[5] + row->slot * TOKEN_COLS(SMALL_VOCAB);
    const TokenLists *lists = (const TokenLists *)args[6] + row->slot;
    const uint32_t *mask = (const uint32_t *)args[7] + row->slot * TOKEN_COLS(SMALL_VOCAB) / 32;
    int32_t id = 0;
    if (row->features & SAMPLE_PENALTIES) // the first token of the prompt, in order of ids
        while (counts[id] != COUNT_PROMPT) id++;
    if (row->features & SAMPLE_BIAS) id = lists->bias_id[row->n_bias - 1];
    if (row->features & SAMPLE_STOP && row->step < row->min_tokens) id = lists->stop[row->n_stop - 1] + 1;
    if (row->features & SAMPLE_MASK)
        for (id = 0; !(mask[id / 32] >> id % 32 & 1);) id++;
    return id;
}

static void sample(void *const *args) {
    const float *logits = args[0];
    SamplingRow *sampling = args[1];
    int32_t *next = args[2];
    uint32_t *status = args[3];
    uint32_t n = ((const uint32_t *)args[4])[COUNT_ROWS];
    for (uint32_t r = 0; r < n; r++) {
        next[r] = sampling[r].features & SAMPLE_ADJUSTS
                      ? pick_by_state(&sampling[r], args)
                      : pick(logits + r * SMALL_VOCAB, sampling[r].seed, sampling[r].step);
        if (sampling[r].features & SAMPLE_LOGPROBS)
            ((LogprobRow *)args[8] + ((const uint32_t *)args[4])[COUNT_STEP] % RING_SLOTS * SMALL_ROWS)[r] =
                (LogprobRow){.id = {next[r]}, .n = 1 + sampling[r].top_logprobs};
        sampling[r].step++;
        status[r] = sampling[r].temperature < 0 ? ROW_NOT_FINITE : ROW_OK;
    }
}

static void play(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    (void)ctx, (void)n_args;
    if (!strcmp(kernel, "body")) body(args);
    if (!strcmp(kernel, "head")) head(args);
    if (!strcmp(kernel, "sample")) sample(args);
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
    slot->done = ++counts[COUNT_STEP];
}

static float hidden_after(const int32_t *ids, uint32_t n) {
    uint32_t h = 1;
    for (uint32_t q = 0; q < n; q++) h = mix(h, (uint32_t)ids[q]);
    for (uint32_t q = n > SMALL_WINDOW ? n - SMALL_WINDOW : 0; q < n; q++) h = mix(h, (uint32_t)ids[q]);
    return (float)h;
}

static int32_t truth(const int32_t *ids, uint32_t n, uint64_t seed, uint64_t step) {
    float logits[SMALL_VOCAB];
    for (uint32_t v = 0; v < SMALL_VOCAB; v++) logits[v] = logit(hidden_after(ids, n), v);
    return pick(logits, seed, step);
}

// ---- the bench -------------------------------------------------------------------------------------------

typedef struct {
    Arena arena;
    Artifact artifact;
    Exec *x;
} Bench;

static void bench_open(Bench *b, uint32_t n_ranks, uint32_t seqs) {
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
    b->x = exec_open(&b->artifact, &(ExecOptions){.driver = "null", .seqs = seqs}, &e);
    if (!b->x) fail_msg("%s", e.msg);
    for (uint32_t r = 0; r < n_ranks; r++) null_on_launch(exec_device(b->x, r), play, NULL);
    unlink(path);
    pool_free(pool);
}

static void bench_close(Bench *b) {
    exec_close(b->x);
    artifact_close(&b->artifact);
    arena_free(&b->arena);
}

typedef struct {
    int32_t ids[SMALL_CONTEXT];
    uint32_t n_prompt, n, max_tokens, ends;
    uint64_t seed;
    int32_t eos;
    SeqEnd end;
} Job;

static Job random_job(void) {
    Job j = {.n_prompt = 1 + (uint32_t)rand() % 30,
             .max_tokens = (uint32_t)rand() % 25,
             .seed = (uint64_t)rand() % 5,
             .eos = rand() % SMALL_VOCAB};
    j.n = j.n_prompt;
    for (uint32_t i = 0; i < j.n; i++) j.ids[i] = rand() % SMALL_VOCAB;
    return j;
}

static Request request_of(const Job *j) {
    return (Request){.ids = j->ids,
                     .n_ids = j->n_prompt,
                     .max_tokens = j->max_tokens,
                     .eos_ids = &j->eos,
                     .n_eos_ids = 1,
                     .sampling = {.seed = j->seed}};
}

static void take(Job *j, const BatchToken *t) {
    assert_int_equal(j->ends, 0);
    assert_int_equal(t->id, truth(j->ids, j->n, j->seed, j->n - j->n_prompt));
    j->ids[j->n++] = t->id;
    bool full = j->n == SMALL_CONTEXT, enough = j->max_tokens && j->n - j->n_prompt == j->max_tokens;
    assert_int_equal(t->end, t->id == j->eos ? SEQ_EOS
                             : full          ? SEQ_CONTEXT
                             : enough        ? SEQ_MAX_TOKENS
                                             : SEQ_GOES_ON);
    if (t->end != SEQ_GOES_ON) j->ends++;
}

// Sequences come and go at random; each gets what it would get alone, and ends once.
static void run_jobs(Bench *b, uint32_t chunk, uint32_t n_jobs) {
    Batch *batch = batch_new(b->x, chunk);
    Job *jobs = calloc(n_jobs, sizeof *jobs);
    uint32_t owner[SMALL_SEQS], started = 0, done = 0;
    memset(owner, 0xFF, sizeof owner);
    Err e;
    for (uint32_t guard = 0; done < n_jobs; guard++) {
        assert_true(guard < 100000);
        if (started < n_jobs && rand() % 3) {
            uint32_t slot;
            jobs[started] = random_job();
            Request r = request_of(&jobs[started]);
            if (batch_add(batch, &r, &slot, &e))
                owner[slot] = started++;
            else
                assert_int_equal(e.code, E_MEMORY);
        }
        const BatchToken *t;
        uint32_t n;
        if (!batch_step(batch, &t, &n, &e)) fail_msg("%s", e.msg);
        for (uint32_t i = 0; i < n; i++) take(&jobs[owner[t[i].slot]], &t[i]);
        assert_true(batch_consistent(batch));
        for (uint32_t s = 0; s < SMALL_SEQS; s++) {
            if (owner[s] == UINT32_MAX || (!jobs[owner[s]].ends && rand() % 200)) continue;
            batch_release(batch, s); // most have ended, some are cancelled
            owner[s] = UINT32_MAX, done++;
        }
    }
    assert_false(batch_busy(batch));
    free(jobs);
    batch_free(batch);
}

static void sequences_do_not_meet(void **state) {
    (void)state;
    srand(11);
    for (uint32_t ranks = 1; ranks <= 2; ranks++)
        for (uint32_t chunk = 0; chunk < 9; chunk += 1 + chunk / 2) {
            Bench b;
            bench_open(&b, ranks, ranks == 1 ? 0 : 2); // with two, pages run short before slots do
            run_jobs(&b, chunk, ranks == 1 ? 150 : 30);
            bench_close(&b);
        }
}

static void a_conversation_reuses_its_cache(void **state) {
    (void)state;
    Bench b;
    Err e;
    bench_open(&b, 1, 1);
    Batch *batch = batch_new(b.x, 0);
    Job j = {.n_prompt = 5, .n = 5, .max_tokens = 6, .eos = -1};
    uint32_t slot, reused;
    Request r = request_of(&j);
    assert_true(batch_add(batch, &r, &slot, &e));
    for (int turn = 0; turn < 3; turn++) {
        while (batch_busy(batch)) {
            const BatchToken *t;
            uint32_t n;
            assert_true(batch_step(batch, &t, &n, &e));
            for (uint32_t i = 0; i < n; i++) take(&j, &t[i]);
        }
        uint32_t had = j.n;
        j.ids[j.n++] = 9, j.n_prompt = j.n, j.ends = 0;
        r = request_of(&j);
        assert_true(batch_continue(batch, slot, &r, &reused, &e));
        assert_int_equal(reused, had - 1); // the last token of the answer was never fed
        assert_true(batch_consistent(batch));
    }
    while (batch_busy(batch)) {
        const BatchToken *t;
        uint32_t n;
        assert_true(batch_step(batch, &t, &n, &e));
        for (uint32_t i = 0; i < n; i++) take(&j, &t[i]);
    }
    j = (Job){.ids = {1, 2}, .n_prompt = 2, .n = 2, .max_tokens = 3, .eos = -1}; // another text altogether
    r = request_of(&j);
    assert_true(batch_continue(batch, slot, &r, &reused, &e));
    assert_int_equal(reused, 0);
    while (batch_busy(batch)) {
        const BatchToken *t;
        uint32_t n;
        assert_true(batch_step(batch, &t, &n, &e));
        for (uint32_t i = 0; i < n; i++) take(&j, &t[i]);
    }
    batch_free(batch);
    bench_close(&b);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    Bench b;
    Err e;
    uint32_t slot;
    int32_t ids[SMALL_CONTEXT] = {0};
    bench_open(&b, 1, 0);
    Batch *batch = batch_new(b.x, 0);
    assert_false(batch_add(batch, &(Request){.ids = ids}, &slot, &e));
    assert_int_equal(e.code, E_IDS);
    assert_false(batch_add(batch, &(Request){.ids = ids, .n_ids = SMALL_CONTEXT}, &slot, &e));
    assert_int_equal(e.code, E_CONTEXT);
    ids[3] = SMALL_VOCAB;
    assert_false(batch_add(batch, &(Request){.ids = ids, .n_ids = 5}, &slot, &e));
    assert_int_equal(e.code, E_IDS);
    assert_true(batch_consistent(batch) && !batch_busy(batch));
    batch_free(batch);
    bench_close(&b);
}

static int32_t next_token(Batch *batch, const LogprobRow **logprobs) {
    const BatchToken *t;
    uint32_t n = 0;
    Err e;
    while (!n)
        if (!batch_step(batch, &t, &n, &e)) fail_msg("%s", e.msg);
    assert_int_equal(n, 1);
    *logprobs = t->logprobs;
    return t->id;
}

static void sampling_state_follows_its_slot(void **state) {
    (void)state;
    Bench b;
    Err e;
    uint32_t held, slot, mask[TOKEN_COLS(SMALL_VOCAB) / 32] = {0, 1u << 9};
    const int32_t ids[] = {60, 41, 50}, eos[] = {3, 21};
    const TokenBias bias[] = {{5, 1}, {17, -2}};
    const LogprobRow *logprobs;
    Request r = {.ids = ids, .n_ids = 3, .eos_ids = eos, .n_eos_ids = 2};
    bench_open(&b, 1, 0);
    Batch *batch = batch_new(b.x, 0);
    for (uint32_t round = 0; round < SMALL_SEQS; round++) { // each in a slot of its own
        r.sampling = (Sampling){.repetition = 1.5f, .logprobs = true, .top_logprobs = round};
        assert_true(batch_add(batch, &r, &slot, &e));
        assert_int_equal(slot, round);
        for (uint32_t i = 0; i < 3 * RING_SLOTS; i++) {
            assert_int_equal(next_token(batch, &logprobs), 41);
            assert_int_equal(logprobs->id[0], 41);
            assert_int_equal(logprobs->n, 1 + round);
        }
        mask[1] = 1u << (9 + round);
        assert_true(batch_allow(batch, slot, mask, &e));
        assert_int_equal(next_token(batch, &logprobs), 41 + round);
        assert_true(batch_allow(batch, slot, NULL, &e));
        batch_release(batch, slot);
        r.sampling = (Sampling){.bias = bias, .n_bias = 2, .min_tokens = 2};
        assert_true(batch_add(batch, &r, &slot, &e));
        assert_int_equal(next_token(batch, &logprobs), 22);
        assert_int_equal(next_token(batch, &logprobs), 22);
        assert_int_equal(next_token(batch, &logprobs), 17);
        assert_null(logprobs);
        batch_release(batch, slot);
        r.sampling = (Sampling){.seed = round}, r.max_tokens = 1; // ends at once and keeps its slot
        assert_true(batch_add(batch, &r, &held, &e));
        next_token(batch, &logprobs);
        r.max_tokens = 0;
    }
    batch_free(batch);
    bench_close(&b);
}

// One step is launched ahead, but not past a sequence's last token, nor past a mask.
static void steps_run_ahead(void **state) {
    (void)state;
    Bench b;
    Err e;
    uint32_t slot, n_ended = 0, mask[TOKEN_COLS(SMALL_VOCAB) / 32] = {1u << 9};
    const int32_t ids[] = {60, 41, 50};
    const LogprobRow *logprobs;
    Request r = {.ids = ids, .n_ids = 3, .max_tokens = 6, .sampling = {.repetition = 2}};
    bench_open(&b, 1, 0);
    Batch *batch = batch_new(b.x, 0);
    assert_true(batch_add(batch, &r, &slot, &e));
    for (uint32_t token = 1; token <= 6; token++) {
        next_token(batch, &logprobs);
        assert_int_equal(exec_in_flight(b.x), token > 1 && token < 6);
        n_ended += !batch_busy(batch);
    }
    assert_int_equal(n_ended, 1);
    batch_release(batch, slot);
    assert_true(batch_add(batch, &r, &slot, &e));
    for (uint32_t token = 1; token <= 3; token++) next_token(batch, &logprobs);
    assert_int_equal(exec_in_flight(b.x), 1);
    assert_true(batch_allow(batch, slot, mask, &e)); // holds for the token that is in flight
    assert_int_equal(next_token(batch, &logprobs), 9);
    assert_int_equal(exec_in_flight(b.x), 0);
    assert_true(batch_consistent(batch));
    batch_free(batch);
    bench_close(&b);
}

static void bad_sampling_is_refused(void **state) {
    (void)state;
    Bench b;
    Err e;
    uint32_t slot;
    const int32_t ids[] = {1}, eos[STOP_MAX + 1] = {0};
    const TokenBias twice[] = {{5, 1}, {5, 1}}, outside[] = {{SMALL_VOCAB, 1}}, endless[] = {{5, INFINITY}};
    const Sampling bad[] = {{.repetition = -1},
                            {.repetition = NAN},
                            {.presence = INFINITY},
                            {.frequency = NAN},
                            {.top_logprobs = LOGPROBS_MAX + 1},
                            {.min_tokens = 1},
                            {.bias = twice, .n_bias = 2},
                            {.bias = outside, .n_bias = 1},
                            {.bias = endless, .n_bias = 1},
                            {.bias = twice, .n_bias = BIAS_MAX + 1}};
    bench_open(&b, 1, 0);
    Batch *batch = batch_new(b.x, 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Request r = {.ids = ids, .n_ids = 1, .eos_ids = eos, .n_eos_ids = STOP_MAX + 1, .sampling = bad[i]};
        assert_false(batch_add(batch, &r, &slot, &e));
        assert_int_equal(e.code, E_SAMPLING);
    }
    assert_true(batch_consistent(batch) && !batch_busy(batch));
    batch_free(batch);
    bench_close(&b);
}

static void not_finite_ends_the_batch(void **state) {
    (void)state;
    Bench b;
    Err e;
    const BatchToken *t;
    uint32_t slot, n;
    const int32_t ids[] = {1, 2, 3};
    bench_open(&b, 1, 0);
    Batch *batch = batch_new(b.x, 0);
    assert_true(
        batch_add(batch, &(Request){.ids = ids, .n_ids = 3, .sampling = {.temperature = -1}}, &slot, &e));
    assert_false(batch_step(batch, &t, &n, &e));
    assert_int_equal(e.code, E_NUMERIC);
    assert_false(batch_step(batch, &t, &n, &e));
    batch_free(batch);
    bench_close(&b);
}

// ---- scores ----------------------------------------------------------------------------------------------

typedef struct {
    const ScoreSeq *seqs;
    uint32_t seen[5]; // positions of each sequence so far
} Scores;

static bool check_rows(void *ctx, uint32_t seq, uint32_t first, uint32_t n, const float *rows, Err *e) {
    Scores *s = ctx;
    (void)e;
    assert_int_equal(first, s->seen[seq]);
    for (uint32_t i = 0; i < n; i++) {
        float h = hidden_after(s->seqs[seq].ids, first + i + 1);
        for (uint32_t v = 0; v < SMALL_VOCAB; v++) assert_true(rows[i * SMALL_VOCAB + v] == logit(h, v));
    }
    s->seen[seq] += n;
    return true;
}

static void scores_are_the_truth(void **state) {
    (void)state;
    Bench b;
    Err e;
    int32_t ids[5][SMALL_CONTEXT];
    ScoreSeq seqs[5];
    srand(3);
    bench_open(&b, 1, 0);
    for (uint32_t i = 0; i < 5; i++) {
        seqs[i] = (ScoreSeq){ids[i], i == 2 ? SMALL_CONTEXT : 1 + (uint32_t)rand() % SMALL_CONTEXT};
        for (uint32_t k = 0; k < seqs[i].n; k++) ids[i][k] = rand() % SMALL_VOCAB;
    }
    for (uint32_t batch = 1; batch <= SMALL_SEQS; batch++)
        for (uint32_t chunk = 0; chunk < 9; chunk++) {
            Scores s = {.seqs = seqs};
            if (!score_run(b.x, seqs, 5, batch, chunk, check_rows, &s, &e)) fail_msg("%s", e.msg);
            for (uint32_t i = 0; i < 5; i++) assert_int_equal(s.seen[i], seqs[i].n);
        }
    bench_close(&b);
}

// Every call of the device fails once: an error comes back, nothing crashes.
static void devices_may_fail_anywhere(void **state) {
    (void)state;
    const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    for (uint64_t at = 1; at < 200; at++) {
        Bench b;
        Err e;
        const BatchToken *t;
        uint32_t slot, n;
        bench_open(&b, 1, 0);
        Batch *batch = batch_new(b.x, 0);
        null_fail_at(exec_device(b.x, 0), null_calls(exec_device(b.x, 0)) + at);
        bool ok = batch_add(batch, &(Request){.ids = ids, .n_ids = 10, .max_tokens = 5}, &slot, &e);
        while (ok && batch_busy(batch)) ok = batch_step(batch, &t, &n, &e);
        if (!ok) assert_int_equal(e.code, E_DEVICE);
        batch_free(batch);
        bench_close(&b);
        if (ok) return;
    }
    fail_msg("no run without a failure");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_do_not_meet),     cmocka_unit_test(a_conversation_reuses_its_cache),
        cmocka_unit_test(bad_requests_are_refused),  cmocka_unit_test(sampling_state_follows_its_slot),
        cmocka_unit_test(steps_run_ahead),           cmocka_unit_test(bad_sampling_is_refused),
        cmocka_unit_test(not_finite_ends_the_batch), cmocka_unit_test(scores_are_the_truth),
        cmocka_unit_test(devices_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
