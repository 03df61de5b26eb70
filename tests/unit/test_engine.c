// Batch and score on the null device, with kernels played by the test (small_play.h).
#include <math.h>
#include <stdlib.h>

#include "runtime/engine/batch.h"
#include "runtime/engine/lookup.h"
#include "runtime/engine/score.h"
#include "tests/unit/small_play.h"

// ---- jobs ------------------------------------------------------------------------------------------------

typedef struct {
    int32_t ids[SMALL_CONTEXT];
    uint32_t n_prompt, n, ends;
    int32_t stop;
    Request request;
    Seq *seq;
    SeqEnd end;
} Job;

static Job job_of(const int32_t *ids, uint32_t n, uint32_t max_tokens) {
    Job j = {.n_prompt = n, .n = n, .stop = -1, .request = {.n_ids = n, .max_tokens = max_tokens}};
    memcpy(j.ids, ids, n * sizeof *ids);
    return j;
}

static void add(Batch *b, Job *j) {
    Err e;
    Request r = j->request;
    r.ids = j->ids, r.user = j;
    if (j->stop >= 0) r.stop_ids = &j->stop, r.n_stop_ids = 1;
    j->seq = seq_new(batch_limits(b), &r, &e);
    if (!j->seq) fail_msg("%s", e.msg);
    batch_add(b, j->seq);
}

static void drop(Batch *b, Job *j) {
    batch_remove(b, j->seq);
    seq_free(j->seq);
}

static Batch *open_batch(const Bench *b, BatchOptions o) {
    Err e;
    Batch *batch = batch_new(b->x, &o, &e);
    if (!batch) fail_msg("%s", e.msg);
    return batch;
}

static void take(const BatchToken *t) {
    Job *j = t->seq->user;
    assert_int_equal(j->ends, 0);
    assert_int_equal(t->id, truth(j->ids, j->n, j->request.sampling.seed, j->n - j->n_prompt));
    j->ids[j->n++] = t->id;
    bool all = j->request.max_tokens == TOKENS_ALL;
    assert_int_equal(t->end, t->id == j->stop                                      ? SEQ_STOP
                             : all && j->n == SMALL_CONTEXT                        ? SEQ_CONTEXT
                             : !all && j->n - j->n_prompt == j->request.max_tokens ? SEQ_MAX_TOKENS
                                                                                   : SEQ_GOES_ON);
    if (t->end != SEQ_GOES_ON) j->ends++;
}

static void step(Batch *b) {
    const BatchToken *t;
    uint32_t n;
    Err e;
    if (!batch_step(b, &t, &n, &e)) fail_msg("%s", e.msg);
    for (uint32_t i = 0; i < n; i++) take(&t[i]);
    assert_true(batch_consistent(b));
}

static Job random_job(void) {
    Job j = {.n_prompt = 1 + (uint32_t)rand() % 30, .stop = rand() % SMALL_VOCAB};
    j.n = j.request.n_ids = j.n_prompt;
    j.request.max_tokens = rand() % 10 ? 1 + (uint32_t)rand() % (SMALL_CONTEXT - j.n) : TOKENS_ALL;
    j.request.sampling.seed = (uint64_t)rand() % 5;
    for (uint32_t i = 0; i < j.n; i++) j.ids[i] = rand() % SMALL_VOCAB;
    return j;
}

// Sequences come and go at random; each gets what it would get alone, and ends once.
static void run_jobs(Bench *b, uint32_t chunk, uint32_t n_jobs) {
    Batch *batch = open_batch(b, (BatchOptions){.chunk = chunk});
    Job *jobs = calloc(n_jobs, sizeof *jobs);
    uint32_t started = 0;
    while (started < n_jobs || batch_busy(batch)) {
        if (started < n_jobs && rand() % 3) {
            jobs[started] = random_job();
            add(batch, &jobs[started++]);
        }
        step(batch);
        Job *j = &jobs[rand() % (int)n_jobs];
        if (j->seq && !j->ends && !(rand() % 50)) batch_remove(batch, j->seq), j->ends++; // cancelled
    }
    for (uint32_t i = 0; i < n_jobs; i++) assert_int_equal(jobs[i].ends, 1), drop(batch, &jobs[i]);
    free(jobs);
    batch_free(batch);
}

