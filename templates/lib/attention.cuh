// What the two forms of attention share, so that a token's bits do not depend on the form.
//
// The order of every sum follows from a token's position alone. Pages of 64 keys are taken oldest first:
// running maximum, then O = O * 2^(old - new) + P V. A *part* is part_pages pages from a multiple of that
// on; every part starts afresh, and parts are merged oldest first. A page or a part that a token does not see
// changes nothing: its maximum is MASKED, its factor exactly 1.
//
// Both products are mma.sync m16n8k16 with fp32 sums. Rows of A are pairs of token and query head. S = Q K^T
// contracts over D in blocks of 64, where lane l (g = l / 4, q = l % 4) holds columns 16q .. 16q + 15 and
// k-step j uses 4j .. 4j + 3 of them: a 16-byte load of a key feeds four steps. The n-th key of score tile t
// is 16 (n / 2) + 2t + n % 2 of the page, hence lane q's columns of tile t are keys 16q + 2t + {0, 1}: P as A
// of k-step j is tiles 2j and 2j + 1 of the same lane, keys 16q + 4j + {0..3}, and a 16-byte load of a row of
// V^T feeds four steps again.
#ifndef ADALLM_LIB_ATTENTION_CUH
#define ADALLM_LIB_ATTENTION_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/ptx.cuh"

constexpr uint32_t PAGE_KEYS = 64, QUERY_ROWS = 16, SCORE_TILES = 8, PAGE_STEPS = 4;
constexpr float MASKED = -3e38f; // finite: MASKED - MASKED is 0, and 2^(MASKED - x) is 0
constexpr float LOG2E = 1.4426950408889634f;

// Pages of a part: so many that a sequence has about PARTS parts at most, as each leaves its O in memory. As
// in cuda_attention.c.
constexpr uint32_t PARTS = 128;
__host__ __device__ constexpr uint32_t part_pages(uint32_t pages_per_seq) {
    uint32_t pages = 8;
    while ((pages_per_seq + pages - 1) / pages > PARTS) pages *= 2;
    return pages;
}

