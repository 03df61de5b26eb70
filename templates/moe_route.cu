// moe_route: the k experts with the largest logits (ties to the lowest index), largest first, and their share
// of the softmax over all experts, divided by the sum of the chosen when `norm`. A warp a token.
#include "templates/lib/args.cuh"
#include "templates/lib/math.cuh"
#include "templates/lib/reduce.cuh"

// Integers in the order of the floats; -0 counts as 0, NaN as whatever its bits say, and nothing is 0.
__device__ __forceinline__ uint32_t route_key(float x) {
    const uint32_t u = __float_as_uint(x + 0.0f);
    return max(u ^ (u >> 31 ? 0xFFFFFFFFu : 0x80000000u), 1u);
}
__device__ __forceinline__ float route_value(uint32_t key) {
    return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xFFFFFFFFu));
}

template <class S>
__device__ __forceinline__ void route_token(const float *logits, int32_t *ids, float *weights) {
    constexpr uint32_t EACH = (S::experts + 31) / 32;
    const uint32_t lane = threadIdx.x % 32;
    float x[EACH];
    uint32_t key[EACH]; // 0: taken, or no expert
#pragma unroll
    for (uint32_t j = 0; j < EACH; j++) {
        const uint32_t e = lane + 32 * j;
        x[j] = e < S::experts ? logits[e] : 0;
        key[j] = e < S::experts ? route_key(x[j]) : 0;
    }
    uint32_t my_id = 0, my_key = 0; // of the choice that has the lane's number
    float top = 0;
#pragma unroll 1
    for (uint32_t c = 0; c < S::k; c++) {
        uint32_t best = 0;
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++) best = max(best, key[j]);
        best = __reduce_max_sync(~0u, best);
        uint32_t id = ~0u;
#pragma unroll
        for (uint32_t j = EACH; j-- > 0;)
            if (key[j] == best) id = lane + 32 * j;
        id = __reduce_min_sync(~0u, id);
#pragma unroll
        for (uint32_t j = 0; j < EACH; j++)
            if (id == lane + 32 * j) key[j] = 0;
        if (c == 0) top = route_value(best);
        if (c == lane) my_id = id, my_key = best;
    }
    float all = 0;
#pragma unroll
    for (uint32_t j = 0; j < EACH; j++)
        if (lane + 32 * j < S::experts) all += exp_f32(x[j] - top);
    all = warp_sum(all);
    float weight = lane < S::k ? exp_f32(route_value(my_key) - top) / all : 0;
    if constexpr (S::norm) weight /= warp_sum(weight);
    if (lane < S::k) ids[lane] = (int32_t)my_id, weights[lane] = weight;
}

template <class S> __device__ void moe_route(const Args<4> &a) {
    static_assert(S::experts <= 512 && S::k <= 32 && S::k <= S::experts,
                  "up to 512 experts, 32 of them a token");
    const uint32_t n_tokens = ((const uint32_t *)a.p[3])[COUNT_TOKENS], step = gridDim.x * (S::threads / 32);
    for (uint32_t token = (blockIdx.x * S::threads + threadIdx.x) / 32; token < n_tokens; token += step)
        route_token<S>((const float *)a.p[0] + (uint64_t)token * S::experts,
                       (int32_t *)a.p[1] + (uint64_t)token * S::k, (float *)a.p[2] + (uint64_t)token * S::k);
}

#ifndef INSTANCE
struct RouteQwen3 {
    static constexpr uint32_t experts = 128, k = 8, norm = 1, threads = 64, shared_bytes = 0;
};
struct RouteMost {
    static constexpr uint32_t experts = 512, k = 32, norm = 0, threads = 64, shared_bytes = 0;
};
struct RouteFew {
    static constexpr uint32_t experts = 5, k = 5, norm = 1, threads = 64, shared_bytes = 0;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<4> args) {    \
        moe_route<S>(args);                                                                                  \
    }
SAMPLE(moe_route_qwen3, RouteQwen3)
SAMPLE(moe_route_most, RouteMost)
SAMPLE(moe_route_few, RouteFew)
#endif
