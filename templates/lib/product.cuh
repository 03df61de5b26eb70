// What becomes of the sums of a matrix product. A lane holds mma's D of a row tile and 8 tokens: rows g and
// g + 8, columns 2q and 2q + 1, in the order (g, 2q) (g, 2q + 1) (g + 8, 2q) (g + 8, 2q + 1).
#ifndef ADALLM_LIB_PRODUCT_CUH
#define ADALLM_LIB_PRODUCT_CUH
#include "templates/lib/math.cuh"
#include "templates/lib/stage.cuh"

// What the end of a decode product multiplies with, in shared memory before it is needed: factors of ROWS
// rows, and what stands behind the halves of the tokens' rows.
template <uint32_t ROWS, uint32_t TOKENS> struct ProductFactors {
    float row[ROWS];
    ActMeta x[TOKENS];
    __device__ __forceinline__ void fetch_row(uint32_t i, const float *from) {
        cp_async_4(shared_address(row + i), from);
    }
    __device__ __forceinline__ void fetch_x(uint32_t i, const ActMeta *from) {
        cp_async_16(shared_address(x + i), from);
    }
};

// The sums leave as f32 [column, stride], y = sum * row_scale * the token's scale + bias, capped;
// with S::add on top of what is there. meta(column), out_row(column): of a column below `n_columns`.
template <class S, class Meta, class OutRow>
__device__ __forceinline__ void product_store(uint32_t tile, uint32_t column, uint32_t n_columns,
                                              const float (&sums)[4], const float *row_scale,
                                              const float *bias, Meta meta, OutRow out_row) {
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    float scale[2], add[2] = {0, 0};
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t row = tile * TILE_ROWS + g + 8 * h;
        scale[h] = row < S::n ? row_scale[row] * stage_factor(S::format, S::x_e4m3) : 0;
        if constexpr (S::has_bias) add[h] = row < S::n ? bias[row] : 0;
    }
#pragma unroll
    for (uint32_t e = 0; e < 2; e++) {
        const uint32_t token = column + 2 * q + e;
        if (token >= n_columns) continue;
        const float x_scale = meta(token)->scale;
        float *out = out_row(token);
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            const uint32_t row = tile * TILE_ROWS + g + 8 * h;
            float y = sums[2 * h + e] * scale[h] * x_scale;
            if constexpr (S::has_bias) y += add[h];
            if constexpr (S::softcap != 0) y = softcap(y, S::softcap);
            if (row >= S::n) continue;
            if constexpr (S::add)
                red_global_add_f32(out + row, y); // this thread alone adds to it
            else
                out[row] = y;
        }
    }
}

// The scale of a row of act(gate) * up. No |gate| or |up| is larger than l1 of the input times the largest
// weight, and no |act(x)| larger than |x|.
__device__ __forceinline__ float gated_scale(float l1, float w_bound, float *most) {
    const float bound = l1 * w_bound;
    *most = bound * bound;
    if (!(*most > 0)) return 1;
    int e;
    frexpf(fminf(*most, 3e38f), &e); // most <= 2^e
    return ldexpf(1, max(e - 15, -126));
}

// What gating needs of a token: the scale of its row of x, and what brings y to the row that is made.
struct GatedToken {
    float x_scale, shrink; // a power of two: as exact as a division by the row's scale
};
__device__ __forceinline__ GatedToken gated_token(const ActMeta *x, float w_bound) {
    float most;
    return {x->scale, 1 / gated_scale(x->l1, w_bound, &most)};
}

template <Act A> __device__ __forceinline__ float gated(float gate, float up) {
    return (A == ACT_SILU ? silu(gate) : gelu_tanh(gate)) * up;
}

// Tiles of pairs: rows 0-7 are gates, 8-15 the ups of the same outputs. They leave as halves of act rows.
// gated_of(column): its GatedToken.
template <class S, class GatedOf, class OutRow>
__device__ __forceinline__ void
product_store_gated(uint32_t tile, uint32_t column, uint32_t n_columns, const float (&sums)[4],
                    const float *gate_scales, const float *up_scales, GatedOf gated_of, OutRow out_row) {
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, q = lane % 4, i = tile * 8 + g;
    if (i >= S::f) return;
    const float gate_scale = gate_scales[i] * stage_factor(S::format, S::x_e4m3),
                up_scale = up_scales[i] * stage_factor(S::format, S::x_e4m3);
#pragma unroll
    for (uint32_t e = 0; e < 2; e++) {
        const uint32_t token = column + 2 * q + e;
        if (token >= n_columns) continue;
        const GatedToken x = gated_of(token);
        const float y = gated<S::act>(sums[e] * gate_scale * x.x_scale, sums[2 + e] * up_scale * x.x_scale);
        ((uint16_t *)out_row(token))[i] = cvt_rn_f16_f32(y * x.shrink);
    }
}

// What stands behind the halves of a row of gated values, by the threads of one block.
template <class S>
__device__ __forceinline__ void product_end_row(const ActMeta *x, void *out_row, float w_bound, uint32_t i) {
    constexpr uint32_t PADDING = act_halves(S::f) - S::f;
    if constexpr (PADDING != 0)
        if (i < PADDING) ((uint16_t *)out_row)[S::f + i] = 0;
    if (i) return;
    float most;
    ActMeta meta = {};
    meta.scale = gated_scale(x->l1, w_bound, &most);
    meta.l1 = most * S::f;
    *act_meta(out_row, S::f) = meta;
}
#endif
