// The decode form of attention: up to 64 tokens, whatever sequences they are of.
//
// An item is (token, KV head, part); blocks take items in turn. Eight warps take eight pages at a time:
// each makes the scores of one page, they agree on the running maxima, and then each takes D / 8 columns of O
// through all eight pages in order. What a part of many leaves goes to `work`, and the block that leaves the
// last one merges them all.
//
// work: 64 KiB of counters, one a (token, KV head); then for each of those PARTS_MAX parts of
// O [GROUP][D], maximum [GROUP], sum [GROUP], fp32.
#ifndef ADALLM_LIB_ATTENTION_FEW_CUH
#define ADALLM_LIB_ATTENTION_FEW_CUH
#include "templates/lib/attention.cuh"

constexpr uint32_t FEW_WARPS = 8, FEW_TOKENS = 64;

template <class S> struct AttentionFew {
    using H = Heads<S>;
    static constexpr uint32_t D = H::D, GROUP = H::GROUP, WARP_TILES = (H::TILES + FEW_WARPS - 1) / FEW_WARPS,
                              PART_FLOATS = GROUP * (D + 2), PART_SUMS = GROUP * D;
    // Registers suffice for all loads of a round at once; else these blocks of D and these pages of V are
    // loaded at a time.
    static constexpr bool EARLY = D <= 128;
    static constexpr uint32_t KEY_BLOCKS = EARLY ? H::BLOCKS : 1, VALUE_PAGES = EARLY ? 8 : 2;
    static_assert(S::threads == FEW_WARPS * 32, "eight warps");
    static_assert(FEW_TOKENS * S::kv_heads <= WORK_COUNTERS_BYTES / 4,
                  "a counter for each token and KV head");

    struct Shared {
        uint4 p[FEW_WARPS][PAGE_STEPS][32];
        float most[FEW_WARPS][QUERY_ROWS], alpha[FEW_WARPS][QUERY_ROWS], sum[FEW_WARPS][QUERY_ROWS];
        uint32_t arrived;
    };
    Shared &shared;
    const uint8_t *pool;  // of the layer and the KV head
    const int32_t *table; // of the sequence
    uint32_t warp, lane, g, q;
    QueryRows rows;
    uint32_t query[H::BLOCKS][PAGE_STEPS][4];
    float o[WARP_TILES][4], most[2], sum[2];

    __device__ __forceinline__ AttentionFew(Shared &s)
        : shared(s), warp(__shfl_sync(~0u, threadIdx.x / 32, 0)), lane(threadIdx.x % 32), g(lane / 4),
          q(lane % 4) {}

    __device__ __forceinline__ void load_keys(uint4 (&k)[KEY_BLOCKS][SCORE_TILES], const uint8_t *page,
                                              uint32_t b0, bool have) const {
#pragma unroll
        for (uint32_t b = 0; b < KEY_BLOCKS; b++)
#pragma unroll
            for (uint32_t t = 0; t < SCORE_TILES; t++) {
                const uint32_t col = (b0 + b) * 64 + q * 16;
                k[b][t] = make_uint4(0, 0, 0, 0);
                if (have && col < D) k[b][t] = ld_global_nc_v4(page + key_row(g, t) * D + col);
            }
    }

    __device__ __forceinline__ const uint8_t *page_at(uint32_t page) const {
        return pool + (uint64_t)(uint32_t)table[page % S::pages_per_seq] * S::page_bytes;
    }

    // The warp's columns of pages j0 .. of the n from `page` on.
    __device__ __forceinline__ void load_values(uint4 (&v)[VALUE_PAGES][WARP_TILES], uint32_t page,
                                                uint32_t j0, uint32_t n) const {
        const uint8_t *at[VALUE_PAGES];
#pragma unroll
        for (uint32_t j = 0; j < VALUE_PAGES; j++) at[j] = page_at(page + min(j0 + j, n - 1));
#pragma unroll
        for (uint32_t j = 0; j < VALUE_PAGES; j++)
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++) {
                const uint32_t tile = warp * WARP_TILES + i;
                v[j][i] = make_uint4(0, 0, 0, 0);
                if (j0 + j < n && tile < H::TILES)
                    v[j][i] = ld_global_nc_v4(at[j] + S::kv_heads * D * PAGE_KEYS + tile * 8 * PAGE_KEYS +
                                              lane * 16);
            }
    }

    // V of the warp's page on its way to L2, where registers do not suffice to wait for it.
    __device__ __forceinline__ void prefetch_values(const uint8_t *page) const {
        for (uint32_t at = lane * 128; at < D * PAGE_KEYS; at += 32 * 128)
            prefetch_global_l2(page + S::kv_heads * D * PAGE_KEYS + at);
    }

    __device__ __forceinline__ void load_query(const float *x, float factor) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t row = g + 8 * i;
            const float *mine = row < GROUP ? x + row * D : nullptr;
            if (i == 0 || GROUP > 8) {
                rows.factor[i] = __fmul_rn(factor, query_row<D, (D > 64)>(mine, i, q, query));
            } else {
                rows.factor[i] = 0;
#pragma unroll
                for (uint32_t b = 0; b < H::BLOCKS; b++)
#pragma unroll
                    for (uint32_t j = 0; j < PAGE_STEPS; j++) query[b][j][1] = query[b][j][3] = 0;
            }
        }
    }

    // The warp's own page, whose keys start at key0, against the maxima of all pages up to it. All threads.
    __device__ __forceinline__ void softmax(float (&s)[SCORE_TILES][4], int32_t key0) {
        float mine[2], before[2] = {most[0], most[1]}, now[2], total[2];
        score_finish<S, true>(s, rows, key0, mine);
        if (q == 0) shared.most[warp][g] = mine[0], shared.most[warp][g + 8] = mine[1];
        __syncthreads();
#pragma unroll
        for (uint32_t w = 0; w < FEW_WARPS; w++)
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                most[i] = fmaxf(most[i], shared.most[w][g + 8 * i]);
                if (w < warp) before[i] = most[i];
                if (w <= warp) now[i] = most[i];
            }
        score_exp<true>(s, now, total);
