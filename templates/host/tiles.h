// Rows of activations times tiles of weights: the core of every linear. One lane is one row of the weight,
// and every output is the same chain acc = fma(w[k], x[k], acc), k ascending from acc = 0, whichever path
// computes it: a token's bits do not depend on what else is in the step.
//
// Up to 4 tokens: weights are expanded in registers and used at once. More: 16 rows x 256 columns are
// expanded to fp32 (16 KiB, stays in L1) and multiplied with all tokens, 6 at a time.
#ifndef ADALLM_HOST_TILES_H
#define ADALLM_HOST_TILES_H
#include "templates/host/math.h"

enum { FORMAT_NVFP4, FORMAT_BF16, FORMAT_F16, FORMAT_F32, FORMAT_ROWS_F32, FORMAT_ROWS_BF16, FORMAT_E4M3 };
enum { ACT_SILU, ACT_GELU_TANH };

enum {
    TILE_ROWS = 16,
    GROUP_ROWS = 2 * TILE_ROWS, // what a block takes at least
    PASS_ROWS = 4 * TILE_ROWS,  // what is computed between two epilogues
    PASS_TOKENS = 120,
    CHUNK_COLS = 256,
    DIRECT_TOKENS = 4,
    DIRECT_TILES = 4, // tiles side by side for one token: as many streams from memory, which one core needs
                      // to fill its share
    DIRECT_OCTETS = 2 * DIRECT_TILES,
    MICRO_TOKENS = 6,
};
// Layouts HOST_* of pack/layout.c: bytes of a tile for a step of columns. The plain formats have one step
// size: 2 columns of 16 bits, 1 column of fp32 or E4M3.
enum { NVFP4_COLS = 16, NVFP4_BYTES = 144 };

typedef struct {
    float expanded[CHUNK_COLS * TILE_ROWS];
    float acc[PASS_TOKENS * (PASS_ROWS + TILE_ROWS)];
    float acc2[PASS_TOKENS * (PASS_ROWS + TILE_ROWS)];
    const float *x[PASS_TOKENS]; // a row of K values a token
    uint32_t id[PASS_TOKENS];
} TileScratch;

INLINE uint32_t plain_cols(uint32_t format) { return format == FORMAT_F32 || format == FORMAT_E4M3 ? 1 : 2; }
INLINE uint32_t plain_bytes(uint32_t format) {
    return format == FORMAT_E4M3 ? 16 : 64;
} // of a step of a tile

INLINE size_t tile_bytes(uint32_t format, uint32_t k) {
    return format == FORMAT_NVFP4 ? (size_t)k / NVFP4_COLS * NVFP4_BYTES
                                  : (size_t)k / plain_cols(format) * plain_bytes(format);
}

// One step of 8 rows of a plain format.
INLINE void plain_expand(uint32_t format, const uint8_t *p, f32x8 value[2]) {
    if (format == FORMAT_BF16)
        bf16_expand(p, value);
    else if (format == FORMAT_F16)
        f16_expand(p, value);
    else if (format == FORMAT_E4M3)
        value[0] = e4m3_load(p) * f32x8_set1(E4M3_SCALE);
    else
        value[0] = f32x8_load((const float *)(const void *)p);
}

// ---- up to 4 tokens ------------------------------------------------------------------------------

// acc[token][octet] over all of K; octet o is rows 8 o .. 8 o + 7 of n_tiles neighbouring tiles.
INLINE void direct_nvfp4(const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x,
                         uint32_t n_tok, f32x8 acc[][DIRECT_OCTETS]) {
    const size_t stride = tile_bytes(FORMAT_NVFP4, k);
    for (uint32_t col = 0; col < k; col += NVFP4_COLS, w += NVFP4_BYTES)
#pragma GCC unroll 8
        for (uint32_t half = 0; half < 2; half++)
#pragma GCC unroll 8
            for (uint32_t octet = 0; octet < 2 * n_tiles; octet++) {
                const uint8_t *block = w + octet / 2 * stride;
                f32x8 scale = scales_load(block + octet % 2 * 8), value[8];
                nvfp4_expand(block + TILE_ROWS + half * 64 + octet % 2 * 32, value);
#pragma GCC unroll 8
                for (uint32_t i = 0; i < 8; i++) {
                    f32x8 v = value[i] * scale;
#pragma GCC unroll 8
                    for (uint32_t t = 0; t < n_tok; t++)
                        acc[t][octet] = f32x8_fma(v, f32x8_set1(x[t][col + half * 8 + i]), acc[t][octet]);
                }
            }
}

