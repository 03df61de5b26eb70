// The sampler on a card: greedy ties, what is not a number, draws against doubles with a full sort, feature
// by feature and all together; the same bits however many blocks share a row and whatever else is in the
// batch.
#include "runtime/base/fp.h"
#include "tests/device/device.h"
#include "tests/kernels/sample_reference.h"

enum { ROWS = 4, FORMS = 8, STEP = 6 };
typedef struct {
    uint32_t vocab_rows, vocab;
    const char *schedule;
    uint32_t kernel;
} Form;
#define BY_HAND " | threads=512 shared=26624 work=4000000 "
static Form forms[FORMS] = {{48, 43, BY_HAND "blocks=1 grid=4", 0},
                            {48, 43, BY_HAND "blocks=5 grid=20", 0},
                            {5001, 5000, BY_HAND "blocks=1 grid=4", 0},
                            {5001, 5000, BY_HAND "blocks=3 grid=12", 0},
                            {151936, 151669, " @ 4", 0},
                            {151936, 151669, " @ 64", 0},
                            {151936, 151669, BY_HAND "blocks=16 grid=64", 0},
                            {262208, 262145, " @ 4", 0}};

static void setup(void) {
    for (uint32_t i = 0; i < FORMS; i++) {
        Form *f = &forms[i];
        f->kernel = device_add("sample vocab_rows=%u vocab=%u rows_max=%d%s", f->vocab_rows, f->vocab, ROWS,
                               f->schedule);
    }
}

// A step of up to ROWS rows: what goes in, and what came out.
typedef struct {
    const Form *form;
    uint32_t n_rows;
    float *logits; // [ROWS, vocab_rows]
    SamplingRow rows[ROWS];
    uint16_t *counts; // [ROWS slots, TOKEN_COLS]
    TokenLists lists[ROWS];
    uint32_t *mask; // [ROWS slots, TOKEN_COLS / 32]
    int32_t next[ROWS];
    uint32_t status[ROWS];
    SamplingRow rows_after[ROWS];
    uint16_t *counts_after;
    LogprobRow *logprobs; // [ROWS]
} Sampled;

static Sampled sampled_of(const Form *f, uint32_t n_rows) {
    const size_t cols = TOKEN_COLS(f->vocab);
    return (Sampled){.form = f,
                     .n_rows = n_rows,
                     .logits = test_alloc((size_t)ROWS * f->vocab_rows * sizeof(float)),
                     .counts = test_alloc(ROWS * cols * sizeof(uint16_t)),
                     .mask = test_alloc(ROWS * cols / 8)};
}

// grid 0: as the form has it.
static void sample_rows(Sampled *s, uint32_t grid) {
    const size_t cols = TOKEN_COLS(s->form->vocab);
    const uint32_t numbers[4] = {[COUNT_ROWS] = s->n_rows, [COUNT_STEP] = STEP};
    void *rows = device_copy(s->rows, sizeof s->rows), *next = device_fill(sizeof s->next);
    void *status = device_fill(sizeof s->status), *logprobs = device_fill(LOGPROBS_BYTES(ROWS));
    void *counts = device_copy(s->counts, ROWS * cols * sizeof *s->counts);
    void *args[] = {device_copy(s->logits, (size_t)ROWS * s->form->vocab_rows * sizeof(float)),
                    rows,
                    next,
                    status,
                    device_copy(numbers, sizeof numbers),
                    NULL,
                    counts,
                    device_copy(s->lists, sizeof s->lists),
                    device_copy(s->mask, ROWS * cols / 8),
                    logprobs};
    if (grid)
        device_run_grid(s->form->kernel, args, COUNT_OF(args), grid);
    else
        device_run(s->form->kernel, args, COUNT_OF(args));
    memcpy(s->next, device_read(next), sizeof s->next);
    memcpy(s->status, device_read(status), sizeof s->status);
    memcpy(s->rows_after, device_read(rows), sizeof s->rows);
    s->counts_after = device_read(counts);
    s->logprobs = (LogprobRow *)device_read(logprobs) + STEP % RING_SLOTS * ROWS;
    for (uint32_t r = 0; r < ROWS; r++) {
        bool there = r < s->n_rows;
        assert_int_equal(s->rows_after[r].step, s->rows[r].step + there);
        if (there) continue;
        assert_int_equal(s->next[r], -1); // rows past the count are left alone
        assert_int_equal(s->status[r], UINT32_MAX);
    }
}

