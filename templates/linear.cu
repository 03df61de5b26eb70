// linear: out[t, n] = softcap(x[t] . w[n] * row_scale[n] + bias[n]); with `add` out[t, n] += that.
#include "templates/lib/fold.cuh"
#include "templates/lib/link.cuh"
#include "templates/lib/panel.cuh"
#include "templates/lib/prefetch.cuh"
#include "templates/lib/product.cuh"
#include "templates/lib/stream.cuh"

template <class S, class Link> __device__ __forceinline__ void linear_stream(const Args<10> &a, Link &link) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr uint32_t MOST = stream_most<S>();
    constexpr bool NEAR = MOST <= Link::THREADS / TILE_ROWS; // a thread for each row
    __shared__ ProductFactors<NEAR ? MOST * TILE_ROWS : 1, NEAR ? S::cols * TILE_TOKENS : 1> near;
    const float *row_scale = (const float *)a.p[2], *bias = (const float *)a.p[3];
    float *out = (float *)a.p[4];
    const StreamDeal<row_tiles(S::n), Link::GRID, MOST> deal;
    const StreamShare share = deal();
    const uint32_t thread = thread_index();
    if constexpr (NEAR) {
        const uint32_t row = share.first * TILE_ROWS + thread;
        if (thread < share.n * TILE_ROWS && row < S::n) near.fetch_row(thread, row_scale + row);
    } else {
        const uint32_t line = share.first * TILE_ROWS + thread * 32;
        if (line < S::n && line < (share.first + share.n) * TILE_ROWS) prefetch_global_l2(row_scale + line);
    }
    ProductRows<S> rows;
    if constexpr (!Link::WAITS) rows.open(a.p[0], a.p[7], a.p[8]);
    const uint32_t *n_tokens = (const uint32_t *)a.p[5] + S::count;
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
            product_store<S>(
                tile, c * TILE_TOKENS, read_again(n_tokens), sums,
                NEAR ? near.row - deal().first * TILE_ROWS : row_scale, bias,
                [&](uint32_t t) { return NEAR && !S::fold ? near.x + t : x_meta<S>(rows.row(t)); },
                [&](uint32_t t) { return out + (uint64_t)t * S::out_stride; });
        });
}

template <class S> __device__ void linear_panel(const Args<10> &a) {
    extern __shared__ __align__(128) uint8_t shared[];
    const uint8_t *x = (const uint8_t *)a.p[0];
    panel_product<S, row_tiles(S::n)>(
        x, a.p[1], a.p[5], S::count, a.p[6], shared,
        [&](uint32_t first, uint32_t i) {
            const uint32_t row = first * TILE_ROWS + i;
            return row < S::n ? (const float *)a.p[2] + row : nullptr;
        },
        [&](const auto &place, const auto &near) {
            float *out = (float *)a.p[4];
            return [=, &a, &near](uint32_t tile, uint32_t column, const float(&sums)[4]) {
                product_store<S>(
                    tile, column, place.n_tok, sums, near.row - place.first() * TILE_ROWS,
                    (const float *)a.p[3], [&](uint32_t token) { return near.x + (token - place.token0); },
                    [&](uint32_t token) { return out + (uint64_t)token * S::out_stride; });
                asm volatile("" ::: "memory"); // one after the other: registers are for sums
            };
        });
}

template <class S> __device__ void linear(const Args<10> &a) {
    static_assert(S::format == FORMAT_NVFP4 || S::format == FORMAT_E4M3 || S::format == FORMAT_F16,
                  "weights are NVFP4, E4M3 or fp16 tiles");
    static_assert(S::x_pitch >= x_pitch_least<S>() && S::x_pitch % 16 == 0, "x is rows of activations");
    if constexpr (S::tiled) {
        linear_panel<S>(a);
    } else {
        Alone<S::threads> alone;
        linear_stream<S>(a, alone);
    }
}

