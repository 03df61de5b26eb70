// sample: greedy ties, cuts against a full sort, the distribution of many draws, what is not a number; what a
// row may ask for beside that, feature by feature against plain arithmetic.
#include <math.h>
#include <stdlib.h>

#include "runtime/base/fp.h"
#include "tests/kernels/sample_reference.h"

static Kernels kernels;
enum { SMALL = 43, SMALL_ROWS = 48, LARGE = 5000, LARGE_ROWS = 5001 };
static uint32_t small_id, large_id;

static void setup(void) {
    small_id = kernels_add(&kernels, "sample vocab_rows=%d vocab=%d rows_max=2", SMALL_ROWS, SMALL);
    large_id = kernels_add(&kernels, "sample vocab_rows=%d vocab=%d rows_max=2", LARGE_ROWS, LARGE);
}

// The state of two slots, and what logprobs are written.
typedef struct {
    uint16_t counts[2][TOKEN_COLS(SMALL)];
    TokenLists lists[2];
    uint32_t mask[2][TOKEN_COLS(SMALL) / 32];
    LogprobRow logprobs[RING_SLOTS][2];
} State;

static int32_t draw_with(uint32_t id, const float *logits, SamplingRow *row, uint32_t *status, State *s) {
    int32_t *next = fenced_alloc(sizeof *next);
    uint32_t counts[4] = {0, 1, 6};
    void *args[] = {(void *)(uintptr_t)logits,
                    row,
                    next,
                    status,
                    counts,
                    NULL,
                    s ? s->counts : NULL,
                    s ? s->lists : NULL,
                    s ? s->mask : NULL,
                    s ? s->logprobs : NULL};
    kernels_run(&kernels, id, args, 1);
    int32_t token = *next;
    fenced_free(next);
    return token;
}

static int32_t draw(uint32_t id, const float *logits, SamplingRow *row, uint32_t *status) {
    return draw_with(id, logits, row, status, NULL);
}

static void greedy(void **state) {
    (void)state;
    float logits[SMALL_ROWS];
    for (uint32_t at = 0; at < SMALL; at++) {
        SamplingRow row = {.top_p = 1, .step = 5};
        uint32_t status = 9;
        for (uint32_t i = 0; i < SMALL_ROWS; i++)
            logits[i] = i < SMALL ? -3 : 99; // rows past vocab are no tokens
        logits[at] = logits[SMALL - 1] = 2;
        assert_int_equal(draw(small_id, logits, &row, &status), at); // the lowest id of a tie
        assert_int_equal(status, ROW_OK);
        assert_int_equal(row.step, 6);
    }
}

static void not_finite(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t b = 0; b < COUNT_OF(bad); b++)
        for (uint32_t at = 0; at < SMALL_ROWS; at++) {
            float logits[SMALL_ROWS] = {0};
            SamplingRow row = {.temperature = b == 1, .top_p = 1};
            uint32_t status = 9;
            logits[at] = bad[b];
            int32_t token = draw(small_id, logits, &row, &status);
            assert_int_equal(status, at < SMALL ? ROW_NOT_FINITE : ROW_OK);
            assert_in_range(token, 0, SMALL - 1);
        }
}

static void check_distribution(uint32_t id, uint32_t n, float *logits, SamplingRow row, uint32_t draws) {
    double *p = xmalloc(n * sizeof *p), chi = 0, cells = 0;
    bool *unsure = xmalloc(n * sizeof *unsure);
    uint32_t *seen = xmalloc(n * sizeof *seen), status;
    memset(seen, 0, n * sizeof *seen);
    reference(logits, n, &row, p, unsure);
    for (uint32_t i = 0; i < draws; i++) seen[draw(id, logits, &row, &status)]++;
    for (uint32_t i = 0; i < n; i++) {
        if (seen[i] && p[i] == 0 && !unsure[i])
            check_fail("id %u was drawn although cut (top_k %u top_p %g min_p %g)", i, row.top_k,
                       (double)row.top_p, (double)row.min_p);
        double expected = p[i] * draws;
        if (expected < 5) continue;
        chi += (seen[i] - expected) * (seen[i] - expected) / expected, cells++;
    }
    if (chi > cells + 6 * sqrt(2 * cells) + 12)
        check_fail("chi square %.1f over %.0f ids (top_k %u top_p %g min_p %g)", chi, cells, row.top_k,
                   (double)row.top_p, (double)row.min_p);
    free(p), free(unsure), free(seen);
}

