// What every kernel of a plan shares: how arguments arrive, the words of specs, and the rows that linears
// read.
#ifndef ADALLM_LIB_ARGS_CUH
#define ADALLM_LIB_ARGS_CUH
#include "templates/lib/abi.h"

// The one parameter of a kernel: device pointers in the order of templates.def.
template <int N> struct Args { void *p[N]; };

// The counters at the start of `work`: zero between launches, but for the last line, where the blocks of a
// chain meet (lib/grid.cuh).
constexpr uint32_t WORK_COUNTERS_BYTES = 64 << 10, WORK_MEETING = WORK_COUNTERS_BYTES - 128;

enum Format {
    FORMAT_NVFP4,
    FORMAT_F16,
    FORMAT_E4M3,
    FORMAT_BF16,
    FORMAT_F32,
    FORMAT_ROWS_F32,
    FORMAT_ROWS_BF16,
};
enum Act { ACT_SILU, ACT_GELU_TANH };

// A row of activations: k halves, zeros up to a multiple of 64, this, and with `wide` the k floats they were
// made of. Value i is half[i] * scale.
struct __align__(16) ActMeta {
    float scale; // a power of two
    float l1;    // at least the sum of |value|
    uint32_t pad[2];
};
constexpr uint32_t ACT_ALIGN = 64; // halves
__host__ __device__ constexpr uint32_t act_halves(uint32_t k) {
    return (k + ACT_ALIGN - 1) / ACT_ALIGN * ACT_ALIGN;
}
__host__ __device__ constexpr uint32_t act_wide_offset(uint32_t k) { return 2 * act_halves(k) + 16; } // bytes
__host__ __device__ constexpr uint32_t act_pitch(uint32_t k, bool wide) {
    return act_wide_offset(k) + (wide ? (4 * k + 15) / 16 * 16 : 0);
}
// A row of quantised activations: k E4M3 bytes, zeros up to a multiple of 64, and ActMeta. Value is byte *
// scale, which is any float. Of 64 columns, the 4 from column 16 b + 4 q on are word 4 q + b, in the order 2,
// 0, 3, 1: what lane q of mma.m16n8k16 multiplies with the NVFP4 blocks b are 16 contiguous bytes.
__host__ __device__ constexpr uint32_t e4m3_pitch(uint32_t k) { return act_halves(k) + 16; } // bytes
__host__ __device__ constexpr uint32_t e4m3_place(uint32_t column) { // a multiple of 4
    return column / 64 * 64 + column % 16 * 4 + column / 16 % 4 * 4;
}
__device__ __forceinline__ ActMeta *e4m3_meta(void *row, uint32_t k) {
    return (ActMeta *)((char *)row + act_halves(k));
}

__device__ __forceinline__ const ActMeta *act_meta(const void *row, uint32_t k) {
    return (const ActMeta *)((const char *)row + 2 * act_halves(k));
}
__device__ __forceinline__ ActMeta *act_meta(void *row, uint32_t k) {
    return (ActMeta *)((char *)row + 2 * act_halves(k));
}
// Of the rows that a product reads.
template <class S> __host__ __device__ constexpr uint32_t x_pitch_least() {
    return S::x_e4m3 ? e4m3_pitch(S::k) : act_pitch(S::k, false);
}
template <class S> __device__ __forceinline__ const ActMeta *x_meta(const void *row) {
    return (const ActMeta *)((const char *)row + (S::x_e4m3 ? 1 : 2) * act_halves(S::k));
}
#endif
