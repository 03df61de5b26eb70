// What the sampler is made of: where its rows keep what they found, the largest of many logits, sums over a
// block, and the selection of a logit by rank or by weight.
#ifndef ADALLM_LIB_SAMPLE_CUH
#define ADALLM_LIB_SAMPLE_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/ptx.cuh"

enum : uint32_t {
    SAMPLE_WARPS = 16,
    SAMPLE_CHUNK = 128,
    SAMPLE_CHUNKS_MAX = 2560,
    SAMPLE_BINS = 2048,
    AHEAD = 4
};
constexpr uint32_t SAMPLE_THREADS = 32 * SAMPLE_WARPS, SAMPLE_BINS_EACH = SAMPLE_BINS / SAMPLE_THREADS;
constexpr uint64_t SAMPLE_BAD = ~0ull; // a logit of the part is not finite
constexpr float LOG2E = 1.44269504f, F32_MOST = 3.402823466e38f;

// Of a row of the work buffer.
template <class S> struct SampleLayout {
    static constexpr uint32_t chunks = (S::vocab + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK;
    static constexpr uint32_t each = (chunks + SAMPLE_THREADS - 1) / SAMPLE_THREADS; // chunks of a thread
    static constexpr uint64_t align(uint64_t n) { return (n + 255) / 256 * 256; }
    static constexpr uint64_t stats = align(8ull * S::blocks); // float2[chunks]: largest, sum of weights
    static constexpr uint64_t raw =
        stats + align(8ull * chunks); // the same of unchanged logits, for logprobs
    static constexpr uint64_t adjusted = raw + align(8ull * chunks); // f32[chunks * SAMPLE_CHUNK]
    static constexpr uint64_t row_bytes = adjusted + align(4ull * SAMPLE_CHUNK * chunks);
};

struct SampleShared {
    union {
        struct {
            uint32_t low[SAMPLE_BINS], high[SAMPLE_BINS]; // of 64-bit sums
        } bins;
        uint64_t mass[SAMPLE_CHUNKS_MAX];
        uint32_t ties[SAMPLE_CHUNKS_MAX];
        struct {
            int32_t id[BIAS_MAX];
            float x[BIAS_MAX];
        } bias;
    };
    uint16_t live[SAMPLE_CHUNKS_MAX]; // chunks to look at, ascending
    uint64_t warp[SAMPLE_WARPS];
    uint64_t above, at, rest;
    uint32_t bin, chunk, id, n_top, tie;
    bool last; // this block finishes the row
    float top_x[LOGPROBS_MAX];
    uint32_t top_id[LOGPROBS_MAX];
};

// ---- small things ----------------------------------------------------------------------------------------

__device__ __forceinline__ uint64_t sample_mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
// The host's random number times 2^64: its upper 53 bits, and zeros.
__device__ __forceinline__ uint64_t sample_random(uint64_t seed, uint64_t step) {
    const uint64_t golden = 0x9E3779B97F4A7C15u;
    return sample_mix(sample_mix(seed + golden) + step * golden) & ~2047ull;
}

// Integers in the order of the floats; -0 counts as 0.
__device__ __forceinline__ uint32_t sample_key(float x) {
    const uint32_t u = __float_as_uint(x + 0.0f);
    return u ^ (u >> 31 ? 0xFFFFFFFFu : 0x80000000u);
}
__device__ __forceinline__ float sample_value(uint32_t key) {
    return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xFFFFFFFFu));
}

__device__ __forceinline__ uint64_t sample_fixed(float weight) { return __float2ull_rn(weight * 0x1p44f); }

// scale: log2(e) / temperature, finite.
__device__ __forceinline__ float sample_weight(float x, float max, float scale) {
    return ex2_approx((x - max) * scale);
}

__device__ __forceinline__ uint32_t sample_lane() { return threadIdx.x % 32; }
__device__ __forceinline__ uint32_t sample_warp() { return threadIdx.x / 32; }
__device__ __forceinline__ float component(const float4 &v, uint32_t j) {
    return j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w;
}