INLINE void direct_plain(uint32_t format, const uint8_t *w, uint32_t k, uint32_t n_tiles,
                         const float *const *x, uint32_t n_tok, f32x8 acc[][DIRECT_OCTETS]) {
    const size_t stride = tile_bytes(format, k);
    const uint32_t step = plain_cols(format), bytes = plain_bytes(format);
    for (uint32_t col = 0; col < k; col += step, w += bytes)
#pragma GCC unroll 8
        for (uint32_t octet = 0; octet < 2 * n_tiles; octet++) {
            f32x8 value[2];
            plain_expand(format, w + octet / 2 * stride + octet % 2 * (bytes / 2), value);
#pragma GCC unroll 8
            for (uint32_t i = 0; i < step; i++)
#pragma GCC unroll 8
                for (uint32_t t = 0; t < n_tok; t++)
                    acc[t][octet] = f32x8_fma(value[i], f32x8_set1(x[t][col + i]), acc[t][octet]);
        }
}

INLINE void direct(uint32_t format, const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x,
                   uint32_t n_tok, float *out, uint32_t out_stride) {
    f32x8 acc[DIRECT_TOKENS][DIRECT_OCTETS];
#pragma GCC unroll 8
    for (uint32_t t = 0; t < n_tok; t++)
#pragma GCC unroll 8
        for (uint32_t o = 0; o < 2 * n_tiles; o++) acc[t][o] = f32x8_set1(0);
    if (format == FORMAT_NVFP4)
        direct_nvfp4(w, k, n_tiles, x, n_tok, acc);
    else
        direct_plain(format, w, k, n_tiles, x, n_tok, acc);
#pragma GCC unroll 8
    for (uint32_t t = 0; t < n_tok; t++)
#pragma GCC unroll 8
        for (uint32_t o = 0; o < 2 * n_tiles; o++) f32x8_store(out + t * out_stride + o * 8, acc[t][o]);
}

// ---- more tokens ---------------------------------------------------------------------------------

// [cols][16] fp32 of one tile.
INLINE void expand(uint32_t format, const uint8_t *w, uint32_t cols, float *out) {
    if (format == FORMAT_NVFP4) {
        for (uint32_t col = 0; col < cols; col += NVFP4_COLS, w += NVFP4_BYTES)
            for (uint32_t part = 0; part < 4; part++) {
                f32x8 scale = scales_load(w + part % 2 * 8), value[8];
                nvfp4_expand(w + TILE_ROWS + part * 32, value);
                for (uint32_t i = 0; i < 8; i++)
                    f32x8_store(out + (col + part / 2 * 8 + i) * TILE_ROWS + part % 2 * 8, value[i] * scale);
            }
        return;
    }
    const uint32_t step = plain_cols(format), bytes = plain_bytes(format);
    for (uint32_t col = 0; col < cols; col += step, w += bytes)
        for (uint32_t octet = 0; octet < 2; octet++) {
            f32x8 value[2];
            plain_expand(format, w + octet * (bytes / 2), value);
            for (uint32_t i = 0; i < step; i++)
                f32x8_store(out + (col + i) * TILE_ROWS + octet * 8, value[i]);
        }
}

