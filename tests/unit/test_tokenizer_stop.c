// Stop strings: the same cut however the text is broken into pieces.
#include "tests/unit/unit.h"

#include <string.h>

#include "runtime/base/num.h"
#include "runtime/text/stop.h"

typedef struct {
    const char *text;
    const char *stops[3];
    const char *want;
    int which; // -1: none is met
} Case;

static const Case cases[] = {
    {"hello world", {"wor"}, "hello ", 0},
    {"hello world", {"xyz", "lo w"}, "hel", 1},
    {"hello", {"world"}, "hello", -1},
    {"hello wor", {"world"}, "hello wor", -1},
    {"aaab", {"aab"}, "a", 0},
    {"abababac", {"ababac"}, "ab", 0},
    {"xabcy", {"b", "abc"}, "xa", 0}, // b is complete first
    {"xabcy", {"bc", "abc"}, "x", 1}, // both at once: the longest
    {"a\u00E9\u4F60b", {"\u4F60"}, "a\u00E9", 0},
    {"a\u4F61b", {"\u4F60"}, "a\u4F61b", -1},
    {"abc", {"", "abc"}, "", 1},
    {"", {"a"}, "", -1},
    {"abc", {NULL}, "abc", -1},
};

static void test_all_cuts(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const Case *c = &cases[i];
        Str stops[3];
        size_t n = 0, len = strlen(c->text);
        while (n < 3 && c->stops[n]) stops[n] = str_of(c->stops[n]), n++;
        for (size_t piece = 1; piece <= len + 1; piece++) {
            Stop s;
            StrBuf out = {0};
            stop_begin(&s, stops, n);
            bool hit = false;
            for (size_t at = 0; at < len; at += piece)
                hit = stop_push(&s, str_sub(str_of(c->text), at, MIN(at + piece, len)), &out);
            stop_flush(&s, &out);
            assert_true(str_is(buf_view(&out), c->want));
            assert_int_equal(hit, c->which >= 0);
            if (hit) assert_int_equal(s.which, c->which);
            stop_end(&s);
            buf_free(&out);
        }
    }
}

static void test_holds_back_no_more_than_needed(void **state) {
    (void)state;
    Str stop = STR("\n\nUser:");
    Stop s;
    StrBuf out = {0};
    stop_begin(&s, &stop, 1);
    assert_false(stop_push(&s, STR("one\n"), &out));
    assert_true(str_is(buf_view(&out), "one"));
    assert_false(stop_push(&s, STR("two"), &out));
    assert_true(str_is(buf_view(&out), "one\ntwo"));
    stop_end(&s);
    buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_cuts),
        cmocka_unit_test(test_holds_back_no_more_than_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