// v without what stands past the vocabulary.
template <class S> __device__ __forceinline__ float4 sample_pad(float4 v, uint32_t i, float fill) {
    if (S::vocab % SAMPLE_CHUNK == 0) return v;
    if (i >= S::vocab) v.x = fill;
    if (i + 1 >= S::vocab) v.y = fill;
    if (i + 2 >= S::vocab) v.z = fill;
    if (i + 3 >= S::vocab) v.w = fill;
    return v;
}

// Four logits; `fill` past the vocabulary. i is a multiple of 4.
template <class S> __device__ __forceinline__ float4 sample_load(const float *row, uint32_t i, float fill) {
    float4 v = {fill, fill, fill, fill};
    if (S::vocab_rows % 4 == 0) {
        if (i < S::vocab) v = *(const float4 *)(row + i);
    } else {
        if (i < S::vocab) v.x = row[i];
        if (i + 1 < S::vocab) v.y = row[i + 1];
        if (i + 2 < S::vocab) v.z = row[i + 2];
        if (i + 3 < S::vocab) v.w = row[i + 3];
    }
    return sample_pad<S>(v, i, fill);
}

// ---- the largest -----------------------------------------------------------------------------------------

struct SampleBest {
    float x = -INFINITY, bad = 0; // bad: a NaN when any was not finite
    uint32_t id = ~0u;
};

__device__ __forceinline__ void sample_take(SampleBest &b, const float4 &v, uint32_t i) {
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        const float x = component(v, j);
        if (x > b.x) b.x = x, b.id = i + j;
    }
}
__device__ __forceinline__ void sample_check(SampleBest &b, const float4 &v) {
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) b.bad = fmaf(component(v, j), 0.0f, b.bad);
}

// Key above, inverted id below: the largest is the largest logit with the lowest id. The same in all lanes.
__device__ __forceinline__ uint64_t sample_largest(uint32_t key, uint32_t inverted) {
    const uint32_t top = __reduce_max_sync(~0u, key);
    return (uint64_t)top << 32 | __reduce_max_sync(~0u, key == top ? inverted : 0);
}

__device__ __forceinline__ uint64_t sample_warp_best(const SampleBest &b) {
    const uint64_t best = sample_largest(sample_key(b.x), ~b.id);
    return __any_sync(~0u, b.bad != b.bad) ? SAMPLE_BAD : best;
}

// The largest of packed[0, n), for a whole warp.
__device__ __forceinline__ uint64_t sample_warp_largest(const uint64_t *packed, uint32_t n) {
    uint64_t best = 0;
#pragma unroll 4
    for (uint32_t i = sample_lane(); i < n; i += 32) {
        const uint64_t more = __ldcg((const unsigned long long *)packed + i);
        best = more > best ? more : best;
    }
    return sample_largest((uint32_t)(best >> 32), (uint32_t)best);
}

// ---- sums over the block ---------------------------------------------------------------------------------

// The sum of the threads before; *total: of all. All threads call it.
__device__ uint64_t sample_before(SampleShared &m, uint64_t x, uint64_t *total) {
    uint64_t sum = x;
#pragma unroll
    for (uint32_t d = 1; d < 32; d *= 2) {
        const uint64_t up = __shfl_up_sync(~0u, sum, d);
        if (sample_lane() >= d) sum += up;
    }
    __syncthreads();
    if (sample_lane() == 31) m.warp[sample_warp()] = sum;
    __syncthreads();
    uint64_t before = 0, all = 0;
#pragma unroll
    for (uint32_t w = 0; w < SAMPLE_WARPS; w++) {
        if (w < sample_warp()) before += m.warp[w];
        all += m.warp[w];
    }
    *total = all;
    return before + sum - x;
}