// acc[n_tok][16] += expanded[cols][16] * x[n_tok][cols]: 2 x 6 accumulators, 2 weights and a value fill the
// 16 registers.
INLINE void micro(const float *w, uint32_t cols, const float *const *x, uint32_t x_offset, uint32_t n_tok,
                  float *acc, uint32_t acc_stride) {
    f32x8 a[MICRO_TOKENS][2];
    const float *row[MICRO_TOKENS];
#pragma GCC unroll 6
    for (uint32_t t = 0; t < n_tok; t++) {
        row[t] = x[t] + x_offset;
        a[t][0] = f32x8_load(acc + t * acc_stride), a[t][1] = f32x8_load(acc + t * acc_stride + 8);
    }
    for (uint32_t col = 0; col < cols; col++, w += TILE_ROWS) {
        f32x8 w0 = f32x8_load(w), w1 = f32x8_load(w + 8);
#pragma GCC unroll 6
        for (uint32_t t = 0; t < n_tok; t++) {
            f32x8 v = f32x8_set1(row[t][col]);
            a[t][0] = f32x8_fma(w0, v, a[t][0]), a[t][1] = f32x8_fma(w1, v, a[t][1]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t t = 0; t < n_tok; t++)
        f32x8_store(acc + t * acc_stride, a[t][0]), f32x8_store(acc + t * acc_stride + 8, a[t][1]);
}

INLINE void many_tokens(uint32_t format, const uint8_t *w, uint32_t k, uint32_t n_tiles,
                        const float *const *x, uint32_t n_tok, float *acc, uint32_t acc_stride,
                        float *expanded) {
    for (uint32_t t = 0; t < n_tok; t++)
        memset(acc + (size_t)t * acc_stride, 0, n_tiles * TILE_ROWS * sizeof(float));
    for (uint32_t col = 0; col < k; col += CHUNK_COLS) {
        uint32_t cols = u32_min(CHUNK_COLS, k - col);
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            expand(format, w + tile * tile_bytes(format, k) + tile_bytes(format, col), cols, expanded);
            float *out = acc + tile * TILE_ROWS;
            uint32_t t = 0;
            for (; t + MICRO_TOKENS <= n_tok; t += MICRO_TOKENS)
                micro(expanded, cols, x + t, col, MICRO_TOKENS, out + (size_t)t * acc_stride, acc_stride);
            const float *const *rest = x + t;
            out += (size_t)t * acc_stride;
            switch (n_tok - t) {
            case 5: micro(expanded, cols, rest, col, 5, out, acc_stride); break;
            case 4: micro(expanded, cols, rest, col, 4, out, acc_stride); break;
            case 3: micro(expanded, cols, rest, col, 3, out, acc_stride); break;
            case 2: micro(expanded, cols, rest, col, 2, out, acc_stride); break;
            case 1: micro(expanded, cols, rest, col, 1, out, acc_stride); break;
            default: break;
            }
        }
    }
}

// ---- any number ----------------------------------------------------------------------------------

// acc[n_tok][n_tiles * 16] = x[n_tok][k] times n_tiles neighbouring tiles at w; n_tok <= PASS_TOKENS.
INLINE void tiles_any(uint32_t format, const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x,
                      uint32_t n_tok, float *acc, uint32_t acc_stride, float *expanded) {
    const size_t stride = tile_bytes(format, k);
    if (n_tok > DIRECT_TOKENS) {
        many_tokens(format, w, k, n_tiles, x, n_tok, acc, acc_stride, expanded);
        return;
    }
    uint32_t tile = 0;
    for (; n_tok == 1 && tile + DIRECT_TILES <= n_tiles; tile += DIRECT_TILES)
        direct(format, w + tile * stride, k, DIRECT_TILES, x, 1, acc + tile * TILE_ROWS, acc_stride);
    for (; n_tok <= 3 && tile + 2 <= n_tiles; tile += 2) {
        float *out = acc + tile * TILE_ROWS;
        switch (n_tok) {
        case 1: direct(format, w + tile * stride, k, 2, x, 1, out, acc_stride); break;
        case 2: direct(format, w + tile * stride, k, 2, x, 2, out, acc_stride); break;
        default: direct(format, w + tile * stride, k, 2, x, 3, out, acc_stride); break;
        }
    }
    for (; tile < n_tiles; tile++) {
        float *out = acc + tile * TILE_ROWS;
        switch (n_tok) {
        case 1: direct(format, w + tile * stride, k, 1, x, 1, out, acc_stride); break;
        case 2: direct(format, w + tile * stride, k, 1, x, 2, out, acc_stride); break;
        case 3: direct(format, w + tile * stride, k, 1, x, 3, out, acc_stride); break;
        default: direct(format, w + tile * stride, k, 1, x, 4, out, acc_stride); break;
        }
    }
}

// Shared by all instances of an image: k at run time costs nothing here and keeps images small.
SHARED void tiles_nvfp4(const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x, uint32_t n_tok,
                        float *acc, uint32_t acc_stride, float *expanded) {
    tiles_any(FORMAT_NVFP4, w, k, n_tiles, x, n_tok, acc, acc_stride, expanded);
}
SHARED void tiles_bf16(const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x, uint32_t n_tok,
                       float *acc, uint32_t acc_stride, float *expanded) {
    tiles_any(FORMAT_BF16, w, k, n_tiles, x, n_tok, acc, acc_stride, expanded);
}

SHARED void tiles_f16(const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x, uint32_t n_tok,
                      float *acc, uint32_t acc_stride, float *expanded) {
    tiles_any(FORMAT_F16, w, k, n_tiles, x, n_tok, acc, acc_stride, expanded);
}
SHARED void tiles_e4m3(const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x, uint32_t n_tok,
                       float *acc, uint32_t acc_stride, float *expanded) {
    tiles_any(FORMAT_E4M3, w, k, n_tiles, x, n_tok, acc, acc_stride, expanded);
}
SHARED void tiles_f32(const uint8_t *w, uint32_t k, uint32_t n_tiles, const float *const *x, uint32_t n_tok,
                      float *acc, uint32_t acc_stride, float *expanded) {
    tiles_any(FORMAT_F32, w, k, n_tiles, x, n_tok, acc, acc_stride, expanded);
}

// Rows [row, row + n_rows) of a packed weight for the tokens in s->x; row r of token t goes to
// acc[t * stride + r - row + row % 16].
INLINE void tiles_rows(uint32_t format, const uint8_t *w, uint32_t k, uint32_t row, uint32_t n_rows,
                       uint32_t n_tok, TileScratch *s, float *acc, uint32_t acc_stride) {
    const uint8_t *first = w + row / TILE_ROWS * tile_bytes(format, k);
    uint32_t n_tiles = u32_div_up(row % TILE_ROWS + n_rows, TILE_ROWS);
    if (format == FORMAT_NVFP4)
        tiles_nvfp4(first, k, n_tiles, s->x, n_tok, acc, acc_stride, s->expanded);
    else if (format == FORMAT_BF16)
        tiles_bf16(first, k, n_tiles, s->x, n_tok, acc, acc_stride, s->expanded);
    else if (format == FORMAT_F16)
        tiles_f16(first, k, n_tiles, s->x, n_tok, acc, acc_stride, s->expanded);
    else if (format == FORMAT_E4M3)
        tiles_e4m3(first, k, n_tiles, s->x, n_tok, acc, acc_stride, s->expanded);
    else
        tiles_f32(first, k, n_tiles, s->x, n_tok, acc, acc_stride, s->expanded);
}

// Collects at s->x and s->id the next (token, place) pairs of `n` that go to `expert`, from *next on.
INLINE uint32_t expert_tokens(const int32_t *ids, uint32_t n, uint32_t expert, uint32_t *next,
                              TileScratch *s) {
    uint32_t found = 0;
    for (; *next < n && found < PASS_TOKENS; ++*next)
        if ((uint32_t)ids[*next] == expert) s->id[found++] = *next;
    return found;
}
#endif
