// The rows of x that a product in decode form reads: from memory, or with `fold` made by every block for
// itself, in shared memory, out of the residual that a norm_add launch would have normed.
#ifndef ADALLM_LIB_FOLD_CUH
#define ADALLM_LIB_FOLD_CUH
#include "templates/lib/norm.cuh"

template <class S, bool FOLD = (S::fold != 0)> struct ProductRows {
    const uint8_t *x;
    __device__ __forceinline__ void open(const void *x_rows, const void *, const void *) {
        x = (const uint8_t *)x_rows;
    }
    __device__ __forceinline__ void make(uint32_t) {}
    __device__ __forceinline__ const uint8_t *row(uint32_t t) const { return x + (uint64_t)t * S::x_pitch; }
};

// `fold` rows at the end of the block's shared memory. As many threads a row as norm_add has: same bits.
template <class S> struct ProductRows<S, true> {
    static constexpr uint32_t THREADS = norm_threads(S::k);
    using Share = RowShare<S::k, THREADS>;
    static constexpr uint32_t PITCH = act_pitch(S::k, false);
    static_assert(S::norm && !S::tiled, "only a decode form makes rows, where no one else reads them");
    static_assert(S::threads >= THREADS, "a thread for each share of a row");
    const float *residual;
    float x[Share::EACH][Share::WIDTH], w[Share::EACH][Share::WIDTH];

    // Asks for the first row before the count is known: a single one does not wait for it.
    __device__ __forceinline__ void open(const void *, const void *residual_rows, const void *norm_w) {
        residual = (const float *)residual_rows;
        if (threadIdx.x >= THREADS) return;
        Share::load(residual, x);
        Share::load((const float *)norm_w, w);
    }
    // All threads of the block.
    __device__ __forceinline__ void make(uint32_t n_tok) {
        __shared__ BlockPartials partials;
        uint32_t turn = 0;
#pragma unroll
        for (uint32_t t = 0; t < S::fold; t++) {
            if (t >= n_tok || threadIdx.x >= THREADS) break;
            if (t) Share::load(residual + t * S::k, x); // earlier would cost registers
            norm_store<S::k, THREADS, false>(place(t), x, w, S::eps, partials, turn);
        }
        __syncthreads();
    }
    __device__ __forceinline__ const uint8_t *row(uint32_t t) const { return place(t); }
    static __device__ __forceinline__ uint8_t *place(uint32_t t) {
        extern __shared__ __align__(128) uint8_t shared[];
        return shared + S::shared_bytes - S::fold * PITCH + t * PITCH;
    }
};
#endif
