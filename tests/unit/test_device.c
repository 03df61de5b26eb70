// Devices: the host's memory, code, capture and replay, collectives, death; the null device's script.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/codegen/host.h"
#include "runtime/base/num.h"
#include "runtime/device/cpu.h"
#include "runtime/device/null.h"
#include "templates/lib/abi.h"
#include "tests/unit/unit.h"

static Arena arena;
static CodeImages images;

static int compile_once(void **state) {
    (void)state;
    static SpecField hidden[] = {{.key = "hidden", .kind = 'u', .u = 4}, {.key = "x_pitch", .kind = 'u'}};
    static SpecField rows_max = {.key = "rows_max", .kind = 'u', .u = 5};
    static PlanKernel kernels[] = {
        {.name = "gather", .template_ = "gather_rows", .spec = hidden, .n_spec = 2},
        {.name = "step", .template_ = "advance", .spec = &rows_max, .n_spec = 1}};
    Plan plan = {.arena = &arena, .target = "host", .kernels = kernels, .n_kernels = 2};
    Diags d = {.arena = &arena};
    if (!codegen_host(&arena, &plan, NULL, &images, &d)) diags_print(&d, "test", stderr);
    return images.n == 2 ? 0 : -1;
}

static int free_arena(void **state) {
    (void)state;
    arena_free(&arena);
    return 0;
}

static Device *open_one(const char *driver, uint32_t threads) {
    Device *d;
    Err e;
    assert_true(device_open(driver, 1, threads, &d, &e));
    return d;
}

static DeviceCode *load(Device *d, uint32_t first, uint32_t n) {
    const void *data[2];
    uint64_t bytes[2];
    uint32_t kinds[2];
    for (uint32_t i = 0; i < n; i++) {
        const CodeImage *c = &images.image[first + i];
        data[i] = c->data, bytes[i] = c->bytes, kinds[i] = c->kind;
    }
    DeviceCode *code;
    Err e;
    if (!d->ops->load_code(d, data, bytes, kinds, n, &code, &e)) fail_msg("%s", e.msg);
    return code;
}

static void unknown_and_absent_drivers(void **state) {
    (void)state;
    Device *d;
    Err e;
    assert_false(device_open("metal", 1, 0, &d, &e));
    assert_non_null(strstr(e.msg, "metal"));
    if (device_open("cuda", 1, 0, &d, &e)) // a card is here
        d->ops->close(d);
    else
        assert_true(e.code == E_DEVICE && strstr(e.msg, "NVIDIA driver"));
    assert_false(device_open("cuda", 2, 0, &d, &e));
    assert_non_null(strstr(e.msg, "one rank, not 2"));
    assert_false(device_open("host", 0, 0, &d, &e));
}

static void memory_is_zeroed_and_copied(void **state) {
    (void)state;
    Device *d = open_one("host", 1);
    Err e;
    void *p, *q;
    uint8_t in[1000], out[1000];
    uint64_t free_bytes, total_bytes;
    for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)i;
    assert_true(d->ops->alloc(d, sizeof in, &p, &e) && d->ops->alloc(d, 0, &q, &e));
    assert_int_equal((uintptr_t)p % 256, 0);
    assert_true(d->ops->download(d, out, p, sizeof out, &e));
    for (size_t i = 0; i < sizeof out; i++) assert_int_equal(out[i], 0);
    assert_true(d->ops->upload(d, p, in, sizeof in, &e) && d->ops->download(d, out, p, sizeof out, &e));
    assert_memory_equal(in, out, sizeof in);
    assert_true(d->ops->adopt(d, in, sizeof in, &q, &e));
    assert_ptr_equal(q, in);
    assert_true(d->ops->memory(d, &free_bytes, &total_bytes, &e));
    assert_true(free_bytes > 0 && free_bytes <= total_bytes);
    d->ops->free(d, p);
    d->ops->close(d);
}

static void run_advance(Device *d, DeviceKernel *k, void *const *args, uint32_t grid) {
    Err e;
    DeviceLaunch l = {.kernel = k,
                      .name = "step",
                      .grid = grid,
                      .threads = 1,
                      .shared_bytes = 100,
                      .args = args,
                      .n_args = 6};
    if (!d->ops->launch(d, &l, &e)) fail_msg("%s", e.msg);
}

