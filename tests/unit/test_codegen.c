// Codegen of the host target: equal bytes from equal plans, located refusals, and a compiler that is not
// there.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/codegen/host.h"
#include "compiler/codegen/instances.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static SpecField fields[] = {{.key = "hidden", .kind = 'u', .u = 8},
                             {.key = "eps", .kind = 'f', .f = 1e-6},
                             {.key = "has_branch", .kind = 'u', .u = 1},
                             {.key = "has_post", .kind = 'u'},
                             {.key = "has_out", .kind = 'u', .u = 1},
                             {.key = "count", .kind = 'u'},
                             {.key = "out_pitch", .kind = 'u'},
                             {.key = "wide", .kind = 'u'},
                             {.key = "e4m3", .kind = 'u'},
                             {.key = "next_bytes", .kind = 'u'}};
static PlanKernel kernel = {
    .name = "norm_add_h8", .template_ = "norm_add", .spec = fields, .n_spec = COUNT_OF(fields)};
static PlanLaunch launch = {.kind = ADA_LAUNCH_KERNEL,
                            .origin = "layer 0: norm\n#error (models/x.yaml:3) \\"};

static Plan plan_of(Arena *a) {
    return (Plan){.arena = a,
                  .target = "host",
                  .kernels = &kernel,
                  .n_kernels = 1,
                  .launches = &launch,
                  .n_launches = 1};
}

static void instances_are_readable(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    StrBuf text = {0};
    Plan p = plan_of(&a);
    assert_true(instances_print(&p, &text, &d));
    assert_non_null(
        strstr(buf_cstr(&text), "// layer 0: norm #error (models/x.yaml:3)  \nKERNEL norm_add_h8("));
    assert_non_null(strstr(buf_cstr(&text),
                           "(NormAddSpec){.hidden = 8, .eps = 9.9999999999999995e-07f, .has_branch = 1"));
    buf_free(&text);
    arena_free(&a);
}

static void equal_plans_give_equal_bytes(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    CodeImages one, two;
    Plan p = plan_of(&a);
    char dir[] = "/tmp/adallm-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_true(codegen_host(&a, &p, NULL, &one, &d) && codegen_host(&a, &p, dir, &two, &d));
    assert_int_equal(one.n, 2);
    for (uint32_t i = 0; i < one.n; i++) {
        assert_int_equal(one.image[i].kind, two.image[i].kind);
        assert_int_equal(one.image[i].bytes, two.image[i].bytes);
        assert_memory_equal(one.image[i].data, two.image[i].data, one.image[i].bytes);
    }
    assert_true(file_exists(path_join(&a, dir, "kernels.c")));
    assert_true(file_exists(path_join(&a, dir, "kernels.x86-64-v3.so")));
    assert_int_equal(system(arena_printf(&a, "rm -r %s", dir)), 0);
    arena_free(&a);
}

static void refused(PlanKernel k, const char *why) {
    Arena a = {0};
    Diags d = {.arena = &a};
    CodeImages out;
    Plan p = plan_of(&a);
    p.kernels = &k;
    assert_false(codegen_host(&a, &p, NULL, &out, &d));
    assert_int_equal(diags_first_code(&d), E_CODEGEN);
    if (!strstr(diags_first_message(&d), why)) fail_msg("%s", diags_first_message(&d));
    arena_free(&a);
}

static void misfits_are_refused(void **state) {
    (void)state;
    PlanKernel k = kernel;
    k.template_ = "norm_sub";
    refused(k, "there is no template `norm_sub`");
    k = kernel, k.name = "9 lives";
    refused(k, "not a C identifier");
    k = kernel, k.n_spec = 3;
    refused(k, "does not have the fields");
    SpecField swapped[COUNT_OF(fields)];
    memcpy(swapped, fields, sizeof fields);
    swapped[1].kind = 'u';
    k = kernel, k.spec = swapped;
    refused(k, "does not have the fields");
    k = kernel, k.name = "for"; // a C keyword: the compiler's own words arrive
    refused(k, "failed on the kernels");
}

static void no_compiler(void **state) {
    (void)state;
    setenv("CC", "/nonexistent/cc --fast", 1);
    refused(kernel, "cannot run the C compiler `/nonexistent/cc`");
    setenv("CC", "false", 1);
    refused(kernel, "the C compiler `false` failed");
    unsetenv("CC");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(instances_are_readable),
                                       cmocka_unit_test(equal_plans_give_equal_bytes),
                                       cmocka_unit_test(misfits_are_refused), cmocka_unit_test(no_compiler)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