static void distributions(void **state) {
    (void)state;
    static const SamplingRow rows[] = {
        {.temperature = 1, .top_p = 1, .seed = 1},
        {.temperature = 0.7f, .top_p = 0.9f, .seed = 2},
        {.temperature = 1.3f, .top_p = 1, .top_k = 5, .seed = 3},
        {.temperature = 1, .top_p = 1, .min_p = 0.2f, .seed = 4},
        {.temperature = 2, .top_p = 0.8f, .top_k = 12, .min_p = 0.05f, .seed = 5},
        {.temperature = 1e-6f, .top_p = 0.5f, .seed = 6},
        {.temperature = 1e6f, .top_p = 1, .top_k = 1000000, .seed = 7},
    };
    float small[SMALL_ROWS], *large = xmalloc(LARGE_ROWS * sizeof *large);
    random_fill(1, small, SMALL_ROWS, 2), random_fill(2, large, LARGE_ROWS, 2);
    for (uint32_t i = 0; i < SMALL; i += 3) small[i] = 1.5f; // many equal logits
    large[0] = -0.0f, large[1] = 0;
    for (size_t r = 0; r < COUNT_OF(rows); r++) {
        check_distribution(small_id, SMALL, small, rows[r], 3000);
        check_distribution(large_id, LARGE, large, rows[r], 400);
    }
    free(large);
}

static void seed_and_step_alone(void **state) {
    (void)state;
    float logits[SMALL_ROWS];
    random_fill(3, logits, SMALL_ROWS, 1);
    uint32_t same = 0, status;
    for (uint64_t step = 0; step < 50; step++) {
        SamplingRow a = {.temperature = 1, .top_p = 1, .seed = 8, .step = step}, b = a, c = a;
        c.seed = 9;
        int32_t token = draw(small_id, logits, &a, &status);
        assert_int_equal(token, draw(small_id, logits, &b, &status));
        same += token == draw(small_id, logits, &c, &status);
    }
    assert_in_range(same, 0, 25);
}

// The greedy choice shows which logit is the largest after the adjustments.
static int32_t best_of(const float *logits, SamplingRow row, State *s) {
    uint32_t status = 9;
    int32_t id = draw_with(small_id, logits, &row, &status, s);
    assert_int_equal(status, ROW_OK);
    return id;
}

static void penalties(void **state) {
    (void)state;
    static State s;
    float logits[SMALL_ROWS] = {0};
    logits[3] = 4, logits[5] = 3.5f, logits[7] = 3;
    SamplingRow row = {.top_p = 1, .features = SAMPLE_PENALTIES, .slot = 1, .repetition = 1};
    memset(&s, 0, sizeof s);
    s.counts[0][3] = 9; // another sequence's
    assert_int_equal(best_of(logits, row, &s), 3);
    assert_int_equal(s.counts[1][3], 1); // it was drawn
    row.frequency = 0.4f;
    assert_int_equal(best_of(logits, row, &s), 3); // 3.6
    assert_int_equal(best_of(logits, row, &s), 5); // 3.2
    row.frequency = 0, row.presence = 0.75f;
    assert_int_equal(best_of(logits, row, &s), 3); // 3.25, 2.75: how often does not matter
    row.presence = 0, row.repetition = 2;
    s.counts[1][7] = COUNT_PROMPT;
    assert_int_equal(best_of(logits, row, &s), 3); // 2, 1.75, 1.5: the prompt counts here
    row.presence = 0.6f;
    assert_int_equal(best_of(logits, row, &s), 7); // and only here
    for (uint32_t i = 0; i < SMALL; i++) logits[i] = -3;
    logits[3] = -2, s.counts[1][3] = 1, row.presence = 0;
    assert_int_equal(best_of(logits, row, &s), 0); // -4: negative logits are multiplied
    s.counts[1][0] = COUNT_PROMPT | COUNT_MOST;
    logits[0] = 9;
    assert_int_equal(best_of(logits, row, &s), 0);
    assert_int_equal(s.counts[1][0], COUNT_PROMPT | COUNT_MOST); // no wrap
}

static void bias_and_stops(void **state) {
    (void)state;
    static State s;
    float logits[SMALL_ROWS] = {[2] = 1, [40] = 3, [42] = 2};
    SamplingRow row = {.top_p = 1, .features = SAMPLE_BIAS, .slot = 1, .repetition = 1, .n_bias = 2};
    memset(&s, 0, sizeof s);
    s.lists[1].bias_id[0] = 2, s.lists[1].bias[0] = 2.5f;
    s.lists[1].bias_id[1] = 40, s.lists[1].bias[1] = -100;
    s.lists[1].stop[0] = 2, s.lists[1].stop[1] = 42;
    assert_int_equal(best_of(logits, row, &s), 2);
    row.features = SAMPLE_STOP, row.min_tokens = 3, row.n_stop = 2, row.step = 2;
    assert_int_equal(best_of(logits, row, &s), 40);
    row.features |= SAMPLE_BIAS;
    assert_int_equal(best_of(logits, row, &s), 0);
    row.step = 3; // long enough
    assert_int_equal(best_of(logits, row, &s), 2);
}

