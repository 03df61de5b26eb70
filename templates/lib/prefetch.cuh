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

// By a block that has nothing else to do: the first LINES lines of its share of BYTES, 32 in CLOCKS clocks:
// slower than memory can, so that blocks that do have something to do need not queue.
template <uint64_t BYTES, uint32_t LINES, uint32_t CLOCKS>
__device__ __forceinline__ void prefetch_share(const void *p) {
    if constexpr (BYTES != 0 && LINES != 0) {
        constexpr uint32_t LINE = 128;
        const uint64_t first = BYTES * blockIdx.x / gridDim.x / LINE * LINE;
        if (threadIdx.x >= 32) return;
        for (uint32_t line = threadIdx.x; line < LINES; line += 32) {
            const uint64_t at = first + line * LINE;
            if (at < BYTES) prefetch_global_l2((const char *)p + at);
            for (const uint32_t begin = clocks(); clocks() - begin < CLOCKS;) {
            }
        }
    }
}
#endif
