// sample: next[r] from logits[r], equal in meaning to host/sample.h. S::blocks blocks share a row: each looks
// at its part of the ids, and the one that arrives last finishes the row, so that no block ever waits for
// another.
//
// Ids are taken in chunks of 128, one 16-byte load of each lane of a warp. A greedy row needs its largest
// logit alone. Of any other row the first pass keeps, chunk by chunk, the largest logit and the sum of
// weights 2^((x - largest) * log2(e) / temperature); from these the last block knows which chunks hold
// anything that can survive the cuts, for top_k and top_p mostly a few, and looks at their logits again: no
// sort, no list of ids. A draw without cuts looks at one chunk.
//
// Weights beyond a chunk are integers, in units of 2^-44 of the largest: their sums are exact, so that
// neither the order of atomics nor the number of blocks shows in a result. Ids differ from the host's only
// where the random number falls within rounding (about 1e-6) of a boundary between two ids, or a cut within
// it of one.
//
// work: 64 KiB of counters, one a row; then SampleLayout::row_bytes for each row.
#include "templates/lib/sample.cuh"

// ---- the draw --------------------------------------------------------------------------------------------

struct SampleKept {
    uint32_t key = 0, last = ~0u; // larger ones stay, and equal ones up to id `last`
    float max, scale, min_p;
    __device__ uint64_t weight(float x, uint32_t id) const {
        const uint32_t k = sample_key(x);
        const float e = sample_weight(x, max, scale);
        return (k > key || (k == key && id <= last)) && e >= min_p ? sample_fixed(e) : 0;
    }
};

// top_k and top_p over the live chunks; total: of all weights, when known.
template <class S>
__device__ void sample_cuts(SampleShared &m, const float *row, const SamplingRow &r, uint32_t n_live,
                            uint64_t total, SampleKept &kept) {
    const uint32_t max_key = sample_key(kept.max);
    const bool cut_k = r.top_k && r.top_k < S::vocab;
    const auto fixed = [&](float x) { return sample_fixed(sample_weight(x, kept.max, kept.scale)); };
    uint64_t stay = 0, equal = 0; // of the logits at kept.key: how many stay, how many there are
    if (cut_k) {
        const SampleCut cut = sample_select(m, 0, max_key, r.top_k, [&](auto add) {
            sample_each<S>(m, row, n_live, [&](float x, uint32_t) { add(sample_key(x), [] { return 1u; }); });
        });
        kept.key = cut.key, equal = cut.at;
        stay = cut.at ? r.top_k - cut.above : 0; // 0: fewer than top_k are allowed at all
    }
    if (r.top_p < 1) {
        const uint32_t key = kept.key;
        const uint64_t ties = cut_k ? stay * fixed(sample_value(key)) : 0;
        if (cut_k) {
            uint64_t mine = 0;
            sample_each<S>(m, row, n_live,
                           [&](float x, uint32_t) { mine += sample_key(x) > key ? fixed(x) : 0; });
            sample_before(m, mine, &total);
            total += ties;
        }
        const uint64_t target = (uint64_t)ceil((double)r.top_p * (double)total);
        const SampleCut cut = sample_select(m, key, max_key, target ? target : 1, [&](auto add) {
            if (threadIdx.x == 0 && ties) add(key, [&] { return ties; });
            sample_each<S>(m, row, n_live, [&](float x, uint32_t) {
                if (sample_key(x) > key || !cut_k) add(sample_key(x), [&] { return fixed(x); });
            });
        });
        const uint64_t each = fixed(sample_value(cut.key));
        const uint64_t wanted = each && cut.at ? (target - cut.above + each - 1) / each : ~0ull;
        if (!cut_k || cut.key > key) stay = ~0ull, equal = each ? cut.at / each : 0;
        stay = wanted < stay ? wanted : stay;
        kept.key = cut.key;
    }
    if (stay < equal) kept.last = sample_nth_tie<S>(m, row, n_live, kept.key, stay);
}

