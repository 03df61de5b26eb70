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
__device__ __forceinline__ const ActMeta *act_meta(const void *row, uint32_t k) {
    return (const ActMeta *)((const char *)row + 2 * act_halves(k));
}
__device__ __forceinline__ ActMeta *act_meta(void *row, uint32_t k) {
    return (ActMeta *)((char *)row + 2 * act_halves(k));
}
#endif