static void capture_records_and_replay_runs(void **state) {
    (void)state;
    for (uint32_t image = 0; image < 2; image++)
        for (uint32_t threads = 1; threads <= 3; threads++) {
            if (image == 1 && !cpu_has_x86_64_v3()) continue;
            Device *d = open_one("host", threads);
            DeviceCode *code = load(d, image, 1);
            DeviceKernel *k = NULL;
            DeviceGraph *g = NULL;
            Err e;
            int32_t next[5] = {1, 2, 3, 4, 5}, ids[5] = {0}, pos[5] = {0};
            uint32_t counts[4] = {0, 5};
            uint32_t status[5] = {0};
            uint64_t ring[RING_SLOTS * RING_SLOT_BYTES(5) / sizeof(uint64_t)];
            void *args[] = {next, ids, pos, counts, status, ring};
            assert_true(d->ops->find_kernel(d, code, "step", &k, &e));
            run_advance(d, k, args, 3);
            assert_int_equal(pos[4], 1);
            assert_true(d->ops->capture_begin(d, &e));
            run_advance(d, k, args, 1);
            run_advance(d, k, args, 7);
            assert_int_equal(pos[4], 1); // recorded, not run
            assert_true(d->ops->capture_end(d, &g, &e));
            args[1] = NULL; // the graph keeps its own arguments
            counts[1] = 4;  // and reads the memory they point to
            for (int i = 0; i < 10; i++) assert_true(d->ops->replay(d, g, &e));
            assert_int_equal(pos[0], 21);
            assert_int_equal(pos[4], 1);
            assert_int_equal(ids[4], 5);
            assert_true(d->ops->sync(d, &e));
            d->ops->graph_free(d, g);
            d->ops->close(d);
        }
}

static void best_image_is_taken(void **state) {
    (void)state;
    Device *d = open_one("host", 1);
    load(d, 0, 2);
    DeviceCode *code;
    Err e;
    const void *data = "not an image";
    uint64_t bytes = 12;
    uint32_t kind = ADA_CODE_CUBIN;
    assert_false(d->ops->load_code(d, &data, &bytes, &kind, 1, &code, &e));
    assert_non_null(strstr(e.msg, "none of the 1 code images"));
    d->ops->close(d);
    d = open_one("host", 1);
    kind = ADA_CODE_X86_64;
    assert_false(d->ops->load_code(d, &data, &bytes, &kind, 1, &code, &e));
    assert_non_null(strstr(e.msg, "cannot load the kernels"));
    d->ops->close(d);
}

static void dead_devices_say_the_first_error(void **state) {
    (void)state;
    Device *d = open_one("host", 1);
    DeviceCode *code = load(d, 0, 1);
    DeviceKernel *k = NULL;
    Err e, again;
    void *p;
    assert_false(d->ops->find_kernel(d, code, "no_such_kernel", &k, &e));
    assert_non_null(strstr(e.msg, "no_such_kernel"));
    assert_false(d->ops->find_kernel(d, code, "step", &k, &again));
    assert_string_equal(again.msg, e.msg);
    assert_false(d->ops->alloc(d, 1, &p, &again));
    assert_string_equal(again.msg, e.msg);
    assert_false(d->ops->sync(d, &again));
    d->ops->close(d);
}

// ---- ranks -----------------------------------------------------------------------------------------------

enum { RANKS = 4, ROWS = 3, COLS = 5 };
typedef struct {
    Device *d;
    bool fails, ok;
    Err e;
    float sum[ROWS * COLS], part[ROWS * COLS], all[ROWS * RANKS * COLS];
} Rank;

static void *rank_main(void *arg) {
    Rank *r = arg;
    Device *d = r->d;
    DeviceGraph *g = NULL;
    DeviceCode *code;
    for (uint32_t i = 0; i < ROWS * COLS; i++)
        r->part[i] = r->sum[i] = (float)((r->d->rank + 1) * 100 + i) * 0.1f;
    r->ok = d->ops->capture_begin(d, &r->e) && d->ops->all_reduce(d, r->sum, ROWS, COLS, &r->e) &&
            d->ops->all_gather(d, r->part, r->all, ROWS, COLS, &r->e) && d->ops->capture_end(d, &g, &r->e);
    if (r->fails) r->ok = d->ops->load_code(d, NULL, NULL, NULL, 0, &code, &r->e);
    r->ok = r->ok && d->ops->replay(d, g, &r->e);
    return NULL;
}

