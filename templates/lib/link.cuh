// What a decode kernel knows of the kernels around it. Launched by itself it knows nothing: Alone. In a chain
// (chain.cu) it waits for the results of the one before, and leaves the first weights of the next product in
// the ring. Every link has
//   THREADS, GRID        of a block; of the launch, 0 where that is not known before
//   WAITS                inputs are there only after wait(), which every thread calls once
//   CARRIED              slots of the ring that hold the first stages of this product already
//   FOLLOWS              slots that the next product wants filled, as follow() says; 0: none comes
//   follows_whole<N>()   follow().stages is 0 or at least N, which are wanted
#ifndef ADALLM_LIB_LINK_CUH
#define ADALLM_LIB_LINK_CUH
#include "templates/lib/stream.cuh"

template <uint32_t THREADS_, Format F = FORMAT_NVFP4> struct Alone {
    static constexpr uint32_t THREADS = THREADS_, GRID = 0, CARRIED = 0, FOLLOWS = 0;
    static constexpr bool WAITS = false;
    StreamRing<F> ring;
    __device__ __forceinline__ void wait() {}
    __device__ __forceinline__ StreamStart follow() const { return {nullptr, 0}; }
    template <uint32_t> static constexpr __host__ __device__ bool follows_whole() { return true; }
};
#endif
