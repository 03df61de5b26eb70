// The artifact: written, read back, and refused when a byte is wrong.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"
#include "runtime/exec/manifest.h"
#include "runtime/exec/plan_check.h"
#include "tests/unit/small_model.h"
#include "tests/unit/unit.h"

static Str pack_small(Arena *a, uint32_t n_ranks, unsigned threads) {
    char path[] = "/tmp/adallm-test-XXXXXX";
    close(mkstemp(path));
    Pool *pool = pool_new(threads);
    SmallModel *m = ARENA_NEW(a, SmallModel);
    Diags d = {.arena = a};
    PackReport report;
    small_model(m, a, n_ranks, pool);
    if (!pack_artifact(&m->input, path, &report, &d)) fail_msg("%s", diags_first_message(&d));
    pool_free(pool);
    Str out;
    Err e;
    assert_true(file_read(a, path, 1 << 24, &out, &e));
    assert_int_equal(out.len, report.file_bytes);
    unlink(path);
    return out;
}

static void written_is_read(void **state) {
    (void)state;
    Arena arena = {0};
    Artifact a;
    Manifest m;
    Err e;
    Str file = pack_small(&arena, 2, 2);
    if (!artifact_parse(&a, file.ptr, file.len, ARTIFACT_ALL, NULL, &e)) fail_msg("%s", e.msg);
    assert_int_equal(a.plan->n_ranks, 2);
    assert_int_equal(a.plan->context, SMALL_CONTEXT);
    assert_string_equal(artifact_string(&a, a.kernels[2].name), "sample");
    assert_string_equal(artifact_string(&a, a.launches[0].origin), "by hand");
    assert_int_equal(a.launches[0].n_args, 10);
    assert_int_equal(a.programs[4].bucket, SMALL_TOKENS);
    // both ranks share the constants
    assert_int_equal(artifact_binding(&a, 0, 0)->offset, artifact_binding(&a, 0, 1)->offset);
    const float *vector = (const float *)(a.weight_data + artifact_binding(&a, 1, 0)->offset);
    for (int i = 0; i < SMALL_COLS; i++) assert_true(vector[i] == (float)i / 8 + 1);
    Selftest t;
    assert_true(artifact_selftest(&a, &t));
    assert_int_equal(t.ids[2], 3);
    assert_int_equal(t.columns[1], 60);
    assert_true(t.logits[5] == 6);
    assert_true(manifest_read(&a, &m, &e));
    assert_string_equal(m.model, "small");
    assert_int_equal(m.eos_ids[0], 7);
    assert_false(m.chat);
    artifact_close(&a);
    arena_free(&arena);
}

// HOST_BF16: tiles of 16 rows, words of two columns; each stack of 20 rows is padded to 32.
static void stacks_are_padded_apart(void **state) {
    (void)state;
    Arena arena = {0};
    Artifact a;
    Err e;
    Str file = pack_small(&arena, 1, 1);
    assert_true(artifact_parse(&a, file.ptr, file.len, ARTIFACT_ALL, NULL, &e));
    const uint16_t *w = (const uint16_t *)(a.weight_data + artifact_binding(&a, 0, 0)->offset);
    for (int stack = 0; stack < 2; stack++)
        for (int row = 0; row < 32; row++)
            for (int col = 0; col < SMALL_COLS; col++) {
                float want = row < 20 ? (float)((stack * 20 + row) * SMALL_COLS + col) / 8 : 0;
                const uint16_t *tile = w + (stack * 2 + row / 16) * 16 * SMALL_COLS;
                assert_int_equal(tile[(col / 2 * 16 + row % 16) * 2 + col % 2], f32_to_bf16(want));
            }
    artifact_close(&a);
    arena_free(&arena);
}

static void threads_change_no_byte(void **state) {
    (void)state;
    Arena arena = {0};
    Str a = pack_small(&arena, 1, 1), b = pack_small(&arena, 1, 4);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.ptr, b.ptr, a.len);
    arena_free(&arena);
}

