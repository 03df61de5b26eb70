// gate_up: out[t, i] = act(x[t] . w[i] * row_scale[i]) * (x[t] . w[F + i] * row_scale[F + i]), as act rows.
#include "templates/lib/fold.cuh"
#include "templates/lib/link.cuh"
#include "templates/lib/panel.cuh"
#include "templates/lib/prefetch.cuh"
#include "templates/lib/product.cuh"
#include "templates/lib/stream.cuh"

// The first block ends the rows of all tokens.
template <class S, uint32_t THREADS, class Meta>
__device__ __forceinline__ void gate_up_end_rows(Meta meta, uint8_t *out, float w_bound, uint32_t n_tok) {
    constexpr uint32_t EACH = STAGE_COLS; // threads a row: at most so many halves of padding
    if (blockIdx.x) return;
    for (uint32_t i = threadIdx.x; i < n_tok * EACH; i += THREADS) {
        const uint32_t t = i / EACH;
        product_end_row<S>(meta(t), out + (uint64_t)t * S::out_pitch, w_bound, i % EACH);
    }
}

template <class S, class Link> __device__ __forceinline__ void gate_up_stream(const Args<10> &a, Link &link) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr uint32_t MOST = stream_most<S>();
    constexpr bool NEAR = MOST <= Link::THREADS / TILE_ROWS; // a thread for each row
    __shared__ ProductFactors<NEAR ? MOST * TILE_ROWS : 1, NEAR ? S::cols * TILE_TOKENS : 1> near;
    const float *row_scale = (const float *)a.p[2];
    uint8_t *out = (uint8_t *)a.p[4];
    const StreamDeal<(S::f + 7) / 8, Link::GRID, MOST> deal;
    const StreamShare share = deal();
    const uint32_t thread = thread_index(), up = thread % 2 * S::f;
    if constexpr (NEAR) { // gates, then ups
        const uint32_t i = thread / 2, row = share.first * 8 + i;
        if (i < share.n * 8 && row < S::f) near.fetch_row(thread % 2 * MOST * 8 + i, row_scale + up + row);
    } else {
        const uint32_t line = share.first * 8 + thread / 2 * 32;
        if (line < S::f && line < (share.first + share.n) * 8) prefetch_global_l2(row_scale + up + line);
    }
    ProductRows<S> rows;
    if constexpr (!Link::WAITS) rows.open(a.p[0], a.p[7], a.p[8]);
    const uint32_t *n_tokens = (const uint32_t *)a.p[5] + COUNT_TOKENS;
    const float *w_bound = (const float *)a.p[3];
    const auto meta = [&](uint32_t t) { return NEAR && !S::fold ? near.x + t : x_meta<S>(rows.row(t)); };
    stream_tiles<Stream<S::format, S::x_e4m3 != 0, S::k, S::cols, S::groups>, S::round, Link>(
        a.p[1], deal,
        [&] {
            link.wait();
            const uint32_t n_tok = *n_tokens;
            if constexpr (Link::WAITS) rows.open(a.p[0], a.p[7], a.p[8]);
            rows.make(n_tok);
            if constexpr (NEAR && !S::fold)
                if (thread < n_tok) near.fetch_x(thread, x_meta<S>(rows.row(thread)));
            StreamColumns<S::cols, S::x_e4m3 != 0> columns;
            columns.open(n_tok, [&](uint32_t t) { return rows.row(t); });
            return columns;
        },
        (float4 *)shared, [&] { prefetch_next<Link::FETCHES ? S::next_bytes : 0>(a.p[9]); },
        [&](uint32_t tile, uint32_t c, const float(&sums)[4]) {
            const float *gates = NEAR ? near.row - deal().first * 8 : row_scale;
            product_store_gated<S>(
                tile, c * TILE_TOKENS, read_again(n_tokens), sums, gates, gates + (NEAR ? MOST * 8 : S::f),
                [&](uint32_t t) { return gated_token(meta(t), read_again(w_bound)); },
                [&](uint32_t t) { return out + (uint64_t)t * S::out_pitch; });
        });
    gate_up_end_rows<S, Link::THREADS>(meta, out, read_again(w_bound), read_again(n_tokens));
}

