// Data as GPU kernels read it, made on the host by code that shares nothing with the compiler: activation
// rows, weights as fragments of mma.sync, paged KV. All of it is host memory of the running test; device_copy
// takes it to the card.
#ifndef ADALLM_TESTS_DEVICE_DATA_H
#define ADALLM_TESTS_DEVICE_DATA_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- activation rows (templates/lib/args.cuh) ----------------------------------------------------
uint32_t act_pitch(uint32_t k, bool wide); // bytes of a row: halves up to a multiple of 64, meta, f32 values

typedef struct {
    uint8_t *rows; // [n, pitch]
    size_t bytes;
    double *value; // [n, k]: half * scale, what a linear multiplies with
    uint32_t n, k, pitch;
} TestActs;
// Rows of x [n, k]; `pitch` at least act_pitch(k, wide). Each row's scale brings its maximum into [2^13,
// 2^14), and every third row's one binade lower: a kernel must not rely on more than templates.def says.
TestActs acts_of(const float *x, uint32_t n, uint32_t k, uint32_t pitch, bool wide);
// E4M3 rows of the same, `value` what a byte and the scale say; scales are powers of two that bring a row's
// maximum into [2^7, 2^8), in every third row one binade lower.
uint32_t e4m3_pitch(uint32_t k);
TestActs acts_e4m3_of(const float *x, uint32_t n, uint32_t k);
size_t e4m3_at(uint32_t column); // the byte of a column in such a row
// Checks rows that a kernel wrote: scales are powers of two, halves are finite and in their range, zeros
// behind k, l1 at least the sum of magnitudes, and the values as check_close. NaN and infinity in `want` are
// to be found in the row's halves or its scale.
void check_acts(const char *what, const void *rows, const double *want, uint32_t n, uint32_t k,
                uint32_t pitch, double tol);
// The values of such rows.
void acts_values(const void *rows, uint32_t n, uint32_t k, uint32_t pitch, double *out);

// ---- weights (pack/layout.h, MMA_*) --------------------------------------------------------------
// A stack of `stack` matrices [rows, cols], cols a multiple of 16. `pairs`: the _PAIRS layout of [2F, K].
typedef struct {
    uint8_t *packed;
    size_t packed_bytes;
    float *row_scale; // [stack * rows]
    float bound[1];   // the largest |value|
    double *value;    // [stack * rows, cols]
    uint32_t stack, rows, cols;
} TestTiles;
TestTiles tiles_nvfp4(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs);
TestTiles tiles_e4m3(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs); // pairs: false
TestTiles tiles_f16(uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs);
// From given codes [stack * rows, cols / 2] (even column in the low nibble), E4M3 scales [stack * rows, cols
// / 16] and row scales; from given E4M3 codes [rows, cols] and row scales; from given values, which are
// stored times 256 in fp16.
TestTiles tiles_of_codes(const uint8_t *codes, const uint8_t *scales, const float *row_scale, uint32_t stack,
                         uint32_t rows, uint32_t cols, bool pairs);
TestTiles tiles_of_e4m3(const uint8_t *codes, const float *row_scale, uint32_t rows, uint32_t cols);
TestTiles tiles_of_values(const float *values, uint32_t stack, uint32_t rows, uint32_t cols, bool pairs);

// ---- paged KV ------------------------------------------------------------------------------------
// One layer of a pool whose pages hold `layers` layers; V is transposed as templates.def says. Pages stand in
// scrambled order, bytes that no token wrote are NaN.
typedef struct {
    uint32_t kv_heads, head_dim, page_tokens, pages_per_seq, slots, page_bytes, layer_offset;
    uint8_t *pool; // [slots * pages_per_seq + 1 pages]; the argument `pool` is this + layer_offset
    size_t pool_bytes;
    int32_t *block_table; // [slots, pages_per_seq]
} TestKv;
TestKv kv_new(uint64_t seed, uint32_t kv_heads, uint32_t head_dim, uint32_t page_tokens,
              uint32_t pages_per_seq, uint32_t slots, uint32_t layers, uint32_t layer);
// The byte of dimension d of a key or a value at a position, in kv->pool or in a copy of it.
size_t kv_key_at(const TestKv *kv, uint32_t slot, uint32_t pos, uint32_t head, uint32_t d);
size_t kv_value_at(const TestKv *kv, uint32_t slot, uint32_t pos, uint32_t head, uint32_t d);
// Fills positions [begin, end) of a slot with random E4M3 of about N(0, sigma).
void kv_fill(TestKv *kv, uint64_t seed, uint32_t slot, uint32_t begin, uint32_t end, float sigma);
#endif