static void run_ranks(Rank *ranks, uint32_t failing) {
    Device *devices[RANKS];
    pthread_t threads[RANKS];
    Err e;
    assert_true(device_open("host", RANKS, 1, devices, &e));
    for (uint32_t r = 0; r < RANKS; r++) {
        ranks[r] = (Rank){.d = devices[r], .fails = r == failing};
        assert_int_equal(devices[r]->rank, r);
        assert_int_equal(devices[r]->n_ranks, RANKS);
        assert_int_equal(pthread_create(&threads[r], NULL, rank_main, &ranks[r]), 0);
    }
    for (uint32_t r = 0; r < RANKS; r++) pthread_join(threads[r], NULL);
    for (uint32_t r = 0; r < RANKS; r++) devices[r]->ops->close(devices[r]);
}

static void collectives(void **state) {
    (void)state;
    Rank *ranks = xmalloc(RANKS * sizeof *ranks);
    run_ranks(ranks, RANKS);
    for (uint32_t r = 0; r < RANKS; r++) {
        assert_true(ranks[r].ok);
        for (uint32_t i = 0; i < ROWS * COLS; i++) {
            float want = ranks[0].part[i];
            for (uint32_t o = 1; o < RANKS; o++) want += ranks[o].part[i];
            assert_memory_equal(&ranks[r].sum[i], &want, sizeof want);
        }
        for (uint32_t row = 0; row < ROWS; row++)
            for (uint32_t o = 0; o < RANKS; o++)
                assert_memory_equal(ranks[r].all + (row * RANKS + o) * COLS, ranks[o].part + row * COLS,
                                    COLS * sizeof(float));
    }
    free(ranks);
}

static void a_dead_rank_wakes_the_others(void **state) {
    (void)state;
    Rank *ranks = xmalloc(RANKS * sizeof *ranks);
    run_ranks(ranks, 2);
    for (uint32_t r = 0; r < RANKS; r++) {
        assert_false(ranks[r].ok);
        if (r != 2) assert_non_null(strstr(ranks[r].e.msg, "rank 2"));
    }
    free(ranks);
}

// ---- null ------------------------------------------------------------------------------------------------

static void count_launch(void *ctx, const char *kernel, void *const *args, uint32_t n_args) {
    assert_string_equal(kernel, "step");
    assert_int_equal(n_args, 1);
    (void)args;
    ++*(int *)ctx;
}

static void null_counts_and_fails_as_told(void **state) {
    (void)state;
    Device *d = open_one("null", 0);
    DeviceKernel *k = NULL;
    DeviceGraph *g = NULL;
    Err e, again;
    void *p;
    int launches = 0;
    null_on_launch(d, count_launch, &launches);
    assert_true(d->ops->alloc(d, 64, &p, &e) && d->ops->find_kernel(d, NULL, "step", &k, &e));
    DeviceLaunch l = {.kernel = k, .name = "step", .grid = 1, .args = &p, .n_args = 1};
    assert_true(d->ops->capture_begin(d, &e) && d->ops->launch(d, &l, &e) && d->ops->capture_end(d, &g, &e));
    assert_int_equal(launches, 0);
    assert_true(d->ops->replay(d, g, &e) && d->ops->replay(d, g, &e));
    assert_int_equal(launches, 2);
    assert_int_equal(null_launches(d), 2);
    assert_int_equal(null_calls(d), 7);
    null_fail_at(d, 9);
    assert_true(d->ops->sync(d, &e));
    assert_false(d->ops->replay(d, g, &e));
    assert_non_null(strstr(e.msg, "call 9 (replay)"));
    assert_false(d->ops->alloc(d, 1, &p, &again));
    assert_string_equal(again.msg, e.msg);
    d->ops->close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_and_absent_drivers),       cmocka_unit_test(memory_is_zeroed_and_copied),
        cmocka_unit_test(capture_records_and_replay_runs),  cmocka_unit_test(best_image_is_taken),
        cmocka_unit_test(dead_devices_say_the_first_error), cmocka_unit_test(collectives),
        cmocka_unit_test(a_dead_rank_wakes_the_others),     cmocka_unit_test(null_counts_and_fails_as_told),
    };
    return cmocka_run_group_tests(tests, compile_once, free_arena);
}