#ifndef INSTANCE
struct LinearSample {
    static constexpr uint32_t n = 4096, k = 4096, out_stride = 4096, has_bias = 0, count = 0, x_pitch = 8208,
                              x_e4m3 = 0, next_bytes = 0, tiled = 0, cols = 1, groups = 2, round = 2,
                              parts = 1, per_sm = 1, add = 0, norm = 0, fold = 0;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr float softcap = 0, eps = 0;
    static constexpr uint32_t threads = 512, shared_bytes = 8192;
};
struct LinearSampleHead : LinearSample {
    static constexpr uint32_t n = 151936, out_stride = 151936, round = 6, cols = 2, shared_bytes = 98304;
    static constexpr Format format = FORMAT_F16;
    static constexpr float softcap = 30;
};
struct LinearSampleAdd : LinearSample {
    static constexpr uint32_t k = 12288, x_pitch = 24592, add = 1;
};
struct LinearSampleFold : LinearSample {
    static constexpr uint32_t n = 6144, round = 4, norm = 1, fold = 2, shared_bytes = 16384 + 2 * 8208;
    static constexpr float eps = 1e-6f;
};
struct LinearSampleOdd : LinearSample {
    static constexpr uint32_t n = 40, k = 688, out_stride = 104, has_bias = 1, x_pitch = 1424;
};
struct LinearSamplePanel : LinearSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 12, round = 1, threads = 384,
                              shared_bytes = 65536;
};
struct LinearSampleParts : LinearSample {
    static constexpr uint32_t tiled = 1, cols = 8, groups = 8, round = 1, parts = 4, threads = 256,
                              shared_bytes = 65536;
};
struct LinearSamplePairs : LinearSamplePanel { // two blocks an SM
    static constexpr uint32_t groups = 4, round = 2, per_sm = 2, threads = 128;
};
struct LinearSampleKept : LinearSamplePanel {
    static constexpr uint32_t round = 2, shared_bytes = 65536 + 98304;
};
struct LinearSamplePanelHead : LinearSample {
    static constexpr uint32_t tiled = 1, cols = 4, groups = 12, round = 1, threads = 384,
                              shared_bytes = 32768;
    static constexpr Format format = FORMAT_F16;
};
template <class S> struct LinearW4a8 : S {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(S::k);
    static constexpr uint32_t shared_bytes = S::tiled ? S::shared_bytes / 2 : S::shared_bytes;
};
using LinearW4a8Few = LinearW4a8<LinearSample>;
struct LinearW4a8Sixteen : LinearW4a8Few {
    static constexpr uint32_t cols = 2, shared_bytes = 16384;
};
using LinearW4a8Odd = LinearW4a8<LinearSampleOdd>;
using LinearW4a8Parts = LinearW4a8<LinearSampleParts>;
struct LinearW4a8PanelHalf : LinearW4a8<LinearSamplePanel> {
    static constexpr uint32_t cols = 4, shared_bytes = 16384;
};
struct LinearW4a8Panel : LinearW4a8PanelHalf {
    static constexpr uint32_t cols = 8, groups = 8, threads = 256, shared_bytes = 32768;
};
struct LinearW4a8Fold : LinearW4a8<LinearSampleFold> {
    static constexpr uint32_t shared_bytes = 16384 + 2 * x_pitch;
};
struct LinearSampleE4m3 : LinearSampleHead {
    static constexpr Format format = FORMAT_E4M3;
};
struct LinearSampleE4m3One : LinearSampleE4m3 {
    static constexpr uint32_t cols = 1, round = 12, shared_bytes = 98304;
};
struct LinearSamplePanelE4m3 : LinearSamplePanelHead {
    static constexpr Format format = FORMAT_E4M3;
};
struct LinearSamplePanelE4m3Pair : LinearSampleParts {
    static constexpr uint32_t round = 2, parts = 1;
    static constexpr Format format = FORMAT_E4M3;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads, S::per_sm)                                      \
        name(const __grid_constant__ Args<10> args) {                                                        \
        linear<S>(args);                                                                                     \
    }
SAMPLE(linear_sample, LinearSample)
SAMPLE(linear_sample_head, LinearSampleHead)
SAMPLE(linear_sample_add, LinearSampleAdd)
SAMPLE(linear_sample_fold, LinearSampleFold)
SAMPLE(linear_sample_odd, LinearSampleOdd)
SAMPLE(linear_sample_panel, LinearSamplePanel)
SAMPLE(linear_sample_parts, LinearSampleParts)
SAMPLE(linear_sample_pairs, LinearSamplePairs)
SAMPLE(linear_sample_kept, LinearSampleKept)
SAMPLE(linear_sample_panel_head, LinearSamplePanelHead)
SAMPLE(linear_w4a8, LinearW4a8Few)
SAMPLE(linear_w4a8_sixteen, LinearW4a8Sixteen)
SAMPLE(linear_w4a8_odd, LinearW4a8Odd)
SAMPLE(linear_w4a8_fold, LinearW4a8Fold)
SAMPLE(linear_w4a8_panel, LinearW4a8Panel)
SAMPLE(linear_w4a8_parts, LinearW4a8Parts)
SAMPLE(linear_w4a8_panel_half, LinearW4a8PanelHalf)
SAMPLE(linear_sample_e4m3, LinearSampleE4m3)
SAMPLE(linear_sample_e4m3_one, LinearSampleE4m3One)
SAMPLE(linear_sample_panel_e4m3, LinearSamplePanelE4m3)
SAMPLE(linear_sample_panel_e4m3_pair, LinearSamplePanelE4m3Pair)
#endif
