// Layouts: sizes, every element in its documented place, padding zero.
#include <stdlib.h>

#include "compiler/pack/layout.h"
#include "runtime/base/fp.h"
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
    assert_true(layout_bytes(ADA_LAYOUT_HOST_E4M3, 17, 5, &n));
    assert_int_equal(n, 2 * 16 * 5);
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

static void mma_sizes(void **state) {
    (void)state;
    uint64_t n;
    assert_true(layout_bytes(ADA_LAYOUT_MMA_NVFP4, 17, 80, &n)); // two row tiles, two stages
    assert_int_equal(n, 2 * 2 * 576);
    assert_true(layout_bytes(ADA_LAYOUT_MMA_F16, 16, 64, &n));
    assert_int_equal(n, 2048);
    assert_true(layout_bytes(ADA_LAYOUT_MMA_NVFP4_PAIRS, 2 * 9, 64, &n)); // halves of 9 rows: two tiles
    assert_int_equal(n, 2 * 576);
    assert_true(layout_bytes(ADA_LAYOUT_MMA_F16_PAIRS, 2 * 8, 16, &n));
    assert_int_equal(n, 2048);
    assert_false(layout_bytes(ADA_LAYOUT_MMA_F16_PAIRS, 15, 64, &n));
    assert_true(layout_bytes(ADA_LAYOUT_MMA_E4M3, 17, 80, &n));
    assert_int_equal(n, 2 * 2 * 1024);
    assert_false(layout_bytes(ADA_LAYOUT_MMA_E4M3, 16, 72, &n));
    assert_false(layout_bytes(ADA_LAYOUT_MMA_NVFP4, 16, 72, &n));
    assert_false(layout_bytes(ADA_LAYOUT_MMA_NVFP4, UINT64_MAX - 3, 64, &n));
}

// What the kernels do: the fp16 bits of a0..a3 of one word. A code's fp16 value is 2^-14 of its own.
static void unpack_word(uint32_t w, uint32_t a[4]) {
    a[0] = w & 0x8E008E00;
    a[1] = w << 3 & 0x8E008E00;
    a[2] = (w << 1 & 0x80008000) | (w << 6 & 0x0E000E00);
    a[3] = (w << 2 & 0x80008000) | (w << 9 & 0x0E000E00);
}

// The fragment of m16n8k16 as PTX has it: register i of lane l holds these two elements of the 16 x 16 tile
// whose columns are those of product j.
static void fragment_place(unsigned lane, unsigned i, unsigned half, unsigned j, unsigned *row,
                           unsigned *col) {
    *row = lane / 4 + (i & 1) * 8;
    *col = lane % 4 * 16 + j * 4 + i / 2 * 2 + half;
}

// Every element of every stage, for rows and columns that fill no tile.
static void mma_nvfp4_places(void **state) {
    (void)state;
    static const unsigned shapes[][2] = {{16, 64}, {16, 128}, {13, 80}, {5, 16}, {8, 48}, {1, 112}};
    for (size_t n = 0; n < COUNT_OF(shapes); n++) {
        unsigned rows = shapes[n][0], cols = shapes[n][1], stages = (cols + 63) / 64;
        uint8_t codes[16 * 64], scales[16 * 8], tile[2 * 576];
        for (unsigned i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 37 + 11);
        for (unsigned i = 0; i < sizeof scales; i++) scales[i] = (uint8_t)(i * 5 + 1);
        memset(tile, 0xEE, sizeof tile);
        layout_pack_nvfp4(ADA_LAYOUT_MMA_NVFP4, rows, cols, codes, scales, tile);
        for (unsigned at = 0; at < stages * 32 * 4 * 8; at++) {
            unsigned stage = at / 1024, lane = at / 32 % 32, j = at / 8 % 4, i = at / 2 % 4, half = at % 2;
            unsigned r, c;
            uint32_t w, a[4];
            memcpy(&w, tile + stage * 576 + lane * 16 + j * 4, 4);
            unpack_word(w, a);
            fragment_place(lane, i, half, j, &r, &c);
            c += stage * 64;
            unsigned both = r < rows && c < cols ? codes[r * cols / 2 + c / 2] : 0;
            float want = e2m1_value[c % 2 ? both >> 4 : both & 15];
            assert_true(f16_to_f32((uint16_t)(a[i] >> 16 * half)) == want / 16384);
            uint8_t scale = r < rows && c < cols ? scales[r * (cols / 16) + c / 16] : 0;
            assert_int_equal(tile[stage * 576 + 512 + lane * 2 + (i & 1)], scale);
        }
        for (unsigned i = stages * 576; i < sizeof tile; i++) assert_int_equal(tile[i], 0xEE);
    }
}

