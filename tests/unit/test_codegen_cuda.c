// Codegen of the GPU targets with a compiler that only pretends: instances, image, cache, and what is
// refused. That the templates compile is tests/run.py's step `cuda`.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/codegen/cuda.h"
#include "compiler/codegen/cuda_instances.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static SpecField norm_fields[] = {{.key = "hidden", .kind = 'u', .u = 8},
                                  {.key = "eps", .kind = 'f', .f = 1e-6},
                                  {.key = "has_branch", .kind = 'u', .u = 1},
                                  {.key = "has_post", .kind = 'u'},
                                  {.key = "has_out", .kind = 'u', .u = 1},
                                  {.key = "count", .kind = 'u'},
                                  {.key = "out_pitch", .kind = 'u'},
                                  {.key = "wide", .kind = 'u'},
                                  {.key = "e4m3", .kind = 'u'},
                                  {.key = "next_bytes", .kind = 'u', .u = 1ull << 33}};
static SpecField moe_fields[] = {{.key = "experts", .kind = 'u', .u = 8},
                                 {.key = "topk", .kind = 'u', .u = 2},
                                 {.key = "n", .kind = 'u', .u = 64},
                                 {.key = "k", .kind = 'u', .u = 64},
                                 {.key = "format", .kind = 'n', .n = "nvfp4"},
                                 {.key = "x_pitch", .kind = 'u', .u = 144},
                                 {.key = "x_e4m3", .kind = 'u'},
                                 {.key = "each", .kind = 'u', .u = 1},
                                 {.key = "tiled", .kind = 'u'},
                                 {.key = "cols", .kind = 'u', .u = 1},
                                 {.key = "groups", .kind = 'u', .u = 1},
                                 {.key = "round", .kind = 'u', .u = 1},
                                 {.key = "per_sm", .kind = 'u', .u = 3}};

typedef struct {
    Arena arena;
    PlanKernel kernels[2];
    PlanLaunch launch;
    Plan plan;
    const char *dir; // holds the compiler, what it counts, and the cache
} Fixture;

// A compiler that answers --version, counts its runs, and makes a file of its input's text.
static const char script[] = "#!/bin/sh\n"
                             "case $1 in --version) cat \"$ADALLM_TEST_DIR/version\"; exit 0;; esac\n"
                             "for last; do in=$out; out=$word; word=$last; done\n"
                             "echo run >> \"$ADALLM_TEST_DIR/runs\"\n"
                             "(echo \"$*\"; cat \"$in\") > \"$word\"\n"
                             "cat \"$ADALLM_TEST_DIR/says\"\n";
static const char fine[] =
    "ptxas info    : Function properties for x\n"
    "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    "ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem, 400 bytes cmem[0]\n";

static void put_file(Arena *a, const char *dir, const char *name, const char *text) {
    const char *path = path_join(a, dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, 0755), 0);
}

static int set_up(void **state) {
    Fixture *f = xmalloc(sizeof *f);
    *f = (Fixture){0};
    char dir[] = "/tmp/adallm-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    f->dir = arena_strdup(&f->arena, dir);
    put_file(&f->arena, dir, "nvcc", script);
    put_file(&f->arena, dir, "version", "1.0\n");
    put_file(&f->arena, dir, "says", fine);
    setenv("ADALLM_TEST_DIR", dir, 1);
    setenv("NVCC", path_join(&f->arena, dir, "nvcc"), 1);
    setenv("XDG_CACHE_HOME", dir, 1);
    f->kernels[0] = (PlanKernel){.name = "norm_add_h8",
                                 .template_ = "norm_add",
                                 .spec = norm_fields,
                                 .n_spec = COUNT_OF(norm_fields),
                                 .threads = 64};
    f->kernels[1] = (PlanKernel){.name = "moe_down_x",
                                 .template_ = "moe_down",
                                 .spec = moe_fields,
                                 .n_spec = COUNT_OF(moe_fields),
                                 .threads = 256,
                                 .shared_bytes = 4096};
    f->launch =
        (PlanLaunch){.kind = ADA_LAUNCH_KERNEL, .origin = "layer 0: norm\n#error (models/x.yaml:3) \\"};
    f->plan = (Plan){.arena = &f->arena,
                     .target = "h100",
                     .kernels = f->kernels,
                     .n_kernels = 2,
                     .launches = &f->launch,
                     .n_launches = 1};
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    Fixture *f = *state;
    int code = system(arena_printf(&f->arena, "rm -r %s", f->dir));
    arena_free(&f->arena);
    free(f);
    return code;
}

