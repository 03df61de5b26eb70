// YAML: the tree, places in bytes, and everything that is refused.
#include "compiler/frontend/yaml.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static const Yaml *parse(Arena *a, const char *text, const Source **src, Diags *d) {
    Source *s = ARENA_NEW(a, Source);
    *s = (Source){"t.yaml", str_of(text)};
    if (src) *src = s;
    return yaml_parse(a, s, 0, d);
}

static void tree_keeps_order_kinds_and_places(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    const Source *src;
    const Yaml *y = parse(&a, "größe: \"x\"   # comment\nlist: [1, 'a b', {k: v}]\nnil:\n", &src, &d);
    assert_non_null(y);
    assert_int_equal(y->n, 3);
    const Yaml *first = &y->members[0].value, *list = yaml_get(y, "list");
    assert_true(str_is(str_sub(src->text, first->begin, first->end), "\"x\""));
    assert_false(first->plain);
    assert_true(str_is(y->members[0].key.s, "größe"));
    assert_int_equal(list->n, 3);
    assert_true(list->items[0].plain && str_is(list->items[0].s, "1"));
    assert_true(str_is(str_sub(src->text, list->items[1].begin, list->items[1].end), "'a b'"));
    assert_true(str_is(yaml_get(&list->items[2], "k")->s, "v"));
    assert_true(yaml_is_null(yaml_get(y, "nil")));
    assert_null(yaml_get(y, "absent"));
    arena_free(&a);
}

static void an_empty_text_is_an_empty_map(void **state) {
    (void)state;
    static const char *const texts[] = {"", "\n", "# nothing\n", "---\n", "~\n", "\xEF\xBB\xBF"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        const Yaml *y = parse(&a, texts[i], NULL, &d);
        assert_non_null(y);
        assert_true(y->kind == YAML_MAP && y->n == 0);
        arena_free(&a);
    }
}

static void what_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "a: &x 1",    "a: *x",        "a: !!int 1",      "<<: {a: 1}",
        "a: 1\na: 2", "{a: 1, a: 2}", "a\n---\nb",       "%YAML 1.2\n---\na: 1",
        "? [1]\n: 2", "a: [1",        "a: \"\\0\"",      "a: \x01",
        "a: \xFF",    "a: \xC0\x80",  "a: \xED\xA0\x80", "\"a\": 1\n'a': 2",
        "[1]: 2",     "a: b: c",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        assert_null(parse(&a, bad[i], NULL, &d));
        assert_int_equal(d.n_errors, 1);
        assert_int_equal(diags_first_code(&d), E_YAML);
        arena_free(&a);
    }
}

static void deep_long_and_large_texts_are_refused(void **state) {
    (void)state;
    StrBuf deep = {0}, block = {0}, events = {0}, large = {0};
    for (int i = 0; i < 50000; i++) buf_puts(&deep, "[");
    for (int i = 0; i < 40; i++) buf_printf(&block, "%*sa:\n", i, "");
    for (int i = 0; i < 6000; i++) buf_printf(&events, "k%d: v\n", i);
    for (int i = 0; i < YAML_BYTES_MAX; i++) buf_putc(&large, '#');
    buf_putc(&large, '#');
    StrBuf *bufs[] = {&deep, &block, &events, &large};
    for (size_t i = 0; i < COUNT_OF(bufs); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        assert_null(parse(&a, buf_cstr(bufs[i]), NULL, &d));
        assert_int_equal(d.n_errors, 1);
        buf_free(bufs[i]);
        arena_free(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_keeps_order_kinds_and_places),
        cmocka_unit_test(an_empty_text_is_an_empty_map),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(deep_long_and_large_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
