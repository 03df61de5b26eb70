// Where all blocks of a launch meet. They must be on the card together: the launch is cooperative.
#ifndef ADALLM_LIB_GRID_CUH
#define ADALLM_LIB_GRID_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/ptx.cuh"

// Every arrival adds 1, but the first block's adds what makes the sum of all 2^31: the top bit turns when the
// last one comes, whatever it was before. So the word needs no reset.
// In shared memory, where thread 0 finds it again without a register.
template <uint32_t GRID> struct GridMeeting {
    static constexpr uint32_t TURN = 1u << 31, LOOKS_MAX = 1u << 24; // many seconds
    uint32_t *word, turn;

    // Every thread of the block calls these: open() once, then the others in turns. What the block wrote
    // before arrive() is seen by all after their wait().
    __device__ __forceinline__ void open(void *at) {
        if (threadIdx.x == 0) word = (uint32_t *)at, turn = ld_acquire_gpu(word) & TURN;
    }
    __device__ __forceinline__ void arrive() const {
        __syncthreads();
        if (threadIdx.x == 0) red_add_release_gpu(word, blockIdx.x ? 1 : TURN - (GRID - 1));
    }
    __device__ __forceinline__ void wait() {
        if (threadIdx.x == 0) {
            const uint32_t *at = word, before = turn;
            for (uint32_t looks = 0; ((before ^ ld_acquire_gpu(at)) & TURN) == 0;)
                if (++looks == LOOKS_MAX) __trap(); // a block is missing: end the process, not the night
            turn = before ^ TURN;
        }
        __syncthreads();
    }
};
#endif
