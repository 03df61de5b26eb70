// rope_attention: rope_write and the decode form of attention as one launch, on attention's grid. Arguments:
// rope_write's, then attention's; `q` is neither written nor read.
#ifndef INSTANCE
#define INSTANCE // of the templates below: their samples are theirs
#define ROPE_ATTENTION_SAMPLES
#endif
#include "templates/attention.cu"
#include "templates/lib/attention_rope.cuh"

// Bytes of shared memory that S::shared_bytes does not count: as in compiler/passes/chain.c.
template <class R, class S, uint32_t MOST>
__device__ __forceinline__ void rope_attention(const Args<12> &rope, const Args<10> &a) {
    extern __shared__ __align__(128) uint8_t shared[];
    static_assert(!S::tiled, "the decode form");
    attention_few<S>(a, FewRope<S, R, MOST>{rope, shared});
}

#ifdef ROPE_ATTENTION_SAMPLES
struct RopeAttentionQwen {
    static constexpr uint32_t heads = 32, kv_heads = 8, head_dim = 128, window = 0, page_tokens = 64,
                              pages_per_seq = 640, page_bytes = 36 * 2 * 8 * 128 * 64, out_pitch = 8208,
                              next_bytes = 50 << 20, tiled = 0, per_sm = 1, fetch_lines = 480,
                              fetch_clocks = 500, threads = 256, shared_bytes = 0, has_norm = 1;
    static constexpr float scale = 0.08838834764f, softcap = 0, eps = 1e-6f, factor = 1;
};
struct RopeAttentionGemma : RopeAttentionQwen {
    static constexpr uint32_t heads = 8, kv_heads = 4, head_dim = 256, window = 1024, pages_per_seq = 33,
                              out_pitch = 4112;
    static constexpr float softcap = 50;
};
struct RopeAttentionFull : RopeAttentionGemma {
    static constexpr uint32_t window = 0, pages_per_seq = 128;
    static constexpr float softcap = 0;
};
struct RopeAttentionWide : RopeAttentionGemma {
    static constexpr uint32_t heads = 16, kv_heads = 1, out_pitch = 8208;
};
struct RopeAttentionSmall : RopeAttentionQwen {
    static constexpr uint32_t heads = 14, kv_heads = 2, head_dim = 64, out_pitch = 1808, pages_per_seq = 5,
                              has_norm = 0;
};
struct RopeAttentionOdd : RopeAttentionQwen {
    static constexpr uint32_t heads = 6, kv_heads = 6, head_dim = 80, out_pitch = 1040;
    static constexpr float factor = 1.25f;
};
struct RopeAttentionNarrow : RopeAttentionQwen {
    static constexpr uint32_t heads = 4, kv_heads = 2, head_dim = 32, out_pitch = 272, pages_per_seq = 2;
};
template <class S> struct RopeAttentionFour : S { static constexpr uint32_t threads = 128, per_sm = 2; };
#define SAMPLE(name, most, ...)                                                                              \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::threads, __VA_ARGS__::per_sm)                  \
        name(const __grid_constant__ Args<22> args) {                                                        \
        rope_attention<__VA_ARGS__, __VA_ARGS__, most>(*(const Args<12> *)args.p,                            \
                                                       *(const Args<10> *)(args.p + 12));                    \
    }
SAMPLE(rope_attention_qwen, 16, RopeAttentionQwen)
SAMPLE(rope_attention_qwen_64, 64, RopeAttentionQwen)
SAMPLE(rope_attention_gemma, 16, RopeAttentionGemma)
SAMPLE(rope_attention_gemma_64, 64, RopeAttentionGemma)
SAMPLE(rope_attention_full, 16, RopeAttentionFull)
SAMPLE(rope_attention_wide, 16, RopeAttentionWide)
SAMPLE(rope_attention_small, 16, RopeAttentionSmall)
SAMPLE(rope_attention_odd, 16, RopeAttentionOdd)
SAMPLE(rope_attention_narrow, 64, RopeAttentionNarrow)
SAMPLE(rope_attention_four, 16, RopeAttentionFour<RopeAttentionQwen>)
SAMPLE(rope_attention_four_64, 64, RopeAttentionFour<RopeAttentionQwen>)
SAMPLE(rope_attention_small_four, 64, RopeAttentionFour<RopeAttentionSmall>)
SAMPLE(rope_attention_odd_four, 64, RopeAttentionFour<RopeAttentionOdd>)
#endif
