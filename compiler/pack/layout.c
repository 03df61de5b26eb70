#include "compiler/pack/layout.h"

#include "runtime/base/num.h"

// HOST_NVFP4: tiles of 16 rows, one after the other; in a tile, for every 16 columns, 144 bytes:
//
//     0    scales[16]          E4M3, a byte a row
//     16   columns 0-7,  rows 0-7   32 bytes
//     48   columns 0-7,  rows 8-15
//     80   columns 8-15, rows 0-7
//     112  columns 8-15, rows 8-15
//
// and in 32 bytes the byte of row r that holds columns 2j, 2j+1 (even one low, as in the checkpoint) stands
// at (r / 4) * 16 + j * 4 + r % 4: AVX2's shuffles within 16 bytes then leave one row in each 32-bit lane.
//
// HOST_BF16: tiles of 16 rows; in a tile, for every 2 columns, 16 little-endian words, row r's
// w[2j] | w[2j+1] << 16. HOST_F16: the same. HOST_F32: per column 16 words.
//
// HOST_E4M3: tiles of 16 rows; in a tile, for every column, 16 bytes, row r's at r.
//
// MMA_NVFP4, MMA_E4M3 and MMA_F16: tiles of 16 rows; in a tile, for every 64 columns (zeros beyond the last),
// a stage: the A operands of four mma.m16n8k16. Lane l of a warp, g = l / 4 and q = l % 4, owns columns
// 16q..16q+15 of rows g and g + 8, one scale block of each; product j takes its columns 4j..4j+3:
//
//     a0 = row g, 4j and 4j+1    a1 = row g+8, 4j and 4j+1    (the first in the low half)
//     a2 = row g, 4j+2 and 4j+3  a3 = row g+8, 4j+2 and 4j+3
//
//     MMA_F16     512 bytes a product: lane l's a0 a1 a2 a3 at 16 l
//     MMA_E4M3    256 bytes a product; lane l's a0 a1 a2 a3 of products 0 and 1, then 2 and 3, at 16 l of 512
//     MMA_NVFP4   512 bytes: lane l's little-endian words of products 0..3 at 16 l
//                 64 bytes: lane l's E4M3 scales of rows g and g + 8 at 2 l
//
// A word's low 16 bits hold the codes of the low halves of a0..a3, its high 16 bits those of the high halves.
// The bits of a code, sign and e1 e0 m, stand where one or two shifts and masks make fp16 values of two
// codes:
//
//     bit  15   14   13   12   11..9  8..6   5..3   2..0
//          s a0 s a2 s a3 s a1 em a0  em a1  em a2  em a3
//
// _PAIRS: the tile's rows 0..7 are of the first half of the rows, 8..15 of the second; whoever reads the rows
// hands them in so.
enum { TILE_ROWS = 16, BLOCK_COLS = 16, BLOCK_BYTES = 144 };
enum { STAGE_COLS = 64, STAGE_NVFP4_BYTES = 576, STAGE_CODES_BYTES = 512 };
enum { STAGE_E4M3_BYTES = 1024, STAGE_F16_BYTES = 2048 };
enum { LANES = 32, PRODUCTS = 4, LANE_BYTES = 16 };