static void every_flip_and_cut_is_seen(void **state) {
    (void)state;
    Arena arena = {0};
    Artifact a;
    Err e;
    Str file = pack_small(&arena, 1, 1);
    char *copy = arena_alloc(&arena, file.len + 1);
    memcpy(copy, file.ptr, file.len);
    Pool *pool = pool_new(2);
    for (size_t i = 0; i < file.len; i += i < 12000 || i + 4000 > file.len ? 1 + i % 3 : 40009) {
        copy[i] ^= (char)(1 << i % 8);
        assert_false(artifact_parse(&a, copy, file.len, ARTIFACT_ALL, pool, &e));
        assert_true(e.code == E_ARTIFACT || e.code == E_ARTIFACT_HASH || e.code == E_ARTIFACT_VERSION);
        copy[i] = file.ptr[i];
    }
    for (size_t n = 0; n < file.len; n += n < 8192 ? 61 : 40009)
        assert_false(artifact_parse(&a, copy, n, ARTIFACT_ALL, pool, &e));
    assert_false(artifact_parse(&a, copy, file.len - 1, ARTIFACT_ALL, pool, &e));
    assert_false(artifact_parse(&a, copy, file.len + 1, ARTIFACT_ALL, pool, &e));
    assert_true(artifact_parse(&a, copy, file.len, ARTIFACT_ALL, pool, &e));
    artifact_close(&a);
    pool_free(pool);
    arena_free(&arena);
}

static void a_plan_that_lies_is_not_written(void **state) {
    (void)state;
    Arena arena = {0};
    Pool *pool = pool_new(1);
    SmallModel *m = ARENA_NEW(&arena, SmallModel);
    Diags d = {.arena = &arena};
    PackReport report;
    small_model(m, &arena, 1, pool);
    m->weights[0].rows = 21;
    assert_false(pack_artifact(&m->input, "/tmp/adallm-test-never.ada", &report, &d));
    assert_int_equal(diags_first_code(&d), E_PLAN_INVALID);
    assert_false(file_exists("/tmp/adallm-test-never.ada"));
    pool_free(pool);
    arena_free(&arena);
}

// A row of chains behind a sound plan section: what the reader says of it.
static void chains_that_lie_are_refused(void **state) {
    (void)state;
    static const struct {
        AdaChain chain;
        const char *message;
    } faults[] = {
        {{.kernel = 99, .first_launch = 0, .n_launches = 2, .grid = 1}, "kernel 99 of"},
        {{.kernel = 0, .first_launch = 0, .n_launches = 1, .grid = 1}, "launches 0 + 1 of"},
        {{.kernel = 0, .first_launch = 0, .n_launches = ADA_CHAIN_LAUNCHES_MAX + 1, .grid = 1},
         "launches 0 +"},
        {{.kernel = 0, .first_launch = UINT32_MAX, .n_launches = 2, .grid = 1}, "launches 4294967295 + 2"},
        {{.kernel = 0, .first_launch = 0, .n_launches = 2, .grid = 0}, "grid 0"},
        {{.kernel = 0, .first_launch = 0, .n_launches = 2, .grid = 1}, "go beyond program 0"},
        {{.kernel = 0, .first_launch = 0, .n_launches = 2, .grid = 1, .together = 2}, "together is 2"},
    };
    Arena arena = {0};
    Artifact a;
    Err e;
    Str file = pack_small(&arena, 1, 1), section;
    assert_true(artifact_parse(&a, file.ptr, file.len, ARTIFACT_ALL, NULL, &e));
    assert_true(artifact_section(&a, ADA_PLAN, 0, &section));
    uint64_t at = round_up(section.len, 8), bytes = at + sizeof(AdaChain);
    uint8_t *copy = arena_alloc(&arena, bytes);
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        Artifact own = a;
        memset(copy, 0, bytes);
        memcpy(copy, section.ptr, section.len);
        ((AdaPlan *)copy)->chains = (AdaTable){(uint32_t)at, 1};
        memcpy(copy + at, &faults[i].chain, sizeof(AdaChain));
        assert_false(plan_check(&own, copy, bytes, &e));
        if (!strstr(e.msg, "chain 0") || !strstr(e.msg, faults[i].message)) fail_msg("%s", e.msg);
    }
    artifact_close(&a);
    arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_read),
        cmocka_unit_test(stacks_are_padded_apart),
        cmocka_unit_test(threads_change_no_byte),
        cmocka_unit_test(every_flip_and_cut_is_seen),
        cmocka_unit_test(a_plan_that_lies_is_not_written),
        cmocka_unit_test(chains_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