// The id at which the weights of the live chunks, in order, pass the random share of m.mass[0, n_live).
template <class S>
__device__ uint32_t sample_pick(SampleShared &m, const float *row, const SamplingRow &r, uint32_t n_live,
                                const SampleKept &kept, uint32_t likeliest) {
    constexpr uint32_t each = SampleLayout<S>::each;
    uint64_t mine = 0, total;
    for (uint32_t j = 0; j < each; j++)
        if (threadIdx.x * each + j < n_live) mine += m.mass[threadIdx.x * each + j];
    uint64_t before = sample_before(m, mine, &total);
    const uint64_t target = __umul64hi(sample_random(r.seed, r.step), total);
    if (before <= target && target < before + mine) {
        uint32_t w = threadIdx.x * each;
#pragma unroll 1
        while (target >= before + m.mass[w]) before += m.mass[w++];
        m.chunk = m.live[w], m.rest = target - before;
    }
    if (threadIdx.x == 0) m.id = likeliest;
    __syncthreads();
    if (sample_warp() == 0) {
        const uint32_t i = m.chunk * SAMPLE_CHUNK + 4 * sample_lane();
        const float4 v = sample_load<S>(row, i, -INFINITY);
        uint64_t weight[4], sum = 0;
        for (uint32_t j = 0; j < 4; j++) sum += weight[j] = kept.weight(component(v, j), i + j);
        uint64_t upto = sum;
        for (uint32_t d = 1; d < 32; d *= 2) {
            const uint64_t up = __shfl_up_sync(~0u, upto, d);
            if (sample_lane() >= d) upto += up;
        }
        // Without cuts the chunk's mass and these weights may differ by rounding: then its last one.
        const uint32_t passed = __ballot_sync(~0u, upto > m.rest), some = __ballot_sync(~0u, sum > 0);
        const uint32_t lane = passed ? __ffs(passed) - 1 : some ? 31 - __clz(some) : 32;
        if (sample_lane() == lane) {
            uint64_t left = upto - sum;
            for (uint32_t j = 0; j < 4; j++) {
                if (weight[j] && left <= m.rest) m.id = i + j;
                left += weight[j];
            }
        }
    }
    __syncthreads();
    return m.id;
}

template <class S>
__device__ uint32_t sample_draw(SampleShared &m, const float *row, const uint8_t *stats, const SamplingRow &r,
                                float scale, uint64_t best) {
    const uint32_t max_key = (uint32_t)(best >> 32), likeliest = ~(uint32_t)best;
    SampleKept kept;
    SampleChunks<S> chunks;
    kept.max = sample_value(max_key), kept.scale = scale, kept.min_p = fminf(r.min_p, 1);
    chunks.load(stats);
    const bool cut_k = r.top_k && r.top_k < S::vocab, cut_p = r.top_p < 1;
    uint64_t total = 0;
    uint32_t least = 0;
    if (cut_k) {
        least = chunks.least(m, r.top_k, max_key);
    } else if (cut_p) {
        uint64_t mine = 0;
        for (uint32_t j = 0; j < SampleLayout<S>::each; j++) mine += chunks.mass(j, kept.max, scale);
        sample_before(m, mine, &total);
        // All that is smaller weighs less than half of what top_p leaves over.
        const float share = (1 - r.top_p) * 0.5f * ((float)total * 0x1p-44f) / S::vocab;
        least = sample_key(fmaxf(kept.max + __log2f(share) / scale, -F32_MOST));
    } else if (r.min_p > 0) {
        // A little below, so that only the weight itself decides.
        least = sample_key(fmaxf(kept.max + (__log2f(r.min_p) - 1) / scale, -F32_MOST));
    }
    const uint32_t n_live = chunks.keep(m, least);
    if (cut_k || cut_p) sample_cuts<S>(m, row, r, n_live, total, kept);
    __syncthreads();
    if (cut_k || cut_p || r.min_p > 0) {
#pragma unroll 2
        for (uint32_t w = sample_warp(); w < n_live; w += SAMPLE_WARPS) {
            const uint32_t i = m.live[w] * SAMPLE_CHUNK + 4 * sample_lane();
            const float4 v = sample_load<S>(row, i, -INFINITY);
            uint64_t sum = 0;
            for (uint32_t j = 0; j < 4; j++) sum += kept.weight(component(v, j), i + j);
            sum = sample_warp_sum(sum);
            if (sample_lane() == 0) m.mass[w] = sum;
        }
    } else {
        // Live chunks are those that weigh anything: their places are the thread's own, counted again.
        uint64_t n = 0, all;
        for (uint32_t j = 0; j < SampleLayout<S>::each; j++) n += chunks.stat[j].y > 0;
        uint64_t at = sample_before(m, n, &all);
        for (uint32_t j = 0; j < SampleLayout<S>::each; j++)
            if (chunks.stat[j].y > 0) m.mass[at++] = chunks.mass(j, kept.max, scale);
    }
    __syncthreads();
    return sample_pick<S>(m, row, r, n_live, kept, likeliest);
}

