// What exec decides without a device: pages of the KV pools, and which launches a step replays.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/device/null.h"
#include "runtime/exec/exec.h"
#include "runtime/exec/measure.h"
#include "runtime/exec/pools.h"
#include "tests/unit/small_model.h"
#include "tests/unit/unit.h"

static const AdaPlan two_groups = {.n_kv_groups = 2,
                                   .context = 4096,
                                   .kv = {{.pages_per_seq = 256, .page_bytes = 1000},
                                          {.window = 64, .pages_per_seq = 10, .page_bytes = 500}}};

static void budgets_leave_what_is_used(void **state) {
    (void)state;
    assert_int_equal(pools_budget(1000, 700, 0.9), 600);
    assert_int_equal(pools_budget(1000, 100, 0.9), 0); // all of the share is in use
    assert_int_equal(pools_budget(1000, 50, 0.9), 0);  // more than that is
    assert_int_equal(pools_budget(1000, 1000, 1.0), 1000);
}

static void pools_take_what_fits(void **state) {
    (void)state;
    uint32_t pages[ADA_KV_GROUPS_MAX];
    Err e;
    assert_true(pools_size(&two_groups, 8, UINT64_MAX, pages, &e));
    assert_true(pages[0] == 8 * 256 && pages[1] == 8 * 10);
    for (uint64_t budget = 261000; budget < 2500000; budget += 9973) {
        assert_true(pools_size(&two_groups, 8, budget, pages, &e));
        assert_true(pools_bytes(&two_groups, pages) <= budget && pages[0] >= 256 && pages[1] >= 10);
        uint64_t one_more = 4 * 1000 + 500; // a step of the proportion
        assert_true(pages[0] == 8 * 256 || pools_bytes(&two_groups, pages) + one_more > budget);
    }
    assert_false(pools_size(&two_groups, 8, 260999, pages, &e));
    assert_true(e.code == E_MEMORY && strstr(e.msg, "one sequence of 4096 tokens"));
    AdaPlan huge = two_groups;
    huge.kv[0].page_bytes = UINT64_MAX / 2;
    assert_false(pools_size(&huge, 8, UINT64_MAX, pages, &e));
}

// ---- steps on the null device ----------------------------------------------------------------------------

typedef struct {
    Arena arena;
    Artifact artifact;
    Exec *x;
} Opened;

static void open_small(Opened *o, const ExecOptions *options) {
    char path[] = "/tmp/adallm-test-XXXXXX";
    close(mkstemp(path));
    *o = (Opened){0};
    Pool *pool = pool_new(1);
    SmallModel *m = ARENA_NEW(&o->arena, SmallModel);
    Diags d = {.arena = &o->arena};
    PackReport report;
    Err e;
    small_model(m, &o->arena, 1, pool);
    assert_true(pack_artifact(&m->input, path, &report, &d));
    if (!artifact_open(&o->artifact, path, ARTIFACT_ALL, pool, &e)) fail_msg("%s", e.msg);
    o->x = exec_open(&o->artifact, options, &e);
    if (!o->x) fail_msg("%s", e.msg);
    unlink(path);
    pool_free(pool);
}

static void close_small(Opened *o) {
    exec_close(o->x);
    artifact_close(&o->artifact);
    arena_free(&o->arena);
}

static void note(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    (void)args, (void)n_args;
    strcat(strcat(ctx, kernel), " ");
}

static void a_decode_step_is_one_replay(void **state) {
    (void)state;
    for (int eager = 0; eager < 2; eager++) {
        Opened o;
        Err e;
        open_small(&o, &(ExecOptions){.driver = "null", .eager = eager});
        Device *d = exec_device(o.x, 0);
        for (uint32_t rows = 1; rows <= SMALL_SEQS; rows++) {
            char seen[100] = "";
            null_on_launch(d, note, seen);
            uint64_t calls = null_calls(d), launches = null_launches(d);
            assert_true(exec_step(
                o.x,
                &(ExecStep){
                    .body_tokens = rows, .head_rows = rows, .sample_rows = rows, .advance_rows = rows},
                &e));
            assert_int_equal(exec_in_flight(o.x), 1);
            exec_forget(o.x);
            assert_string_equal(seen, "body head sample advance ");
            assert_int_equal(null_launches(d) - launches, 4);
            assert_int_equal(null_calls(d) - calls, eager ? 8 : 1); // eager: a launch and a sync each
        }
        char seen[100] = "";
        null_on_launch(d, note, seen);
        assert_true(exec_step(o.x, &(ExecStep){.body_tokens = 3, .head_rows = 1, .sample_rows = 1}, &e));
        assert_string_equal(seen, "body head sample ");
        close_small(&o);
    }
}

