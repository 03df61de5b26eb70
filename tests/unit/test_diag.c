// Runs tests/diag/*.diag: files of a model as a user might write them, and the very errors they must get.
//
//     === config.json          a file to write; MODEL is recipe.yaml where there is one, else the folder
//     === set                  one --set option a line
//     === link NAME PATH       a file of the tests under another name; weights are random where there is none
//     === expect               what is printed
//
// ADALLM_DIAG_UPDATE=1 rewrites the expectations; read the difference before it is committed.
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/frontend/model.h"
#include "runtime/base/file.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

enum { SETS_MAX = 16 };

typedef struct {
    Arena arena;
    char root[PATH_MAX]; // of the tests
    const char *sets[SETS_MAX];
    size_t n_sets;
    bool has_recipe, has_link;
    Str expected;
    size_t expected_at; // offset in the case's file
} Case;

static void write_file(const char *name, Str text) {
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text.ptr, 1, text.len, f), text.len);
    fclose(f);
}

static void add_sets(Case *c, Str body) {
    while (body.len) {
        const char *nl = memchr(body.ptr, '\n', body.len);
        size_t n = nl ? (size_t)(nl - body.ptr) : body.len;
        assert_true(c->n_sets < SETS_MAX);
        if (n) c->sets[c->n_sets++] = arena_strndup(&c->arena, body.ptr, n);
        body = str_from(body, MIN(n + 1, body.len));
    }
}

static void take_section(Case *c, Str head, Str body, size_t body_at) {
    const char *name = arena_strndup(&c->arena, head.ptr, head.len);
    char link_name[64], target[256];
    if (!strcmp(name, "expect")) {
        c->expected = body, c->expected_at = body_at;
    } else if (!strcmp(name, "set")) {
        add_sets(c, body);
    } else if (sscanf(name, "link %63s %255s", link_name, target) == 2) {
        assert_int_equal(symlink(arena_printf(&c->arena, "%s/%s", c->root, target), link_name), 0);
        c->has_link = true;
    } else {
        if (!strcmp(name, "recipe.yaml")) c->has_recipe = true;
        write_file(name, body);
    }
}

static void unpack(Case *c, Str text) {
    size_t at = 0;
    while (at < text.len) {
        assert_true(str_starts(str_from(text, at), STR("=== ")));
        const char *nl = memchr(text.ptr + at, '\n', text.len - at);
        assert_non_null(nl);
        size_t body = (size_t)(nl - text.ptr) + 1;
        const char *next = memmem(text.ptr + body - 1, text.len - body + 1, "\n=== ", 5);
        size_t end = next ? (size_t)(next - text.ptr) + 1 : text.len;
        take_section(c, str_sub(text, at + 4, body - 1), str_sub(text, body, end), body);
        at = end;
    }
}

static char *run_model(Case *c) {
    Diags d = {.arena = &c->arena};
    OptList sets = {c->sets, c->n_sets};
    Model m;
    char *out = NULL;
    size_t len;
    FILE *f = open_memstream(&out, &len);
    bool ok = model_open(&c->arena, c->has_recipe ? "recipe.yaml" : ".", &sets,
                         (ModelOptions){.random_weights = !c->has_link}, &m, &d);
    diags_print(&d, "adallmc", f);
    if (ok) {
        fputs("accepted\n", f);
        for (uint32_t i = 0; i < m.n_notes; i++) fprintf(f, "%s\n", m.notes[i]);
    }
    model_close(&m);
    fclose(f);
    return out;
}

static bool run_case(const char *root, const char *name) {
    Case c = {0};
    char folder[] = "/tmp/adallm-diag-XXXXXX";
    Err e;
    Str text;
    snprintf(c.root, sizeof c.root, "%s", root);
    const char *path = arena_printf(&c.arena, "%s/tests/diag/%s", root, name);
    assert_true(file_read(&c.arena, path, 1 << 20, &text, &e));
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    unpack(&c, text);
    char *got = run_model(&c);
    bool same = str_is(c.expected, got);
    if (!same) fprintf(stderr, "%s: got\n%sbut expected\n" STR_FMT "\n", name, got, STR_ARG(c.expected));
    if (!same && getenv("ADALLM_DIAG_UPDATE")) {
        Str head = str_sub(text, 0, c.expected_at);
        write_file(path, str_of(arena_printf(&c.arena, STR_FMT "%s", STR_ARG(head), got)));
    }
    free(got);
    assert_int_equal(chdir(root), 0);
    const char *clean = arena_printf(&c.arena, "rm -rf %s", folder);
    assert_int_equal(system(clean), 0);
    arena_free(&c.arena);
    return same;
}

static void every_case_gets_its_errors(void **state) {
    (void)state;
    char root[PATH_MAX];
    struct dirent **names;
    assert_non_null(getcwd(root, sizeof root));
    int n = scandir("tests/diag", &names, NULL, alphasort), failed = 0, ran = 0;
    for (int i = 0; i < n; i++) {
        if (str_ends(str_of(names[i]->d_name), STR(".diag"))) {
            ran++;
            failed += !run_case(root, names[i]->d_name);
        }
        free(names[i]);
    }
    free(names);
    assert_true(ran > 0);
    assert_int_equal(failed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_gets_its_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
