// embed: out[t] = table[ids[t]] * scale; ids outside the table give zeros.
#ifndef ADALLM_HOST_EMBED_H
#define ADALLM_HOST_EMBED_H
#include "templates/host/tiles.h"

typedef struct {
    uint32_t hidden, vocab;
    float scale;
    uint32_t format;
} EmbedSpec;

INLINE float bf16_value(uint16_t bits) {
    uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

// Exponent and mantissa fields move to fp32's, 2^112 makes up for the bias.
INLINE float f16_value(uint16_t bits) {
    uint32_t u = (uint32_t)(bits & 0x7FFF) << 13;
    float x;
    memcpy(&x, &u, 4);
    return bits & 0x8000 ? -(x * 0x1p112f) : x * 0x1p112f;
}

INLINE float embed_value(const void *table, uint32_t row, uint32_t col, EmbedSpec s) {
    const size_t place = (size_t)row * s.hidden + col;
    if (s.format == FORMAT_ROWS_F32) return ((const float *)table)[place];
    if (s.format == FORMAT_ROWS_BF16) return bf16_value(((const uint16_t *)table)[place]);
    const uint8_t *tile = (const uint8_t *)table + row / TILE_ROWS * tile_bytes(s.format, s.hidden);
    if (s.format == FORMAT_F32) return ((const float *)(const void *)tile)[col * TILE_ROWS + row % TILE_ROWS];
    const uint16_t bits =
        ((const uint16_t *)(const void *)tile)[(col / 2 * TILE_ROWS + row % TILE_ROWS) * 2 + col % 2];
    return s.format == FORMAT_F16 ? f16_value(bits) : bf16_value(bits);
}

INLINE void embed(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, EmbedSpec s) {
    const int32_t *ids = args[2]; // args[1]: factors of rows, which host tables do not need
    float *out = args[3];
    Range tokens = range_of_block(((const uint32_t *)args[4])[COUNT_TOKENS], block, n_blocks);
    (void)scratch;
    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        uint32_t id = (uint32_t)ids[t];
        for (uint32_t i = 0; i < s.hidden; i++)
            out[(size_t)t * s.hidden + i] = id < s.vocab ? embed_value(args[0], id, i, s) * s.scale : 0;
    }
}
#endif
