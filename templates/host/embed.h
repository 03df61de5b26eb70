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

INLINE float embed_value(const void *table, uint32_t row, uint32_t col, EmbedSpec s) {
    const size_t place = (size_t)row * s.hidden + col;
    if (s.format == FORMAT_ROWS_F32) return ((const float *)table)[place];
    if (s.format == FORMAT_ROWS_BF16) return bf16_value(((const uint16_t *)table)[place]);
    const uint8_t *tile = (const uint8_t *)table + row / TILE_ROWS * tile_bytes(FORMAT_BF16, s.hidden);
    return bf16_value(((const uint16_t *)tile)[(col / 2 * TILE_ROWS + row % TILE_ROWS) * 2 + col % 2]);
}

INLINE void embed(void *const *args, uint32_t block, uint32_t n_blocks, void *scratch, EmbedSpec s) {
    const int32_t *ids = args[1];
    float *out = args[2];
    Range tokens = range_of_block(((const uint32_t *)args[3])[COUNT_TOKENS], block, n_blocks);
    (void)scratch;
    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        uint32_t id = (uint32_t)ids[t];
        for (uint32_t i = 0; i < s.hidden; i++)
            out[(size_t)t * s.hidden + i] = id < s.vocab ? embed_value(args[0], id, i, s) * s.scale : 0;
    }
}
#endif