static const LayoutInfo layouts[] = {
    {ADA_LAYOUT_ROWS_F32, "rows_f32", WF_F32, 1, 1, false, "row-major fp32"},
    {ADA_LAYOUT_ROWS_BF16, "rows_bf16", WF_BF16, 1, 1, false, "row-major bf16"},
    {ADA_LAYOUT_HOST_NVFP4, "host_nvfp4", WF_NVFP4, TILE_ROWS, BLOCK_COLS, false,
     "16 rows a tile; per 16 columns: 16 scales, then 4 x 32 bytes of 8 rows x 8 columns, a row a lane"},
    {ADA_LAYOUT_HOST_BF16, "host_bf16", WF_BF16, TILE_ROWS, 2, false,
     "16 rows a tile; per 2 columns: 16 words, a row a word"},
    {ADA_LAYOUT_HOST_F16, "host_f16", WF_F16, TILE_ROWS, 2, false,
     "16 rows a tile; per 2 columns: 16 words, a row a word"},
    {ADA_LAYOUT_HOST_F32, "host_f32", WF_F32, TILE_ROWS, 1, false,
     "16 rows a tile; per column: 16 words, a row a word"},
    {ADA_LAYOUT_MMA_NVFP4, "mma_nvfp4", WF_NVFP4, TILE_ROWS, BLOCK_COLS, false,
     "16 rows a tile; per 64 columns 576 bytes: A fragments of mma.m16n8k16, then scales"},
    {ADA_LAYOUT_MMA_F16, "mma_f16", WF_F16, TILE_ROWS, BLOCK_COLS, false,
     "16 rows a tile; per 64 columns 2048 bytes: A fragments of mma.m16n8k16"},
    {ADA_LAYOUT_MMA_NVFP4_PAIRS, "mma_nvfp4_pairs", WF_NVFP4, TILE_ROWS, BLOCK_COLS, true,
     "mma_nvfp4, a tile 8 rows of each half"},
    {ADA_LAYOUT_MMA_F16_PAIRS, "mma_f16_pairs", WF_F16, TILE_ROWS, BLOCK_COLS, true,
     "mma_f16, a tile 8 rows of each half"},
    {ADA_LAYOUT_HOST_E4M3, "host_e4m3", WF_E4M3, TILE_ROWS, 1, false,
     "16 rows a tile; per column: 16 bytes, a row a byte"},
    {ADA_LAYOUT_MMA_E4M3, "mma_e4m3", WF_E4M3, TILE_ROWS, BLOCK_COLS, false,
     "16 rows a tile; per 64 columns 1024 bytes: A fragments of mma.m16n8k16, an E4M3 byte a value"},
};

// Bytes of a stage of the MMA layouts; 0: another layout.
static uint64_t stage_bytes(AdaLayout layout) {
    switch (layout) {
    case ADA_LAYOUT_MMA_NVFP4:
    case ADA_LAYOUT_MMA_NVFP4_PAIRS: return STAGE_NVFP4_BYTES;
    case ADA_LAYOUT_MMA_E4M3: return STAGE_E4M3_BYTES;
    case ADA_LAYOUT_MMA_F16:
    case ADA_LAYOUT_MMA_F16_PAIRS: return STAGE_F16_BYTES;
    default: return 0;
    }
}

uint64_t layout_value_bytes(WeightFormat format) { return format == WF_F32 ? 4 : format == WF_E4M3 ? 1 : 2; }

const LayoutInfo *layout_info(AdaLayout layout) {
    for (size_t i = 0; i < COUNT_OF(layouts); i++)
        if (layouts[i].layout == layout) return &layouts[i];
    CHECK(!"a layout of the table");
    return NULL;
}

uint64_t layout_rows(AdaLayout layout, uint64_t rows) {
    const LayoutInfo *info = layout_info(layout);
    uint64_t half = rows / 2, tile = info->rows_tile;
    if (rows > UINT64_MAX - 2 * tile) return 0;
    return info->pairs ? 2 * round_up(half, tile / 2) : round_up(rows, tile);
}

float layout_factor(AdaLayout layout) {
    return layout == ADA_LAYOUT_MMA_F16 || layout == ADA_LAYOUT_MMA_F16_PAIRS ? 256 : 1;
}

bool layout_bytes(AdaLayout layout, uint64_t rows, uint64_t cols, uint64_t *out) {
    const LayoutInfo *info = layout_info(layout);
    uint64_t padded = layout_rows(layout, rows), row_bytes;
    if (cols % info->cols_tile || !padded || (info->pairs && rows % 2)) return false;
    uint64_t stage = stage_bytes(layout);
    if (stage) {
        if (!u64_mul(div_up(cols, STAGE_COLS), stage / TILE_ROWS, &row_bytes)) return false;
    } else if (layout == ADA_LAYOUT_HOST_NVFP4) {
        if (!u64_mul(cols / BLOCK_COLS, BLOCK_BYTES / TILE_ROWS, &row_bytes)) return false;
    } else if (!u64_mul(cols, layout_value_bytes(info->format), &row_bytes)) {
        return false;
    }
    return u64_mul(padded, row_bytes, out);
}