static void mma_f16_places(void **state) {
    (void)state;
    static const unsigned shapes[][2] = {{16, 64}, {16, 128}, {13, 80}, {5, 16}, {8, 48}, {1, 112}};
    for (size_t n = 0; n < COUNT_OF(shapes); n++) {
        unsigned rows = shapes[n][0], cols = shapes[n][1], stages = (cols + 63) / 64;
        uint16_t values[16 * 128], tile[2 * 1024];
        for (unsigned i = 0; i < COUNT_OF(values); i++) values[i] = (uint16_t)(i * 997 + 3);
        memset(tile, 0xEE, sizeof tile);
        layout_pack_values(ADA_LAYOUT_MMA_F16_PAIRS, rows, cols, values, (uint8_t *)tile);
        for (unsigned at = 0; at < stages * 1024; at++) {
            unsigned stage = at / 1024, j = at / 256 % 4, lane = at / 8 % 32, i = at / 2 % 4, half = at % 2;
            unsigned r, c;
            fragment_place(lane, i, half, j, &r, &c);
            c += stage * 64;
            assert_int_equal(tile[at], r < rows && c < cols ? values[r * cols + c] : 0);
        }
        for (unsigned i = stages * 1024; i < COUNT_OF(tile); i++) assert_int_equal(tile[i], 0xEEEE);
    }
}

static void host_e4m3_places(void **state) {
    (void)state;
    enum { ROWS = 5, COLS = 7 };
    uint8_t codes[ROWS * COLS], tile[16 * COLS];
    for (unsigned i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 37 + 11);
    memset(tile, 0xEE, sizeof tile);
    layout_pack_values(ADA_LAYOUT_HOST_E4M3, ROWS, COLS, codes, tile);
    for (unsigned r = 0; r < 16; r++)
        for (unsigned k = 0; k < COLS; k++)
            assert_int_equal(tile[k * 16 + r], r < ROWS ? codes[r * COLS + k] : 0);
}

static void mma_e4m3_places(void **state) {
    (void)state;
    static const unsigned shapes[][2] = {{16, 64}, {16, 128}, {13, 80}, {5, 16}, {8, 48}, {1, 112}};
    for (size_t n = 0; n < COUNT_OF(shapes); n++) {
        unsigned rows = shapes[n][0], cols = shapes[n][1], stages = (cols + 63) / 64;
        uint8_t codes[16 * 128], tile[2 * 1024];
        for (unsigned i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 37 + 11);
        memset(tile, 0xEE, sizeof tile);
        layout_pack_values(ADA_LAYOUT_MMA_E4M3, rows, cols, codes, tile);
        for (unsigned at = 0; at < stages * 1024; at++) {
            unsigned stage = at / 1024, lane = at / 16 % 32, i = at / 2 % 4, half = at % 2;
            unsigned j = at / 512 % 2 * 2 + at / 8 % 2, r, c;
            fragment_place(lane, i, half, j, &r, &c);
            c += stage * 64;
            assert_int_equal(tile[at], r < rows && c < cols ? codes[r * cols + c] : 0);
        }
        for (unsigned i = stages * 1024; i < sizeof tile; i++) assert_int_equal(tile[i], 0xEE);
    }
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes),
                                       cmocka_unit_test(nvfp4_places),
                                       cmocka_unit_test(bf16_places),
                                       cmocka_unit_test(mma_sizes),
                                       cmocka_unit_test(mma_nvfp4_places),
                                       cmocka_unit_test(mma_f16_places),
                                       cmocka_unit_test(host_e4m3_places),
                                       cmocka_unit_test(mma_e4m3_places),
                                       cmocka_unit_test(rows_are_copied)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
