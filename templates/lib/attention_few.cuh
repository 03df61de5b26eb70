// The decode form of attention: up to 64 tokens, whatever sequences they are of.
//
// An item is (token, KV head, part). Every block has a run of them, parts innermost, and takes each in rounds
// of a page a warp. The eight or four warps make the scores of one page each, agree on the running maxima,
// and then each takes its share of the columns of O through all pages of the round in order. A block merges
// the parts of a pair (token, KV head) as long as it has had all before them. What is missing others, of a
// pair whose parts several blocks share, goes to `work`, and the block that comes last merges it.
//
// The memory never waits for a round to end: keys and values of the next one are on their way to L2 before
// the scores of this one are made, and follow to registers as soon as there is room.
//
// work: 64 KiB of counters, one a (token, KV head); then for each of those PARTS_MAX parts of
// O [GROUP][D], maximum [GROUP], sum [GROUP], fp32.
#ifndef ADALLM_LIB_ATTENTION_FEW_CUH
#define ADALLM_LIB_ATTENTION_FEW_CUH
#include "templates/lib/attention.cuh"
#include "templates/lib/prefetch.cuh"

constexpr uint32_t FEW_TOKENS = 64;

template <class S> __device__ __forceinline__ uint32_t few_first_key(uint32_t pos) {
    return S::window != 0 && pos >= S::window ? pos - S::window + 1 : 0;
}

// How the items are dealt to the blocks.
struct FewDeal {
    uint32_t items;
    __device__ __forceinline__ bool single() const { return items <= gridDim.x; } // no block has two
    __device__ __forceinline__ uint32_t begin(uint32_t block) const {
        return single() ? min(block, items) : items * block / gridDim.x;
    }
    __device__ __forceinline__ uint32_t owner(uint32_t item) const {
        return single() ? item : ((item + 1) * gridDim.x - 1) / items;
    }
};

// The tokens of a launch, in shared memory: registers are scarce. Every warp writes all of it, the same
// values, and reads what it wrote: none waits for another.
struct FewTokens {
    uint32_t pos[FEW_TOKENS], slot[FEW_TOKENS], end[FEW_TOKENS]; // `end`: items of the tokens up to this one
    uint32_t n;

    template <class S> static __device__ __forceinline__ uint32_t parts(uint32_t pos) {
        constexpr uint32_t PART_KEYS = Heads<S>::PART * PAGE_KEYS;
        return pos / PART_KEYS - few_first_key<S>(pos) / PART_KEYS + 1;
    }

    // MOST: tokens of the launch.
    template <class S, uint32_t MOST>
    __device__ __forceinline__ void load(const uint32_t *all_pos, const uint32_t *all_slot,
                                         const uint32_t *counts) {
        const uint32_t lane = threadIdx.x % 32;
        // There is always room for one token: a batch of one does not wait for the count first.
        uint32_t p = all_pos[0], s = all_slot[0], total = 0;
        const uint32_t n_tok = min(counts[COUNT_TOKENS], MOST);
        n = n_tok;
        if (n_tok <= 1) {
            pos[0] = p, slot[0] = s, total = n_tok ? parts<S>(p) * S::kv_heads : 0;
            end[lane] = end[lane + 32] = total;
        } else {
#pragma unroll
            for (uint32_t t = lane; t < FEW_TOKENS; t += 32) {
                if (t < n_tok) p = all_pos[t], s = all_slot[t];
                uint32_t mine = t < n_tok ? parts<S>(p) * S::kv_heads : 0;
#pragma unroll
                for (uint32_t d = 1; d < 32; d *= 2) {
                    const uint32_t below = __shfl_up_sync(~0u, mine, d);
                    if (lane >= d) mine += below;
                }
                mine += total;
                pos[t] = p, slot[t] = s, end[t] = mine;
                total = __shfl_sync(~0u, mine, 31);
            }
        }
        __syncwarp();
    }
    __device__ __forceinline__ FewDeal deal() const { return {end[FEW_TOKENS - 1]}; }
    // The token that item i is of.
    __device__ __forceinline__ uint32_t find(uint32_t i) const {
        const uint32_t lane = threadIdx.x % 32;
        return __popc(__ballot_sync(~0u, end[lane] <= i)) + __popc(__ballot_sync(~0u, end[lane + 32] <= i));
    }
    // Those of the sequence of `token` at positions [first, last], as bits.
    template <uint32_t MOST>
    __device__ __forceinline__ uint64_t among(uint32_t token, uint32_t first, uint32_t last) const {
        const uint32_t lane = threadIdx.x % 32;
        const auto is = [&](uint32_t t) {
            return t < n && slot[t] == slot[token] && pos[t] >= first && pos[t] <= last;
        };
        uint64_t all = __ballot_sync(~0u, is(lane));
        if constexpr (MOST > 32) all |= (uint64_t)__ballot_sync(~0u, is(lane + 32)) << 32;
        return all;
    }
};

