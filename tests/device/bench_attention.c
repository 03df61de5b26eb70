// What attention takes in Qwen3-8B with cold caches: decode steps by batch and context, beside the reading of
// keys and values, and chunks of a prompt by what stands before them, beside the products.
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/num.h"
#include "tests/device/device.h"

enum { HEADS = 32, KV_HEADS = 8, DIM = 128, LAYER_BYTES = 2 * KV_HEADS * DIM * 64, LAYERS = 4 };
enum { PAGES = 160, SLOTS = 8, LAUNCHES = 32, TOKENS_MAX = 1024, COLUMNS = HEADS * DIM };
static const struct {
    uint32_t bucket, tokens, context; // decode: `tokens` sequences; chunk: tokens behind `context` others
} cases[] = {{1, 1, 150},    {1, 1, 1000},  {1, 1, 2048},    {1, 1, 8192},       {4, 4, 1000},
             {4, 4, 8192},   {8, 8, 8192},  {64, 64, 200},   {16, 16, 1000},     {16, 16, 8192},
             {64, 64, 1000}, {256, 256, 0}, {1024, 1024, 0}, {1024, 1024, 1024}, {1024, 1024, 8192}};
static uint32_t forms[COUNT_OF(cases)];

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        forms[i] = device_add("attention heads=%d kv_heads=%d head_dim=%d scale=0.0883883476 page_tokens=64 "
                              "page_bytes=%d pages_per_seq=%d out_pitch=%u @ %u",
                              HEADS, KV_HEADS, DIM, LAYERS * LAYER_BYTES, PAGES, act_pitch(COLUMNS, false),
                              cases[i].bucket);
}

// Bytes of ordinary size everywhere.
static void *pool_of(size_t bytes) {
    uint8_t *data = malloc(bytes);
    uint64_t seed = 1, word = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (i % 8 == 0) word = random_u64(&seed);
        data[i] = (uint8_t)(word >> i % 8 * 8) & 0xB7;
    }
    void *p = device_copy(data, bytes);
    free(data);
    return p;
}

static void attention_of_qwen3_8b(void **state) {
    (void)state;
    uint8_t *pool = pool_of((size_t)SLOTS * PAGES * LAYERS * LAYER_BYTES);
    int32_t *table = test_alloc(sizeof(int32_t) * 64 * PAGES);
    for (int32_t i = 0; i < 64 * PAGES; i++) table[i] = (i * 7 + 3) % (SLOTS * PAGES);
    float *q = test_alloc(sizeof(float) * TOKENS_MAX * COLUMNS), scale[2] = {1, 1};
    random_fill(3, q, (size_t)TOKENS_MAX * COLUMNS, 1);
    void *d_table = device_copy(table, sizeof(int32_t) * 64 * PAGES),
         *d_scale = device_copy(scale, sizeof scale);
    void *d_q = device_copy(q, sizeof(float) * TOKENS_MAX * COLUMNS);
    void *out = device_fill((size_t)TOKENS_MAX * act_pitch(COLUMNS, false));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const uint32_t n = cases[i].tokens, before = cases[i].context;
        const bool chunk = cases[i].bucket > 64;
        static int32_t pos[TOKENS_MAX], slot[TOKENS_MAX];
        double pairs = 0;
        for (uint32_t t = 0; t < n; t++) {
            pos[t] = (int32_t)(chunk ? before + t : before - 1), slot[t] = chunk ? 0 : (int32_t)t;
            pairs += pos[t] + 1;
        }
        void *d_pos = device_copy(pos, n * sizeof *pos), *d_slot = device_copy(slot, n * sizeof *slot);
        void *counts = device_counts(n, 0), *args[LAUNCHES][TEMPLATE_ARGS_MAX];
        for (uint32_t l = 0; l < LAUNCHES; l++) {
            void *one[] = {d_q,     pool + (size_t)(l % LAYERS) * LAYER_BYTES,
                           d_scale, d_table,
                           d_pos,   d_slot,
                           out,     counts,
                           NULL,    NULL};
            memcpy(args[l], one, sizeof one);
        }
        const double us = device_time_us(forms[i], args, LAUNCHES);
        printf("%4u tokens, %4u keys before @ %-4u %9.2f us %7.0f GB/s %7.1f TFLOP/s   predicted %9.2f\n", n,
               before, cases[i].bucket, us, chunk ? 0.0 : pairs * 2 * KV_HEADS * DIM / us / 1e3,
               pairs * HEADS * DIM * 4 / us / 1e6, device_choice(forms[i])->predicted_us);
        fflush(stdout);
    }
}

static const struct CMUnitTest tests[] = {device_test(attention_of_qwen3_8b)};
DEVICE_MAIN(setup, tests)
