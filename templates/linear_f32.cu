// linear_f32: out[t, n] = softcap(x[t] . w[n] + bias[n]), all in fp32: routers, which may be as small as 128
// x 2048. An output belongs to one warp: each lane sums its 4 columns of every 128 in order, then a fixed
// tree. So its bits do not depend on how outputs are dealt out: a row of w and few tokens a warp when there
// are few tokens (as many warps as there can be), 4 rows and 4 tokens when there are many (w and x used 4
// times).
#include "templates/lib/act.cuh"
#include "templates/lib/math.cuh"

// Threads of a block in the form for many tokens; any other number is the form for few.
constexpr uint32_t LINEAR_F32_MANY = 256;

template <class S> struct LinearF32 {
    static constexpr bool MANY = S::threads == LINEAR_F32_MANY;
    static constexpr uint32_t WARPS = S::threads / 32, ROWS = MANY ? 4 : 1, TOKENS = 4;
    static constexpr uint32_t STEPS = (S::k + 127) / 128;
    static constexpr uint32_t CHUNK = MANY ? 1 : STEPS < 16 ? STEPS : 16; // float4 of a row of w in registers
    static constexpr uint32_t ROW_BLOCKS = (S::n + WARPS * ROWS - 1) / (WARPS * ROWS);

    static __device__ __forceinline__ uint32_t column(uint32_t step) {
        return (step * 32 + threadIdx.x % 32) * 4;
    }
    static __device__ __forceinline__ bool holds(uint32_t step) {
        return (step + 1) * 128 <= S::k || (step < STEPS && column(step) < S::k);
    }
    static __device__ __forceinline__ float4 load_w(const float *row, uint32_t step) {
        return holds(step) ? *(const float4 *)(row + column(step)) : make_float4(0, 0, 0, 0);
    }
    static __device__ __forceinline__ float4 load_x(const uint8_t *row, float scale, uint32_t step) {
        if (!holds(step)) return make_float4(0, 0, 0, 0);
        if constexpr (S::wide) return *(const float4 *)(row + act_wide_offset(S::k) + 4 * column(step));
        return act_load4(row, column(step), scale);
    }
    static __device__ __forceinline__ void add(float &sum, const float4 &w, const float4 &x) {
        sum = fmaf(w.x, x.x, sum), sum = fmaf(w.y, x.y, sum);
        sum = fmaf(w.z, x.z, sum), sum = fmaf(w.w, x.w, sum);
    }

    const float *w[ROWS]; // rows beyond the last repeat it
    float4 ahead[ROWS][CHUNK];

    __device__ __forceinline__ void load_chunk(uint32_t step) {
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++)
#pragma unroll
            for (uint32_t c = 0; c < CHUNK; c++) ahead[r][c] = load_w(w[r], step + c);
    }
    // The first chunk of the rows is on its way before anything else is known.
    __device__ __forceinline__ uint32_t open(const float *weights, uint32_t row_block) {
        const uint32_t row = (row_block * WARPS + threadIdx.x / 32) * ROWS;
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) w[r] = weights + (uint64_t)min(row + r, S::n - 1) * S::k;
        load_chunk(0);
        return row;
    }

    // N tokens from `token` on; those beyond the last repeat it.
    template <uint32_t N>
    __device__ __forceinline__ void run(const Args<5> &a, uint32_t row, uint32_t token, uint32_t n_tokens) {
        const uint8_t *x[N];
        float scale[N], sum[ROWS][N] = {};
#pragma unroll
        for (uint32_t t = 0; t < N; t++) {
            x[t] = (const uint8_t *)a.p[0] + (uint64_t)min(token + t, n_tokens - 1) * S::x_pitch;
            scale[t] = S::wide ? 1 : act_meta(x[t], S::k)->scale;
        }
#pragma unroll 1
        for (uint32_t step = 0; step < STEPS; step += CHUNK) {
#pragma unroll
            for (uint32_t c = 0; c < CHUNK; c++)
#pragma unroll
                for (uint32_t t = 0; t < N; t++) {
                    const float4 v = load_x(x[t], scale[t], step + c);
#pragma unroll
                    for (uint32_t r = 0; r < ROWS; r++) add(sum[r][t], ahead[r][c], v);
                }
            if (step + CHUNK < STEPS) load_chunk(step + CHUNK);
        }
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++)
#pragma unroll
            for (uint32_t t = 0; t < N; t++) {
                float y = warp_sum(sum[r][t]);
                if (threadIdx.x % 32 || row + r >= S::n || token + t >= n_tokens) continue;
                if constexpr (S::has_bias) y += ((const float *)a.p[2])[row + r];
                if constexpr (S::softcap != 0) y = softcap(y, S::softcap);
                ((float *)a.p[3])[(uint64_t)(token + t) * S::out_stride + row + r] = y;
            }
    }
};

template <class S> __device__ void linear_f32(const Args<5> &a) {
    using L = LinearF32<S>;
    static_assert(S::k % 4 == 0, "rows are moved 16 bytes at a time");
    static_assert(S::x_pitch >= act_pitch(S::k, S::wide != 0) && S::x_pitch % 16 == 0,
                  "x is rows of activations");
    L l;
    uint32_t item = blockIdx.x, row = l.open((const float *)a.p[1], item % L::ROW_BLOCKS);
    const uint32_t n_tokens = ((const uint32_t *)a.p[4])[S::count];
    const uint32_t n_items = (n_tokens + L::TOKENS - 1) / L::TOKENS * L::ROW_BLOCKS;
    while (item < n_items) {
        const uint32_t token = item / L::ROW_BLOCKS * L::TOKENS;
        if (!L::MANY && n_tokens == 1)
            l.template run<1>(a, row, token, n_tokens);
        else
            l.template run<L::TOKENS>(a, row, token, n_tokens);
        item += gridDim.x;
        if (item < n_items) row = l.open((const float *)a.p[1], item % L::ROW_BLOCKS);
    }
}

#ifndef INSTANCE
struct RouterFew { // Qwen3-30B-A3B
    static constexpr uint32_t n = 128, k = 2048, out_stride = 128, has_bias = 0, count = 0,
                              x_pitch = 4112 + 8192, wide = 1, threads = 64, shared_bytes = 0;
    static constexpr float softcap = 0;
};
struct RouterMany : RouterFew {
    static constexpr uint32_t threads = LINEAR_F32_MANY;
};
struct RouterLarge : RouterFew {
    static constexpr uint32_t n = 512, k = 8192, out_stride = 512, x_pitch = 16400, wide = 0;
};
struct RouterOdd : RouterFew {
    static constexpr uint32_t n = 5, k = 48, out_stride = 6, x_pitch = 144, wide = 0, has_bias = 1;
    static constexpr float softcap = 30;
};
struct RouterOddMany : RouterOdd {
    static constexpr uint32_t threads = LINEAR_F32_MANY;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<5> args) {    \
        linear_f32<S>(args);                                                                                 \
    }
SAMPLE(router_few, RouterFew)
SAMPLE(router_many, RouterMany)
SAMPLE(router_large, RouterLarge)
SAMPLE(router_odd, RouterOdd)
SAMPLE(router_odd_many, RouterOddMany)
#endif
