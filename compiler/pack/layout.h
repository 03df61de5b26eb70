// Weight layouts: how rows of a weight become the bytes a kernel reads. One row of the layout table per
// AdaLayout.
#ifndef ADALLM_PACK_LAYOUT_H
#define ADALLM_PACK_LAYOUT_H
#include "compiler/frontend/source.h"
#include "runtime/format.h"

typedef struct {
    AdaLayout layout;
    const char *name;
    WeightFormat format; // what it can hold
    uint32_t rows_tile;  // rows are packed in tiles of this many; the last tile is padded with zeros
    uint32_t cols_tile;  // columns must be a multiple of this
    bool pairs;          // a tile holds rows_tile / 2 rows of each half of the rows
    const char *picture; // one line for people
} LayoutInfo;

const LayoutInfo *layout_info(AdaLayout layout);
// Packed bytes of rows x cols; false on overflow or when cols does not fit the layout.
bool layout_bytes(AdaLayout layout, uint64_t rows, uint64_t cols, uint64_t *out);
// Rows that the packed tiles of `rows` rows hold, padding included; 0 on overflow.
uint64_t layout_rows(AdaLayout layout, uint64_t rows);
// What the values of the layout are multiplied with, beside their own scales: 1, or 256 for MMA_F16, so that
// bf16 weights down to 2^-22 keep all their bits. A value that is then too large for fp16, 255.9 and more, is
// an error that names its weight (pack_weights.c).
float layout_factor(AdaLayout layout);
// Bytes of a value as layout_pack_values takes it; not NVFP4.
uint64_t layout_value_bytes(WeightFormat format);
// Packs one tile of `n_rows` <= rows_tile rows (the rest is padding). NVFP4: codes [n_rows, cols/2] and
// scales [n_rows, cols/16] as source.h gives them; others: `values` in the layout's format (E4M3: codes).
// `out` has layout_bytes(layout, rows_tile, cols) bytes.
void layout_pack_nvfp4(AdaLayout layout, uint64_t n_rows, uint64_t cols, const uint8_t *codes,
                       const uint8_t *scales, uint8_t *out);
void layout_pack_values(AdaLayout layout, uint64_t n_rows, uint64_t cols, const void *values, uint8_t *out);
#endif