static CodeImages made(Fixture *f, bool no_cache) {
    Diags d = {.arena = &f->arena};
    CodeImages out;
    EmitOptions o = {.no_cache = no_cache};
    if (!codegen_cuda(&f->arena, &f->plan, 90, 227 << 10, &o, &out, &d))
        fail_msg("%s", diags_first_message(&d));
    return out;
}

static void refused(Fixture *f, const char *why) {
    Diags d = {.arena = &f->arena};
    CodeImages out;
    EmitOptions o = {.no_cache = true};
    assert_false(codegen_cuda(&f->arena, &f->plan, 90, 227 << 10, &o, &out, &d));
    assert_int_equal(diags_first_code(&d), E_CODEGEN);
    if (!strstr(diags_first_message(&d), why)) fail_msg("%s", diags_first_message(&d));
}

static uint64_t runs(Fixture *f) {
    Str text;
    Err e;
    const char *path = path_join(&f->arena, f->dir, "runs");
    return file_read(&f->arena, path, 1 << 20, &text, &e) ? text.len / strlen("run\n") : 0;
}

static void instances_are_readable(void **state) {
    Fixture *f = *state;
    Diags d = {.arena = &f->arena};
    StrBuf text = {0};
    size_t code;
    assert_true(cuda_instance_print(&f->plan, 1, &text, &code, &d));
    static const char want[] = "#define INSTANCE\n"
                               "#include \"templates/moe_down.cu\"\n"
                               "\n"
                               "struct Spec {\n"
                               "    static constexpr uint32_t experts = 8;\n"
                               "    static constexpr uint32_t topk = 2;\n"
                               "    static constexpr uint32_t n = 64;\n"
                               "    static constexpr uint32_t k = 64;\n"
                               "    static constexpr Format format = FORMAT_NVFP4;\n"
                               "    static constexpr uint32_t x_pitch = 144;\n"
                               "    static constexpr uint32_t x_e4m3 = 0;\n"
                               "    static constexpr uint32_t each = 1;\n"
                               "    static constexpr uint32_t tiled = 0;\n"
                               "    static constexpr uint32_t cols = 1;\n"
                               "    static constexpr uint32_t groups = 1;\n"
                               "    static constexpr uint32_t round = 1;\n"
                               "    static constexpr uint32_t per_sm = 3;\n"
                               "    static constexpr uint32_t threads = 256;\n"
                               "    static constexpr uint32_t shared_bytes = 4096;\n"
                               "};\n"
                               "\n"
                               "extern \"C\" __global__ void __launch_bounds__(Spec::threads, 3)\n"
                               "    moe_down_x(const __grid_constant__ Args<7> args) {\n"
                               "    moe_down<Spec>(args);\n"
                               "}\n";
    assert_string_equal(buf_cstr(&text) + code, want);
    text.len = 0;
    assert_true(cuda_instance_print(&f->plan, 0, &text, &code, &d));
    assert_non_null(strstr(buf_cstr(&text), "\n// layer 0: norm #error (models/x.yaml:3)  \n"));
    assert_non_null(strstr(buf_cstr(&text), "float eps = 9.9999999999999995e-07f;"));
    assert_non_null(strstr(buf_cstr(&text), "uint64_t next_bytes = 8589934592ull;"));
    buf_free(&text);
}

static void an_image_has_a_cubin_for_each_kernel(void **state) {
    Fixture *f = *state;
    CodeImages out = made(f, true);
    AdaCubins head;
    AdaCubin rows[2];
    assert_int_equal(out.n, 1);
    assert_int_equal(out.image[0].kind, ADA_CODE_CUBIN);
    memcpy(&head, out.image[0].data, sizeof head);
    memcpy(rows, out.image[0].data + sizeof head, sizeof rows);
    assert_memory_equal(head.magic, "ADACUBIN", 8);
    assert_int_equal(head.n, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(rows[i].offset % 16, 0);
        assert_true(rows[i].offset + rows[i].bytes <= out.image[0].bytes);
        const char *text = (const char *)out.image[0].data + rows[i].offset;
        Str cubin = {text, rows[i].bytes};
        assert_non_null(memmem(cubin.ptr, cubin.len, "-arch=sm_90", 11));
        const char *name = f->kernels[i].name;
        assert_non_null(memmem(cubin.ptr, cubin.len, name, strlen(name)));
        assert_int_equal(out.facts[i].registers, 40);
        assert_int_equal(out.facts[i].static_bytes, 128);
    }
    CodeImages again = made(f, true);
    assert_int_equal(again.image[0].bytes, out.image[0].bytes);
    assert_memory_equal(again.image[0].data, out.image[0].data, out.image[0].bytes);
}

