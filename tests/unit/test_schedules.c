// The scheduler under random schedules, on the null device (small_play.h): requests that share prefixes, need
// more pages than there are, carry masks, penalties, logprobs, fail, are cancelled, come all at once or one
// by one. After every step: no page is lost or written by two, nobody gets a token that it would not get
// alone, everybody ends once, first come is first served, and the oldest goes on.
//
//     test_schedules [COUNT [SEED]]    COUNT schedules from SEED on; a failure names its seed
#define SMALL_SEQS   12
#define SMALL_TOKENS 40
#define SMALL_ROWS   12
#include <stdlib.h>

#include "runtime/engine/batch.h"
#include "tests/unit/small_play.h"

enum { JOBS_MAX = 40, BENCHES = 5, PATIENCE = 12, SCHEDULES = 4000, STEPS_MAX = 20000 };
static const uint32_t pools[BENCHES] = {1, 2, 3, 5, 12}; // sequences of the whole context that the pages hold

static uint64_t first_seed = 1, n_schedules = SCHEDULES;

// ---- chance ----------------------------------------------------------------------------------------------

static uint64_t chance_state;

static uint32_t chance(uint32_t n) { // 0 to n - 1
    chance_state += 0x9E3779B97F4A7C15u;
    uint64_t z = chance_state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) % n);
}

// ---- a request -------------------------------------------------------------------------------------------

typedef struct {
    int32_t ids[SMALL_CONTEXT];
    uint32_t n_prompt, n, ends, accepted, number;
    int32_t stop;
    Request request;
    TokenMask mask;
    Seq *seq;
    bool penalised, masked, fails, removed;
} Job;

typedef struct {
    uint64_t seed;
    Batch *batch;
    const Bench *bench;
    BatchOptions options;
    Job jobs[JOBS_MAX];
    uint32_t n_jobs, n_added, n_entered;
    int32_t prefixes[3][SMALL_CONTEXT];
    // Of the oldest that has not ended: how far it is, how often it entered, since how many steps.
    const Job *oldest;
    uint32_t oldest_at, oldest_entered, patience;
} Run;

static struct {
    uint64_t tokens, hits, queried, preemptions, wasted, guessed, accepted, failed, cancelled, prompts,
        shared_now;
    uint32_t most_entered;
} seen;