#pragma unroll
        for (uint32_t j = 0; j < PAGE_STEPS; j++) shared.p[warp][j][lane] = probabilities(s, j);
        if (q == 0) {
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                shared.sum[warp][g + 8 * i] = total[i];
                shared.alpha[warp][g + 8 * i] = ex2_approx(__fsub_rn(before[i], now[i]));
            }
        }
        __syncthreads();
    }

    // O of this warp's columns through pages j0 .. of the round.
    __device__ __forceinline__ void add_values(const uint4 (&v)[VALUE_PAGES][WARP_TILES], int32_t key0,
                                               uint32_t j0, uint32_t n) {
#pragma unroll
        for (uint32_t j = 0; j < VALUE_PAGES; j++) {
            if (j0 + j >= n) break;
            const int32_t begin = rows.first[0] - key0 - (int32_t)((j0 + j) * PAGE_KEYS),
                          end = rows.pos[0] + 1 - key0 - (int32_t)((j0 + j) * PAGE_KEYS);
            const uint4 mask = value_mask(begin, end);
            uint32_t p[PAGE_STEPS][4];
#pragma unroll
            for (uint32_t step = 0; step < PAGE_STEPS; step++) {
                const uint4 a = shared.p[j0 + j][step][lane];
                p[step][0] = a.x, p[step][1] = a.y, p[step][2] = a.z, p[step][3] = a.w;
            }
            const float alpha[2] = {shared.alpha[j0 + j][g], shared.alpha[j0 + j][g + 8]};
#pragma unroll
            for (uint32_t i = 0; i < 2; i++)
                sum[i] = __fmaf_rn(sum[i], alpha[i], shared.sum[j0 + j][g + 8 * i]);
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++)
                if (warp * WARP_TILES + i < H::TILES) {
                    value_rescale(o[i], alpha);
                    value_tile(o[i], p, masked(v[j][i], mask));
                }
        }
    }

    // Up to eight pages from `page` on. `x`: the queries, to be read in the shadow of the first keys; else
    // NULL.
    __device__ __forceinline__ void round(uint32_t page, uint32_t n, const float *x, float factor) {
        const bool have = warp < n; // a page of its own
        const uint8_t *mine = page_at(page + min(warp, n - 1));
        uint4 k[KEY_BLOCKS][SCORE_TILES], v[VALUE_PAGES][WARP_TILES];
        float s[SCORE_TILES][4] = {};
        load_keys(k, mine, 0, have);
        if (EARLY)
            load_values(v, page, 0, n);
        else if (have)
            prefetch_values(mine);
        if (x) load_query(x, factor);
#pragma unroll
        for (uint32_t b0 = 0; b0 < H::BLOCKS; b0 += KEY_BLOCKS) {
            if (b0) load_keys(k, mine, b0, have);
#pragma unroll
            for (uint32_t b = 0; b < KEY_BLOCKS; b++)
#pragma unroll
                for (uint32_t t = 0; t < SCORE_TILES; t++) score_tile(s[t], query[b0 + b], k[b][t]);
        }
        softmax(s, have ? (int32_t)((page + warp) * PAGE_KEYS) : INT32_MAX - (int32_t)PAGE_KEYS);
#pragma unroll
        for (uint32_t j0 = 0; j0 < FEW_WARPS; j0 += VALUE_PAGES)
            if (j0 < n) {
                if (!EARLY) load_values(v, page, j0, n);
                add_values(v, (int32_t)(page * PAGE_KEYS), j0, n);
            }
    }

    // Pages [begin, end) of one part.
    __device__ __forceinline__ void part(uint32_t begin, uint32_t end, const float *x, float factor) {
        most[0] = most[1] = MASKED, sum[0] = sum[1] = 0;
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0;
        for (uint32_t page = begin; page < end; page += FEW_WARPS)
            round(page, min(end - page, FEW_WARPS), page == begin ? x : nullptr, factor);
    }

    // f(row of the group, column, which of the lane's rows, O of two columns)
    template <class F> __device__ __forceinline__ void each_pair(F f) const {
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++)
#pragma unroll
            for (uint32_t r = 0; r < 2; r++) {
                const uint32_t tile = warp * WARP_TILES + i;
                if (tile < H::TILES && g + 8 * r < GROUP)
                    f(g + 8 * r, tile * 8 + 2 * q, r, o[i][2 * r], o[i][2 * r + 1]);
            }
    }

    // Leaves a part; true in the block that is the last of n to do so, which then sees them all.
    __device__ __forceinline__ bool leave(float *left, uint32_t *counter, uint32_t n) {
        each_pair([&](uint32_t row, uint32_t col, uint32_t, float x, float y) {
            *(float2 *)(left + row * D + col) = make_float2(x, y);
        });
        if (warp == 0 && q == 0)
            for (uint32_t r = 0; r < 2; r++)
                if (g + 8 * r < GROUP) {
                    left[PART_SUMS + g + 8 * r] = most[r];
                    left[PART_SUMS + GROUP + g + 8 * r] = sum[r];
                }
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            shared.arrived = atomicAdd(counter, 1);
            if (shared.arrived == n - 1) *counter = 0;
        }
        __syncthreads();
        __threadfence();
        return shared.arrived == n - 1;
    }

    // Merges n parts from `left` on, oldest first, into halves of `out` from the group's first column on.
    static __device__ __forceinline__ void merge(const float *left, uint32_t n, uint8_t *row, uint32_t col0,
                                                 const float *kv_scale) {
        for (uint32_t i = threadIdx.x; i < GROUP * D / 2; i += S::threads) {
            const uint32_t head = i / (D / 2), col = i % (D / 2) * 2;
            float most = __ldcg(left + PART_SUMS + head), sum = __ldcg(left + PART_SUMS + GROUP + head);
            float2 o = __ldcg((const float2 *)(left + head * D + col));
#pragma unroll 4
            for (uint32_t p = 1; p < n; p++) {
                const float *next = left + p * PART_FLOATS;
                const float most_b = __ldcg(next + PART_SUMS + head),
                            sum_b = __ldcg(next + PART_SUMS + GROUP + head);
                const float2 b = __ldcg((const float2 *)(next + head * D + col));
                const Merge m = merge_parts(most, sum, most_b, sum_b);
                o.x = merge_value(m, o.x, b.x), o.y = merge_value(m, o.y, b.y);
            }
            out_store(row, col0 + head * D + col, o.x, o.y, out_factor(kv_scale, sum));
        }
    }
};