static void sequences_do_not_meet(void **state) {
    (void)state;
    srand(11);
    for (uint32_t ranks = 1; ranks <= 2; ranks++)
        for (uint32_t chunk = 0; chunk < 9; chunk += 1 + chunk / 2) {
            Bench b;
            bench_open(&b, ranks, (ExecOptions){.seqs = ranks == 1 ? 0 : 2}); // with two, pages run short
            run_jobs(&b, chunk, ranks == 1 ? 150 : 60);
            bench_close(&b);
        }
}

static void a_conversation_reuses_its_cache(void **state) {
    (void)state;
    Bench b;
    bench_open(&b, 1, (ExecOptions){.seqs = 1});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    Job j = job_of((int32_t[]){7, 7, 1, 2, 3}, 5, 6);
    for (int turn = 0; turn < 3; turn++) {
        const uint32_t had = j.n;
        add(batch, &j);
        while (batch_busy(batch)) step(batch);
        assert_int_equal(j.ends, 1);
        // The token that ended the last answer was never fed: its page is not known.
        assert_int_equal(j.seq->first_hit, turn ? (had - 2) / SMALL_PAGE * SMALL_PAGE : 0);
        drop(batch, &j);
        j.ids[j.n++] = 9, j.n_prompt = j.request.n_ids = j.n, j.ends = 0;
    }
    Job other = job_of((int32_t[]){7, 1, 7, 7, 7, 7}, 6, 3), tenant = job_of(j.ids, j.n_prompt, 3);
    tenant.request.salt = STR("another");
    add(batch, &other), add(batch, &tenant);
    while (batch_busy(batch)) step(batch);
    assert_int_equal(other.seq->first_hit, 0);
    assert_int_equal(tenant.seq->first_hit, 0);
    drop(batch, &other), drop(batch, &tenant);
    batch_free(batch);
    bench_close(&b);
}

static void refuse(const Batch *b, Request r, ErrCode code) {
    Err e;
    assert_null(seq_new(batch_limits(b), &r, &e));
    assert_int_equal(e.code, code);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    Bench b;
    Err e;
    int32_t ids[SMALL_CONTEXT] = {0}, stops[STOP_IDS_MAX + 1] = {0};
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){.context = SMALL_CONTEXT - 1});
    refuse(batch, (Request){.ids = ids, .max_tokens = 1}, E_IDS);
    refuse(batch, (Request){.ids = ids, .n_ids = 3, .n_stop_ids = STOP_IDS_MAX + 1, .stop_ids = stops},
           E_IDS);
    refuse(batch, (Request){.ids = ids, .n_ids = SMALL_CONTEXT - 1, .max_tokens = TOKENS_ALL}, E_CONTEXT);
    refuse(batch, (Request){.ids = ids, .n_ids = SMALL_CONTEXT}, E_CONTEXT);
    refuse(batch, (Request){.ids = ids, .n_ids = 7, .max_tokens = SMALL_CONTEXT - 7}, E_CONTEXT);
    refuse(batch, (Request){.ids = ids, .n_ids = 7, .max_tokens = UINT32_MAX - 1}, E_CONTEXT);
    refuse(batch, (Request){.ids = ids, .n_ids = 7, .prompt_logprobs = true, .prompt_top_logprobs = 21},
           E_SAMPLING);
    ids[3] = SMALL_VOCAB;
    refuse(batch, (Request){.ids = ids, .n_ids = 5}, E_IDS);
    SeqLimits few = *batch_limits(batch); // pools are never so small; the check does not rely on it
    few.pages[0] = 2;
    assert_null(seq_new(&few, &(Request){.ids = stops, .n_ids = 5, .max_tokens = 4}, &e));
    assert_int_equal(e.code, E_MEMORY);
    assert_null(batch_new(b.x, &(BatchOptions){.seqs = SMALL_SEQS + 1}, &e));
    assert_int_equal(e.code, E_OPTION_VALUE);
    assert_null(batch_new(b.x, &(BatchOptions){.tokens = SMALL_SEQS - 1}, &e));
    assert_null(batch_new(b.x, &(BatchOptions){.context = SMALL_CONTEXT + 1}, &e));
    assert_true(batch_consistent(batch) && !batch_busy(batch));
    batch_free(batch);
    bench_close(&b);
}