// ---- logprobs --------------------------------------------------------------------------------------------

template <class S>
__device__ void sample_logprobs(SampleShared &m, const float *row, const uint8_t *raw, uint32_t top,
                                uint32_t id, LogprobRow *out) {
    SampleChunks<S> chunks;
    chunks.load(raw);
    uint32_t max_key = 0;
    for (uint32_t j = 0; j < SampleLayout<S>::each; j++) max_key = max(max_key, sample_key(chunks.stat[j].x));
    max_key = __reduce_max_sync(~0u, max_key);
    __syncthreads();
    if (sample_lane() == 0) m.warp[sample_warp()] = max_key;
    if (threadIdx.x == 0) m.n_top = 0;
    __syncthreads();
    for (uint32_t w = 0; w < SAMPLE_WARPS; w++) max_key = max(max_key, (uint32_t)m.warp[w]);
    const float largest = sample_value(max_key);
    uint64_t mine = 0, total;
    for (uint32_t j = 0; j < SampleLayout<S>::each; j++) mine += chunks.mass(j, largest, LOG2E);
    sample_before(m, mine, &total);
    const float norm = logf((float)total * 0x1p-44f);
    top = min(min(top, (uint32_t)LOGPROBS_MAX), (uint32_t)S::vocab);
    if (top) {
        const uint32_t n_live = chunks.keep(m, chunks.least(m, top, max_key));
        const SampleCut cut = sample_select(m, 0, max_key, top, [&](auto add) {
            sample_each<S>(m, row, n_live, [&](float x, uint32_t) { add(sample_key(x), [] { return 1u; }); });
        });
        const uint64_t stay = top - cut.above;
        const uint32_t last = stay < cut.at ? sample_nth_tie<S>(m, row, n_live, cut.key, stay) : ~0u;
        sample_each<S>(m, row, n_live, [&](float x, uint32_t i) {
            const uint32_t key = sample_key(x);
            if (key < cut.key || (key == cut.key && i > last)) return;
            const uint32_t at = atomicAdd(&m.n_top, 1);
            m.top_x[at] = x, m.top_id[at] = i;
        });
        __syncthreads();
    }
    if (threadIdx.x < top) {
        const float x = m.top_x[threadIdx.x];
        const uint32_t mine_id = m.top_id[threadIdx.x];
        uint32_t rank = 1;
#pragma unroll 1
        for (uint32_t j = 0; j < top; j++)
            rank += m.top_x[j] > x || (m.top_x[j] == x && m.top_id[j] < mine_id);
        out->id[rank] = (int32_t)mine_id, out->logprob[rank] = x - largest - norm;
    }
    if (threadIdx.x == 0) {
        out->id[0] = (int32_t)id, out->logprob[0] = row[id] - largest - norm;
        out->n = 1 + top, out->reserved = 0;
    }
}

// ---- one part of a row -----------------------------------------------------------------------------------

struct SampleState {
    uint16_t *counts; // [TOKEN_COLS]
    const TokenLists *lists;
    const uint32_t *mask; // [TOKEN_COLS / 32]
};

__device__ __forceinline__ float sample_penalised(const SamplingRow &r, float x, uint16_t count) {
    const uint32_t drawn = count & COUNT_MOST;
    if (count) x = x > 0 ? x / r.repetition : x * r.repetition;
    return drawn ? x - (float)drawn * r.frequency - r.presence : x;
}