#define DEMAND(run, cond)                                                                                    \
    do {                                                                                                     \
        if (!(cond)) fail_msg("seed %llu: %s", (unsigned long long)(run)->seed, #cond);                      \
    } while (0)

static void accept(void *ctx, int32_t id) {
    Job *j = ctx;
    (void)id;
    j->accepted++;
}

static uint32_t allowed(const Job *j, uint32_t at) { return (j->number * 7 + at * 3) % SMALL_VOCAB; }

static bool mask(void *ctx, uint32_t *words) { // one id, that of the next token
    const Job *j = ctx;
    memset(words, 0, TOKEN_COLS(SMALL_VOCAB) / 8);
    words[allowed(j, j->accepted) / 32] |= 1u << allowed(j, j->accepted) % 32;
    return true;
}

static void choose_sampling(Job *j) {
    Sampling *s = &j->request.sampling;
    s->seed = chance(5);
    switch (chance(8)) {
    case 0: s->repetition = 1.5f, j->penalised = true; break;
    case 1: j->masked = true; break;
    case 2: s->temperature = -1, j->fails = chance(3) == 0; break;
    case 3: s->logprobs = true, s->top_logprobs = chance(5); break;
    default: break;
    }
    if (s->temperature < 0 && !j->fails) s->temperature = 0;
    if (!j->masked) return;
    j->mask = (TokenMask){j, accept, mask};
    j->request.mask = &j->mask;
}

static void make_job(Run *r, Job *j) {
    const int32_t *prefix = r->prefixes[chance(3)];
    const uint32_t shared = chance(3) ? chance(30) : 0;
    *j =
        (Job){.n_prompt = 1 + shared + chance(SMALL_CONTEXT - 2 - shared), .number = (uint32_t)(j - r->jobs)};
    if (chance(2)) j->n_prompt = 1 + shared + chance(4);
    j->n = j->n_prompt;
    for (uint32_t i = 0; i < j->n; i++) j->ids[i] = i < shared ? prefix[i] : (int32_t)chance(SMALL_VOCAB);
    j->stop = (int32_t)chance(SMALL_VOCAB);
    j->request = (Request){.ids = j->ids, .n_ids = j->n, .user = j};
    j->request.max_tokens = chance(5) ? 1 + chance(SMALL_CONTEXT - j->n) : chance(4) ? TOKENS_ALL : 0;
    if (chance(3) == 0) j->request.stop_ids = &j->stop, j->request.n_stop_ids = 1;
    if (chance(6) == 0) j->request.prompt_logprobs = true, j->request.prompt_top_logprobs = chance(4);
    if (chance(5) == 0) j->request.salt = STR("tenant");
    choose_sampling(j);
}

// ---- what must hold --------------------------------------------------------------------------------------

static int32_t expected(const Job *j) {
    if (j->masked) return (int32_t)allowed(j, j->n - j->n_prompt);
    if (j->penalised) return truth_counted(j->ids, j->n_prompt, j->n);
    return truth(j->ids, j->n, j->request.sampling.seed, j->n - j->n_prompt);
}

static SeqEnd expected_end(const Job *j, int32_t id) {
    if (j->request.n_stop_ids && id == j->stop) return SEQ_STOP;
    if (j->request.max_tokens == TOKENS_ALL) return j->n == SMALL_CONTEXT ? SEQ_CONTEXT : SEQ_GOES_ON;
    return j->n - j->n_prompt == j->request.max_tokens ? SEQ_MAX_TOKENS : SEQ_GOES_ON;
}

static void check_prompt_logprobs(const Run *r, const Job *j) {
    for (uint32_t p = 0; j->request.prompt_logprobs && p + 1 < j->n_prompt; p++) {
        const LogprobRow *row = &j->seq->prompt_logprobs[p];
        DEMAND(r, row->id[0] == j->ids[p + 1] && row->n == 1 + j->request.prompt_top_logprobs);
        DEMAND(r, row->logprob[0] == logit(hidden_after(j->ids, p + 1), (uint32_t)j->ids[p + 1]));
    }
}

static void take(Run *r, const BatchToken *t) {
    Job *j = t->seq->user;
    DEMAND(r, !j->ends && !j->removed);
    if (t->end == SEQ_FAILED) {
        DEMAND(r, j->fails && t->id == -1 && j->seq->err->code == E_NUMERIC);
        j->ends++, seen.failed++;
        return;
    }
    if (j->n == j->n_prompt) check_prompt_logprobs(r, j);
    if (t->end == SEQ_PROMPT) {
        DEMAND(r, j->request.max_tokens == 0 && t->id == -1);
        j->ends++, seen.prompts++;
        return;
    }
    DEMAND(r, !j->fails && t->id == expected(j));
    DEMAND(r, !j->request.sampling.logprobs || t->logprobs->id[0] == t->id);
    j->ids[j->n++] = t->id;
    DEMAND(r, t->end == expected_end(j, t->id));
    DEMAND(r, !j->masked || j->accepted == j->n - j->n_prompt);
    j->ends += t->end != SEQ_GOES_ON;
    seen.tokens++;
}

static void entered(void *ctx, Seq *s) {
    Run *r = ctx;
    const Job *j = s->user;
    for (uint32_t i = 0; i < j->number; i++) // whoever came before was served, or has gone
        DEMAND(r, r->jobs[i].seq->n_entered || r->jobs[i].ends || r->jobs[i].removed);
    r->n_entered++;
}

// The oldest that has not ended keeps its slot, and computes or draws something every few steps.
static void check_oldest(Run *r) {
    const Job *oldest = NULL;
    for (uint32_t i = 0; i < r->n_added && !oldest; i++)
        if (!r->jobs[i].ends && !r->jobs[i].removed) oldest = &r->jobs[i];
    const bool runs = oldest && (oldest->seq->state == SEQ_PREFILL || oldest->seq->state == SEQ_DECODE);
    const uint32_t at = runs ? batch_computed(r->batch, oldest->seq) + oldest->seq->n_ids : 0;
    const uint32_t n_entered = oldest ? oldest->seq->n_entered : 0;
    if (oldest != r->oldest) {
        r->oldest = oldest, r->oldest_entered = n_entered, r->oldest_at = at, r->patience = 0;
        return;
    }
    if (!oldest) return;
    DEMAND(r, n_entered <= MAX(r->oldest_entered, 1) || r->oldest_at == 0); // was thrown out while the oldest
    if (n_entered > r->oldest_entered) r->oldest_entered = n_entered;
    r->patience = at == r->oldest_at ? r->patience + 1 : 0;
    r->oldest_at = at;
    DEMAND(r, r->patience < PATIENCE || r->options.prefill_first); // where decodes wait, the oldest does, too
}

// ---- a schedule ------------------------------------------------------------------------------------------

static void add(Run *r) {
    Job *j = &r->jobs[r->n_added++];
    Err e;
    make_job(r, j);
    j->seq = seq_new(batch_limits(r->batch), &j->request, &e);
    if (!j->seq) fail_msg("seed %llu: %s", (unsigned long long)r->seed, e.msg);
    batch_add(r->batch, j->seq);
}

static void maybe_cancel(Run *r) {
    if (!r->n_added || chance(12)) return;
    Job *j = &r->jobs[chance(r->n_added)];
    if (j->removed) return;
    seen.cancelled += !j->ends;
    batch_remove(r->batch, j->seq);
    j->removed = true;
}

static void step(Run *r) {
    const BatchToken *t;
    uint32_t n;
    Err e;
    if (!batch_step(r->batch, &t, &n, &e)) fail_msg("seed %llu: %s", (unsigned long long)r->seed, e.msg);
    for (uint32_t i = 0; i < n; i++) take(r, &t[i]);
    DEMAND(r, batch_last_step(r->batch)->tokens <= r->options.tokens);
    DEMAND(r, batch_consistent(r->batch));
    check_oldest(r);
}

static void finish(Run *r) {
    const BatchStats *s = batch_stats(r->batch);
    seen.hits += s->hit_tokens, seen.queried += s->queried_tokens, seen.preemptions += s->preemptions;
    seen.wasted += s->wasted, seen.guessed += s->guessed, seen.accepted += s->accepted;
    for (uint32_t i = 0; i < r->n_jobs; i++) {
        Job *j = &r->jobs[i];
        DEMAND(r, j->ends + j->removed >= 1 && j->ends <= 1);
        seen.most_entered = MAX(seen.most_entered, j->seq->n_entered);
        batch_remove(r->batch, j->seq);
        seq_free(j->seq);
    }
    for (uint32_t g = 0; g < 2; g++)
        DEMAND(r, kv_unheld(batch_kv(r->batch), g) == exec_pages(r->bench->x, g));
    DEMAND(r, batch_consistent(r->batch) && batch_running(r->batch) == 0);
}

static void choose_options(Run *r) {
    r->options.seqs = 1 + chance(SMALL_SEQS);
    r->options.tokens = r->options.seqs + chance(SMALL_TOKENS - r->options.seqs + 1);
    r->options.chunk = chance(3) ? 0 : 1 + chance(SMALL_TOKENS);
    r->options.speculate = chance(4) ? 0 : 1 + chance(8);
    r->options.prefill_first = chance(8) == 0;
    r->options.entered = entered, r->options.ctx = r;
}

static void run_schedule(const Bench *benches, uint64_t seed) {
    static Run run;
    Run *r = &run;
    Err e;
    chance_state = seed;
    *r = (Run){.seed = seed, .bench = &benches[chance(BENCHES)], .n_jobs = 1 + chance(JOBS_MAX)};
    for (uint32_t i = 0; i < 3 * SMALL_CONTEXT; i++) r->prefixes[i % 3][i / 3] = (int32_t)chance(SMALL_VOCAB);
    choose_options(r);
    r->batch = batch_new(r->bench->x, &r->options, &e);
    if (!r->batch) fail_msg("seed %llu: %s", (unsigned long long)seed, e.msg);
    const uint32_t burst = 1 + chance(JOBS_MAX), rarely = 1 + chance(4);
    for (uint32_t steps = 0; r->n_added < r->n_jobs || batch_busy(r->batch); steps++) {
        DEMAND(r, steps < STEPS_MAX);
        for (uint32_t i = 0; i < burst && r->n_added < r->n_jobs && chance(rarely) == 0; i++) add(r);
        step(r);
        maybe_cancel(r);
    }
    finish(r);
    batch_free(r->batch);
}

static void schedules_change_no_answer(void **state) {
    (void)state;
    Bench benches[BENCHES];
    for (uint32_t i = 0; i < BENCHES; i++) bench_open(&benches[i], 1, (ExecOptions){.seqs = pools[i]});
    for (uint64_t i = 0; i < n_schedules; i++) run_schedule(benches, first_seed + i);
    for (uint32_t i = 0; i < BENCHES; i++) bench_close(&benches[i]);
    print_message(
        "%llu schedules: %llu tokens, %llu failed, %llu cancelled, %llu prompts alone; %.0f %% of prompts"
        " found in the cache, %llu preemptions (%u at most of one sequence), %llu tokens for nobody, %llu of "
        "%llu guesses right\n",
        (unsigned long long)n_schedules, (unsigned long long)seen.tokens, (unsigned long long)seen.failed,
        (unsigned long long)seen.cancelled, (unsigned long long)seen.prompts,
        100.0 * (double)seen.hits / (double)seen.queried, (unsigned long long)seen.preemptions,
        seen.most_entered ? seen.most_entered - 1 : 0, (unsigned long long)seen.wasted,
        (unsigned long long)seen.accepted, (unsigned long long)seen.guessed);
    if (n_schedules < 100) return;
    assert_true(seen.guessed > seen.accepted && seen.accepted);
    assert_true(seen.failed && seen.cancelled && seen.prompts && seen.hits && seen.preemptions &&
                seen.wasted);
}

// A device that is behind its caller, as a card is: what was launched is done later, on another thread.
static void late_devices_change_no_answer(void **state) {
    (void)state;
    Bench benches[BENCHES];
    for (uint32_t i = 0; i < BENCHES; i++) {
        bench_open(&benches[i], 1, (ExecOptions){.seqs = pools[i]});
        null_work_later(exec_device(benches[i].x, 0));
    }
    for (uint64_t i = 0; i < n_schedules / 20; i++) run_schedule(benches, first_seed + i);
    for (uint32_t i = 0; i < BENCHES; i++) bench_close(&benches[i]);
}

// Twelve sequences at once where the pages hold three: all get their tokens, none is thrown out often.
static void pressure_is_borne(void **state) {
    (void)state;
    enum { MANY = 1000, OFTEN = 4 };
    Bench b;
    Err e;
    chance_state = 5;
    bench_open(&b, 1, (ExecOptions){.seqs = 3});
    Batch *batch = batch_new(b.x, NULL, &e);
    Job *jobs = calloc(MANY, sizeof *jobs);
    for (uint32_t i = 0; i < MANY; i++) {
        Job *j = &jobs[i];
        *j = (Job){.n_prompt = 4 + chance(12),
                   .request = {.max_tokens = 20 + chance(12), .ids = j->ids, .user = j}};
        j->n = j->request.n_ids = j->n_prompt;
        for (uint32_t k = 0; k < j->n; k++) j->ids[k] = (int32_t)chance(SMALL_VOCAB);
        j->seq = seq_new(batch_limits(batch), &j->request, &e);
        batch_add(batch, j->seq);
    }
    Run run = {.batch = batch, .bench = &b};
    while (batch_busy(batch)) {
        const BatchToken *t;
        uint32_t n;
        if (!batch_step(batch, &t, &n, &e)) fail_msg("%s", e.msg);
        for (uint32_t i = 0; i < n; i++) take(&run, &t[i]);
    }
    assert_true(batch_stats(batch)->preemptions > 0);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(jobs[i].ends, 1);
        assert_true(jobs[i].seq->n_entered - 1 <= OFTEN);
        batch_remove(batch, jobs[i].seq);
        seq_free(jobs[i].seq);
    }
    free(jobs);
    batch_free(batch);
    bench_close(&b);
}

int main(int argc, char **argv) {
    if (argc > 1) n_schedules = strtoull(argv[1], NULL, 10);
    if (argc > 2) first_seed = strtoull(argv[2], NULL, 10);
    const struct CMUnitTest tests[] = {cmocka_unit_test(schedules_change_no_answer),
                                       cmocka_unit_test(late_devices_change_no_answer),
                                       cmocka_unit_test(pressure_is_borne)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