// ---- sampling --------------------------------------------------------------------------------------------

// The next token of a job; those of others are checked on the way.
static int32_t next_of(Batch *batch, const Job *j, const LogprobRow **logprobs) {
    for (int guard = 0; guard < 100; guard++) {
        const BatchToken *t, *mine = NULL;
        uint32_t n;
        Err e;
        if (!batch_step(batch, &t, &n, &e)) fail_msg("%s", e.msg);
        for (uint32_t i = 0; i < n; i++)
            if (t[i].seq->user == j)
                mine = &t[i];
            else
                take(&t[i]);
        if (!mine) continue;
        *logprobs = mine->logprobs;
        return mine->id;
    }
    fail_msg("no token");
    return -1;
}

static void check_slot(Batch *batch, uint32_t slot) {
    const TokenBias bias[] = {{5, 1}, {17, -2}};
    const LogprobRow *logprobs;
    Job j = job_of((int32_t[]){60, 41, 50}, 3, TOKENS_ALL);
    j.request.sampling = (Sampling){.repetition = 1.5f, .logprobs = true, .top_logprobs = slot};
    add(batch, &j);
    for (uint32_t i = 0; i < 3 * RING_SLOTS; i++) {
        const int32_t want = truth_counted(j.ids, j.n_prompt, j.n);
        assert_int_equal(next_of(batch, &j, &logprobs), want);
        assert_int_equal(logprobs->id[0], want);
        j.ids[j.n++] = want;
        assert_int_equal(logprobs->n, 1 + slot);
    }
    assert_int_equal(j.seq->slot, slot);
    drop(batch, &j);
    j.n = j.n_prompt, j.stop = 21,
    j.request.sampling = (Sampling){.bias = bias, .n_bias = 2, .min_tokens = 2};
    add(batch, &j);
    assert_int_equal(next_of(batch, &j, &logprobs), 22);
    assert_int_equal(next_of(batch, &j, &logprobs), 22);
    assert_int_equal(next_of(batch, &j, &logprobs), 17);
    assert_null(logprobs);
    drop(batch, &j);
}

static void sampling_state_follows_its_slot(void **state) {
    (void)state;
    Bench b;
    Job held[SMALL_SEQS];
    bench_open(&b, 1, (ExecOptions){0});
    for (uint32_t slot = 0; slot < SMALL_SEQS; slot++) {
        Batch *batch = open_batch(&b, (BatchOptions){0});
        for (uint32_t i = 0; i < slot; i++)
            held[i] = job_of((int32_t[]){(int32_t)i}, 1, TOKENS_ALL), add(batch, &held[i]);
        check_slot(batch, slot);
        for (uint32_t i = 0; i < slot; i++) drop(batch, &held[i]);
        batch_free(batch);
    }
    bench_close(&b);
}

// Allows id 9 + number of accepted tokens; from `open` on anything, from `shut` on nothing.
typedef struct {
    uint32_t accepted, open, shut;
} Rule;

static void rule_accept(void *ctx, int32_t id) {
    Rule *r = ctx;
    assert_int_equal(id, r->accepted >= r->open ? 0 : 9 + (int32_t)r->accepted);
    r->accepted++;
}

static bool rule_mask(void *ctx, uint32_t *words) {
    const Rule *r = ctx;
    const uint32_t id = 9 + r->accepted;
    memset(words, 0, TOKEN_COLS(SMALL_VOCAB) / 8);
    if (r->accepted < r->shut) words[id / 32] |= 1u << id % 32;
    return r->accepted < r->open;
}