// The chunk that begins at id `begin`, of which this lane holds four, as it is drawn from. m.bias: loaded.
template <class S>
__device__ float4 sample_adjust(const SampleShared &m, const SamplingRow &r, const SampleState &state,
                                uint32_t begin, const float4 &raw) {
    float x[4] = {raw.x, raw.y, raw.z, raw.w};
    const uint32_t i = begin + 4 * sample_lane();
    if (r.features & SAMPLE_BIAS) {
        uint32_t from = 0, to = r.n_bias; // the first whose id is not below begin
#pragma unroll 1
        while (from < to) {
            const uint32_t mid = (from + to) / 2;
            if ((uint32_t)m.bias.id[mid] < begin)
                from = mid + 1;
            else
                to = mid;
        }
#pragma unroll 1
        for (; from < r.n_bias && (uint32_t)m.bias.id[from] < begin + SAMPLE_CHUNK; from++)
            for (uint32_t j = 0; j < 4; j++)
                if (i + j == (uint32_t)m.bias.id[from]) x[j] += m.bias.x[from];
    }
    if (r.features & SAMPLE_PENALTIES) {
        const uint2 c = __ldcg((const uint2 *)(state.counts + i));
        const uint32_t count[4] = {c.x & 0xFFFF, c.x >> 16, c.y & 0xFFFF, c.y >> 16};
        for (uint32_t j = 0; j < 4; j++) x[j] = sample_penalised(r, x[j], (uint16_t)count[j]);
    }
    for (uint32_t j = 0; j < 4; j++) x[j] = fminf(fmaxf(x[j], -F32_MOST), F32_MOST);
    if (r.features & SAMPLE_MASK) {
        const uint32_t bits = state.mask[i / 32] >> i % 32;
        for (uint32_t j = 0; j < 4; j++) x[j] = bits >> j & 1 ? x[j] : -INFINITY;
    }
    if (r.features & SAMPLE_STOP && r.step < r.min_tokens)
#pragma unroll 1
        for (uint32_t s = 0; s < r.n_stop; s++)
            for (uint32_t j = 0; j < 4; j++)
                if ((uint32_t)state.lists->stop[s] == i + j) x[j] = -INFINITY;
    return {x[0], x[1], x[2], x[3]};
}

// Largest logit and sum of weights of the warp's chunk; padding is -infinity.
__device__ __forceinline__ void sample_stat(const float4 &v, float scale, float2 *out) {
    const float top = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
    const float max = sample_value(__reduce_max_sync(~0u, sample_key(top)));
    float sum = 0;
    if (max > -INFINITY)
        sum = (sample_weight(v.x, max, scale) + sample_weight(v.y, max, scale)) +
              (sample_weight(v.z, max, scale) + sample_weight(v.w, max, scale));
#pragma unroll
    for (uint32_t d = 16; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    if (sample_lane() == 0) *out = {max, sum};
}

// Any row that is not plainly greedy: chunks [begin, end). The best that this warp found.
template <class S>
__device__ uint64_t sample_part(SampleShared &m, const SamplingRow &r, const SampleState &state,
                                const float *logits, float scale, uint8_t *work, uint32_t begin,
                                uint32_t end) {
    typedef SampleLayout<S> Layout;
    const bool adjusts = r.features & SAMPLE_ADJUSTS;
    if (r.features & SAMPLE_BIAS) {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < r.n_bias; i += SAMPLE_THREADS)
            m.bias.id[i] = state.lists->bias_id[i], m.bias.x[i] = state.lists->bias[i];
        __syncthreads();
    }
    SampleBest best;
#pragma unroll 2
    for (uint32_t c = begin + sample_warp(); c < end; c += SAMPLE_WARPS) {
        const uint32_t i = c * SAMPLE_CHUNK + 4 * sample_lane();
        float4 v = sample_load<S>(logits, i, 0);
        sample_check(best, v);
        v = sample_pad<S>(v, i, -INFINITY);
        if (r.features & SAMPLE_LOGPROBS) sample_stat(v, LOG2E, (float2 *)(work + Layout::raw) + c);
        if (adjusts) {
            v = sample_pad<S>(sample_adjust<S>(m, r, state, c * SAMPLE_CHUNK, v), i, -INFINITY);
            *(float4 *)((float *)(work + Layout::adjusted) + i) = v;
        }
        if (r.temperature > 0) sample_stat(v, scale, (float2 *)(work + Layout::stats) + c);
        sample_take(best, v, i);
    }
    return sample_warp_best(best);
}