// The tokens of a launch, two a lane, and where the items of each begin.
template <class S> struct FewTokens {
    static constexpr uint32_t PART_KEYS = Heads<S>::PART * PAGE_KEYS;
    int32_t pos[2], slot[2];
    uint32_t parts[2], end[2], total; // `end`: parts of the tokens up to this one

    static __device__ __forceinline__ int32_t first_key(int32_t pos) {
        return S::window != 0 && pos >= (int32_t)S::window ? pos - (int32_t)S::window + 1 : 0;
    }
    __device__ __forceinline__ FewTokens(const int32_t *all_pos, const int32_t *all_slot, uint32_t n_tok)
        : total(0) {
        const uint32_t lane = threadIdx.x % 32;
        // There is always room for one token: a batch of one does not wait for the count first.
        pos[0] = all_pos[0], slot[0] = all_slot[0], pos[1] = slot[1] = 0;
        if (n_tok > 1)
#pragma unroll
            for (uint32_t i = 0; i < 2; i++)
                if (lane + 32 * i < n_tok) pos[i] = all_pos[lane + 32 * i], slot[i] = all_slot[lane + 32 * i];
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            parts[i] = lane + 32 * i < n_tok
                           ? (uint32_t)pos[i] / PART_KEYS - (uint32_t)first_key(pos[i]) / PART_KEYS + 1
                           : 0;
            end[i] = parts[i];
#pragma unroll
            for (uint32_t d = 1; d < 32; d *= 2) {
                const uint32_t below = __shfl_up_sync(~0u, end[i], d);
                if (lane >= d) end[i] += below;
            }
            end[i] += total;
            total = __shfl_sync(~0u, end[i], 31);
        }
    }
    // The token whose parts unit u is among.
    __device__ __forceinline__ uint32_t find(uint32_t u) const {
        return __popc(__ballot_sync(~0u, end[0] <= u)) + __popc(__ballot_sync(~0u, end[1] <= u));
    }
    template <class T> static __device__ __forceinline__ T of(const T (&x)[2], uint32_t token) {
        return __shfl_sync(~0u, token < 32 ? x[0] : x[1], token % 32);
    }
};