static void masks_come_before_draws(void **state) {
    (void)state;
    Bench b;
    const LogprobRow *logprobs;
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    Rule rules[] = {{0, 7, 9}, {0, 9, 4}};
    TokenMask masks[] = {{&rules[0], rule_accept, rule_mask}, {&rules[1], rule_accept, rule_mask}};
    Job j = job_of((int32_t[]){3, 2, 1}, 3, 10), other = job_of((int32_t[]){1, 1, 1, 1, 1, 1}, 6, 30);
    add(batch, &other);
    j.request.mask = &masks[0];
    add(batch, &j);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(next_of(batch, &j, &logprobs), i < 7 ? 9 + i : 0);
        assert_true(batch_consistent(batch));
        assert_true(exec_in_flight(b.x) <= 2);
    }
    assert_int_equal(rules[0].accepted, 10);
    drop(batch, &j);
    j.request.mask = &masks[1];
    add(batch, &j);
    for (uint32_t i = 0; i < 4; i++) assert_int_equal(next_of(batch, &j, &logprobs), 9 + i);
    assert_int_equal(next_of(batch, &j, &logprobs), -1); // none is allowed: it alone ends
    assert_int_equal(j.seq->end, SEQ_FAILED);
    assert_int_equal(j.seq->err->code, E_SAMPLING);
    drop(batch, &j);
    while (batch_busy(batch)) step(batch);
    assert_int_equal(other.ends, 1);
    drop(batch, &other);
    batch_free(batch);
    bench_close(&b);
}

// One step is launched ahead, but not past the last token. Nothing is written while nothing changes.
static void steps_run_ahead(void **state) {
    (void)state;
    Bench b;
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    Job j = job_of((int32_t[]){60, 41, 50}, 3, 8);
    add(batch, &j);
    for (uint32_t token = 1; token <= 8; token++) {
        const uint64_t calls = null_calls(exec_device(b.x, 0));
        step(batch);
        assert_int_equal(exec_in_flight(b.x), token < 8);
        const uint64_t made = null_calls(exec_device(b.x, 0)) - calls;
        if (token > 2 && token < 8) assert_int_equal(made, 1); // one replay
        if (token == 8) assert_int_equal(made, 0);
    }
    assert_false(batch_busy(batch));
    drop(batch, &j);
    batch_free(batch);
    bench_close(&b);
}

// Two end, one goes on: its token is carried over by the device, and nobody waits.
static void ends_stop_nobody(void **state) {
    (void)state;
    Bench b;
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    Job jobs[] = {job_of((int32_t[]){1}, 1, 4), job_of((int32_t[]){2}, 1, 20), job_of((int32_t[]){3}, 1, 9)};
    for (uint32_t i = 0; i < 3; i++) add(batch, &jobs[i]);
    while (batch_busy(batch)) {
        step(batch);
        assert_true(exec_in_flight(b.x) == 1 || jobs[1].n == 21);
    }
    assert_true(batch_stats(batch)->wasted > 0);
    for (uint32_t i = 0; i < 3; i++) assert_int_equal(jobs[i].ends, 1), drop(batch, &jobs[i]);
    batch_free(batch);
    bench_close(&b);
}

static void bad_sampling_is_refused(void **state) {
    (void)state;
    Bench b;
    const int32_t ids[] = {1}, stops[STOP_MAX + 1] = {0};
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
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refuse(batch,
               (Request){.ids = ids,
                         .n_ids = 1,
                         .max_tokens = 1,
                         .stop_ids = stops,
                         .n_stop_ids = STOP_MAX + 1,
                         .sampling = bad[i]},
               E_SAMPLING);
    batch_free(batch);
    bench_close(&b);
}

static void not_finite_ends_one_sequence(void **state) {
    (void)state;
    Bench b;
    const LogprobRow *logprobs;
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    Job good = job_of((int32_t[]){1, 2, 3, 4, 5}, 5, 12), bad = job_of((int32_t[]){1, 2, 3, 4, 5}, 5, 12);
    bad.request.sampling.temperature = -1;
    add(batch, &bad);
    add(batch, &good);
    assert_int_equal(next_of(batch, &bad, &logprobs), -1);
    assert_int_equal(bad.seq->end, SEQ_FAILED);
    assert_int_equal(bad.seq->err->code, E_NUMERIC);
    while (batch_busy(batch)) step(batch);
    assert_int_equal(good.ends, 1);
    drop(batch, &good), drop(batch, &bad);
    batch_free(batch);
    bench_close(&b);
}

