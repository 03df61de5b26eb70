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
    using Values = NormValues<S::k, THREADS>;
    static constexpr RowForm FORM = S::x_e4m3 ? ROW_E4M3 : ROW_HALVES;
    static constexpr uint32_t PITCH = x_pitch_least<S>();
    static_assert(S::norm && !S::tiled, "only a decode form makes rows, where no one else reads them");
    static_assert(S::threads >= THREADS, "a thread for each share of a row");
    const float *residual;
    Values row0;

    // Asks for the first row before the count is known: a single one does not wait for it.
    __device__ __forceinline__ void open(const void *, const void *residual_rows, const void *norm_w) {
        residual = (const float *)residual_rows;
        if (threadIdx.x >= THREADS) return;
        Values::Share::load(residual, row0.x);
        Values::Share::load((const float *)norm_w, row0.w);
    }
    // All threads of the block. The rows are read twice, the second time from L1: one barrier for all of
    // them.
    __device__ __forceinline__ void make(uint32_t n_tok) {
        __shared__ BlockPartials partials[S::fold];
        if (threadIdx.x < THREADS) {
            each(n_tok,
                 [&](uint32_t t, const Values &v) { block_stats_leave<THREADS>(v.stats(), partials[t], 0); });
            sync_threads<THREADS>();
            each(n_tok, [&](uint32_t t, Values &v) {
                v.template store<FORM>(place(t), block_stats_take<THREADS>(partials[t], 0), S::eps);
            });
        }
        __syncthreads();
    }
    template <class Use> __device__ __forceinline__ void each(uint32_t n_tok, Use use) {
#pragma unroll
        for (uint32_t t = S::fold; t-- > 0;) {
            if (t >= max(n_tok, 1u)) continue;
            Values v = row0;
            if (t) Values::Share::load(residual + t * S::k, v.x);
            use(t, v);
        }
    }
    __device__ __forceinline__ const uint8_t *row(uint32_t t) const { return place(t); }
    static __device__ __forceinline__ uint8_t *place(uint32_t t) {
        extern __shared__ __align__(128) uint8_t shared[];
        return shared + S::shared_bytes - S::fold * PITCH + t * PITCH;
    }
};
#endif