static void greedy_takes_the_first_of_the_largest(void **state) {
    (void)state;
    for (uint32_t f = 0; f < FORMS; f++)
        for (uint32_t round = 0; round < 12; round++) {
            const uint32_t vocab = forms[f].vocab, pitch = forms[f].vocab_rows;
            uint64_t seed = f * 100 + round;
            Sampled s = sampled_of(&forms[f], 1 + round % ROWS);
            uint32_t want[ROWS];
            for (uint32_t r = 0; r < ROWS; r++) {
                float *x = s.logits + (size_t)r * pitch;
                random_fill(seed + 7 * r, x, pitch, 2);
                for (uint32_t i = vocab; i < pitch; i++) x[i] = i % 2 ? 99 : NAN; // no tokens
                uint32_t a = round == 0 ? 0 : (uint32_t)(random_u64(&seed) % vocab), b = vocab - 1;
                if (round % 3 == 1) // nothing is above zero, and zeros have signs
                    for (uint32_t i = 0; i < vocab; i++) x[i] = -fabsf(x[i]) - 1;
                x[a] = round % 3 == 1 ? -0.0f : 50, x[b] = round % 3 == 1 ? 0.0f : 50;
                want[r] = a;
                s.rows[r] = (SamplingRow){.top_p = 1, .step = 5 + r};
            }
            sample_rows(&s, round % 2 ? 0 : 3);
            for (uint32_t r = 0; r < s.n_rows; r++) {
                assert_int_equal(s.next[r], want[r]);
                assert_int_equal(s.status[r], ROW_OK);
            }
            device_drop_all();
        }
}

static void what_is_not_finite_is_told(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (uint32_t f = 0; f < FORMS; f++)
        for (uint32_t round = 0; round < 9; round++) {
            uint64_t seed = round;
            Sampled s = sampled_of(&forms[f], 3);
            uint32_t at = round < 3 ? forms[f].vocab - 1 : (uint32_t)(random_u64(&seed) % forms[f].vocab);
            s.logits[forms[f].vocab_rows + at] = bad[round % 3];
            for (uint32_t r = 0; r < 3; r++)
                s.rows[r] = (SamplingRow){.temperature = (float)(round / 3), .top_p = 0.9f, .seed = round};
            sample_rows(&s, 0);
            for (uint32_t r = 0; r < 3; r++) assert_int_equal(s.status[r], r == 1 ? ROW_NOT_FINITE : ROW_OK);
            device_drop_all();
        }
}

// Rows of every kind: flat, peaked, full of ties, nearly equal; cuts that meet and cuts that do not.
static void random_row(Sampled *s, uint32_t r, uint64_t *seed, uint32_t features) {
    static const float top_p[] = {1, 0.95f, 0.5f, 0.999f}, min_p[] = {0, 0, 0.05f, 0.3f};
    static const uint32_t top_k[] = {0, 20, 1, 1000, 5000, 151669, 0, 50};
    const uint32_t vocab = s->form->vocab, pitch = s->form->vocab_rows, cols = TOKEN_COLS(vocab);
    float *x = s->logits + (size_t)r * pitch;
    uint32_t kind = random_u64(seed) % 4;
    random_fill(random_u64(seed), x, pitch, kind == 3 ? 1e-3f : (float)(1 + random_u64(seed) % 4));
    for (uint32_t i = 0; kind == 1 && i < vocab; i++) x[i] = rintf(x[i] * 4) / 4;
    for (uint32_t i = 0; kind == 2 && i < 40; i++) x[random_u64(seed) % vocab] += 12;
    for (uint32_t i = vocab; i < pitch; i++) x[i] = NAN;
    const uint64_t a = random_u64(seed), b = random_u64(seed);
    s->rows[r] = (SamplingRow){.temperature = a % 8 ? (float)(1 + a % 6) / 4 : 0,
                               .top_p = top_p[b % 4],
                               .min_p = min_p[b / 4 % 4],
                               .top_k = top_k[b / 16 % 8],
                               .seed = random_u64(seed),
                               .step = b / 128 % 100,
                               .features = features,
                               .slot = ROWS - 1 - r,
                               .repetition = 1.25f,
                               .presence = 0.5f,
                               .frequency = 0.25f,
                               .min_tokens = 50,
                               .n_bias = (uint16_t)MIN(vocab / 2, (uint32_t)BIAS_MAX),
                               .n_stop = STOP_MAX,
                               .top_logprobs = (uint32_t)(a / 8 % (LOGPROBS_MAX + 1))};
    const uint32_t slot = s->rows[r].slot, apart = vocab / s->rows[r].n_bias;
    for (uint32_t i = 0; i < cols; i++) {
        uint64_t u = random_u64(seed);
        s->counts[slot * cols + i] = u % 10 ? 0 : (uint16_t)(u / 16 % 5 | (u >> 20 & 1 ? COUNT_PROMPT : 0));
        s->mask[(slot * cols + i) / 32] |= (uint32_t)(u >> 40 & 1) << i % 32;
    }
    for (uint32_t i = 0; i < s->rows[r].n_bias; i++) // close together, then far apart
        s->lists[slot].bias_id[i] = (int32_t)(i < 10 ? i : i * apart),
        s->lists[slot].bias[i] = 4 - (float)(i % 9);
    for (uint32_t i = 0; i < STOP_MAX; i++) s->lists[slot].stop[i] = (int32_t)(random_u64(seed) % vocab);
}

