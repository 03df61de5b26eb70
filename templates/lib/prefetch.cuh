// Weights of the next launch, on their way to L2 while this one leaves the memory idle.
#ifndef ADALLM_LIB_PREFETCH_CUH
#define ADALLM_LIB_PREFETCH_CUH
#include "templates/lib/ptx.cuh"

// The share of this thread among all threads of the launch: one line of 128 bytes after the other. Nothing
// waits for them.
template <uint64_t BYTES> __device__ __forceinline__ void prefetch_next(const void *p) {
    if constexpr (BYTES != 0) {
        constexpr uint32_t LINE = 128, LINES = (uint32_t)((BYTES + LINE - 1) / LINE);
        for (uint32_t line = blockIdx.x * blockDim.x + threadIdx.x; line < LINES;
             line += gridDim.x * blockDim.x)
            prefetch_global_l2((const char *)p + (uint64_t)line * LINE);
    }
}
#endif
