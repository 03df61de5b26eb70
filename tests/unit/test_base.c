// The ground floor: strings, numbers, JSON, diagnostics, hashing.
#include <math.h>

#include "runtime/base/cores.h"
#include "runtime/base/fp.h"
#include "runtime/base/hash.h"
#include "runtime/base/json.h"
#include "runtime/base/num.h"
#include "runtime/base/pool.h"
#include "tests/unit/unit.h"

static void edit_distance_is_levenshtein(void **state) {
    (void)state;
    assert_int_equal(edit_distance(STR("kitten"), STR("sitting")), 3);
    assert_int_equal(edit_distance(STR(""), STR("abc")), 3);
    assert_int_equal(edit_distance(STR("batch"), STR("batch")), 0);
}

static void e4m3_round_trips_every_code(void **state) {
    (void)state;
    for (int b = 0; b < 256; b++) {
        if ((b & 0x7F) == 0x7F) continue;
        assert_int_equal(f32_to_e4m3(e4m3_to_f32((uint8_t)b)), b);
    }
    assert_int_equal(f32_to_e4m3(1e9f), 0x7E);
    assert_int_equal(f32_to_e4m3(-INFINITY), 0xFE);
    assert_int_equal(f32_to_e4m3(NAN), 0x7F);
    assert_int_equal(f32_to_e4m3(0x1p-10f), 0);             // half of the smallest subnormal: tie to even
    assert_int_equal(f32_to_e4m3(0x1.000002p-10f), 1);      // just above
    assert_int_equal(f32_to_e4m3(17.f), f32_to_e4m3(16.f)); // tie between 16 and 18
}

static void f16_round_trips_every_code(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        if ((h & 0x7FFF) > 0x7C00) continue;
        assert_int_equal(f32_to_f16(f16_to_f32((uint16_t)h)), h);
    }
    assert_int_equal(f32_to_f16(65519.f), 0x7BFF);
    assert_int_equal(f32_to_f16(65520.f), 0x7C00);
}

static const Json *parse(Arena *a, const char *text, JsonDup dup, Diags *d) {
    Source *src = ARENA_NEW(a, Source);
    *src = (Source){"t.json", str_of(text)};
    return json_parse(a, src, (JsonLimits){.dup = dup}, d);
}

static void json_keeps_numbers_places_and_order(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    const Json *j = parse(&a, "{\"a\": 123456789012345678901234567890, \"b\": [1.5, \"x\\\"y\", null, true]}",
                          JSON_DUP_REFUSE, &d);
    assert_non_null(j);
    const Json *big = json_get(j, "a"), *list = json_get(j, "b");
    assert_true(big->big);
    assert_true(str_is(big->s, "123456789012345678901234567890"));
    assert_int_equal(list->n, 4);
    assert_true(str_is(list->items[1].s, "x\"y"));
    assert_int_equal(list->items[1].begin, 49);
    assert_int_equal(list->items[0].begin, 44);
    arena_free(&a);
}

static void json_duplicates(void **state) {
    (void)state;
    Arena a = {0};
    Diags d = {.arena = &a};
    assert_null(parse(&a, "{\"a\": 1, \"b\": 2, \"a\": 3}", JSON_DUP_REFUSE, &d));
    assert_int_equal(diags_first_code(&d), E_JSON);
    const Json *j = parse(&a, "{\"a\": 1, \"b\": 2, \"a\": 3}", JSON_DUP_LAST, &d);
    assert_int_equal(j->n, 2);
    assert_true(str_is(j->members[0].key, "a"));
    assert_int_equal(j->members[0].value.i, 3);
    arena_free(&a);
}

static void json_refuses_what_is_broken(void **state) {
    (void)state;
    static const char *const bad[] = {"",      "{",   "[1,]",     "{\"a\":}",  "01",      "\"\\u12\"",
                                      "[1] 2", "nul", "\"a\nb\"", "{\"a\" 1}", "\"\xff\""};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        Arena a = {0};
        Diags d = {.arena = &a};
        assert_null(parse(&a, bad[i], JSON_DUP_REFUSE, &d));
        assert_int_equal(d.n_errors, 1);
        arena_free(&a);
    }
    StrBuf deep = {0};
    for (int i = 0; i < 100000; i++) buf_putc(&deep, '[');
    Arena a = {0};
    Diags d = {.arena = &a};
    assert_null(parse(&a, buf_cstr(&deep), JSON_DUP_REFUSE, &d));
    buf_free(&deep);
    arena_free(&a);
}

static void sha256_of_abc(void **state) {
    (void)state;
    char hex[65];
    sha256_hex(sha256("abc", 3), hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void utf8_is_written(void **state) {
    (void)state;
    StrBuf b = {0};
    buf_utf8(&b, 'a'), buf_utf8(&b, 0xE9), buf_utf8(&b, 0x20AC), buf_utf8(&b, 0x1F642);
    assert_string_equal(buf_cstr(&b), "aé€🙂");
    buf_free(&b);
}

static void quotas_become_cores(void **state) {
    (void)state;
    assert_int_equal(cores_of_quota("max 100000\n"), 0);
    assert_int_equal(cores_of_quota("150000 100000\n"), 2);
    assert_int_equal(cores_of_quota("200000 100000\n"), 2);
    assert_int_equal(cores_of_quota("1 100000\n"), 1);
    assert_int_equal(cores_of_quota("0 0\n"), 0);
    assert_int_equal(cores_of_quota(""), 0);
    assert_true(cores_usable() >= 1);
}

static void add_one(void *ctx, uint32_t i) { ((uint32_t *)ctx)[i]++; }

static void pool_runs_each_index_once(void **state) {
    (void)state;
    enum { N = 37, ROUNDS = 500 };
    for (unsigned threads = 1; threads <= 64; threads *= 8) { // most of them without a core
        uint32_t count[N] = {0};
        Pool *p = pool_new(threads);
        for (uint32_t i = 0; i < ROUNDS; i++) pool_run(p, 1 + i % N, add_one, count);
        pool_free(p);
        for (uint32_t i = 0; i < N; i++) {
            uint32_t rounds = 0;
            for (uint32_t k = 0; k < ROUNDS; k++) rounds += k % N >= i;
            assert_int_equal(count[i], rounds);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edit_distance_is_levenshtein),
        cmocka_unit_test(e4m3_round_trips_every_code),
        cmocka_unit_test(f16_round_trips_every_code),
        cmocka_unit_test(json_keeps_numbers_places_and_order),
        cmocka_unit_test(json_duplicates),
        cmocka_unit_test(json_refuses_what_is_broken),
        cmocka_unit_test(sha256_of_abc),
        cmocka_unit_test(utf8_is_written),
        cmocka_unit_test(quotas_become_cores),
        cmocka_unit_test(pool_runs_each_index_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
