// Layouts: sizes, every element in its documented place, padding zero.
#include <stdlib.h>

#include "compiler/pack/layout.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static void sizes(void **state) {
    (void)state;
    uint64_t n;
    assert_true(layout_bytes(ADA_LAYOUT_HOST_NVFP4, 17, 32, &n));
    assert_int_equal(n, 2 * 2 * 144);
    assert_true(layout_bytes(ADA_LAYOUT_HOST_BF16, 1, 6, &n));
    assert_int_equal(n, 16 * 6 * 2);
    assert_true(layout_bytes(ADA_LAYOUT_ROWS_F32, 3, 5, &n));
    assert_int_equal(n, 60);
    assert_true(layout_bytes(ADA_LAYOUT_ROWS_BF16, 3, 5, &n));
    assert_int_equal(n, 30);
    assert_false(layout_bytes(ADA_LAYOUT_HOST_NVFP4, 16, 24, &n));
    assert_false(layout_bytes(ADA_LAYOUT_HOST_BF16, 16, 7, &n));
    assert_false(layout_bytes(ADA_LAYOUT_ROWS_F32, UINT64_MAX / 2, 8, &n));
    assert_false(layout_bytes(ADA_LAYOUT_HOST_BF16, UINT64_MAX - 3, 2, &n));
}

// Reads element (r, k) of a packed tile by the picture in layout.c.
static unsigned packed_code(const uint8_t *tile, unsigned r, unsigned k) {
    const uint8_t *block = tile + k / 16 * 144;
    unsigned col = k % 16;
    uint8_t both = block[16 + col / 8 * 64 + r / 8 * 32 + r % 8 / 4 * 16 + col % 8 / 2 * 4 + r % 4];
    return col % 2 ? both >> 4 : both & 15;
}

static void nvfp4_places(void **state) {
    (void)state;
    enum { ROWS = 13, COLS = 48 };
    uint8_t codes[ROWS * COLS / 2], scales[ROWS * COLS / 16], tile[3 * 144];
    for (unsigned i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 37 + 11);
    for (unsigned i = 0; i < sizeof scales; i++) scales[i] = (uint8_t)(i * 5 + 1);
    memset(tile, 0xEE, sizeof tile);
    layout_pack_nvfp4(ADA_LAYOUT_HOST_NVFP4, ROWS, COLS, codes, scales, tile);
    for (unsigned r = 0; r < 16; r++)
        for (unsigned k = 0; k < COLS; k++) {
            unsigned both = r < ROWS ? codes[r * COLS / 2 + k / 2] : 0;
            assert_int_equal(packed_code(tile, r, k), k % 2 ? both >> 4 : both & 15);
            assert_int_equal(tile[k / 16 * 144 + r], r < ROWS ? scales[r * COLS / 16 + k / 16] : 0);
        }
}

static void bf16_places(void **state) {
    (void)state;
    enum { ROWS = 5, COLS = 6 };
    uint16_t values[ROWS * COLS], tile[16 * COLS];
    for (unsigned i = 0; i < COUNT_OF(values); i++) values[i] = (uint16_t)(i * 997 + 3);
    memset(tile, 0xEE, sizeof tile);
    layout_pack_values(ADA_LAYOUT_HOST_BF16, ROWS, COLS, values, (uint8_t *)tile);
    for (unsigned r = 0; r < 16; r++)
        for (unsigned k = 0; k < COLS; k++)
            assert_int_equal(tile[(k / 2 * 16 + r) * 2 + k % 2], r < ROWS ? values[r * COLS + k] : 0);
}

static void rows_are_copied(void **state) {
    (void)state;
    const float f[3] = {1, -2, 3};
    const uint16_t h[3] = {1, 2, 3};
    uint8_t out[12];
    layout_pack_values(ADA_LAYOUT_ROWS_F32, 1, 3, f, out);
    assert_memory_equal(out, f, 12);
    layout_pack_values(ADA_LAYOUT_ROWS_BF16, 1, 3, h, out);
    assert_memory_equal(out, h, 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(nvfp4_places),
                                       cmocka_unit_test(bf16_places), cmocka_unit_test(rows_are_copied)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