// The drawn id must be where the random number falls among the reference's shares, within rounding.
static void check_draw(const float *x, uint32_t n, const SamplingRow *row, uint32_t id) {
    double *p = xmalloc(n * sizeof *p), before = 0, u = reference_uniform(row->seed, row->step);
    bool *unsure = xmalloc(n * sizeof *unsure);
    reference(x, n, row, p, unsure);
    for (uint32_t i = 0; i < id; i++) before += p[i];
    if ((p[id] == 0 && !unsure[id]) || u < before - 2e-5 || u > before + p[id] + 2e-5)
        check_fail("id %u: share %g from %g, random number %g (T %g top_k %u top_p %g min_p %g features %u)",
                   id, p[id], before, u, (double)row->temperature, row->top_k, (double)row->top_p,
                   (double)row->min_p, row->features);
    free(p), free(unsure);
}

static void check_logprobs(const LogprobRow *out, const float *x, uint32_t n, uint32_t top, uint32_t id) {
    Ranked *rank = xmalloc(n * sizeof *rank);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) rank[i] = (Ranked){x[i], i}, sum += exp((double)x[i]);
    qsort(rank, n, sizeof *rank, by_rank);
    assert_int_equal(out->n, 1 + MIN(top, n));
    assert_int_equal(out->id[0], id);
    for (uint32_t i = 0; i < out->n; i++) {
        if (i) assert_int_equal(out->id[i], rank[i - 1].id);
        assert_true(fabs((double)out->logprob[i] - (double)x[out->id[i]] + log(sum)) < 1e-5);
    }
    free(rank);
}

static void check_row(const Sampled *s, uint32_t r) {
    const uint32_t vocab = s->form->vocab, slot = s->rows[r].slot;
    const size_t cols = TOKEN_COLS(vocab);
    const float *raw = s->logits + (size_t)r * s->form->vocab_rows;
    const SamplingRow *row = &s->rows[r];
    const uint32_t id = (uint32_t)s->next[r];
    float *x = xmalloc(vocab * sizeof *x);
    memcpy(x, raw, vocab * sizeof *x);
    reference_adjust(x, vocab, row, s->counts + slot * cols, s->lists + slot, s->mask + slot * cols / 32);
    assert_int_equal(s->status[r], ROW_OK);
    assert_in_range(id, 0, vocab - 1);
    const bool given = row->features & SAMPLE_GIVEN;
    if (given) assert_int_equal(id, row->seed);
    for (uint32_t i = 0; !given && row->temperature == 0 && i < vocab; i++)
        assert_true(i < id ? x[i] < x[id] : x[i] <= x[id]);
    if (!given && row->temperature > 0) check_draw(x, vocab, row, id);
    if (row->features & SAMPLE_LOGPROBS) check_logprobs(&s->logprobs[r], raw, vocab, row->top_logprobs, id);
    uint16_t *want = s->counts + slot * cols;
    if (row->features & SAMPLE_PENALTIES) want[id]++;
    check_bits("counts", s->counts_after + slot * cols, want, cols * sizeof *want);
    free(x);
}

