// The safetensors reader over files made in memory: what is legal is read, what is not is refused with a
// place in the header.
#include <stdio.h>
#include <stdlib.h>

#include "compiler/frontend/safetensors.h"
#include "tests/unit/unit.h"

typedef struct {
    Arena arena;
    Diags diags;
    SafeTensors file;
    uint8_t *bytes;
    size_t size;
    bool ok;
} Case;

static Case *parse_bytes(const void *bytes, size_t size) {
    Case *c = xmalloc(sizeof *c);
    memset(c, 0, sizeof *c);
    c->diags.arena = &c->arena;
    c->bytes = xmalloc(size + 1), c->size = size; // exactly sized, so that a sanitizer sees every overrun
    memcpy(c->bytes, bytes, size);
    c->bytes = xrealloc(c->bytes, size ? size : 1, 1);
    c->file.source.name = "x.safetensors";
    c->ok = safetensors_parse(&c->arena, c->bytes, size, &c->file, &c->diags);
    assert_int_equal(c->ok, c->diags.n_errors == 0);
    return c;
}

static Case *parse(const char *header, size_t data_bytes) {
    StrBuf b = {0};
    uint64_t n = strlen(header);
    buf_add(&b, &n, 8);
    buf_puts(&b, header);
    for (size_t i = 0; i < data_bytes; i++) buf_putc(&b, (char)i);
    Case *c = parse_bytes(b.ptr, b.len);
    buf_free(&b);
    return c;
}

static void done(Case *c) {
    arena_free(&c->arena);
    free(c->bytes);
    free(c);
}

static void refused(const char *header, size_t data_bytes, const char *word) {
    Case *c = parse(header, data_bytes);
    if (c->ok || !strstr(diags_first_message(&c->diags), word))
        fail_msg("%s\n  want `%s`, got: %s", header, word,
                 c->ok ? "no error" : diags_first_message(&c->diags));
    done(c);
}

static void reads_tensors(void **state) {
    (void)state;
    Case *c = parse(" {\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                    "\"__metadata__\":{\"format\":\"pt\"},"
                    "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}} \n",
                    16);
    assert_true(c->ok);
    assert_int_equal(c->file.n_tensors, 2);
    const SafeTensor *a = &c->file.tensors[0], *b = &c->file.tensors[1];
    assert_true(str_is(a->name, "a") && a->rank == 0 && a->bytes == 4 && a->dtype == ST_F32);
    assert_true(str_is(b->name, "b") && b->rank == 2 && b->shape[1] == 3 && b->bytes == 12);
    assert_int_equal(b->data[0], 4);
    done(c);
}

static void reads_odd_but_legal_files(void **state) {
    (void)state;
    Case *c = parse("{}", 0);
    assert_true(c->ok && c->file.n_tensors == 0);
    done(c);
    c = parse(
        "{\"z\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[3,3]},"
        "\"y\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
        "\"x\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,0],\"data_offsets\":[3,3],\"more\":1}}",
        3);
    assert_true(c->ok && c->file.n_tensors == 3);
    done(c);
    c = parse("{\"four\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[0,3]}}", 3);
    assert_true(c->ok);
    done(c);
}

static void refuses_broken_headers(void **state) {
    (void)state;
#define ONE(dtype, shape, offsets)                                                                           \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    refused(ONE("F32", "[2]", "[0,8]"), 7, "data has 7 bytes");
    refused(ONE("F32", "[2]", "[0,8]"), 9, "follow the last tensor");
    refused(ONE("F32", "[2]", "[1,9]"), 9, "hole");
    refused(ONE("F32", "[2]", "[8,0]"), 8, "spans bytes 8 to 0");
    refused(ONE("F32", "[3]", "[0,8]"), 8, "take 12 bytes");
    refused(ONE("F31", "[2]", "[0,8]"), 8, "unknown dtype `F31`");
    refused(ONE("F4", "[3]", "[0,2]"), 2, "no whole number");
    refused(ONE("F32", "[-2]", "[0,8]"), 8, "integers from 0");
    refused(ONE("F32", "[2.0]", "[0,8]"), 8, "integers from 0");
    refused(ONE("F32", "[\"2\"]", "[0,8]"), 8, "integers from 0");
    refused(ONE("F32", "2", "[0,8]"), 8, "list of integers");
    refused(ONE("F32", "[2]", "[0,8,9]"), 8, "[begin, end]");
    refused(ONE("F32", "[2]", "[0]"), 8, "[begin, end]");
    refused(ONE("F32", "[2]", "{}"), 8, "list of integers");
    refused(ONE("F32", "[4294967296,4294967296]", "[0,8]"), 8, "overflows");
    refused(ONE("F32", "[9223372036854775807,9223372036854775807,0]", "[0,0]"), 0, "overflows");
    refused(ONE("F64", "[2305843009213693952]", "[0,8]"), 8, "overflows");
    refused(ONE("F32", "[18446744073709551616]", "[0,8]"), 8, "integers from 0");
    refused(ONE("F32", "[2]", "[0,18446744073709551615]"), 8, "integers from 0");
    refused(ONE("F32", "[2]", "[9223372036854775807,9223372036854775807]"), 8, "data has 8 bytes");
    refused("{\"t\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "`dtype` must be");
    refused("{\"t\":[]}", 0, "must be an object");
    refused("{\"t\":null}", 0, "must be an object");
    refused("[]", 0, "must be an object of tensors");
    refused("", 0, "JSON");
    refused("{\"t\":", 0, "JSON");
    refused("{} x", 0, "JSON");
    refused("{\"\xff\":1}", 0, "JSON");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "strings only");
    refused("{\"__metadata__\":[]}", 0, "object of strings");
    refused("{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, "t");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
            3, "overlaps");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
            2, "overlaps");
}

