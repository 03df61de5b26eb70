// rope_write: per token, the heads of q and k are normed (has_norm) and rotated; q goes to `q`, k / k_scale
// and v / v_scale go to the token's place in the cache as E4M3, v transposed. Rotate-half: y[i] = x[i] c -
// x[i + D/2] s, y[i + D/2] = x[i + D/2] c + x[i] s, angle = pos * inv_freq[i]. A warp a head; warps know
// nothing of each other. Blocks without a head help to fetch `next`. Of many tokens a warp takes 32
// dimensions of the values of 16, as the places of consecutive ones are neighbours.
#include "templates/lib/prefetch.cuh"
#include "templates/lib/rope.cuh"

// 32 dimensions from d0 on of the values of up to 16 tokens from token0 on.
template <class S>
__device__ __forceinline__ void rope_write_values(const Args<12> &a, uint32_t token0, uint32_t n_tok,
                                                  uint32_t kv_head, uint32_t d0) {
    constexpr uint32_t D = S::head_dim, HEADS = RopeHead<S>::HEADS, RUN = RopeHead<S>::RUN;
    static_assert(S::page_tokens % RUN == 0, "16 neighbours from a multiple of 16 on are of one page");
    const uint32_t lane = threadIdx.x % 32, n = min(n_tok - token0, RUN), d = d0 + lane;
    const uint32_t token = token0 + min(lane, n - 1), pos = ((const uint32_t *)a.p[5])[token],
                   slot = ((const uint32_t *)a.p[6])[token];
    const float *from =
        (const float *)a.p[0] + ((uint64_t)token0 * HEADS + S::heads + S::kv_heads + kv_head) * D + d;
    float x[RUN];
#pragma unroll
    for (uint32_t t = 0; t < RUN; t++) x[t] = t < n && d < D ? from[(uint64_t)t * HEADS * D] : 0;
    // Where dimension 0 of the lane's token is.
    const uint64_t out = (uint64_t)(kv_page<S>(a.p[8], (const int32_t *)a.p[7], slot, pos) +
                                    kv_value_offset<S>(kv_head, 0, pos % S::page_tokens)),
                   out0 = __shfl_sync(~0u, out, 0);
    const float scale = ((const float *)a.p[4])[1];
    uint32_t w[RUN / 4];
#pragma unroll
    for (uint32_t i = 0; i < RUN / 4; i++) {
        const float *four = x + 4 * i;
        w[i] = (uint32_t)cvt_rn_satfinite_e4m3x2_f32(four[2] / scale, four[3] / scale) << 16 |
               cvt_rn_satfinite_e4m3x2_f32(four[0] / scale, four[1] / scale);
    }
    const bool neighbours = n == RUN && out0 % 16 == 0 && (lane >= RUN || out == out0 + lane);
    if (__all_sync(~0u, neighbours)) {
        if (d < D) *(uint4 *)(out0 + d * S::page_tokens) = make_uint4(w[0], w[1], w[2], w[3]);
    } else {
#pragma unroll
        for (uint32_t t = 0; t < RUN; t++) {
            uint8_t *to = (uint8_t *)__shfl_sync(~0u, out, t);
            if (t < n && d < D) to[d * S::page_tokens] = (uint8_t)(w[t / 4] >> t % 4 * 8);
        }
    }
}

template <class S>
__device__ __forceinline__ void rope_write_many(const Args<12> &a, uint32_t n_tok, uint32_t first,
                                                uint32_t step) {
    constexpr uint32_t BLOCKS = (S::head_dim + 31) / 32, TURNED = S::heads + S::kv_heads,
                       RUN = RopeHead<S>::RUN;
    const uint32_t values = (n_tok + RUN - 1) / RUN * S::kv_heads * BLOCKS;
    for (uint32_t item = first; item < values + n_tok * TURNED; item += step) {
        if (item < values) {
            const uint32_t head = item / BLOCKS;
            rope_write_values<S>(a, head / S::kv_heads * RUN, n_tok, head % S::kv_heads, item % BLOCKS * 32);
        } else {
            const uint32_t token = (item - values) / TURNED, h = (item - values) % TURNED;
            RopeHead<S> head;
            head.load(a, token, h);
            head.write(a, token, h);
        }
    }
}

template <class S, uint32_t THREADS, bool CAN_BE_MANY>
__device__ __forceinline__ void rope_write_heads(const Args<12> &a) {
    static_assert(S::head_dim % 2 == 0 && S::head_dim <= 256, "an even head_dim up to 256");
    static_assert(THREADS % 32 == 0, "a warp a head");
    using Head = RopeHead<S>;
    constexpr uint32_t WARPS = THREADS / 32;
    const uint32_t first = blockIdx.x * WARPS + threadIdx.x / 32, step = gridDim.x * WARPS;
    Head head;
    // The first token needs no count to be there: a single one does not wait for it.
    if (first < Head::HEADS) head.load(a, 0, first);
    const uint32_t n_tok = ((const uint32_t *)a.p[10])[COUNT_TOKENS], n = n_tok * Head::HEADS;
    prefetch_next<S::next_bytes>(a.p[11]);
    if constexpr (CAN_BE_MANY)
        if (n_tok >= Head::MANY) {
            rope_write_many<S>(a, n_tok, first, step);
            return;
        }
    if (first >= Head::HEADS && first < n) head.load(a, first / Head::HEADS, first % Head::HEADS);
    for (uint32_t item = first; item < n;) {
        head.write(a, item / Head::HEADS, item % Head::HEADS);
        item += step;
        if (item < n) head.load(a, item / Head::HEADS, item % Head::HEADS);
    }
}

template <class S> __device__ void rope_write(const Args<12> &a) { rope_write_heads<S, S::threads, true>(a); }

#ifndef INSTANCE
struct RopeQwen3 { // 8B
    static constexpr uint32_t heads = 32, kv_heads = 8, head_dim = 128, has_norm = 1, page_tokens = 64,
                              page_bytes = 36 * 2 * 64 * 8 * 128, pages_per_seq = 512, next_bytes = 6000000,
                              threads = 128, shared_bytes = 0;
    static constexpr float eps = 1e-6f, factor = 1;
};
struct RopeGemma3 : RopeQwen3 {
    static constexpr uint32_t heads = 4, kv_heads = 1, head_dim = 256, page_bytes = 4 * 2 * 64 * 256,
                              next_bytes = 0;
};
struct RopeOdd : RopeQwen3 {
    static constexpr uint32_t heads = 14, kv_heads = 2, head_dim = 80, has_norm = 0;
    static constexpr float factor = 1.3465736f;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<12> args) {   \
        rope_write<S>(args);                                                                                 \
    }
SAMPLE(rope_write_qwen3, RopeQwen3)
SAMPLE(rope_write_gemma3, RopeGemma3)
SAMPLE(rope_write_odd, RopeOdd)
#endif
