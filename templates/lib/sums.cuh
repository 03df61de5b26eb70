// The sums of a block that computes row tiles for many tokens, in registers: a warp holds MT row tiles x NT
// column tiles, WARPS_N warps side by side share row tiles. K is summed slice by slice, one chain of mma each
// (SLICES in stage.cuh). With PARTS > 1 that many blocks share the slices of a tile: each leaves the sums of
// its slices in `work`, and the last one to arrive adds them up, in the same order. Where registers do not
// suffice for the sums of a slice and of those before it, the latter are in shared memory.
#ifndef ADALLM_LIB_SUMS_CUH
#define ADALLM_LIB_SUMS_CUH
#include "templates/lib/stage.cuh"

// As in cuda_linear.c: threads of more than 8 warps have no registers for the sums of 16 tiles twice.
__host__ __device__ constexpr bool sums_kept(uint32_t mt, uint32_t nt, uint32_t threads) {
    return mt * nt >= 16 && threads > 256;
}

template <uint32_t MT, uint32_t NT, uint32_t WARPS_N, uint32_t THREADS, uint32_t PARTS> struct Sums {
    static_assert(SLICES % PARTS == 0, "parts have as many slices each");
    static constexpr uint32_t PART_SLICES = SLICES / PARTS;
    // Bytes of `work` for the parts of a tile, behind the launch's counters.
    static constexpr uint64_t work_bytes = (uint64_t)SLICES * MT * NT * THREADS * 16;

    static constexpr bool KEPT = PARTS == 1 && sums_kept(MT, NT, THREADS);
    static constexpr uint32_t kept_bytes = KEPT ? MT * NT * THREADS * 16 : 0;

    float sum[KEPT ? 1 : MT][KEPT ? 1 : NT][4], acc[MT][NT][4];
    float4 *kept; // of the thread, THREADS apart

    template <uint32_t M, uint32_t N> __device__ __forceinline__ static void zero(float (&s)[M][N][4]) {
#pragma unroll
        for (uint32_t m = 0; m < M; m++)
#pragma unroll
            for (uint32_t n = 0; n < N; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
    }

    // shared: kept_bytes.
    __device__ __forceinline__ void begin(void *shared) {
        zero(acc);
        if constexpr (PARTS == 1) zero(sum);
        if constexpr (KEPT) {
            kept = (float4 *)shared + threadIdx.x;
#pragma unroll
            for (uint32_t i = 0; i < MT * NT; i++) kept[i * THREADS] = make_float4(0, 0, 0, 0);
        }
    }

    // Calls use(row tile of the block, column tile, sums) for the lane's parts of all of the warp's tiles.
    template <class Use> __device__ __forceinline__ void each_sum(uint32_t n_tiles, Use use) {
        const uint32_t warp = threadIdx.x / 32;
#pragma unroll
        for (uint32_t m = 0; m < MT; m++)
#pragma unroll
            for (uint32_t n = 0; n < NT; n++)
                if (warp / WARPS_N * MT + m < n_tiles) {
                    if constexpr (KEPT) {
                        const float4 v = kept[(m * NT + n) * THREADS];
                        const float sums[4] = {v.x, v.y, v.z, v.w};
                        use(warp / WARPS_N * MT + m, warp % WARPS_N * NT + n, sums);
                    } else {
                        use(warp / WARPS_N * MT + m, warp % WARPS_N * NT + n, sum[m][n]);
                    }
                }
    }

    __device__ __forceinline__ static float4 *part_at(float4 *partial, uint32_t slice, uint32_t m,
                                                      uint32_t n) {
        return partial + ((slice * MT + m) * NT + n) * THREADS + threadIdx.x;
    }

    // A slice is done: its sums are added, or left for whoever comes last.
    __device__ __forceinline__ void end_slice(uint32_t slice, float4 *partial) {
#pragma unroll
        for (uint32_t m = 0; m < MT; m++)
#pragma unroll
            for (uint32_t n = 0; n < NT; n++) {
                float(&a)[4] = acc[m][n];
                if constexpr (KEPT) {
                    float4 &v = kept[(m * NT + n) * THREADS];
                    v = make_float4(v.x + a[0], v.y + a[1], v.z + a[2], v.w + a[3]);
                } else if constexpr (PARTS == 1) {
#pragma unroll
                    for (uint32_t i = 0; i < 4; i++) sum[m][n][i] += a[i];
                } else {
                    __stcg(part_at(partial, slice, m, n), make_float4(a[0], a[1], a[2], a[3]));
                }
                a[0] = a[1] = a[2] = a[3] = 0;
            }
    }

    // True in the block that arrives last at `counter`, which then is zero again.
    __device__ __forceinline__ static bool last_arrives(uint32_t *counter) {
        __shared__ bool last;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            last = atomicAdd(counter, 1) == PARTS - 1;
            if (last) *counter = 0;
        }
        __syncthreads();
        if (last) __threadfence();
        return last;
    }

    // After the last slice, counter(): the tile's, asked for only then. Whether this block has the sums of
    // all of them, which one block of every PARTS has.
    template <class Counter> __device__ __forceinline__ bool end(float4 *partial, Counter counter) {
        if constexpr (PARTS == 1) return true;
        if (!last_arrives(counter())) return false;
        zero(sum);
        // Several slices at a time: each is a way to L2 and back.
#pragma unroll(MT *NT >= 8 ? 2 : 4)
        for (uint32_t s = 0; s < SLICES; s++)
#pragma unroll
            for (uint32_t m = 0; m < MT; m++)
#pragma unroll
                for (uint32_t n = 0; n < NT; n++) {
                    const float4 v = __ldcg(part_at(partial, s, m, n));
                    sum[m][n][0] += v.x, sum[m][n][1] += v.y, sum[m][n][2] += v.z, sum[m][n][3] += v.w;
                }
        return true;
    }
};

// Copies 16-byte pieces of TOKENS rows of activations, the bytes of a stage each, to shared memory: row t at
// to + t * x_stage_bytes. In an odd row of halves the pieces of a pair are swapped: reads of one piece of two
// rows then meet no bank conflict. Where columns are missing row[t] is any other
// row, whose products are thrown away.
template <bool E4M3, uint32_t TOKENS, uint32_t STAGES, uint32_t THREADS>
__device__ __forceinline__ void fetch_rows(const uint8_t *const *row, uint32_t stage, uint32_t n_stages,
                                           uint32_t to) {
    constexpr uint32_t BYTES = x_stage_bytes(E4M3), PIECES = BYTES / 16;
#pragma unroll
    for (uint32_t i = threadIdx.x; i < TOKENS * PIECES; i += THREADS) {
        const uint32_t token = i / PIECES, piece = i % PIECES,
                       at = to + token * BYTES + (E4M3 ? piece : piece ^ (token & 1)) * 16;
        const uint8_t *from = row[token];
        from += stage * BYTES + piece * 16;
#pragma unroll
        for (uint32_t s = 0; s < STAGES; s++)
            if (s < n_stages) cp_async_16(at + s * (TOKENS * BYTES), from + s * BYTES);
    }
}

// B operands of step `step` (Step in stage.cuh) for the 8 tokens from row `x` on (as fetch_rows left them),
// for lane (g, q).
template <bool E4M3>
__device__ __forceinline__ uint4 load_tokens(const uint8_t *x, uint32_t g, uint32_t q, uint32_t step) {
    return *(const uint4 *)(x + g * x_stage_bytes(E4M3) + (E4M3 ? q : (2 * q + step) ^ (g & 1)) * 16);
}
#endif
