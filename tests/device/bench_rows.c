// What the small kernels take in a replayed graph, beside the prediction, with shapes of three models. All
// that they read is zeros in the L2, and `next` as well.
#include <stdio.h>

#include "compiler/ir/template.h"
#include "tests/device/device.h"

enum { BUCKETS = 4, LAUNCHES = 50, BYTES = 80 << 20 };
static const uint32_t buckets[BUCKETS] = {1, 8, 64, 1024};
#define NORM "eps=1e-6 has_branch=1 has_out=1 "
#define ROPE "has_norm=1 eps=1e-6 factor=1 page_tokens=64 page_bytes=1048576 pages_per_seq=8 head_dim=128 "
static const struct {
    const char *template_, *fields;
} specs[] = {
    {"norm_add", NORM "hidden=4096 out_pitch=8208"},
    {"norm_add", NORM "hidden=4096 out_pitch=8208 next_bytes=7500032"},
    {"norm_add", NORM "hidden=5376 has_post=1 out_pitch=10768 next_bytes=7500032"},
    {"norm_add", NORM "hidden=2048 wide=1 out_pitch=12304"},
    {"rope_write", ROPE "heads=32 kv_heads=8"},
    {"rope_write", ROPE "heads=32 kv_heads=8 next_bytes=6000000"},
    {"rope_write", ROPE "heads=32 kv_heads=16 next_bytes=6000000"},
    {"linear_f32", "n=128 k=2048 out_stride=128 wide=1 x_pitch=12304"},
    {"moe_route", "experts=128 k=8 norm=1"},
    {"moe_combine", "topk=8 n=2048"},
    {"embed", "hidden=4096 vocab=100 scale=1 format=rows_bf16"},
    {"act_mul", "f=8192 act=silu out_pitch=16400"},
    {"gather_rows", "hidden=4096 x_pitch=8208"},
    {"advance", "rows_max=1024"},
};
static uint32_t kernels[COUNT_OF(specs)][BUCKETS];

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(specs); i++)
        for (uint32_t b = 0; b < BUCKETS; b++)
            kernels[i][b] = device_add("%s %s @ %u", specs[i].template_, specs[i].fields, buckets[b]);
}

static void small_kernels(void **state) {
    (void)state;
    void *zeros = test_alloc(BYTES), *read = device_copy(zeros, BYTES), *written = device_copy(zeros, BYTES);
    static void *args[LAUNCHES][TEMPLATE_ARGS_MAX];
    for (size_t i = 0; i < COUNT_OF(specs); i++) {
        Template t;
        CHECK(template_find(specs[i].template_, &t));
        for (uint32_t b = 0; b < BUCKETS; b++) {
            void *counts = device_counts(buckets[b], buckets[b]);
            for (uint32_t l = 0; l < LAUNCHES; l++)
                for (uint32_t a = 0; a < t.n_args; a++)
                    args[l][a] = str_is(t.args[a].name, "counts") ? counts
                                 : t.args[a].writes               ? written
                                                                  : read;
            double us = device_time_us(kernels[i][b], args, LAUNCHES);
            printf("%-11s @ %-4u %7.2f us   predicted %7.2f   %s\n", specs[i].template_, buckets[b], us,
                   device_choice(kernels[i][b])->predicted_us, specs[i].fields);
        }
    }
}

static const struct CMUnitTest tests[] = {device_test(small_kernels)};
DEVICE_MAIN(setup, tests)
