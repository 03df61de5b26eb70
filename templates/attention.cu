// attention: query rows against the paged cache, equal in meaning to host/attention.h. The decode form is in
// lib/attention_few.cuh, the prefill form in lib/attention_many.cuh; lib/attention.cuh says why both give the
// same bits.
#include "templates/lib/attention_few.cuh"
#include "templates/lib/attention_many.cuh"

template <class S> __device__ void attention(const Args<10> &a) {
    static_assert(S::out_pitch >= act_pitch(S::heads * S::head_dim, false) && S::out_pitch % 16 == 0,
                  "out is rows of activations");
    if constexpr (S::tiled)
        attention_many<S>(a);
    else
        attention_few<S>(a, FewStored<S>());
}

#ifndef INSTANCE
struct AttentionSample {
    static constexpr uint32_t heads = 32, kv_heads = 8, head_dim = 128, window = 0, page_tokens = 64,
                              pages_per_seq = 640, page_bytes = 36 * 2 * 8 * 128 * 64, out_pitch = 8208,
                              next_bytes = 50 << 20, tiled = 0, per_sm = 1, fetch_lines = 480,
                              fetch_clocks = 500, threads = 256, shared_bytes = 0;
    static constexpr float scale = 0.08838834764f, softcap = 0;
};
struct AttentionSampleGemma : AttentionSample {
    static constexpr uint32_t heads = 8, kv_heads = 4, head_dim = 256, window = 1024, pages_per_seq = 33,
                              out_pitch = 4112;
    static constexpr float softcap = 50;
};
struct AttentionSampleFull : AttentionSampleGemma {
    static constexpr uint32_t window = 0, pages_per_seq = 128;
    static constexpr float softcap = 0;
};
struct AttentionSampleWide : AttentionSampleGemma {
    static constexpr uint32_t heads = 16, kv_heads = 1, out_pitch = 8208;
};
struct AttentionSampleSmall : AttentionSample {
    static constexpr uint32_t heads = 14, kv_heads = 2, head_dim = 64, out_pitch = 1808, pages_per_seq = 5;
};
struct AttentionSampleOdd : AttentionSample {
    static constexpr uint32_t heads = 6, kv_heads = 6, head_dim = 80, out_pitch = 1040;
};
struct AttentionSampleNarrow : AttentionSample {
    static constexpr uint32_t heads = 4, kv_heads = 2, head_dim = 32, out_pitch = 272, pages_per_seq = 2;
};
template <class S> struct AttentionFourWarps : S { static constexpr uint32_t threads = 128, per_sm = 2; };
template <class S, uint32_t SHARED, uint32_t PER_SM> struct AttentionTiled : S {
    static constexpr uint32_t tiled = 1, threads = 128, shared_bytes = SHARED, per_sm = PER_SM;
};
#define SAMPLE(name, ...)                                                                                    \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::threads, __VA_ARGS__::per_sm)                  \
        name(const __grid_constant__ Args<10> args) {                                                        \
        attention<__VA_ARGS__>(args);                                                                        \
    }
using TiledSample = AttentionTiled<AttentionSample, 49152, 2>;
using TiledGemma = AttentionTiled<AttentionSampleGemma, 98304, 1>;
using TiledFull = AttentionTiled<AttentionSampleFull, 98304, 1>;
using TiledSmall = AttentionTiled<AttentionSampleSmall, 24576, 3>;
using TiledOdd = AttentionTiled<AttentionSampleOdd, 53248, 2>;
using TiledNarrow = AttentionTiled<AttentionSampleNarrow, 24576, 3>;
SAMPLE(attention_sample, AttentionSample)
SAMPLE(attention_sample_gemma, AttentionSampleGemma)
SAMPLE(attention_sample_full, AttentionSampleFull)
SAMPLE(attention_sample_wide, AttentionSampleWide)
SAMPLE(attention_sample_small, AttentionSampleSmall)
SAMPLE(attention_sample_odd, AttentionSampleOdd)
SAMPLE(attention_sample_narrow, AttentionSampleNarrow)
SAMPLE(attention_sample_four, AttentionFourWarps<AttentionSample>)
SAMPLE(attention_sample_small_four, AttentionFourWarps<AttentionSampleSmall>)
SAMPLE(attention_sample_odd_four, AttentionFourWarps<AttentionSampleOdd>)
SAMPLE(attention_sample_tiled, TiledSample)
SAMPLE(attention_sample_tiled_gemma, TiledGemma)
SAMPLE(attention_sample_tiled_full, TiledFull)
SAMPLE(attention_sample_tiled_small, TiledSmall)
SAMPLE(attention_sample_tiled_odd, TiledOdd)
SAMPLE(attention_sample_tiled_narrow, TiledNarrow)
#endif
