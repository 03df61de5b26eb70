// Weights as fragments of mma.sync. Independent of compiler/pack/layout.c: it puts every element where the
// instruction's definition and the drawing of the layout say, one at a time.
#include <math.h>

#include "runtime/base/fp.h"
#include "tests/device/device.h"

enum { STAGE_COLS = 64, TILE_ROWS = 16, NVFP4_STAGE = 576, E4M3_STAGE = 1024, F16_STAGE = 2048 };

// Where an element of a tile's stage stands: lane, k-step, register a0..a3, and which half of it.
typedef struct {
    uint32_t lane, step, reg, half;
} Place;

static Place place_of(uint32_t row, uint32_t col) { // row of the tile, column of the stage
    uint32_t owner = col / 16, in_owner = col % 16;
    return (Place){.lane = row % 8 * 4 + owner,
                   .step = in_owner / 4,
                   .reg = row / 8 + in_owner % 4 / 2 * 2,
                   .half = in_owner % 2};
}

// Row of the matrix that is row r of tile t; `rows` when it is padding.
static uint32_t source_row(uint32_t rows, bool pairs, uint32_t t, uint32_t r) {
    if (!pairs) return MIN(t * TILE_ROWS + r, rows);
    uint32_t half = rows / 2, i = t * 8 + r % 8;
    return i < half ? i + r / 8 * half : rows;
}

static uint32_t tiles_of(uint32_t rows, bool pairs) {
    return (uint32_t)(pairs ? div_up(rows / 2, 8) : div_up(rows, TILE_ROWS));
}

// Bits of a code (sign, two of exponent, one of mantissa) in 16 bits that hold those of a0..a3.
static uint32_t spread_code(uint32_t code, uint32_t reg) {
    static const uint32_t sign_bit[4] = {15, 12, 14, 13}, low_bit[4] = {9, 6, 3, 0};
    return code >> 3 << sign_bit[reg] | (code & 7) << low_bit[reg];
}

static void put_code(uint8_t *stage, uint32_t row, uint32_t col, uint32_t code) {
    Place p = place_of(row, col);
    uint32_t word, at = p.lane * 16 + p.step * 4;
    memcpy(&word, stage + at, 4);
    word |= spread_code(code, p.reg) << 16 * p.half;
    memcpy(stage + at, &word, 4);
}

static void put_scale(uint8_t *stage, uint32_t row, uint32_t block, uint8_t scale) {
    stage[512 + (row % 8 * 4 + block) * 2 + row / 8] = scale;
}

static void put_half(uint8_t *stage, uint32_t row, uint32_t col, uint16_t half) {
    Place p = place_of(row, col);
    memcpy(stage + p.step * 512 + p.lane * 16 + p.reg * 4 + p.half * 2, &half, 2);
}

static void put_e4m3(uint8_t *stage, uint32_t row, uint32_t col, uint8_t code) {
    Place p = place_of(row, col);
    stage[p.step / 2 * 512 + p.lane * 16 + p.step % 2 * 8 + p.reg * 2 + p.half] = code;
}

static TestTiles new_tiles(uint32_t stage_bytes, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs) {
    TestTiles w = {.stack = stack, .rows = rows, .cols = cols};
    CHECK(cols % 16 == 0 && !(pairs && rows % 2));
    w.packed_bytes = (size_t)stack * tiles_of(rows, pairs) * div_up(cols, STAGE_COLS) * stage_bytes;
    w.packed = test_alloc(w.packed_bytes);
    w.row_scale = test_alloc((size_t)stack * rows * sizeof *w.row_scale);
    w.value = test_alloc((size_t)stack * rows * cols * sizeof *w.value);
    return w;
}

static void set_bound(TestTiles *w) {
    double largest = 0;
    for (size_t i = 0; i < (size_t)w->stack * w->rows * w->cols; i++)
        largest = MAX(largest, fabs(w->value[i]));
    w->bound[0] = nextafterf((float)largest, INFINITY);
}

TestTiles tiles_of_codes(const uint8_t *codes, const uint8_t *scales, const float *row_scale, uint32_t stack,
                         uint32_t rows, uint32_t cols, bool pairs) {
    TestTiles w = new_tiles(NVFP4_STAGE, stack, rows, cols, pairs);
    uint32_t n_tiles = tiles_of(rows, pairs), n_stages = (uint32_t)div_up(cols, STAGE_COLS);
    memcpy(w.row_scale, row_scale, (size_t)stack * rows * sizeof *row_scale);
    for (uint32_t i = 0; i < stack * n_tiles * TILE_ROWS; i++) {
        uint32_t tile = i / TILE_ROWS, r = i % TILE_ROWS;
        uint32_t row = source_row(rows, pairs, tile % n_tiles, r);
        if (row == rows) continue;
        size_t line = (size_t)(tile / n_tiles) * rows + row;
        for (uint32_t c = 0; c < cols; c++) {
            uint8_t *stage = w.packed + ((size_t)tile * n_stages + c / STAGE_COLS) * NVFP4_STAGE;
            uint8_t both = codes[(line * cols + c) / 2], scale = scales[(line * cols + c) / 16];
            uint32_t code = c % 2 ? both >> 4 : both & 15;
            put_code(stage, r, c % STAGE_COLS, code);
            put_scale(stage, r, c % STAGE_COLS / 16, scale);
            w.value[line * cols + c] =
                (double)e2m1_value[code] * (double)e4m3_to_f32(scale) * (double)row_scale[line];
        }
    }
    set_bound(&w);
    return w;
}

