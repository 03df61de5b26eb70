// Recipes: defaults, files, --set. Complaints are in tests/diag/recipe_*.diag.
#include <stdlib.h>
#include <unistd.h>

#include "compiler/frontend/recipe.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static bool read_text(Arena *a, const char *path, const char *const *sets, size_t n, Recipe *out) {
    Diags d = {.arena = a};
    OptList list = {(const char **)sets, n};
    bool ok = recipe_read(a, path, &list, out, &d);
    if (!ok) diags_print(&d, "test", stderr);
    return ok;
}

static void a_folder_has_every_default(void **state) {
    (void)state;
    Arena a = {0};
    Recipe r;
    assert_true(read_text(&a, "tests/golden/models/qwen3", NULL, 0, &r));
    assert_string_equal(r.model, "tests/golden/models/qwen3");
    assert_string_equal(r.target, "host");
    assert_string_equal(r.gemm, "w4a16");
    assert_string_equal(r.kv, "fp8");
    assert_string_equal(r.head, "bf16");
    assert_string_equal(r.quantize, "auto");
    assert_int_equal(r.tensor_parallel, 1);
    assert_int_equal(r.context, 4096);
    assert_int_equal(r.batch.n, 5);
    assert_int_equal(r.batch.items[4], 16);
    assert_null(r.family);
    assert_null(r.path);
    assert_true(r.given[RECIPE_model]);
    assert_false(r.given[RECIPE_batch]);
    arena_free(&a);
}

static void a_file_names_paths_from_its_folder(void **state) {
    (void)state;
    char path[] = "/tmp/adallm-recipe-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "model: sub/dir\nconfig: /abs/config.json\nbatch: 3\nname: 'a: b'\nkv:\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    Arena a = {0};
    Recipe r;
    assert_true(read_text(&a, path, NULL, 0, &r));
    assert_string_equal(r.model, "/tmp/sub/dir");
    assert_string_equal(r.config, "/abs/config.json");
    assert_string_equal(r.name, "a: b");
    assert_string_equal(r.kv, "fp8"); // null: the default
    assert_int_equal(r.batch.n, 1);
    assert_int_equal(r.batch.items[0], 3);
    unlink(path);
    arena_free(&a);
}

static void options_override(void **state) {
    (void)state;
    static const char *const sets[] = {"batch=[2, 16]", "context=64", "context=128",
                                       "model=here/x",  "name=",      "quantize=mse"};
    Arena a = {0};
    Recipe r;
    assert_true(read_text(&a, "tests/golden/models/qwen3", sets, COUNT_OF(sets), &r));
    assert_int_equal(r.batch.n, 2);
    assert_int_equal(r.batch.items[1], 16);
    assert_int_equal(r.context, 128); // the last one counts
    assert_string_equal(r.model, "here/x");
    assert_string_equal(r.quantize, "mse");
    assert_null(r.name);
    assert_true(r.given[RECIPE_batch]);
    arena_free(&a);
}

static void help_lists_every_field(void **state) {
    (void)state;
    StrBuf help = {0};
    recipe_help(&help);
    const char *text = buf_cstr(&help);
#define FIELD(name, ...) assert_non_null(strstr(text, #name));
#include "compiler/frontend/recipe.def"
#undef FIELD
    buf_free(&help);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_has_every_default),
        cmocka_unit_test(a_file_names_paths_from_its_folder),
        cmocka_unit_test(options_override),
        cmocka_unit_test(help_lists_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