// Up to a page a warp of an item. Registers are scarce: what follows from these is not kept.
template <class S> struct FewRound {
    using H = Heads<S>;
    static constexpr uint32_t WARPS = S::threads / 32;
    uint32_t item, pair, pos; // pair: token x KV heads + KV head
    uint32_t page, end;       // pages [page, end) of the part are left
    uint32_t at;              // lane l: where in the pool page l % WARPS of the round is

    __device__ __forceinline__ uint32_t n() const { return min(end - page, WARPS); }
    __device__ __forceinline__ bool last() const { return end - page <= WARPS; }
    __device__ __forceinline__ uint32_t token() const { return pair / S::kv_heads; }
    __device__ __forceinline__ uint32_t kv_head() const { return pair % S::kv_heads; }
    __device__ __forceinline__ uint32_t first() const { return few_first_key<S>(pos); }
    // Which of the pair's parts it is, and of how many.
    __device__ __forceinline__ uint32_t local() const {
        return page / H::PART - first() / (PAGE_KEYS * H::PART);
    }
    __device__ __forceinline__ uint32_t parts() const { return FewTokens::parts<S>(pos); }

    __device__ __forceinline__ void start(const FewTokens &tokens, uint32_t i) {
        item = i;
        const uint32_t token = tokens.find(item);
        pos = tokens.pos[token];
        const uint32_t n = parts(), of_token = item + n * S::kv_heads - tokens.end[token];
        const uint32_t head = n == 1 ? of_token : of_token / n;
        pair = token * S::kv_heads + head;
        const uint32_t part = first() / (PAGE_KEYS * H::PART) + of_token - head * n;
        page = max(first() / PAGE_KEYS, part * H::PART);
        end = min(pos / PAGE_KEYS + 1, (part + 1) * H::PART);
    }
    __device__ __forceinline__ void find_pages(const FewTokens &tokens, const void *table) {
        const uint32_t mine = page + min(threadIdx.x % WARPS, n() - 1);
        at = ((const uint32_t *)table)[tokens.slot[token()] * S::pages_per_seq + mine % S::pages_per_seq];
    }
    // K of the round's page j.
    __device__ __forceinline__ const uint8_t *keys(const void *pool, uint32_t j) const {
        return (const uint8_t *)pool + (uint64_t)__shfl_sync(~0u, at, j) * S::page_bytes +
               kv_head() * (H::D * PAGE_KEYS);
    }
};

// Where queries and the newest keys come from: rope_write has left them in `q` and in the pool.
// lib/attention_rope.cuh is the other one.
template <class S> struct FewStored {
    static constexpr bool ROPE = false;
    static constexpr uint32_t MOST = FEW_TOKENS;
    struct Shared {};
    struct Work { // before a round
        __device__ __forceinline__ Work(const FewStored &, const FewTokens &, const FewRound<S> &, bool) {}
        __device__ __forceinline__ bool run(const FewStored &, Shared &, const FewTokens &,
                                            const FewRound<S> &) {
            return false;
        }
    };
};