template <class S> __device__ void attention_few(const Args<10> &a) {
    using F = AttentionFew<S>;
    using H = Heads<S>;
    __shared__ typename F::Shared shared;
    const float *kv_scale = (const float *)a.p[2];
    uint8_t *work = (uint8_t *)a.p[8];
    const uint32_t n_tok = min(((const uint32_t *)a.p[7])[COUNT_TOKENS], FEW_TOKENS);
    const FewTokens<S> tokens((const int32_t *)a.p[4], (const int32_t *)a.p[5], n_tok);
    const float factor = score_factor<S>(kv_scale);
    F f(shared);
    for (uint32_t item = blockIdx.x; item < tokens.total * S::kv_heads; item += gridDim.x) {
        const uint32_t unit = item / S::kv_heads, kv_head = item % S::kv_heads, token = tokens.find(unit),
                       n = tokens.of(tokens.parts, token), local = unit + n - tokens.of(tokens.end, token);
        const int32_t pos = tokens.of(tokens.pos, token), first = tokens.first_key(pos);
        const uint32_t page0 = (uint32_t)first / PAGE_KEYS, page1 = (uint32_t)pos / PAGE_KEYS + 1,
                       part = page0 / H::PART + local;
        f.rows.first[0] = f.rows.first[1] = first, f.rows.pos[0] = f.rows.pos[1] = pos;
        f.table = (const int32_t *)a.p[3] + (uint64_t)tokens.of(tokens.slot, token) * S::pages_per_seq;
        f.pool = (const uint8_t *)a.p[1] + kv_head * H::D * PAGE_KEYS;
        f.part(max(page0, part * H::PART), min(page1, (part + 1) * H::PART),
               (const float *)a.p[0] + ((uint64_t)token * S::heads + kv_head * H::GROUP) * H::D, factor);
        uint8_t *row = (uint8_t *)a.p[6] + (uint64_t)token * S::out_pitch;
        const uint32_t pair = token * S::kv_heads + kv_head, col0 = kv_head * H::GROUP * H::D;
        if (n == 1) {
            const float out[2] = {out_factor(kv_scale, f.sum[0]), out_factor(kv_scale, f.sum[1])};
            f.each_pair([&](uint32_t head, uint32_t col, uint32_t r, float x, float y) {
                out_store(row, col0 + head * H::D + col, x, y, out[r]);
            });
        } else {
            float *left =
                (float *)(work + WORK_COUNTERS_BYTES) + (uint64_t)pair * H::PARTS_MAX * F::PART_FLOATS;
            if (f.leave(left + local * F::PART_FLOATS, (uint32_t *)work + pair, n))
                f.merge(left, n, row, col0, kv_scale);
        }
        if (kv_head == 0 && local == 0 && threadIdx.x == 0) out_finish<S>(row, kv_scale);
    }
}
#endif
