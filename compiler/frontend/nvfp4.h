// The NVFP4 quantizer: blocks of 16 along k, E2M1 codes, one E4M3 scale a block, one fp32 global a tensor.
//     value = e2m1[code] * e4m3[scale] * global
// Source: ModelOpt's max calibration as computed on a CPU, and its FP8 scale sweep (ARCHITECTURE.md restates
// both).
#ifndef ADALLM_COMPILER_NVFP4_H
#define ADALLM_COMPILER_NVFP4_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NVFP4_BLOCK = 16 };

// amax / 2688, which makes the largest block scale 448; 1 when that is zero (a tensor of zeros).
float nvfp4_global(float amax);

// Quantises n_blocks * 16 finite values. codes: 8 bytes a block, low nibble first; scales: one byte a block.
// max: bit-identical to ModelOpt. The block's largest value becomes 6.
void nvfp4_quantize_max(const float *x, size_t n_blocks, float global, uint8_t *codes, uint8_t *scales);
// mse: of the 126 positive finite E4M3 scales the one with the least sum of squared errors, the smallest one
// on a tie. Searches only the window that a bound leaves open; the result is that of the full sweep.
void nvfp4_quantize_mse(const float *x, size_t n_blocks, float global, uint8_t *codes, uint8_t *scales);

// n_blocks * 16 values: code * scale * global, the exact product rounded once.
void nvfp4_dequantize(const uint8_t *codes, const uint8_t *scales, size_t n_blocks, float global, float *out);

// Sum over all values of (x - dequantised)^2.
double nvfp4_squared_error(const float *x, const uint8_t *codes, const uint8_t *scales, size_t n_blocks,
                           float global);

// The error that mse minimises, of one block under scale byte `scale` (1 to 0x7E).
double nvfp4_block_error(const float *x, float global, uint8_t scale);
#endif