TestTiles tiles_of_e4m3(const uint8_t *codes, const float *row_scale, uint32_t rows, uint32_t cols) {
    TestTiles w = new_tiles(E4M3_STAGE, 1, rows, cols, false);
    uint32_t n_stages = (uint32_t)div_up(cols, STAGE_COLS);
    memcpy(w.row_scale, row_scale, rows * sizeof *row_scale);
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t c = 0; c < cols; c++) {
            size_t i = (size_t)row * cols + c, tile = row / TILE_ROWS;
            put_e4m3(w.packed + (tile * n_stages + c / STAGE_COLS) * E4M3_STAGE, row % TILE_ROWS,
                     c % STAGE_COLS, codes[i]);
            w.value[i] = (double)e4m3_to_f32(codes[i]) * (double)row_scale[row];
        }
    set_bound(&w);
    return w;
}

TestTiles tiles_of_values(const float *values, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs) {
    TestTiles w = new_tiles(F16_STAGE, stack, rows, cols, pairs);
    uint32_t n_tiles = tiles_of(rows, pairs), n_stages = (uint32_t)div_up(cols, STAGE_COLS);
    for (size_t i = 0; i < (size_t)stack * rows; i++) w.row_scale[i] = 1.0f / 256;
    for (uint32_t i = 0; i < stack * n_tiles * TILE_ROWS; i++) {
        uint32_t tile = i / TILE_ROWS, r = i % TILE_ROWS;
        uint32_t row = source_row(rows, pairs, tile % n_tiles, r);
        if (row == rows) continue;
        size_t line = (size_t)(tile / n_tiles) * rows + row;
        for (uint32_t c = 0; c < cols; c++) {
            uint8_t *stage = w.packed + ((size_t)tile * n_stages + c / STAGE_COLS) * F16_STAGE;
            uint16_t half = f32_to_f16(values[line * cols + c] * 256);
            put_half(stage, r, c % STAGE_COLS, half);
            w.value[line * cols + c] = (double)f16_to_f32(half) / 256;
        }
    }
    set_bound(&w);
    return w;
}

TestTiles tiles_nvfp4(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs) {
    size_t n = (size_t)stack * rows * cols;
    uint8_t *codes = test_alloc(n / 2), *scales = test_alloc(n / 16);
    float *row_scale = test_alloc((size_t)stack * rows * sizeof *row_scale);
    for (size_t i = 0; i < n / 2; i++) codes[i] = (uint8_t)random_u64(&seed);
    for (size_t i = 0; i < n / 16; i++) // mostly alike, now and then any scale there is
        scales[i] =
            (uint8_t)(random_u64(&seed) % 31 == 0 ? random_u64(&seed) % 0x7F : 0x20 + random_u64(&seed) % 24);
    for (size_t i = 0; i < (size_t)stack * rows; i++) row_scale[i] = 0.01f * (1 + (float)(i % 7));
    return tiles_of_codes(codes, scales, row_scale, stack, rows, cols, pairs);
}

TestTiles tiles_e4m3(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs) {
    CHECK(stack == 1 && !pairs);
    uint8_t *codes = test_alloc((size_t)rows * cols);
    float *row_scale = test_alloc(rows * sizeof *row_scale);
    for (size_t i = 0; i < (size_t)rows * cols; i++) // now and then any code there is
        codes[i] = random_u64(&seed) % 31 == 0
                       ? (uint8_t)(random_u64(&seed) % 0x7F | (random_u64(&seed) & 0x80))
                       : f32_to_e4m3(random_normal(&seed) * 100);
    for (uint32_t i = 0; i < rows; i++) row_scale[i] = 0.001f * (1 + (float)(i % 7));
    return tiles_of_e4m3(codes, row_scale, rows, cols);
}

TestTiles tiles_f16(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs) {
    size_t n = (size_t)stack * rows * cols;
    float *values = test_alloc(n * sizeof *values);
    random_fill(seed, values, n, 1);
    return tiles_of_values(values, stack, rows, cols, pairs);
}