static void draws_are_those_of_the_reference(void **state) {
    (void)state;
    for (uint32_t f = 0; f < FORMS; f++)
        for (uint32_t round = 0; round < (f < 4 ? 96u : 24u); round++) {
            uint64_t seed = 1000 * f + round;
            Sampled s = sampled_of(&forms[f], 1 + round % ROWS);
            for (uint32_t r = 0; r < s.n_rows; r++) {
                random_row(&s, r, &seed, round % 2 ? (round / 2 + 7 * r) % 32 : 0);
                if (random_u64(&seed) % 8) continue;
                s.rows[r].features |= SAMPLE_GIVEN | SAMPLE_LOGPROBS;
                s.rows[r].seed %= forms[f].vocab;
            }
            sample_rows(&s, round % 5 == 4 ? 7 : 0);
            for (uint32_t r = 0; r < s.n_rows; r++) check_row(&s, r);
            device_drop_all();
        }
}

// A row alone, and as the last of a batch, in every form of its vocabulary: bit for bit the same.
static void rows_do_not_meet(void **state) {
    (void)state;
    for (uint32_t f = 0; f < FORMS; f++)
        for (uint32_t round = 0; round < 16; round++) {
            uint32_t first = f;
            while (first && forms[first - 1].vocab == forms[f].vocab) first--;
            uint64_t seed = round;
            Sampled alone = sampled_of(&forms[first], 1), batch = sampled_of(&forms[f], ROWS);
            random_row(&alone, 0, &seed, 2 * round);
            for (uint32_t r = 0; r < ROWS; r++) random_row(&batch, r, &seed, 0);
            const uint32_t at = round % ROWS, pitch = forms[f].vocab_rows;
            const size_t cols = TOKEN_COLS(forms[f].vocab);
            alone.rows[0].features |= SAMPLE_LOGPROBS;
            memcpy(batch.logits + (size_t)at * pitch, alone.logits, pitch * sizeof(float));
            batch.rows[at] = alone.rows[0];
            batch.lists[ROWS - 1] = alone.lists[ROWS - 1];
            memcpy(batch.counts + (ROWS - 1) * cols, alone.counts + (ROWS - 1) * cols,
                   cols * sizeof(uint16_t));
            memcpy(batch.mask + (ROWS - 1) * cols / 32, alone.mask + (ROWS - 1) * cols / 32, cols / 8);
            sample_rows(&alone, 0), sample_rows(&batch, round % 2 ? 5 : 0);
            assert_int_equal(alone.next[0], batch.next[at]);
            const LogprobRow *x = &alone.logprobs[0], *y = &batch.logprobs[at];
            check_bits("ids", x->id, y->id, x->n * sizeof *x->id);
            check_bits("logprobs", x->logprob, y->logprob, x->n * sizeof *x->logprob);
            device_drop_all();
        }
}

static void nothing_allowed_is_told(void **state) {
    (void)state;
    for (uint32_t f = 0; f < FORMS; f++)
        for (uint32_t round = 0; round < 4; round++) {
            const uint32_t id = forms[f].vocab - 1 - round;
            Sampled s = sampled_of(&forms[f], 2);
            for (uint32_t r = 0; r < 2; r++)
                s.rows[r] = (SamplingRow){.temperature = (float)(round % 2),
                                          .top_p = 0.9f,
                                          .top_k = round / 2 * 20,
                                          .features = SAMPLE_MASK,
                                          .slot = r};
            s.mask[(TOKEN_COLS(forms[f].vocab) + id) / 32] = 1u << id % 32; // of slot 1 alone
            sample_rows(&s, 0);
            assert_int_equal(s.status[0], ROW_NONE_ALLOWED);
            assert_int_equal(s.status[1], ROW_OK);
            assert_int_equal(s.next[1], id);
            device_drop_all();
        }
}

static const struct CMUnitTest tests[] = {
    device_test(greedy_takes_the_first_of_the_largest),
    device_test(what_is_not_finite_is_told),
    device_test(draws_are_those_of_the_reference),
    device_test(rows_do_not_meet),
    device_test(nothing_allowed_is_told),
};
DEVICE_MAIN(setup, tests)