// What comes before the kernel runs once; the kernel runs in rounds of a graph that is replayed.
static void a_kernel_is_timed_alone(void **state) {
    (void)state;
    Opened o;
    Err e;
    double seconds, rate;
    ExecMemory memory;
    open_small(&o, &(ExecOptions){.driver = "null"});
    Device *d = exec_device(o.x, 0);
    const AdaProgram *p = exec_program(o.x, ADA_PROGRAM_BODY, 2);
    assert_true(p && p->bucket >= 2);
    assert_null(exec_program(o.x, ADA_PROGRAM_BODY, UINT32_MAX));
    uint64_t launches = null_launches(d);
    assert_true(exec_time_unit(o.x, p, p->first_launch, &seconds, &e));
    assert_true(seconds > 0);
    launches = null_launches(d) - launches;
    assert_true(launches >= 20 && launches % 4 == 0); // one replay to warm up, three that count
    assert_true(exec_read_rate(o.x, &rate, &e) && rate > 0);
    assert_true(exec_memory(o.x, &memory, &e));
    assert_true(memory.weights == o.artifact.weight_bytes && memory.kv == exec_kv_bytes(o.x) && !memory.rest);
    null_fail_at(d, null_calls(d) + 1);
    assert_false(exec_time_unit(o.x, p, p->first_launch, &seconds, &e));
    close_small(&o);
}

static void do_nothing(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    (void)ctx, (void)kernel, (void)args, (void)n_args;
}

static void silence_is_an_error(void **state) {
    (void)state;
    Opened o;
    Err e;
    ExecTokens tokens;
    open_small(&o, &(ExecOptions){.driver = "null"});
    null_on_launch(exec_device(o.x, 0), do_nothing, NULL); // not even tokens are told
    const ExecStep step = {.body_tokens = 1, .head_rows = 1, .sample_rows = 1, .advance_rows = 1};
    assert_true(exec_step(o.x, &step, &e));
    assert_false(exec_tokens(o.x, &tokens, &e));
    assert_true(e.code == E_DEVICE && strstr(e.msg, "step 1: all launches ended, but none told"));
    assert_false(exec_step(o.x, &step, &e));
    close_small(&o);
}

static void failures_name_the_kernel(void **state) {
    (void)state;
    Opened o;
    Err e;
    open_small(&o, &(ExecOptions){.driver = "null", .eager = true});
    Device *d = exec_device(o.x, 0);
    null_fail_at(d, null_calls(d) + 4); // the sync behind `head`
    ExecStep step = {.body_tokens = 1, .head_rows = 1};
    assert_false(exec_step(o.x, &step, &e));
    assert_non_null(strstr(e.msg, "step 1: head program for"));
    assert_non_null(strstr(e.msg, "launch 0, head"));
    close_small(&o);
}

static void pools_get_a_share_of_the_memory(void **state) {
    (void)state;
    Opened o;
    open_small(&o, &(ExecOptions){.driver = "null", .memory_share = 0.5}); // of 16 GiB: all fits
    assert_int_equal(exec_pages(o.x, 0), SMALL_SEQS * SMALL_FULL_PAGES);
    uint64_t all = exec_kv_bytes(o.x);
    close_small(&o);
    open_small(&o, &(ExecOptions){.driver = "null", .kv_bytes_max = all / 2});
    assert_true(exec_kv_bytes(o.x) <= all / 2 && exec_pages(o.x, 0) >= SMALL_FULL_PAGES);
    close_small(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_leave_what_is_used),
        cmocka_unit_test(pools_take_what_fits),
        cmocka_unit_test(a_decode_step_is_one_replay),
        cmocka_unit_test(failures_name_the_kernel),
        cmocka_unit_test(pools_get_a_share_of_the_memory),
        cmocka_unit_test(a_kernel_is_timed_alone),
        cmocka_unit_test(silence_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
