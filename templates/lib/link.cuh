// What a decode kernel knows of the kernels around it. Launched by itself it knows nothing: Alone. In a chain
// (chain.cu) it waits for the results of the one before. Every link has
//   THREADS, GRID   of a block; of the launch, 0 where that is not known before
//   WAITS           inputs are there only after wait(), which every thread calls once
//   EARLY           stages of weights that a warp asks for before that: more would delay the words that tell
//                   that the inputs are there
//   FETCHES         there is time to fetch into L2 what `next` is; in a chain the next product does it
//                   itself, and more would only delay it
//   OPAQUE          fewer registers for addresses, and a little slower
#ifndef ADALLM_LIB_LINK_CUH
#define ADALLM_LIB_LINK_CUH
#include <stdint.h>

template <uint32_t THREADS_> struct Alone {
    static constexpr uint32_t THREADS = THREADS_, GRID = 0, EARLY = 8;
    static constexpr bool WAITS = false, FETCHES = true, OPAQUE = false;
    __device__ __forceinline__ void wait() {}
};
#endif