static void pack_host_nvfp4(uint64_t n_rows, uint64_t cols, const uint8_t *codes, const uint8_t *scales,
                            uint8_t *out) {
    memset(out, 0, cols / BLOCK_COLS * BLOCK_BYTES);
    for (uint64_t r = 0; r < n_rows; r++) {
        const uint8_t *code = codes + r * (cols / 2), *scale = scales + r * (cols / BLOCK_COLS);
        uint8_t *chunk = out + TILE_ROWS + r / 8 * 32 + r % 8 / 4 * 16 + r % 4;
        for (uint64_t b = 0; b < cols / BLOCK_COLS; b++, chunk += BLOCK_BYTES, code += BLOCK_COLS / 2) {
            out[b * BLOCK_BYTES + r] = scale[b];
            for (unsigned j = 0; j < 8; j++) chunk[j / 4 * 64 + j % 4 * 4] = code[j];
        }
    }
}

// The two codes of a byte of the checkpoint, one in each half of a word.
static uint32_t spread_codes(uint32_t byte) { return (byte & 15) | (byte & 0xF0) << 12; }

// The word of one product: `upper` and `lower` are the two bytes, four columns, of rows g and g + 8.
static uint32_t nvfp4_word(uint32_t upper, uint32_t lower) {
    const uint32_t sign = 0x00080008, magnitude = 0x00070007;
    uint32_t a0 = spread_codes(upper & 0xFF), a2 = spread_codes(upper >> 8 & 0xFF);
    uint32_t a1 = spread_codes(lower & 0xFF), a3 = spread_codes(lower >> 8 & 0xFF);
    return (a0 & sign) << 12 | (a2 & sign) << 11 | (a3 & sign) << 10 | (a1 & sign) << 9 |
           (a0 & magnitude) << 9 | (a1 & magnitude) << 6 | (a2 & magnitude) << 3 | (a3 & magnitude);
}

static void pack_mma_nvfp4(uint64_t n_rows, uint64_t cols, const uint8_t *codes, const uint8_t *scales,
                           uint8_t *out) {
    uint64_t blocks = cols / BLOCK_COLS, stages = div_up(cols, STAGE_COLS);
    memset(out, 0, stages * STAGE_NVFP4_BYTES);
    for (uint64_t s = 0; s < stages; s++, out += STAGE_NVFP4_BYTES)
        for (unsigned lane = 0; lane < LANES; lane++) {
            uint64_t g = lane / 4, block = s * (STAGE_COLS / BLOCK_COLS) + lane % 4;
            if (block >= blocks || g >= n_rows) continue;
            bool both = g + 8 < n_rows;
            uint64_t upper, lower = 0;
            memcpy(&upper, codes + g * (cols / 2) + block * 8, 8);
            if (both) memcpy(&lower, codes + (g + 8) * (cols / 2) + block * 8, 8);
            for (unsigned j = 0; j < PRODUCTS; j++) {
                uint32_t word = nvfp4_word(upper >> 16 * j & 0xFFFF, lower >> 16 * j & 0xFFFF);
                memcpy(out + lane * LANE_BYTES + j * 4, &word, 4);
            }
            uint8_t *scale = out + STAGE_CODES_BYTES + lane * 2;
            scale[0] = scales[g * blocks + block];
            if (both) scale[1] = scales[(g + 8) * blocks + block];
        }
}

void layout_pack_nvfp4(AdaLayout layout, uint64_t n_rows, uint64_t cols, const uint8_t *codes,
                       const uint8_t *scales, uint8_t *out) {
    const LayoutInfo *info = layout_info(layout);
    CHECK(info->format == WF_NVFP4 && n_rows <= TILE_ROWS && cols % BLOCK_COLS == 0);
    if (layout == ADA_LAYOUT_HOST_NVFP4)
        pack_host_nvfp4(n_rows, cols, codes, scales, out);
    else
        pack_mma_nvfp4(n_rows, cols, codes, scales, out);
}