// Below 2^46 in each lane.
__device__ __forceinline__ uint64_t sample_warp_sum(uint64_t x) {
    const uint64_t high = __reduce_add_sync(~0u, (uint32_t)(x >> 24));
    return (high << 24) + __reduce_add_sync(~0u, (uint32_t)x & 0xFFFFFF);
}

// ---- selection -------------------------------------------------------------------------------------------

__device__ __forceinline__ void sample_add(SampleShared &m, uint32_t bin, uint32_t n) {
    atomicAdd(&m.bins.low[bin], n);
}
__device__ __forceinline__ void sample_add(SampleShared &m, uint32_t bin, uint64_t weight) {
    const uint32_t low = (uint32_t)weight;
    const uint32_t carry = atomicAdd(&m.bins.low[bin], low) + low < low,
                   high = (uint32_t)(weight >> 32) + carry;
    if (high) atomicAdd(&m.bins.high[bin], high);
}

struct SampleCut {
    uint32_t key;       // what is larger stays
    uint64_t above, at; // weight of what is larger, and of what is equal
};

// The key at which the weights, from the largest down, reach `target`. visit(add) calls add(key, weight) for
// every candidate; keys outside [low, high] are passed over, and those above `high` must not exist. Three
// rounds at most: bins of equal width over what is left of the range. The lowest key when all do not reach
// it.
template <class Visit>
__device__ SampleCut sample_select(SampleShared &m, uint32_t low, uint32_t high, uint64_t target,
                                   const Visit &visit) {
    uint64_t above = 0, all;
    for (;;) {
        const uint32_t shift = high - low < SAMPLE_BINS ? 0 : 21 - __clz(high - low);
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < SAMPLE_BINS; i += SAMPLE_THREADS)
            m.bins.low[i] = m.bins.high[i] = 0;
        if (threadIdx.x == 0) m.bin = 0, m.above = above, m.at = 0;
        __syncthreads();
        visit([&](uint32_t key, auto weight) {
            if (key - low <= high - low) sample_add(m, (key - low) >> shift, weight());
        });
        __syncthreads();
        const uint32_t first = SAMPLE_BINS_EACH * (SAMPLE_THREADS - 1 - threadIdx.x);
        uint64_t bin[SAMPLE_BINS_EACH], sum = 0;
#pragma unroll
        for (uint32_t j = 0; j < SAMPLE_BINS_EACH; j++) {
            bin[j] = (uint64_t)m.bins.high[first + j] << 32 | m.bins.low[first + j];
            sum += bin[j];
        }
        uint64_t before = above + sample_before(m, sum, &all);
        if (before < target && before + sum >= target) {
#pragma unroll
            for (uint32_t j = SAMPLE_BINS_EACH; j-- > 0;) {
                if (before < target && before + bin[j] >= target)
                    m.bin = first + j, m.above = before, m.at = bin[j];
                before += bin[j];
            }
        }
        __syncthreads();
        low += m.bin << shift;
        const uint32_t end = low + ((1u << shift) - 1);
        high = end < high && end >= low ? end : high;
        above = m.above;
        if (!shift) return {low, above, m.at};
    }
}