static void masks(void **state) {
    (void)state;
    static State s;
    float logits[SMALL_ROWS];
    uint32_t status, seen = 0;
    memset(&s, 0, sizeof s);
    random_fill(4, logits, SMALL_ROWS, 3);
    for (int32_t at = 0; at < SMALL; at++) {
        memset(s.mask, 0, sizeof s.mask);
        s.mask[1][at / 32] = 1u << at % 32;
        SamplingRow row = {.top_p = 0.5f, .temperature = (float)(at % 2), .features = SAMPLE_MASK, .slot = 1};
        assert_int_equal(best_of(logits, row, &s), at);
    }
    s.mask[1][0] = 0xF0, s.mask[1][1] = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        SamplingRow row = {
            .top_p = 1, .temperature = 50, .top_k = 30, .seed = seed, .features = SAMPLE_MASK, .slot = 1};
        seen |= 1u << best_of(logits, row, &s);
    }
    assert_int_equal(seen, 0xF0);
    memset(s.mask, 0, sizeof s.mask);
    SamplingRow row = {.top_p = 1, .features = SAMPLE_MASK, .slot = 1};
    draw_with(small_id, logits, &row, &status, &s);
    assert_int_equal(status, ROW_NONE_ALLOWED);
}

static void logprobs(void **state) {
    (void)state;
    static State s;
    for (uint32_t top = 0; top <= LOGPROBS_MAX; top += 5) {
        float *logits = xmalloc(LARGE_ROWS * sizeof *logits);
        Ranked *rank = xmalloc(LARGE * sizeof *rank);
        random_fill(top, logits, LARGE_ROWS, 3);
        for (uint32_t i = 0; i < LARGE; i += 7) logits[i] = 8; // ties among the largest
        double sum = 0;
        for (uint32_t i = 0; i < LARGE; i++) rank[i] = (Ranked){logits[i], i}, sum += exp((double)logits[i]);
        qsort(rank, LARGE, sizeof *rank, by_rank);
        memset(&s, 0xEE, sizeof s);
        SamplingRow row = {.top_p = 1, .temperature = 1, .features = SAMPLE_LOGPROBS, .top_logprobs = top};
        uint32_t status;
        int32_t id = draw_with(large_id, logits, &row, &status, &s);
        const LogprobRow *out = &s.logprobs[6 % RING_SLOTS][0];
        assert_int_equal(out->n, 1 + top);
        assert_int_equal(out->id[0], id);
        assert_true(fabs((double)out->logprob[0] - (double)logits[id] + log(sum)) < 2e-6);
        for (uint32_t i = 0; i < top; i++) {
            assert_int_equal(out->id[1 + i], rank[i].id);
            assert_true(fabs((double)out->logprob[1 + i] - (double)rank[i].logit + log(sum)) < 2e-6);
        }
        free(logits), free(rank);
    }
}

// Of a token that is given its logprob alone is asked: of the logits as they are, past the vocabulary, too.
static void given_tokens(void **state) {
    (void)state;
    static State s;
    float *logits = xmalloc(LARGE_ROWS * sizeof *logits);
    double sum = 0;
    random_fill(9, logits, LARGE_ROWS, 3);
    for (uint32_t i = 0; i < LARGE; i++) sum += exp((double)logits[i]);
    const uint32_t given[] = {0, 7, LARGE - 1, LARGE_ROWS - 1};
    for (uint32_t i = 0; i < 4; i++) {
        SamplingRow row = {
            .top_p = 1, .features = SAMPLE_LOGPROBS | SAMPLE_GIVEN, .top_logprobs = 1, .seed = given[i]};
        uint32_t status;
        memset(&s, 0xEE, sizeof s);
        assert_int_equal(draw_with(large_id, logits, &row, &status, &s), given[i]);
        const LogprobRow *out = &s.logprobs[6 % RING_SLOTS][0];
        assert_int_equal(out->id[0], given[i]);
        assert_true(fabs((double)out->logprob[0] - (double)logits[given[i]] + log(sum)) < 2e-6);
        assert_true(out->logprob[1] >= out->logprob[0] || given[i] >= LARGE);
    }
    free(logits);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(greedy),        cmocka_unit_test(not_finite),
    cmocka_unit_test(distributions), cmocka_unit_test(seed_and_step_alone),
    cmocka_unit_test(penalties),     cmocka_unit_test(bias_and_stops),
    cmocka_unit_test(masks),         cmocka_unit_test(logprobs),
    cmocka_unit_test(given_tokens),
};
KERNELS_MAIN(kernels, setup, tests)
