// What sampling takes at the vocabulary of Qwen3, logits in the L2 as the head leaves them: greedy, the cuts
// that models' makers advise, cuts that hardly cut, and all that a request can ask for.
#include <stdio.h>

#include "runtime/base/num.h"
#include "tests/device/device.h"

enum { VOCAB = 151669, VOCAB_ROWS = 151936, ROWS_MAX = 64, BUCKETS = 4, LAUNCHES = 20 };
static const uint32_t buckets[BUCKETS] = {1, 4, 16, 64};
static uint32_t forms[BUCKETS];

static const struct {
    const char *name;
    SamplingRow row;
    float sigma; // of the logits
} cases[] = {
    {"greedy", {.top_p = 1}, 2.5f},
    {"temperature", {.temperature = 1, .top_p = 1}, 2.5f},
    {"top_k 20 top_p 0.95", {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20}, 2.5f},
    {"top_p 0.95", {.temperature = 1, .top_p = 0.95f}, 2.5f},
    {"top_p 0.95, flat", {.temperature = 1, .top_p = 0.95f}, 0.5f},
    {"min_p 0.05", {.temperature = 1, .top_p = 1, .min_p = 0.05f}, 2.5f},
    {"logprobs 5, greedy", {.top_p = 1, .features = SAMPLE_LOGPROBS, .top_logprobs = 5}, 2.5f},
    {"everything",
     {.temperature = 0.7f,
      .top_p = 0.9f,
      .top_k = 40,
      .features = SAMPLE_ADJUSTS | SAMPLE_LOGPROBS,
      .repetition = 1.1f,
      .presence = 0.1f,
      .frequency = 0.1f,
      .min_tokens = 1u << 30,
      .n_bias = 300,
      .n_stop = 4,
      .top_logprobs = 20},
     2.5f},
};

static void setup(void) {
    for (uint32_t b = 0; b < BUCKETS; b++)
        forms[b] = device_add("sample vocab_rows=%d vocab=%d rows_max=%d @ %u", VOCAB_ROWS, VOCAB, ROWS_MAX,
                              buckets[b]);
}

static void sampling_of_qwen3(void **state) {
    (void)state;
    const size_t cols = TOKEN_COLS(VOCAB), n = (size_t)ROWS_MAX * VOCAB_ROWS;
    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        float *x = test_alloc(n * sizeof *x);
        uint8_t *mask = test_alloc(ROWS_MAX * cols / 8);
        TokenLists *lists = test_alloc(ROWS_MAX * sizeof *lists);
        SamplingRow rows[ROWS_MAX];
        random_fill(c, x, n, cases[c].sigma);
        memset(mask, 0xF7, ROWS_MAX * cols / 8);
        for (uint32_t r = 0; r < ROWS_MAX; r++) {
            rows[r] = cases[c].row, rows[r].seed = rows[r].slot = r;
            for (int32_t i = 0; i < BIAS_MAX; i++) lists[r].bias_id[i] = 200 * i;
        }
        void *args[LAUNCHES][TEMPLATE_ARGS_MAX] = {
            {device_copy(x, n * sizeof *x), device_copy(rows, sizeof rows),
             device_fill(sizeof(int32_t) * ROWS_MAX), device_fill(sizeof(uint32_t) * ROWS_MAX), NULL, NULL,
             device_copy(test_alloc(ROWS_MAX * cols * 2), ROWS_MAX * cols * 2),
             device_copy(lists, ROWS_MAX * sizeof *lists), device_copy(mask, ROWS_MAX * cols / 8),
             device_fill(LOGPROBS_BYTES(ROWS_MAX))}};
        for (uint32_t b = 0; b < BUCKETS; b++) {
            args[0][4] = device_counts(0, buckets[b]);
            for (uint32_t i = 1; i < LAUNCHES; i++) memcpy(args[i], args[0], sizeof args[0]);
            double us = device_time_us(forms[b], args, LAUNCHES);
            printf("%-22s @ %-3u %8.2f us   predicted (greedy) %6.2f   %s\n", cases[c].name, buckets[b], us,
                   device_choice(forms[b])->predicted_us, device_spec(forms[b]));
            fflush(stdout);
        }
        device_drop_all();
    }
}

static const struct CMUnitTest tests[] = {device_test(sampling_of_qwen3)};
DEVICE_MAIN(setup, tests)
