// Where all blocks of a launch meet. They must be on the card together: the launch is cooperative.
#ifndef ADALLM_LIB_GRID_CUH
#define ADALLM_LIB_GRID_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/ptx.cuh"

// Every arrival adds 1, but the first block's adds what makes the sum of all 2^31: the top bit turns when the
// last one comes, whatever it was before. So the word needs no reset.
template <uint32_t GRID> struct GridMeeting {
    static constexpr uint32_t TURN = 1u << 31, LOOKS_MAX = 1u << 24; // many seconds
    uint32_t *word, *before;                                         // before: in the block's shared memory

    // Every thread of the block calls both, in turns. What the block wrote before arrive() is seen by all
    // after their wait().
    __device__ __forceinline__ void arrive() {
        __syncthreads();
        if (threadIdx.x == 0) *before = atom_add_release_gpu(word, blockIdx.x ? 1 : TURN - (GRID - 1));
    }
    __device__ __forceinline__ void wait() const {
        if (threadIdx.x == 0) {
            const uint32_t old = *before;
            for (uint32_t looks = 0; ((old ^ ld_acquire_gpu(word)) & TURN) == 0;)
                if (++looks == LOOKS_MAX) __trap(); // a block is missing: end the process, not the night
        }
        __syncthreads();
    }
};
#endif
