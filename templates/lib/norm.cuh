// The norm of a row that the threads of a block hold: norm(x) * w with norm(x) = x / sqrt(mean(x^2) + eps).
#ifndef ADALLM_LIB_NORM_CUH
#define ADALLM_LIB_NORM_CUH
#include "templates/lib/act.cuh"

// Threads that norm a row of k values: the order of its sums depends on them. As in cuda_rows.c.
__host__ __device__ constexpr uint32_t norm_threads(uint32_t k) {
    const uint32_t units = k % 4 ? k : k / 4, each = (units + 511) / 512;
    return ((units + each - 1) / each + 31) / 32 * 32;
}

__device__ __forceinline__ float norm_factor(float squares, uint32_t n, float eps) {
    return rsqrtf(squares / (float)n + eps);
}

// A row of K values, and the weights, as THREADS threads hold them.
template <uint32_t K, uint32_t THREADS> struct NormValues {
    using Share = RowShare<K, THREADS>;
    float x[Share::EACH][Share::WIDTH], w[Share::EACH][Share::WIDTH];

    // The largest magnitude and the sum before the factor is known: one barrier for all three.
    __device__ __forceinline__ RowStats stats() const {
        RowStats s = {0, 0, 0};
#pragma unroll
        for (uint32_t j = 0; j < Share::EACH; j++)
#pragma unroll
            for (uint32_t i = 0; i < Share::WIDTH; i++) {
                const float y = fabsf(x[j][i] * w[j][i]);
                s.squares = fmaf(x[j][i], x[j][i], s.squares);
                s.most = __uint_as_float(max(__float_as_uint(s.most), __float_as_uint(y)));
                s.l1 += y;
            }
        return s;
    }
    // Writes norm(x) * w as a row of that form at `out`; x is overwritten. `all`: stats() of all threads. The
    // bits depend on K, THREADS and the values alone: a row is the same whichever kernel makes it.
    template <RowForm FORM> __device__ __forceinline__ void store(void *out, const RowStats &all, float eps) {
        const float factor = norm_factor(all.squares, K, eps);
#pragma unroll
        for (uint32_t j = 0; j < Share::EACH; j++)
#pragma unroll
            for (uint32_t i = 0; i < Share::WIDTH; i++) x[j][i] = x[j][i] * factor * w[j][i];
        row_store<K, THREADS, FORM>(out, x, all.most * factor, all.l1 * factor);
    }
};
#endif