// Rows are few: a step computes as much of the prompt as it has rows for.
static void prompts_have_logprobs(void **state) {
    (void)state;
    Bench b;
    bench_open(&b, 1, (ExecOptions){0});
    Batch *batch = open_batch(&b, (BatchOptions){0});
    Job jobs[SMALL_SEQS];
    for (uint32_t i = 0; i < SMALL_SEQS; i++) {
        jobs[i] = job_of((int32_t[]){4, 8, 15, 16, 23, 42, 4, 8, 15, 16, 23, 42, 1}, 13, 3 * (i % 2));
        jobs[i].request.prompt_logprobs = i != 1, jobs[i].request.prompt_top_logprobs = i;
        add(batch, &jobs[i]);
    }
    while (batch_busy(batch)) {
        const BatchToken *t;
        uint32_t n;
        Err e;
        assert_true(batch_step(batch, &t, &n, &e) && batch_consistent(batch));
        for (uint32_t i = 0; i < n; i++)
            if (t[i].end == SEQ_PROMPT)
                ((Job *)t[i].seq->user)->ends++, assert_int_equal(t[i].id, -1);
            else
                take(&t[i]);
    }
    for (uint32_t i = 0; i < SMALL_SEQS; i++) {
        const LogprobRow *rows = jobs[i].seq->prompt_logprobs;
        assert_int_equal(jobs[i].ends, 1);
        assert_true((rows != NULL) == (i != 1));
        for (uint32_t p = 0; rows && p + 1 < 13; p++) {
            assert_int_equal(rows[p].id[0], jobs[i].ids[p + 1]);
            assert_true(rows[p].logprob[0] ==
                        logit(hidden_after(jobs[i].ids, p + 1), (uint32_t)jobs[i].ids[p + 1]));
            assert_int_equal(rows[p].n, 1 + i);
        }
        drop(batch, &jobs[i]);
    }
    batch_free(batch);
    bench_close(&b);
}

// ---- guesses ----------------------------------------------------------------------------------------------

static void what_came_before_is_found(void **state) {
    (void)state;
    int32_t out[8];
    const int32_t ids[] = {1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3};
    assert_int_equal(lookup_guess(ids, 11, 8, out), 8); // 1 2 3 stood at the beginning
    assert_memory_equal(out, ids + 3, 8 * sizeof *ids);
    assert_int_equal(lookup_guess(ids + 1, 7, 2, out), 0);
    assert_int_equal(lookup_guess(ids + 4, 7, 2, out), 2); // 1 2 3 stood nowhere, 2 3 did
    assert_memory_equal(out, ids + 7, 2 * sizeof *ids);
    assert_int_equal(lookup_guess(ids, 8, 8, out), 0);
    assert_int_equal(lookup_guess(ids, 11, 0, out), 0);
    for (uint32_t n = 1; n < 3; n++) assert_int_equal(lookup_guess(ids, n, 8, out), 0);
    const int32_t same[] = {7, 7, 7, 7};
    assert_int_equal(lookup_guess(same, 4, 8, out), 1);
    assert_int_equal(out[0], 7);
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
    bench_open(&b, 1, (ExecOptions){0});
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
    for (uint64_t at = 1; at < 200; at++) {
        Bench b;
        Err e;
        const BatchToken *t;
        uint32_t n;
        Job j = job_of((int32_t[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 10, 5);
        bench_open(&b, 1, (ExecOptions){0});
        Batch *batch = batch_new(b.x, NULL, &e);
        null_fail_at(exec_device(b.x, 0), null_calls(exec_device(b.x, 0)) + at);
        add(batch, &j);
        bool ok = true;
        while (ok && batch_busy(batch)) ok = batch_step(batch, &t, &n, &e);
        if (!ok) assert_int_equal(e.code, E_DEVICE);
        if (!ok) assert_false(batch_step(batch, &t, &n, &e));
        drop(batch, &j);
        batch_free(batch);
        bench_close(&b);
        if (ok) return;
    }
    fail_msg("no run without a failure");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_do_not_meet),
        cmocka_unit_test(a_conversation_reuses_its_cache),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(sampling_state_follows_its_slot),
        cmocka_unit_test(masks_come_before_draws),
        cmocka_unit_test(steps_run_ahead),
        cmocka_unit_test(ends_stop_nobody),
        cmocka_unit_test(bad_sampling_is_refused),
        cmocka_unit_test(not_finite_ends_one_sequence),
        cmocka_unit_test(prompts_have_logprobs),
        cmocka_unit_test(what_came_before_is_found),
        cmocka_unit_test(scores_are_the_truth),
        cmocka_unit_test(devices_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
