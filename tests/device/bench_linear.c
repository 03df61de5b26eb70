// What the products of Qwen3-8B take with cold caches, beside the reading of their weights and the
// prediction:
//     linear n=6144 k=4096   @ 1     6.9 us   2052 GB/s   predicted 6.5
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/num.h"
#include "tests/device/device.h"

enum { COLD_BYTES = 200 << 20, COPIES_MAX = 64, BUCKETS = 10, LAUNCHES_MIN = 20 };
static const uint32_t buckets[BUCKETS] = {1, 2, 4, 8, 16, 32, 64, 256, 1024, 2048};

typedef struct {
    const char *name;
    bool gate, f16, norm; // norm: rows are normed by the product itself
    uint32_t n, k;        // gate_up: n is the width of what it gives
    uint32_t forms[BUCKETS];
} Shape;
static Shape shapes[] = {
    {.name = "qkv", .n = 6144, .k = 4096},
    {.name = "norm+qkv", .norm = true, .n = 6144, .k = 4096},
    {.name = "o", .n = 4096, .k = 4096},
    {.name = "gate_up", .gate = true, .n = 12288, .k = 4096},
    {.name = "norm+gate", .gate = true, .norm = true, .n = 12288, .k = 4096},
    {.name = "down", .n = 4096, .k = 12288},
    {.name = "head", .f16 = true, .n = 151936, .k = 4096},
};

// The head is computed for the rows that get logits alone; only few rows are normed by products.
static bool wanted(const Shape *s, uint32_t bucket) {
    return bucket <= (s->norm ? 2u : s->f16 ? 64u : 2048u);
}

// As in a plan, where every such product fetches for the next one; here what it has read itself.
static uint32_t next_bytes(const Shape *s) { return s->norm ? 1 << 20 : 0; }

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        for (uint32_t b = 0; b < BUCKETS; b++) {
            Shape *s = &shapes[i];
            if (!wanted(s, buckets[b])) continue;
            s->forms[b] =
                s->gate
                    ? device_add("gate_up f=%u k=%u format=nvfp4 act=silu x_pitch=%u out_pitch=%u norm=%u "
                                 "next_bytes=%u @ %u",
                                 s->n, s->k, act_pitch(s->k, false), act_pitch(s->n, false), s->norm,
                                 next_bytes(s), buckets[b])
                    : device_add(
                          "linear n=%u k=%u format=%s out_stride=%u x_pitch=%u norm=%u next_bytes=%u @ %u",
                          s->n, s->k, s->f16 ? "f16" : "nvfp4", s->n, act_pitch(s->k, false), s->norm,
                          next_bytes(s), buckets[b]);
        }
}

// Codes and scales of ordinary size: every byte from 0x28 to 0x37.
static void *random_weight(size_t bytes) {
    uint8_t *data = xmalloc(bytes);
    uint64_t seed = 1, word = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (i % 8 == 0) word = random_u64(&seed);
        data[i] = (uint8_t)(0x28 + (word >> i % 8 * 8) % 16);
    }
    void *p = device_copy(data, bytes);
    free(data);
    return p;
}

static void products_of_qwen3_8b(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        const Shape *s = &shapes[i];
        uint64_t rows = s->gate ? 2 * s->n : s->n, bytes = rows * s->k * (s->f16 ? 32 : 9) / 16;
        uint32_t copies = (uint32_t)MIN(COLD_BYTES / bytes + 1, (uint64_t)COPIES_MAX);
        void *weights[COPIES_MAX], *args[COPIES_MAX][TEMPLATE_ARGS_MAX];
        for (uint32_t c = 0; c < copies; c++) weights[c] = random_weight(bytes);
        float *ones = test_alloc(rows * sizeof *ones), *x = test_alloc((size_t)2048 * s->k * sizeof *x);
        for (uint64_t r = 0; r < rows; r++) ones[r] = 1;
        random_fill(2, x, (size_t)2048 * s->k, 1);
        TestActs acts = acts_of(x, 2048, s->k, act_pitch(s->k, false), false);
        void *scale = device_copy(ones, rows * sizeof *ones), *rows_x = device_copy(acts.rows, acts.bytes),
             *residual = device_copy(x, 2ull * s->k * sizeof *x);
        void *out = device_fill((size_t)(s->f16 ? 64 : 2048) * rows * sizeof(float));
        for (uint32_t b = 0; b < BUCKETS; b++) {
            if (!wanted(s, buckets[b])) continue;
            void *counts = device_counts(buckets[b], buckets[b]);
            uint32_t n = MAX(copies, (uint32_t)LAUNCHES_MIN);
            for (uint32_t c = 0; c < n; c++) {
                void *one[] = {rows_x, weights[c % copies], scale, scale, out, counts, NULL, residual,
                               scale,  weights[c % copies]};
                memcpy(args[c], one, sizeof one);
            }
            double us = device_time_us(s->forms[b], args, n);
            printf("%-9s @ %-4u %9.2f us %7.0f GB/s   predicted %9.2f   %s\n", s->name, buckets[b], us,
                   (double)bytes / us / 1e3, device_choice(s->forms[b])->predicted_us,
                   device_spec(s->forms[b]));
            fflush(stdout);
        }
        device_drop_all();
    }
}

static const struct CMUnitTest tests[] = {device_test(products_of_qwen3_8b)};
DEVICE_MAIN(setup, tests)