// The largest logits of the chunks that belong to this thread; their keys.
template <class S> struct SampleChunks {
    float2 stat[SampleLayout<S>::each];
    __device__ void load(const uint8_t *stats) {
#pragma unroll
        for (uint32_t j = 0; j < SampleLayout<S>::each; j++) {
            const uint32_t c = threadIdx.x * SampleLayout<S>::each + j;
            stat[j] = c < SampleLayout<S>::chunks ? __ldcg((const float2 *)stats + c) : float2{-INFINITY, 0};
        }
    }
    // In units of 2^-44 of the weight of max.
    __device__ uint64_t mass(uint32_t j, float max, float scale) const {
        return stat[j].y > 0 ? sample_fixed(stat[j].y * sample_weight(stat[j].x, max, scale)) : 0;
    }
    // A key that the k-th largest logit is not below.
    __device__ uint32_t least(SampleShared &m, uint32_t k, uint32_t max_key) const {
        if (k > SampleLayout<S>::chunks) return 0;
        return sample_select(m, 0, max_key, k,
                             [&](auto add) {
                                 for (uint32_t j = 0; j < SampleLayout<S>::each; j++)
                                     if (threadIdx.x * SampleLayout<S>::each + j < SampleLayout<S>::chunks)
                                         add(sample_key(stat[j].x), [] { return 1u; });
                             })
            .key;
    }
    // Fills m.live with the chunks that reach `key`; how many.
    __device__ uint32_t keep(SampleShared &m, uint32_t key) const {
        uint32_t n = 0;
        uint64_t all;
        for (uint32_t j = 0; j < SampleLayout<S>::each; j++)
            n += stat[j].y > 0 && sample_key(stat[j].x) >= key;
        uint32_t at = (uint32_t)sample_before(m, n, &all);
        for (uint32_t j = 0; j < SampleLayout<S>::each; j++)
            if (stat[j].y > 0 && sample_key(stat[j].x) >= key)
                m.live[at++] = (uint16_t)(threadIdx.x * SampleLayout<S>::each + j);
        __syncthreads();
        return (uint32_t)all;
    }
};

// f(x, id) for every logit of the live chunks.
template <class S, class F>
__device__ void sample_each(SampleShared &m, const float *row, uint32_t n_live, const F &f) {
#pragma unroll 1
    for (uint32_t w = sample_warp(); w < n_live; w += AHEAD * SAMPLE_WARPS) {
        float4 v[AHEAD];
        uint32_t i[AHEAD];
#pragma unroll
        for (uint32_t a = 0; a < AHEAD; a++) {
            const uint32_t at = w + a * SAMPLE_WARPS;
            i[a] = at < n_live ? m.live[at] * SAMPLE_CHUNK + 4 * sample_lane() : S::vocab;
            v[a] = sample_load<S>(row, i[a], -INFINITY);
        }
#pragma unroll
        for (uint32_t a = 0; a < AHEAD; a++)
#pragma unroll
            for (uint32_t j = 0; j < 4; j++)
                if (i[a] + j < S::vocab) f(component(v[a], j), i[a] + j);
    }
}

// The id of the n-th logit, from 1, of those equal to `key`.
template <class S>
__device__ uint32_t sample_nth_tie(SampleShared &m, const float *row, uint32_t n_live, uint32_t key,
                                   uint64_t n) {
    __syncthreads();
#pragma unroll 1
    for (uint32_t w = sample_warp(); w < n_live; w += SAMPLE_WARPS) {
        const float4 v = sample_load<S>(row, m.live[w] * SAMPLE_CHUNK + 4 * sample_lane(), NAN);
        uint32_t ties = 0;
        for (uint32_t j = 0; j < 4; j++) ties += sample_key(component(v, j)) == key;
        ties = __reduce_add_sync(~0u, ties);
        if (sample_lane() == 0) m.ties[w] = ties;
    }
    __syncthreads();
    constexpr uint32_t each = SampleLayout<S>::each;
    uint64_t mine = 0, all;
    for (uint32_t j = 0; j < each; j++)
        if (threadIdx.x * each + j < n_live) mine += m.ties[threadIdx.x * each + j];
    uint64_t before = sample_before(m, mine, &all);
    if (threadIdx.x == 0) m.tie = ~0u;
    __syncthreads();
    if (before < n && before + mine >= n) {
        uint32_t w = threadIdx.x * each;
#pragma unroll 1
        while (before + m.ties[w] < n) before += m.ties[w++];
#pragma unroll 1
        for (uint32_t i = m.live[w] * SAMPLE_CHUNK;; i++)
            if (sample_key(row[i]) == key && ++before == n) {
                m.tie = i;
                break;
            }
    }
    __syncthreads();
    return m.tie;
}
#endif