static void errors_have_a_place(void **state) {
    (void)state;
    Case *c = parse("{\"good\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\n"
                    " \"bad\":{\"dtype\":\"U9\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                    2);
    char text[4096] = {0};
    FILE *f = fmemopen(text, sizeof text, "w");
    diags_print(&c->diags, "adallmc", f);
    fclose(f);
    assert_non_null(strstr(text, "x.safetensors:2:17: error E0401: tensor bad"));
    assert_non_null(strstr(text, "did you mean `U8`?"));
    done(c);
}

static void refuses_lying_lengths(void **state) {
    (void)state;
    static const uint64_t lengths[] = {
        3, 100, 100000000, 100000001, 1u << 31, (uint64_t)1 << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t bytes[10] = {0};
        memcpy(bytes, &lengths[i], 8);
        memcpy(bytes + 8, "{}", 2);
        Case *c = parse_bytes(bytes, sizeof bytes);
        assert_false(c->ok);
        assert_int_equal(diags_first_code(&c->diags), E_SAFETENSORS);
        done(c);
    }
    for (size_t n = 0; n < 8; n++) {
        Case *c = parse_bytes("\2\0\0\0\0\0\0", n);
        assert_false(c->ok);
        done(c);
    }
}

static void refuses_every_truncation(void **state) {
    (void)state;
    Arena a = {0};
    Str whole;
    Err e;
    assert_true(file_read(&a, "tests/golden/models/quantize/model.safetensors", 1 << 24, &whole, &e));
    Case *c = parse_bytes(whole.ptr, whole.len);
    assert_true(c->ok);
    size_t n = c->file.n_tensors, ends[256];
    assert_true(n && n <= 256);
    for (size_t i = 0; i < n; i++)
        ends[i] = (size_t)(c->file.tensors[i].data + c->file.tensors[i].bytes - c->bytes);
    done(c);
    for (size_t i = 0; i < n; i++) {
        for (size_t d = 0; d < 3; d++) {
            if (ends[i] - 1 + d == whole.len) continue;
            if (ends[i] - 1 + d > whole.len) continue;
            c = parse_bytes(whole.ptr, ends[i] - 1 + d);
            assert_false(c->ok);
            done(c);
        }
    }
    for (size_t keep = 0; keep < 2000; keep += 37) {
        c = parse_bytes(whole.ptr, keep);
        assert_false(c->ok);
        done(c);
    }
    arena_free(&a);
}

static void writer_and_reader_agree(void **state) {
    (void)state;
    StOut out[] = {{.name = STR("b"), .dtype = ST_U8, .rank = 2, .shape = (const uint64_t[]){3, 1}},
                   {.name = STR("quo\"te"), .dtype = ST_F32, .rank = 0},
                   {.name = STR("a"), .dtype = ST_U8, .rank = 1, .shape = (const uint64_t[]){2}},
                   {.name = STR("n"), .dtype = ST_BF16, .rank = 1, .shape = (const uint64_t[]){1}}};
    StrBuf b = {0};
    safetensors_layout(out, 4, &b);
    assert_int_equal(b.len % 8, 0);
    for (int i = 0; i < 4 + 2 + 2 + 3; i++) buf_putc(&b, (char)i);
    Case *c = parse_bytes(b.ptr, b.len);
    assert_true(c->ok);
    static const char *const order[] = {"quo\"te", "n", "a", "b"};
    for (size_t i = 0; i < 4; i++) assert_true(str_is(c->file.tensors[i].name, order[i]));
    done(c);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_tensors),           cmocka_unit_test(reads_odd_but_legal_files),
        cmocka_unit_test(refuses_broken_headers),  cmocka_unit_test(errors_have_a_place),
        cmocka_unit_test(refuses_lying_lengths),   cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(writer_and_reader_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
