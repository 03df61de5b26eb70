// norm_add: residual += has_post ? norm(branch) * post_w : branch, when has_branch; then out = norm(residual)
// * w as act rows, when has_out. norm(x) = x / sqrt(mean(x^2) + eps). A block a token, the row in registers;
// blocks without a token help to fetch `next`.
#include "templates/lib/norm.cuh"
#include "templates/lib/prefetch.cuh"

// What a thread has of a token's row, and of the weights.
template <class S> struct NormRow {
    using Share = RowShare<S::hidden, S::threads>;
    static constexpr uint32_t EACH = Share::EACH, WIDTH = Share::WIDTH;
    static constexpr bool EARLY = EACH <= 2; // registers for weights before they are used
    NormValues<S::hidden, S::threads> values;
    float branch[EACH][WIDTH], post[EACH][WIDTH];

    // Everything at once: one way to memory and back.
    __device__ __forceinline__ void load(const Args<7> &a, uint32_t token) {
        const uint64_t first = (uint64_t)token * S::hidden;
        Share::load((const float *)a.p[0] + first, values.x);
        if constexpr (S::has_branch) Share::load((const float *)a.p[1] + first, branch);
        if constexpr (S::has_post && EARLY) Share::load((const float *)a.p[2], post);
        if constexpr (S::has_out && EARLY) Share::load((const float *)a.p[3], values.w);
    }
};

template <class S>
__device__ __forceinline__ void norm_add_branch(NormRow<S> &row, float *residual, float factor) {
    using Row = NormRow<S>;
#pragma unroll
    for (uint32_t j = 0; j < Row::EACH; j++)
#pragma unroll
        for (uint32_t i = 0; i < Row::WIDTH; i++)
            row.values.x[j][i] += S::has_post ? row.branch[j][i] * factor * row.post[j][i] : row.branch[j][i];
    Row::Share::store(residual, row.values.x);
}

// `turn`: of the block's reductions so far, 0 or 1.
template <class S>
__device__ __forceinline__ void norm_add_row(const Args<7> &a, NormRow<S> &row, uint32_t token,
                                             BlockPartials &partials, uint32_t &turn) {
    using Row = NormRow<S>;
    if constexpr (S::has_branch) {
        float factor = 1;
        if constexpr (S::has_post) {
            float squares = 0;
#pragma unroll
            for (uint32_t j = 0; j < Row::EACH; j++)
#pragma unroll
                for (uint32_t i = 0; i < Row::WIDTH; i++)
                    squares = fmaf(row.branch[j][i], row.branch[j][i], squares);
            factor = norm_factor(block_sum<S::threads>(squares, partials, turn), S::hidden, S::eps);
            turn ^= 1;
            if constexpr (!Row::EARLY) Row::Share::load((const float *)a.p[2], row.post);
        }
        norm_add_branch<S>(row, (float *)a.p[0] + (uint64_t)token * S::hidden, factor);
    }
    if constexpr (S::has_out) {
        if constexpr (!Row::EARLY) Row::Share::load((const float *)a.p[3], row.values.w);
        const RowStats all = block_stats<S::threads>(row.values.stats(), partials, turn);
        turn ^= 1;
        constexpr RowForm FORM = S::e4m3 ? ROW_E4M3 : S::wide ? ROW_WIDE : ROW_HALVES;
        row.values.template store<FORM>((uint8_t *)a.p[4] + (uint64_t)token * S::out_pitch, all, S::eps);
    }
}

// By the first S::threads threads of the block.
template <class S, bool FETCHES> __device__ __forceinline__ void norm_add_rows(const Args<7> &a) {
    static_assert(S::hidden % 4 == 0, "rows are moved 16 bytes at a time");
    static_assert(!S::e4m3 || !S::wide, "a row that is read as floats is not quantised");
    static_assert(S::has_branch || !S::has_post, "only a branch is normed before it is added");
    static_assert(!S::has_out || (S::out_pitch >= (S::e4m3 ? e4m3_pitch(S::hidden)
                                                           : act_pitch(S::hidden, S::wide != 0)) &&
                                  S::out_pitch % 16 == 0),
                  "out is rows of activations");
    __shared__ BlockPartials partials;
    NormRow<S> row;
    uint32_t turn = 0, token = block_index();
    // The first token needs no count to be there: a single one does not wait for it.
    if (token == 0) row.load(a, 0);
    const uint32_t n_tokens = ((const uint32_t *)a.p[5])[S::count];
    prefetch_next<FETCHES ? S::next_bytes : 0>(a.p[6]);
    if (token != 0 && token < n_tokens) row.load(a, token);
    while (token < n_tokens) {
        norm_add_row<S>(a, row, token, partials, turn);
        token += gridDim.x;
        if (token < n_tokens) row.load(a, token);
    }
}

template <class S> __device__ void norm_add(const Args<7> &a) { norm_add_rows<S, true>(a); }

#ifndef INSTANCE
struct NormAddQwen3 { // 8B
    static constexpr uint32_t hidden = 4096, has_branch = 1, has_post = 0, has_out = 1, count = 0,
                              out_pitch = 8208, wide = 0, e4m3 = 0, next_bytes = 7500032, threads = 512,
                              shared_bytes = 0;
    static constexpr float eps = 1e-6f;
};
struct NormAddGemma3 : NormAddQwen3 { // 27B
    static constexpr uint32_t hidden = 5376, has_post = 1, out_pitch = 10768, threads = 448;
};
struct NormAddRouted : NormAddQwen3 { // 30B-A3B
    static constexpr uint32_t hidden = 2048, wide = 1, out_pitch = 4112 + 8192, next_bytes = 0, threads = 512;
};
struct NormAddFirst : NormAddQwen3 {
    static constexpr uint32_t hidden = 1152, has_branch = 0, out_pitch = 2320, threads = 288;
};
struct NormAddAlone : NormAddQwen3 {
    static constexpr uint32_t hidden = 640, has_post = 1, has_out = 0, threads = 160;
};
struct NormAddLarge : NormAddQwen3 {
    static constexpr uint32_t hidden = 16384, has_post = 1, out_pitch = 32784, threads = 512;
};
struct NormAddE4m3 : NormAddQwen3 {
    static constexpr uint32_t e4m3 = 1, out_pitch = e4m3_pitch(4096);
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<7> args) {    \
        norm_add<S>(args);                                                                                   \
    }
SAMPLE(norm_add_qwen3, NormAddQwen3)
SAMPLE(norm_add_gemma3, NormAddGemma3)
SAMPLE(norm_add_routed, NormAddRouted)
SAMPLE(norm_add_first, NormAddFirst)
SAMPLE(norm_add_alone, NormAddAlone)
SAMPLE(norm_add_large, NormAddLarge)
SAMPLE(norm_add_e4m3, NormAddE4m3)
#endif
