// RoPE of a token's heads, by a warp each: what rope_write does, and attention where it does rope_write's
// work.
#ifndef ADALLM_LIB_ROPE_CUH
#define ADALLM_LIB_ROPE_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/kv.cuh"
#include "templates/lib/math.cuh"
#include "templates/lib/reduce.cuh"

// A head in the registers of a warp: pair j of a lane is dimensions i = lane + 32 j and i + D/2.
template <class S> struct RopeHead {
    static constexpr uint32_t HALF = S::head_dim / 2, EACH = (HALF + 31) / 32,
                              HEADS = S::heads + 2 * S::kv_heads;
    static constexpr uint32_t MANY = 65; // tokens of a launch,
    static constexpr uint32_t RUN = 16;  // and of those whose values a warp then takes
    uint32_t pos, slot;
    float x[EACH][2], norm[EACH][2], freq[EACH];

    static __device__ __forceinline__ uint32_t dim(uint32_t j) { return threadIdx.x % 32 + 32 * j; }
    static __device__ __forceinline__ bool holds(uint32_t j) {
        return HALF % 32 == 0 || j + 1 < EACH || dim(j) < HALF;
    }

    // Everything at once: one way to memory and back.
    __device__ __forceinline__ void load(const Args<12> &a, uint32_t token, uint32_t head) {
        const float *from = (const float *)a.p[0] + ((uint64_t)token * HEADS + head) * S::head_dim;
        const float *norms = (const float *)(head < S::heads ? a.p[1] : a.p[2]),
                    *freqs = (const float *)a.p[3];
        pos = ((const uint32_t *)a.p[5])[token], slot = ((const uint32_t *)a.p[6])[token];
        const bool turns = head < S::heads + S::kv_heads;
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++)
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                x[j][h] = holds(j) ? from[dim(j) + h * HALF] : 0;
                if constexpr (S::has_norm) norm[j][h] = turns && holds(j) ? norms[dim(j) + h * HALF] : 0;
            }
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++) freq[j] = turns && holds(j) ? freqs[dim(j)] : 0;
    }

    __device__ __forceinline__ void turn() {
        if constexpr (S::has_norm) {
            float squares = 0;
#pragma unroll
            for (uint32_t j = 0; j < EACH; j++)
                squares = fmaf(x[j][1], x[j][1], fmaf(x[j][0], x[j][0], squares));
            const float factor = rsqrtf(warp_sum(squares) / (float)S::head_dim + S::eps);
#pragma unroll
            for (uint32_t j = 0; j < EACH; j++)
#pragma unroll
                for (uint32_t h = 0; h < 2; h++) x[j][h] = x[j][h] * factor * norm[j][h];
        }
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++) {
            float sine, cosine;
            sincos_f32((float)pos * freq[j], &sine, &cosine);
            sine *= S::factor, cosine *= S::factor;
            const float low = x[j][0], high = x[j][1];
            x[j][0] = fmaf(low, cosine, -(high * sine)); // wherever it is compiled
            x[j][1] = fmaf(high, cosine, low * sine);
        }
    }

    __device__ __forceinline__ void store_query(float *out) const {
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++)
            if (holds(j)) out[dim(j)] = x[j][0], out[dim(j) + HALF] = x[j][1];
    }

    // As E4M3: f(dimension, code).
    template <class F> __device__ __forceinline__ void each_code(float scale, F f) const {
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++) {
            if (!holds(j)) continue;
            const uint32_t pair = cvt_rn_satfinite_e4m3x2_f32(x[j][0] / scale, x[j][1] / scale);
            f(dim(j), (uint8_t)pair), f(dim(j) + HALF, (uint8_t)(pair >> 8));
        }
    }

    // `stride` bytes from one dimension to the next.
    __device__ __forceinline__ void store_cached(uint8_t *out, uint32_t stride, float scale) const {
        each_code(scale, [&](uint32_t d, uint8_t code) { out[d * stride] = code; });
    }

    // Head h of the token, as loaded, to where it belongs.
    __device__ __forceinline__ void write(const Args<12> &a, uint32_t token, uint32_t h) {
        const bool cached = h >= S::heads, value = h >= S::heads + S::kv_heads;
        uint8_t *page = nullptr;
        float scale = 1;
        if (cached) { // asked for before it is needed
            page = kv_page<S>(a.p[8], (const int32_t *)a.p[7], slot, pos);
            scale = ((const float *)a.p[4])[value];
        }
        if (!value) turn();
        const uint32_t line = pos % S::page_tokens;
        if (!cached)
            store_query((float *)a.p[9] + ((uint64_t)token * S::heads + h) * S::head_dim);
        else if (!value)
            store_cached(page + kv_key_offset<S>(h - S::heads, line), 1, scale);
        else
            store_cached(page + kv_value_offset<S>(h - S::heads - S::kv_heads, 0, line), S::page_tokens,
                         scale);
    }
};
#endif