// ---- the kernel ------------------------------------------------------------------------------------------

template <class S> __device__ void sample(const Args<10> &a) {
    typedef SampleLayout<S> Layout;
    static_assert(S::threads == SAMPLE_THREADS, "sums over a block are laid out for this many threads");
    static_assert(Layout::chunks <= SAMPLE_CHUNKS_MAX, "a vocabulary has at most 327680 ids");
    static_assert(S::vocab <= S::vocab_rows && S::vocab > 0, "ids are columns of the logits");
    static_assert(S::blocks > 0 && S::shared_bytes >= sizeof(SampleShared),
                  "shared memory for the last block");
    extern __shared__ __align__(128) uint8_t shared[];
    SampleShared &m = *(SampleShared *)shared;
    SamplingRow *const sampling = (SamplingRow *)a.p[1];
    const uint32_t *const counts = (const uint32_t *)a.p[4];
    uint8_t *const work = (uint8_t *)a.p[5];
    constexpr uint32_t cols = TOKEN_COLS(S::vocab), per_part = (Layout::chunks + S::blocks - 1) / S::blocks;

    for (uint32_t task = blockIdx.x;; task += gridDim.x) {
        const uint32_t row = task / S::blocks, part = task % S::blocks;
        const uint32_t n_rows = counts[COUNT_ROWS];
        const uint32_t begin = min(part * per_part, Layout::chunks),
                       end = min(begin + per_part, Layout::chunks);
        const float *const logits = (const float *)a.p[0] + (size_t)row * S::vocab_rows;
        if (row != 0) { // row 0 reads on: at batch 1 nothing waits for the count
            uint32_t n = n_rows;
            asm volatile("" : "+r"(n)); // or both conditions become one, and everything waits
            if (row >= n) return;
        }
        const auto load = [&](uint32_t c, uint32_t n) {
            c += n * SAMPLE_WARPS;
            return sample_load<S>(logits, c < end ? c * SAMPLE_CHUNK + 4 * sample_lane() : S::vocab,
                                  -F32_MOST);
        };
        const float temperature = sampling[row].temperature;
        const uint32_t features = sampling[row].features;
        float4 first[AHEAD];
#pragma unroll
        for (uint32_t n = 0; n < AHEAD; n++) first[n] = load(begin + sample_warp(), n);
        const bool greedy = !(temperature > 0) && !features;
        float scale = 0;
        uint8_t *const mine = work + (64 << 10) + row * Layout::row_bytes;
        SamplingRow r = {};
        SampleState state = {};
        uint64_t best;
        if (greedy) {
            SampleBest b;
            for (uint32_t c = begin + sample_warp(); c < end; c += AHEAD * SAMPLE_WARPS) {
                float4 next[AHEAD];
#pragma unroll
                for (uint32_t n = 0; n < AHEAD; n++) next[n] = load(c + AHEAD * SAMPLE_WARPS, n);
#pragma unroll
                for (uint32_t n = 0; n < AHEAD; n++) {
                    sample_check(b, first[n]);
                    sample_take(b, first[n], (c + n * SAMPLE_WARPS) * SAMPLE_CHUNK + 4 * sample_lane());
                    first[n] = next[n];
                }
            }
            best = sample_warp_best(b);
        } else {
            if (row >= n_rows) return;
            r = sampling[row];
            scale = fminf(fmaxf(__fdividef(LOG2E, temperature), 1e-30f), F32_MOST);
            r.n_bias = min((uint32_t)r.n_bias, (uint32_t)BIAS_MAX);
            r.n_stop = min((uint32_t)r.n_stop, (uint32_t)STOP_MAX);
            state = {(uint16_t *)a.p[6] + (size_t)r.slot * cols, (const TokenLists *)a.p[7] + r.slot,
                     (const uint32_t *)a.p[8] + (size_t)r.slot * (cols / 32)};
            best = sample_part<S>(m, r, state, logits, scale, mine, begin, end);
        }
        if (row >= n_rows) return;
        if (sample_lane() == 0) m.warp[sample_warp()] = best;
        __syncthreads();
        if (sample_warp() == 0) {
            best = sample_lane() < SAMPLE_WARPS ? m.warp[sample_lane()] : 0;
            best = sample_largest((uint32_t)(best >> 32), (uint32_t)best);
            uint32_t last = 0;
            if (sample_lane() == 0) {
                ((uint64_t *)mine)[part] = best;
                __threadfence();
                last = S::blocks == 1 || atomicAdd((uint32_t *)work + row, 1) == S::blocks - 1;
                m.last = last;
                if (S::blocks > 1 && last) {
                    ((uint32_t *)work)[row] = 0;
                    __threadfence();
                }
            }
            last = __shfl_sync(~0u, last, 0);
            if (last) best = sample_warp_largest((const uint64_t *)mine, S::blocks);
            if (last && sample_lane() == 0) m.rest = best;
        }
        uint32_t id = ~(uint32_t)best;
        if (!greedy) {
            __syncthreads();
            if (!m.last) continue;
            best = m.rest;
            id = ~(uint32_t)best;
        }
        const uint32_t status = best == SAMPLE_BAD                                ? ROW_NOT_FINITE
                                : (uint32_t)(best >> 32) == sample_key(-INFINITY) ? ROW_NONE_ALLOWED
                                                                                  : ROW_OK;
        if (!greedy && status == ROW_OK) {
            const float *from =
                r.features & SAMPLE_ADJUSTS ? (const float *)(mine + Layout::adjusted) : logits;
            if (r.temperature > 0) id = sample_draw<S>(m, from, mine + Layout::stats, r, scale, best);
            if (r.features & SAMPLE_GIVEN) id = min((uint32_t)r.seed, (uint32_t)S::vocab_rows - 1);
            if (r.features & SAMPLE_LOGPROBS) {
                LogprobRow *const ring = (LogprobRow *)a.p[9] + counts[COUNT_STEP] % RING_SLOTS * S::rows_max;
                sample_logprobs<S>(m, logits, mine + Layout::raw, r.top_logprobs, id, ring + row);
            }
        }
        if (threadIdx.x == 0 && m.last) {
            ((int32_t *)a.p[2])[row] = status == ROW_OK ? (int32_t)id : 0;
            ((uint32_t *)a.p[3])[row] = status;
            sampling[row].step++;
            if (status == ROW_OK && r.features & SAMPLE_PENALTIES &&
                (state.counts[id] & COUNT_MOST) < COUNT_MOST)
                state.counts[id]++;
        }
        __syncthreads();
    }
}

#ifndef INSTANCE
struct SampleQwen3 {
    static constexpr uint32_t vocab_rows = 151936, vocab = 151669, rows_max = 64, blocks = 75;
    static constexpr uint32_t threads = SAMPLE_THREADS, shared_bytes = sizeof(SampleShared);
};
struct SampleGemma3 {
    static constexpr uint32_t vocab_rows = 262208, vocab = 262145, rows_max = 64, blocks = 4;
    static constexpr uint32_t threads = SAMPLE_THREADS, shared_bytes = sizeof(SampleShared);
};
struct SampleOdd {
    static constexpr uint32_t vocab_rows = 43, vocab = 41, rows_max = 16, blocks = 1;
    static constexpr uint32_t threads = SAMPLE_THREADS, shared_bytes = sizeof(SampleShared);
};
#define SAMPLE(name, spec)                                                                                   \
    extern "C" __global__ void __launch_bounds__(SAMPLE_THREADS, 1)                                          \
        name(const __grid_constant__ Args<10> a) {                                                           \
        sample<spec>(a);                                                                                     \
    }
SAMPLE(sample_qwen3, SampleQwen3)
SAMPLE(sample_gemma3, SampleGemma3)
SAMPLE(sample_odd, SampleOdd)
#endif