template <class S, class From> struct AttentionFew {
    using H = Heads<S>;
    using Round = FewRound<S>;
    static constexpr uint32_t D = H::D, GROUP = H::GROUP;
    static constexpr uint32_t ROWS = GROUP > 8 ? 2 : 1; // of a lane
    static constexpr uint32_t WARPS = S::threads / 32, WARP_TILES = (H::TILES + WARPS - 1) / WARPS,
                              PART_FLOATS = GROUP * (D + 2), PART_SUMS = GROUP * D,
                              TO_VALUES = S::kv_heads * D * PAGE_KEYS;
    // Registers suffice for all loads of a round at once; else these blocks of D and these pages of V are
    // loaded at a time.
    static constexpr bool EARLY = D <= 128 && (D % 64 == 0 || ROWS == 1);
    // The compiler gives all these loads one scoreboard, and waits for the last of them where it wants the
    // first. So values follow the scores where few blocks have a second round, and go before its keys where
    // most do.
    static constexpr bool LATE = WARPS == 8;
    static constexpr uint32_t KEY_BLOCKS = EARLY ? H::BLOCKS : 1, VALUE_PAGES = EARLY ? WARPS : 2;
    static_assert(S::threads == 256 || S::threads == 128, "eight or four warps");
    static_assert(FEW_TOKENS * S::kv_heads <= WORK_MEETING / 4, "a counter for each token and KV head");

    struct Shared : From::Shared {
        uint2 p[WARPS][PAGE_STEPS][ROWS][32];
        float most[WARPS][QUERY_ROWS], alpha[WARPS][QUERY_ROWS], sum[WARPS][QUERY_ROWS];
        float kept_most[ROWS][S::threads], kept_sum[ROWS][S::threads]; // of the parts up to this one
        float2 kept[WARP_TILES][ROWS][S::threads];
        uint32_t arrived;
        FewTokens tokens;
    };
    Shared &shared;
    const Args<10> &a;
    const From &from;
    const uint32_t warp, lane, g, q;
    bool patches; // keys of the round are not in the pool yet
    uint4 k[KEY_BLOCKS][SCORE_TILES], v[VALUE_PAGES][WARP_TILES];
    uint32_t query[H::BLOCKS][PAGE_STEPS][4];
    float factor[2]; // of the scores of the lane's rows
    float o[WARP_TILES][4], most[2], sum[2];

    __device__ __forceinline__ AttentionFew(Shared &s, const Args<10> &a, const From &from)
        : shared(s), a(a), from(from), warp(__shfl_sync(~0u, threadIdx.x / 32, 0)), lane(threadIdx.x % 32),
          g(lane / 4), q(lane % 4), patches(false) {}

    // The warp has a page of its own in the round.
    __device__ __forceinline__ bool has(const Round &r) const { return warp < r.n(); }

    // Bytes of a page that the lane wants; if it does not, anything. Without a branch: behind one the
    // compiler would load into other registers, and wait for every load to move it.
    static __device__ __forceinline__ uint4 load_if(bool is, const uint8_t *page, uint32_t offset) {
        return ld_global_nc_v4(page + (is ? offset : 0));
    }

    // Blocks b0 .. of the warp's own page.
    __device__ __forceinline__ void load_keys(const Round &r, uint32_t b0) {
        const uint8_t *page = r.keys(a.p[1], warp);
#pragma unroll
        for (uint32_t b = 0; b < KEY_BLOCKS; b++)
#pragma unroll
            for (uint32_t t = 0; t < SCORE_TILES; t++) {
                const uint32_t col = (b0 + b) * 64 + q * 16;
                if (D % 64 && col >= D)
                    k[b][t] = make_uint4(0, 0, 0, 0);
                else
                    k[b][t] = load_if(has(r), page, key_row(g, t) * D + col);
            }
    }

    // The warp's columns of pages j0 .. of the round.
    __device__ __forceinline__ void load_values(const Round &r, uint32_t j0) {
        const uint32_t n = r.n();
#pragma unroll
        for (uint32_t j = 0; j < VALUE_PAGES; j++) {
            const uint8_t *page = r.keys(a.p[1], j0 + j) + TO_VALUES;
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++) {
                const uint32_t tile = warp * WARP_TILES + i;
                v[j][i] = load_if(j0 + j < n && tile < H::TILES, page, tile * 8 * PAGE_KEYS + lane * 16);
            }
        }
    }

    // There is no next round: nor is what stands in the registers wanted any more.
    template <uint32_t N, uint32_t M> static __device__ __forceinline__ void nothing(uint4 (&x)[N][M]) {
#pragma unroll
        for (uint32_t i = 0; i < N; i++)
#pragma unroll
            for (uint32_t j = 0; j < M; j++) x[i][j] = anything_v4();
    }

    // K or V of the warp's own page on their way to L2, `offset` bytes from K.
    __device__ __forceinline__ void prefetch(const Round &r, uint32_t offset) const {
        const uint8_t *page = r.keys(a.p[1], warp) + offset;
        if (has(r))
            for (uint32_t at = lane * 128; at < D * PAGE_KEYS; at += 32 * 128) prefetch_global_l2(page + at);
    }

    // The queries, in the shadow of the keys.
    __device__ __forceinline__ void load_query(const Round &r) {
        if (!has(r)) return;
        if constexpr (From::ROPE) {
            from.take_query(shared, query, factor);
            return;
        }
        const float *x = (const float *)a.p[0] + ((uint64_t)r.token() * S::heads + r.kv_head() * GROUP) * D;
        const float scale = score_factor<S>((const float *)a.p[2]);
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t row = g + 8 * i;
            const float *mine = row < GROUP ? x + row * D : nullptr;
            if (i == 0 || GROUP > 8) {
                factor[i] = __fmul_rn(scale, query_row<D, (D > 64)>(mine, i, q, query));
            } else {
                factor[i] = 0;
#pragma unroll
                for (uint32_t b = 0; b < H::BLOCKS; b++)
#pragma unroll
                    for (uint32_t j = 0; j < PAGE_STEPS; j++) query[b][j][1] = query[b][j][3] = 0;
            }
        }
    }

    __device__ __forceinline__ void scores(float (&s)[SCORE_TILES][4], const Round &r) {
#pragma unroll
        for (uint32_t b0 = 0; b0 < H::BLOCKS; b0 += KEY_BLOCKS) {
            if (b0) load_keys(r, b0);
            if constexpr (From::ROPE)
                if (patches && has(r)) from.patch_keys(shared, shared.tokens, warp, b0, k);
            if (has(r))
#pragma unroll
                for (uint32_t b = 0; b < KEY_BLOCKS; b++)
#pragma unroll
                    for (uint32_t t = 0; t < SCORE_TILES; t++) score_tile(s[t], query[b0 + b], k[b][t]);
        }
    }

    // The warp's own page against the maxima of all pages up to it. All threads.
    __device__ __forceinline__ void softmax(float (&s)[SCORE_TILES][4], const Round &r) {
        float mine[2] = {MASKED, MASKED}, before[2] = {most[0], most[1]}, now[2], total[2];
        const int32_t first = (int32_t)r.first(), pos = (int32_t)r.pos;
        const QueryRows rows = {{first, first}, {pos, pos}, {factor[0], factor[1]}};
        if (has(r)) score_finish<S, true, ROWS>(s, rows, (int32_t)((r.page + warp) * PAGE_KEYS), mine);
#pragma unroll
        for (uint32_t i = 0; i < ROWS; i++)
            if (q == 0) shared.most[warp][g + 8 * i] = mine[i];
        __syncthreads();
#pragma unroll
        for (uint32_t w = 0; w < WARPS; w++)
#pragma unroll
            for (uint32_t i = 0; i < ROWS; i++) {
                most[i] = fmaxf(most[i], shared.most[w][g + 8 * i]);
                if (w < warp) before[i] = most[i];
                if (w <= warp) now[i] = most[i];
            }
        if (has(r)) {
            score_exp<true, ROWS>(s, now, total);
#pragma unroll
            for (uint32_t j = 0; j < PAGE_STEPS; j++) {
                const uint4 x = probabilities(s, j);
                shared.p[warp][j][0][lane] = make_uint2(x.x, x.z);
                if constexpr (ROWS == 2) shared.p[warp][j][1][lane] = make_uint2(x.y, x.w);
            }
            if (q == 0)
#pragma unroll
                for (uint32_t i = 0; i < ROWS; i++) {
                    shared.sum[warp][g + 8 * i] = total[i];
                    shared.alpha[warp][g + 8 * i] = ex2_approx(__fsub_rn(before[i], now[i]));
                }
        }
        __syncthreads();
    }

    // O of this warp's columns through pages j0 .. of the round.
    __device__ __forceinline__ void add_values(const Round &r, uint32_t j0) {
#pragma unroll
        for (uint32_t j = 0; j < VALUE_PAGES; j++) {
            if (j0 + j >= r.n()) break;
            if constexpr (From::ROPE)
                if (patches) from.patch_values(shared, shared.tokens, j0 + j, warp * WARP_TILES, v[j]);
            const int32_t key0 = (int32_t)((r.page + j0 + j) * PAGE_KEYS);
            const uint4 mask = value_mask((int32_t)r.first() - key0, (int32_t)r.pos + 1 - key0);
            uint32_t p[PAGE_STEPS][4] = {};
            float alpha[2] = {1, 1};
#pragma unroll
            for (uint32_t i = 0; i < ROWS; i++) {
#pragma unroll
                for (uint32_t step = 0; step < PAGE_STEPS; step++) {
                    const uint2 x = shared.p[j0 + j][step][i][lane];
                    p[step][i] = x.x, p[step][i + 2] = x.y;
                }
                alpha[i] = shared.alpha[j0 + j][g + 8 * i];
                sum[i] = __fmaf_rn(sum[i], alpha[i], shared.sum[j0 + j][g + 8 * i]);
            }
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++)
                if (warp * WARP_TILES + i < H::TILES) {
                    value_rescale(o[i], alpha);
                    value_tile(o[i], p, masked(v[j][i], mask));
                }
        }
    }

    __device__ __forceinline__ void begin_part() {
        most[0] = most[1] = MASKED, sum[0] = sum[1] = 0;
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0;
    }

    // What can be asked for before the round's turn: `first` of the launch.
    __device__ __forceinline__ void ask_first(const Round &r) {
        if (!EARLY) return;
        load_keys(r, 0);
        if (LATE)
            prefetch(r, TO_VALUES);
        else
            load_values(r, 0);
    }

    // A round, and loads of the next one if there is `more`.
    __device__ __forceinline__ void round(const Round &now, const Round &next, bool more) {
        float s[SCORE_TILES][4] = {};
        if (!EARLY) load_keys(now, 0), prefetch(now, TO_VALUES);
        load_query(now);
        if (more) prefetch(next, 0), prefetch(next, TO_VALUES);
        scores(s, now);
        if (EARLY && LATE) load_values(now, 0);
        if (EARLY) more ? load_keys(next, 0) : nothing(k);
        softmax(s, now);
#pragma unroll
        for (uint32_t j0 = 0; j0 < WARPS; j0 += VALUE_PAGES)
            if (j0 < now.n()) {
                if (!EARLY) load_values(now, j0);
                add_values(now, j0);
            }
        if (EARLY && !LATE) more ? load_values(next, 0) : nothing(v);
    }

    // f(row of the group, column, which of the lane's rows, O of two columns)
    template <class F> __device__ __forceinline__ void each_pair(F f) const {
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++)
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++) {
                const uint32_t tile = warp * WARP_TILES + i;
                if (tile < H::TILES && g + 8 * r < GROUP)
                    f(g + 8 * r, tile * 8 + 2 * q, r, o[i][2 * r], o[i][2 * r + 1]);
            }
    }

    // The sums of all parts up to this one, until the next one is there.
    __device__ __forceinline__ void keep() {
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) {
            shared.kept_most[r][threadIdx.x] = most[r], shared.kept_sum[r][threadIdx.x] = sum[r];
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++)
                shared.kept[i][r][threadIdx.x] = make_float2(o[i][2 * r], o[i][2 * r + 1]);
        }
    }
    __device__ __forceinline__ void join_kept() {
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) {
            float before = shared.kept_most[r][threadIdx.x], total = shared.kept_sum[r][threadIdx.x];
            const Merge m = merge_parts(before, total, most[r], sum[r]);
            most[r] = before, sum[r] = total;
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++) {
                const float2 x = shared.kept[i][r][threadIdx.x];
                o[i][2 * r] = merge_value(m, x.x, o[i][2 * r]);
                o[i][2 * r + 1] = merge_value(m, x.y, o[i][2 * r + 1]);
            }
        }
    }

    // A part's sums to `left`.
    __device__ __forceinline__ void leave(float *left) const {
        each_pair([&](uint32_t row, uint32_t col, uint32_t, float x, float y) {
            *(float2 *)(left + row * D + col) = make_float2(x, y);
        });
        if (warp == 0 && q == 0)
            for (uint32_t r = 0; r < ROWS; r++)
                if (g + 8 * r < GROUP) {
                    left[PART_SUMS + g + 8 * r] = most[r];
                    left[PART_SUMS + GROUP + g + 8 * r] = sum[r];
                }
    }

    // True in the block that is the last of n to come, which then sees what all have left.
    __device__ __forceinline__ bool last_comes(uint32_t *counter, uint32_t n) {
        __syncthreads();
        if (threadIdx.x == 0) { // orders what the block wrote and reads, as the barriers are around it
            shared.arrived = atom_add_acq_rel_gpu(counter, 1);
            if (shared.arrived == n - 1) *counter = 0;
        }
        __syncthreads();
        return shared.arrived == n - 1;
    }

    // Merges what is left of parts [p0, n), oldest first, into halves of `out` from the group's first column
    // on.
    static __device__ __forceinline__ void merge(const float *left, uint32_t p0, uint32_t n, uint8_t *row,
                                                 uint32_t col0, const float *kv_scale) {
        for (uint32_t i = threadIdx.x; i < GROUP * D / 2; i += S::threads) {
            const uint32_t head = i / (D / 2), col = i % (D / 2) * 2;
            const float *first = left + p0 * PART_FLOATS;
            float most = __ldcg(first + PART_SUMS + head), sum = __ldcg(first + PART_SUMS + GROUP + head);
            float2 o = __ldcg((const float2 *)(first + head * D + col));
#pragma unroll 8
            for (uint32_t p = p0 + 1; p < n; p++) {
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

    // The end of an item whose last round is r. `goes_on`: the block's next item is the pair's next part.
    __device__ __forceinline__ void finish(const Round &r, bool goes_on) {
        const float *kv_scale = (const float *)a.p[2];
        uint8_t *row = (uint8_t *)a.p[6] + (uint64_t)r.token() * S::out_pitch;
        const uint32_t col0 = r.kv_head() * GROUP * D, local = r.local(), parts = r.parts(),
                       first = r.item - local; // item of the pair
        const FewDeal deal = shared.tokens.deal();
        if (local == 0 && r.kv_head() == 0 && threadIdx.x == 0) out_finish<S>(row, kv_scale);
        const bool from_first = first >= deal.begin(blockIdx.x);
        if (from_first && local) join_kept();
        if (from_first && goes_on) {
            keep();
        } else if (from_first && local == parts - 1) {
            float out[2];
#pragma unroll
            for (uint32_t i = 0; i < ROWS; i++) out[i] = out_factor(kv_scale, sum[i]);
            each_pair([&](uint32_t head, uint32_t col, uint32_t i, float x, float y) {
                out_store(row, col0 + head * D + col, x, y, out[i]);
            });
        } else {
            uint8_t *work = (uint8_t *)a.p[8];
            float *left =
                (float *)(work + WORK_COUNTERS_BYTES) + (uint64_t)r.pair * H::PARTS_MAX * PART_FLOATS;
            leave(left + local * PART_FLOATS);
            if (goes_on) return;
            const uint32_t owner = deal.owner(first), owners = deal.owner(first + parts - 1) - owner + 1;
            if (last_comes((uint32_t *)work + r.pair, owners))
                merge(left, min(deal.begin(owner + 1) - first, parts) - 1, parts, row, col0, kv_scale);
        }
    }
};

template <class S, class From>
__device__ __forceinline__ void attention_few(const Args<10> &a, const From &from) {
    __shared__ typename AttentionFew<S, From>::Shared shared;
    FewTokens &tokens = shared.tokens;
    tokens.template load<S, From::MOST>((const uint32_t *)a.p[4], (const uint32_t *)a.p[5],
                                        (const uint32_t *)a.p[7]);
    const uint32_t begin = tokens.deal().begin(blockIdx.x), end = tokens.deal().begin(blockIdx.x + 1);
    if (begin == end) {
        prefetch_share<S::next_bytes, S::fetch_lines, S::fetch_clocks>(a.p[9]);
        return;
    }
    AttentionFew<S, From> f(shared, a, from);
    FewRound<S> now;
    now.start(tokens, begin);
    now.find_pages(tokens, a.p[3]);
    typename From::Work work(from, tokens, now, true);
    f.ask_first(now);
    f.begin_part();
    for (;;) {
        f.patches = work.run(from, shared, tokens, now);
        FewRound<S> next = now;
        const bool last = now.last(), more = !last || now.item + 1 < end;
        if (!last)
            next.page += FewRound<S>::WARPS;
        else if (more)
            next.start(tokens, now.item + 1);
        if (more) next.find_pages(tokens, a.p[3]);
        f.round(now, next, more);
        const bool same = next.pair == now.pair;
        if (last) f.finish(now, more && same), f.begin_part();
        if (!more) return;
        work = typename From::Work(from, tokens, next, !same);
        now = next;
    }
}
#endif