static void pack_mma_f16(uint64_t n_rows, uint64_t cols, const uint8_t *values, uint8_t *out) {
    uint64_t blocks = cols / BLOCK_COLS, stages = div_up(cols, STAGE_COLS);
    memset(out, 0, stages * STAGE_F16_BYTES);
    for (uint64_t s = 0; s < stages; s++, out += STAGE_F16_BYTES)
        for (unsigned lane = 0; lane < LANES; lane++) {
            uint64_t g = lane / 4, block = s * (STAGE_COLS / BLOCK_COLS) + lane % 4;
            if (block >= blocks || g >= n_rows) continue;
            const uint8_t *upper = values + (g * cols + block * BLOCK_COLS) * 2;
            const uint8_t *lower = g + 8 < n_rows ? upper + 8 * cols * 2 : NULL;
            uint8_t *to = out + lane * LANE_BYTES;
            for (unsigned j = 0; j < PRODUCTS; j++, to += LANES * LANE_BYTES) {
                memcpy(to, upper + 8 * j, 4);
                memcpy(to + 8, upper + 8 * j + 4, 4);
                if (!lower) continue;
                memcpy(to + 4, lower + 8 * j, 4);
                memcpy(to + 12, lower + 8 * j + 4, 4);
            }
        }
}

static void pack_mma_e4m3(uint64_t n_rows, uint64_t cols, const uint8_t *codes, uint8_t *out) {
    uint64_t blocks = cols / BLOCK_COLS, stages = div_up(cols, STAGE_COLS);
    memset(out, 0, stages * STAGE_E4M3_BYTES);
    for (uint64_t s = 0; s < stages; s++, out += STAGE_E4M3_BYTES)
        for (unsigned lane = 0; lane < LANES; lane++) {
            uint64_t g = lane / 4, block = s * (STAGE_COLS / BLOCK_COLS) + lane % 4;
            if (block >= blocks || g >= n_rows) continue;
            const uint8_t *upper = codes + g * cols + block * BLOCK_COLS;
            const uint8_t *lower = g + 8 < n_rows ? upper + 8 * cols : NULL;
            for (unsigned j = 0; j < PRODUCTS; j++) {
                uint8_t *to = out + j / 2 * (LANES * LANE_BYTES) + lane * LANE_BYTES + j % 2 * 8;
                memcpy(to, upper + 4 * j, 2);
                memcpy(to + 4, upper + 4 * j + 2, 2);
                if (!lower) continue;
                memcpy(to + 2, lower + 4 * j, 2);
                memcpy(to + 6, lower + 4 * j + 2, 2);
            }
        }
}

static void pack_host_e4m3(uint64_t n_rows, uint64_t cols, const uint8_t *codes, uint8_t *out) {
    memset(out, 0, cols * TILE_ROWS);
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t c = 0; c < cols; c++) out[c * TILE_ROWS + r] = *codes++;
}

void layout_pack_values(AdaLayout layout, uint64_t n_rows, uint64_t cols, const void *values, uint8_t *out) {
    const LayoutInfo *info = layout_info(layout);
    CHECK(info->format != WF_NVFP4 && n_rows <= info->rows_tile && cols % info->cols_tile == 0);
    if (info->format == WF_E4M3) {
        if (layout == ADA_LAYOUT_HOST_E4M3)
            pack_host_e4m3(n_rows, cols, values, out);
        else
            pack_mma_e4m3(n_rows, cols, values, out);
        return;
    }
    if (stage_bytes(layout)) {
        pack_mma_f16(n_rows, cols, values, out);
        return;
    }
    if (info->rows_tile == 1) {
        memcpy(out, values, n_rows * cols * layout_value_bytes(info->format));
        return;
    }
    uint64_t words = info->format == WF_F32 ? cols : cols / 2; // of a row
    memset(out, 0, words * TILE_ROWS * 4);
    const uint8_t *word = values;
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t j = 0; j < words; j++, word += 4) memcpy(out + (j * TILE_ROWS + r) * 4, word, 4);
}