template <class S> __device__ void gate_up_panel(const Args<10> &a) {
    extern __shared__ __align__(128) uint8_t shared[];
    const uint8_t *x = (const uint8_t *)a.p[0];
    uint8_t *out = (uint8_t *)a.p[4];
    using P = PanelOf<S, (S::f + 7) / 8>;
    __shared__ GatedToken tokens[P::TOKENS];
    panel_product<S, (S::f + 7) / 8>(
        x, a.p[1], a.p[5], COUNT_TOKENS, a.p[6], shared,
        [&](uint32_t first, uint32_t i) { // gates, then ups
            const uint32_t row = first * 8 + i % (P::BLOCK_TILES * 8);
            return row < S::f ? (const float *)a.p[2] + i / (P::BLOCK_TILES * 8) * S::f + row : nullptr;
        },
        [&](const auto &place, const auto &near) {
            const float w_bound = *(const volatile float *)a.p[3]; // anew: no register while the products run
            for (uint32_t t = threadIdx.x; t < place.n_columns(); t += S::threads) {
                tokens[t] = gated_token(near.x + t, w_bound);
                if (place.block == 0)
                    for (uint32_t i = 0; i < STAGE_COLS; i++)
                        product_end_row<S>(near.x + t, out + (uint64_t)(place.token0 + t) * S::out_pitch,
                                           w_bound, i);
            }
            __syncthreads();
            return [&, place](uint32_t tile, uint32_t column, const float(&sums)[4]) {
                const float *gates = near.row - place.first() * 8;
                product_store_gated<S>(
                    tile, column, place.n_tok, sums, gates, gates + P::BLOCK_TILES * 8,
                    [&](uint32_t token) { return tokens[token - place.token0]; },
                    [&](uint32_t token) { return out + (uint64_t)token * S::out_pitch; });
            };
        });
}

template <class S> __device__ void gate_up(const Args<10> &a) {
    static_assert(S::format == FORMAT_NVFP4 || S::format == FORMAT_F16, "weights are NVFP4 or fp16 tiles");
    static_assert(S::x_pitch >= x_pitch_least<S>() && S::x_pitch % 16 == 0, "x is rows of activations");
    if constexpr (S::tiled) {
        gate_up_panel<S>(a);
    } else {
        Alone<S::threads> alone;
        gate_up_stream<S>(a, alone);
    }
}

#ifndef INSTANCE
struct GateUpSample {
    static constexpr uint32_t f = 12288, k = 4096, x_pitch = 8208, x_e4m3 = 0, out_pitch = 24592,
                              next_bytes = 1 << 20, tiled = 0, cols = 1, groups = 2, round = 12, parts = 1,
                              per_sm = 1, norm = 0, fold = 0;
    static constexpr float eps = 1e-6f;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr Act act = ACT_SILU;
    static constexpr uint32_t threads = 512, shared_bytes = 49152;
};
struct GateUpSampleTwo : GateUpSample {
    static constexpr uint32_t cols = 2, round = 6, shared_bytes = 98304;
    static constexpr Act act = ACT_GELU_TANH;
};
struct GateUpSampleFold : GateUpSample {
    static constexpr uint32_t norm = 1, fold = 2, shared_bytes = 49152 + 2 * 8208;
};
struct GateUpSamplePanel : GateUpSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 12, round = 1, threads = 384,
                              shared_bytes = 65536;
};
struct GateUpSamplePairs : GateUpSamplePanel { // two blocks an SM
    static constexpr uint32_t groups = 4, round = 2, per_sm = 2, threads = 128;
};
struct GateUpSampleKept : GateUpSamplePanel {
    static constexpr uint32_t round = 2, shared_bytes = 65536 + 98304;
};
struct GateUpE4m3 : GateUpSample {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(4096);
};
struct GateUpE4m3Panel : GateUpSamplePanel {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(4096), groups = 8, threads = 256,
                              shared_bytes = 32768;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads, S::per_sm)                                      \
        name(const __grid_constant__ Args<10> args) {                                                        \
        gate_up<S>(args);                                                                                    \
    }
SAMPLE(gate_up_sample, GateUpSample)
SAMPLE(gate_up_sample_two, GateUpSampleTwo)
SAMPLE(gate_up_sample_fold, GateUpSampleFold)
SAMPLE(gate_up_sample_panel, GateUpSamplePanel)
SAMPLE(gate_up_sample_pairs, GateUpSamplePairs)
SAMPLE(gate_up_sample_kept, GateUpSampleKept)
SAMPLE(gate_up_e4m3, GateUpE4m3)
SAMPLE(gate_up_e4m3_panel, GateUpE4m3Panel)
#endif