template <class S> struct Heads {
    static constexpr uint32_t D = S::head_dim, GROUP = S::heads / S::kv_heads, BLOCKS = (D + 63) / 64,
                              TILES = D / 8, PART = part_pages(S::pages_per_seq),
                              PARTS_MAX = (S::pages_per_seq + PART - 1) / PART + 1;
    static_assert(S::page_tokens == PAGE_KEYS, "a page holds 64 tokens");
    static_assert(D % 16 == 0 && D <= 256,
                  "keys are read 16 bytes at a time; O of 256 columns fits registers");
    static_assert(S::heads % S::kv_heads == 0 && GROUP <= QUERY_ROWS, "a group of heads is rows of one mma");
};

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x = __fadd_rn(x, __shfl_xor_sync(~0u, x, 1));
    return __fadd_rn(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ uint32_t word_of(const uint4 &v, uint32_t j) {
    return j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
}

// ---- queries -------------------------------------------------------------------------------------

// Factor of scores before the row's own: what makes 2^x of them, or with a soft cap e^2x of tanh's argument.
template <class S> __device__ __forceinline__ float score_factor(const float *kv_scale) {
    constexpr float SCALE =
        S::softcap != 0
            ? (float)(2 * (double)LOG2E * (double)S::scale / (S::softcap != 0 ? (double)S::softcap : 1.0))
            : (float)((double)LOG2E * (double)S::scale);
    return __fmul_rn(kv_scale[0], SCALE);
}

// The largest |x| of 16 columns.
__device__ __forceinline__ float query_max(const float *x, float most) {
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const float4 v = ((const float4 *)x)[i];
        most = fmaxf(most, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    }
    return most;
}

// The power of two that brings the largest value of a row into [2^13, 2^14), and its inverse.
struct QueryScale {
    uint32_t exponent;
    __device__ __forceinline__ explicit QueryScale(float most)
        : exponent(max(__float_as_uint(most) >> 23, 14u)) {}
    __device__ __forceinline__ float factor() const { return __uint_as_float((267 - exponent) << 23); }
    __device__ __forceinline__ float inverse() const { return __uint_as_float((exponent - 13) << 23); }
};

// Row i of a lane (0: g, 1: g + 8) as fp16 times its QueryScale; returns that's inverse. x: the row's D
// floats, or NULL for zeros; with AGAIN they are read twice, the second time from L1, as they would take too
// many registers in between.
template <uint32_t D, bool AGAIN>
__device__ __forceinline__ float query_row(const float *x, uint32_t i, uint32_t q,
                                           uint32_t (&a)[(D + 63) / 64][PAGE_STEPS][4]) {
    constexpr uint32_t BLOCKS = (D + 63) / 64;
    float most = 0;
#pragma unroll
    for (uint32_t b = 0; b < BLOCKS; b++)
        if (x && b * 64 + q * 16 < D) most = query_max(x + b * 64 + q * 16, most);
    most = quad_max(most);
    const QueryScale scale(most);
    const float factor = scale.factor();
    if (AGAIN) asm("" : "+l"(x));
#pragma unroll
    for (uint32_t b = 0; b < BLOCKS; b++)
#pragma unroll
        for (uint32_t j = 0; j < PAGE_STEPS; j++) {
            float4 v = make_float4(0, 0, 0, 0);
            if (x && b * 64 + q * 16 < D) v = ((const float4 *)(x + b * 64 + q * 16))[j];
            a[b][j][i] = cvt_rn_f16x2_f32(__fmul_rn(v.x, factor), __fmul_rn(v.y, factor));
            a[b][j][i + 2] = cvt_rn_f16x2_f32(__fmul_rn(v.z, factor), __fmul_rn(v.w, factor));
        }
    return scale.inverse();
}

// ---- scores --------------------------------------------------------------------------------------

// Key of the page that a lane's group g reads for score tile t.
__device__ __forceinline__ uint32_t key_row(uint32_t g, uint32_t t) { return 16 * (g / 2) + 2 * t + g % 2; }

// s += Q K^T of a tile of 8 keys and 64 columns of D.
__device__ __forceinline__ void score_tile(float (&s)[4], const uint32_t (&q)[PAGE_STEPS][4],
                                           const uint4 &key) {
#pragma unroll
    for (uint32_t j = 0; j < PAGE_STEPS; j++) {
        const uint32_t w = word_of(key, j);
        mma_m16n8k16_f32_f16(s, q[j], cvt_rn_f16x2_e4m3x2((uint16_t)w), cvt_rn_f16x2_e4m3x2(w >> 16));
    }
}

// What a lane knows of its two rows: the keys that they see, [first, pos], and the factor of their scores.
struct QueryRows {
    int32_t first[2], pos[2];
    float factor[2];
};

// Raw sums become arguments of 2^x; with EDGE keys that a row does not see become MASKED, whatever they hold.
// Gives each row's maximum. With ROWS 1 there is no row g + 8.
template <class S, bool EDGE, uint32_t ROWS = 2>
__device__ __forceinline__ void score_finish(float (&s)[SCORE_TILES][4], const QueryRows &rows, int32_t key0,
                                             float (&most)[2]) {
    const int32_t mine = key0 + 16 * (threadIdx.x % 4);
    most[0] = most[1] = MASKED;
#pragma unroll
    for (uint32_t t = 0; t < SCORE_TILES; t++)
#pragma unroll
        for (uint32_t i = 0; i < 2 * ROWS; i++) {
            float y = __fmul_rn(s[t][i], rows.factor[i / 2]);
            if constexpr (S::softcap != 0) // tanh(x) = 1 - 2 / (1 + e^2x)
                y = __fmul_rn(S::softcap * LOG2E, __fsub_rn(1, __fdividef(2, __fadd_rn(1, ex2_approx(y)))));
            const int32_t key = mine + 2 * t + i % 2;
            if (EDGE && (key < rows.first[i / 2] || key > rows.pos[i / 2])) y = MASKED;
            s[t][i] = y;
            most[i / 2] = fmaxf(most[i / 2], y);
        }
#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++) most[i] = quad_max(most[i]);
}

// Scores become probabilities against a row's running maximum; gives each row's sum.
template <bool EDGE, uint32_t ROWS = 2>
__device__ __forceinline__ void score_exp(float (&s)[SCORE_TILES][4], const float (&most)[2],
                                          float (&sum)[2]) {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (uint32_t t = 0; t < SCORE_TILES; t++)
#pragma unroll
        for (uint32_t i = 0; i < 2 * ROWS; i++) {
            float p = ex2_approx(__fsub_rn(s[t][i], most[i / 2]));
            if (EDGE && s[t][i] == MASKED) p = 0; // a row that has seen no key yet has this maximum as well
            s[t][i] = p;
            sum[i / 2] = __fadd_rn(sum[i / 2], p);
        }
#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++) sum[i] = quad_sum(sum[i]);
}

// P as operand A of k-step j.
__device__ __forceinline__ uint4 probabilities(const float (&s)[SCORE_TILES][4], uint32_t j) {
    return make_uint4(cvt_rn_f16x2_f32(s[2 * j][0], s[2 * j][1]), cvt_rn_f16x2_f32(s[2 * j][2], s[2 * j][3]),
                      cvt_rn_f16x2_f32(s[2 * j + 1][0], s[2 * j + 1][1]),
                      cvt_rn_f16x2_f32(s[2 * j + 1][2], s[2 * j + 1][3]));
}

// ---- values --------------------------------------------------------------------------------------

// The bytes of V that a lane may use of a page, of which keys [begin, end) hold something: elsewhere may be
// NaN, and 0 * NaN would reach O.
__device__ __forceinline__ uint4 value_mask(int32_t begin, int32_t end) {
    uint32_t w[4];
#pragma unroll
    for (int32_t j = 0; j < 4; j++) {
        const int32_t key = 16 * (threadIdx.x % 4) + 4 * j;
        const uint32_t skip = (uint32_t)min(max(begin - key, 0), 4),
                       keep = (uint32_t)min(max(end - key, 0), 4);
        w[j] = (uint32_t)((1ull << 8 * keep) - 1) & (uint32_t)(0xFFFFFFFFull << 8 * skip);
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}
__device__ __forceinline__ uint4 masked(const uint4 &v, const uint4 &mask) {
    return make_uint4(v.x & mask.x, v.y & mask.y, v.z & mask.z, v.w & mask.w);
}

// O = O * alpha + P V of 8 columns and a page.
__device__ __forceinline__ void value_tile(float (&o)[4], const uint32_t (&p)[PAGE_STEPS][4],
                                           const uint4 &value) {
#pragma unroll
    for (uint32_t j = 0; j < PAGE_STEPS; j++) {
        const uint32_t w = word_of(value, j);
        mma_m16n8k16_f32_f16(o, p[j], cvt_rn_f16x2_e4m3x2((uint16_t)w), cvt_rn_f16x2_e4m3x2(w >> 16));
    }
}
__device__ __forceinline__ void value_rescale(float (&o)[4], const float (&alpha)[2]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) o[i] = __fmul_rn(o[i], alpha[i / 2]);
}

// ---- parts ---------------------------------------------------------------------------------------

// Factors of two parts that become one; `most` and `sum` become those of both.
struct Merge {
    float a, b;
};
__device__ __forceinline__ Merge merge_parts(float &most, float &sum, float most_b, float sum_b) {
    const float both = fmaxf(most, most_b);
    const Merge m = {ex2_approx(__fsub_rn(most, both)), ex2_approx(__fsub_rn(most_b, both))};
    sum = __fmaf_rn(sum_b, m.b, __fmul_rn(sum, m.a));
    most = both;
    return m;
}
__device__ __forceinline__ float merge_value(const Merge &m, float a, float b) {
    return __fmaf_rn(b, m.b, __fmul_rn(a, m.a));
}

// ---- rows of activations -------------------------------------------------------------------------

// No |o| is above 448 * v_scale: the scale of rows, known before them, brings that into [2^14, 2^15).
__device__ __forceinline__ float out_scale(const float *kv_scale) {
    const uint32_t exponent = __float_as_uint(448 * kv_scale[1]) >> 23;
    return exponent < 15 ? __uint_as_float(1u << 23) : __uint_as_float((exponent - 14) << 23);
}

// What turns O into halves.
__device__ __forceinline__ float out_factor(const float *kv_scale, float sum) {
    return __fdiv_rn(__fdiv_rn(kv_scale[1], out_scale(kv_scale)), sum);
}

// Two columns of a row; adding 0 makes -0 of a masked page's products the 0 that others have.
__device__ __forceinline__ void out_store(uint8_t *row, uint32_t col, float x, float y, float factor) {
    *(uint32_t *)(row + 2 * col) =
        cvt_rn_f16x2_f32(__fadd_rn(__fmul_rn(x, factor), 0), __fadd_rn(__fmul_rn(y, factor), 0));
}

// What stands behind the values of a row, by one thread.
template <class S> __device__ __forceinline__ void out_finish(uint8_t *row, const float *kv_scale) {
    constexpr uint32_t K = S::heads * S::head_dim;
    for (uint32_t i = K; i < act_halves(K); i += 2) *(uint32_t *)(row + 2 * i) = 0;
    *act_meta(row, K) = ActMeta{out_scale(kv_scale), (float)K * 448 * kv_scale[1] * 1.001f};
}
#endif