static void what_is_known_is_not_compiled_again(void **state) {
    Fixture *f = *state;
    CodeImages one = made(f, false), two = made(f, false);
    assert_int_equal(one.n_compiled, 2);
    assert_int_equal(two.n_cached, 2);
    assert_int_equal(runs(f), 2);
    assert_int_equal(one.image[0].bytes, two.image[0].bytes);
    assert_memory_equal(one.image[0].data, two.image[0].data, one.image[0].bytes);
    f->launch.origin = "another layer"; // a comment decides no byte of a cubin
    assert_int_equal(made(f, false).n_compiled, 0);
    f->kernels[1].threads = 128;
    assert_int_equal(made(f, false).n_compiled, 1);
    f->kernels[1].threads = 256;
    assert_int_equal(made(f, true).n_compiled, 2);
    put_file(&f->arena, f->dir, "version", "2.0\n");
    assert_int_equal(made(f, false).n_compiled, 2);
}

static void damaged_files_are_compiled_again(void **state) {
    Fixture *f = *state;
    made(f, false);
    const char *folder = path_join(&f->arena, f->dir, "adallm");
    const char *change =
        "for f in %s/*.cubin; do printf x | dd of=$f bs=1 seek=70 conv=notrunc 2>/dev/null; done";
    assert_int_equal(system(arena_printf(&f->arena, change, folder)), 0);
    assert_int_equal(made(f, false).n_compiled, 2);
    assert_int_equal(system(arena_printf(&f->arena, "for f in %s/*.cubin; do : > $f; done", folder)), 0);
    assert_int_equal(made(f, false).n_compiled, 2);
    assert_int_equal(made(f, false).n_compiled, 0);
}

static void spills_are_refused(void **state) {
    Fixture *f = *state;
    put_file(&f->arena, f->dir, "says",
             "    24 bytes stack frame, 28 bytes spill stores, 28 bytes spill loads\n"
             "ptxas info    : Used 128 registers\n");
    refused(f, "kernel norm_add_h8 for sm_90 with 128 registers: spills 28 bytes");
    Diags d = {.arena = &f->arena};
    CodeImages out;
    PlanRefusals refusals = {0};
    EmitOptions o = {.refusals = &refusals}; // whoever plans again is told
    assert_true(codegen_cuda(&f->arena, &f->plan, 90, 227 << 10, &o, &out, &d));
    assert_int_equal(out.n, 0);
    assert_int_equal(refusals.n, 2);
    assert_string_equal(refusals.items[1].kernel.name, "moe_down_x");
    assert_string_equal(refusals.items[1].reason, "spills 28 bytes");
    put_file(&f->arena, f->dir, "says",
             "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
             "ptxas info    : Used 90 registers, 230000 bytes smem\n"); // beside what the plan asks for
    refused(f, "kernel moe_down_x for sm_90 with 90 registers: 234096 bytes of shared memory of 232448");
    put_file(&f->arena, f->dir, "says", "nothing of use\n");
    refused(f, "kernel norm_add_h8: ptxas does not say");
}

static void a_compiler_that_fails(void **state) {
    Fixture *f = *state;
    put_file(&f->arena, f->dir, "nvcc",
             "#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'no such thing'; exit 3\n");
    refused(f, "failed on kernel norm_add_h8 (exit code 3):\nno such thing");
    setenv("NVCC", "/nonexistent/nvcc -x", 1);
    refused(f, "cannot run the CUDA compiler `/nonexistent/nvcc`");
    f->kernels[0].n_spec--;
    refused(f, "does not have the fields of template `norm_add`");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(instances_are_readable),
                                       TEST(an_image_has_a_cubin_for_each_kernel),
                                       TEST(what_is_known_is_not_compiled_again),
                                       TEST(damaged_files_are_compiled_again),
                                       TEST(spills_are_refused),
                                       TEST(a_compiler_that_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
