// bring-up only: one block of 64 threads a (token, head), keys one after the other
#include "templates/lib/args.cuh"
#include "templates/lib/math.cuh"
#include "templates/lib/prefetch.cuh"
#include "templates/lib/ptx.cuh"
__device__ __forceinline__ float e4m3f(uint8_t b) {
    uint32_t h = cvt_rn_f16x2_e4m3x2(b);
    return cvt_f32_f16((uint16_t)h);
}
template <class S> __device__ void attention(const Args<10> &a) {
    prefetch_next<S::next_bytes>(a.p[9]);
    const float *q = (const float *)a.p[0], *kvs = (const float *)a.p[2];
    const int32_t *bt = (const int32_t *)a.p[3], *pos = (const int32_t *)a.p[4],
                  *slot = (const int32_t *)a.p[5];
    const uint32_t n = ((const uint32_t *)a.p[7])[COUNT_TOKENS];
    constexpr uint32_t D = S::head_dim, G = S::heads / S::kv_heads, HD = S::heads * D;
    __shared__ float part[64];
    float scale = 1;
    while (448 * kvs[1] / scale >= 32768) scale *= 2;
    while (448 * kvs[1] / scale < 16384) scale *= 0.5f;
    for (uint32_t item = blockIdx.x; item < n * S::heads; item += gridDim.x) {
        const uint32_t t = item / S::heads, h = item % S::heads, kvh = h / G, p = pos[t];
        const uint32_t first = S::window && p >= S::window ? p - S::window + 1 : 0;
        float m = -1e30f, l = 0, o[(D + 63) / 64] = {};
        for (uint32_t key = first; key <= p; key++) {
            const uint8_t *page =
                (const uint8_t *)a.p[1] +
                (uint64_t)bt[slot[t] * S::pages_per_seq + key / 64 % S::pages_per_seq] * S::page_bytes;
            const uint8_t *k = page + ((uint64_t)kvh * 64 + key % 64) * D,
                          *v = page + (uint64_t)S::kv_heads * 64 * D + (uint64_t)kvh * D * 64 + key % 64;
            float s = 0;
            for (uint32_t d = threadIdx.x; d < D; d += 64) s += q[(uint64_t)t * HD + h * D + d] * e4m3f(k[d]);
            part[threadIdx.x] = s;
            __syncthreads();
            s = 0;
            for (int i = 0; i < 64; i++) s += part[i];
            __syncthreads();
            s *= S::scale * kvs[0];
            if constexpr (S::softcap != 0) s = softcap(s, S::softcap);
            const float mn = fmaxf(m, s), f = expf(m - mn), e = expf(s - mn);
            l = l * f + e, m = mn;
            for (uint32_t d = threadIdx.x, i = 0; d < D; d += 64, i++) o[i] = o[i] * f + e * e4m3f(v[d * 64]);
        }
        uint8_t *row = (uint8_t *)a.p[6] + (uint64_t)t * S::out_pitch;
        for (uint32_t d = threadIdx.x, i = 0; d < D; d += 64, i++)
            ((uint16_t *)row)[h * D + d] = cvt_rn_f16_f32(o[i] / l * kvs[1] / scale);
        if (h == 0) {
            for (uint32_t i = HD + threadIdx.x; i < act_halves(HD); i += 64) ((uint16_t *)row)[i] = 0;
            if (threadIdx.x == 0) {
                ActMeta meta = {};
                meta.scale = scale;
                meta.l1 = HD * 448 * kvs[1];
                *act_meta(row, HD) = meta;
            }
        }
    }
}
