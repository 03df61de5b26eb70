// The prefill form of attention: a block takes 64 rows of one KV head, (token, head of the group) pairs of
// consecutive tokens, 16 a warp. The pages of their sequence pass through shared memory, each read once for
// all four warps, the next on its way while one is used. Where the tokens belong to several sequences the
// block takes one after the other.
//
// work: for each warp of the grid O, maximum and sum of the parts so far, as its lanes hold them: registers
// suffice for one O.
#ifndef ADALLM_LIB_ATTENTION_MANY_CUH
#define ADALLM_LIB_ATTENTION_MANY_CUH
#include "templates/lib/attention.cuh"

constexpr uint32_t MANY_WARPS = 4, MANY_ROWS = MANY_WARPS * QUERY_ROWS;

template <class S> struct AttentionMany {
    using H = Heads<S>;
    static constexpr uint32_t D = H::D, GROUP = H::GROUP, TOKENS = MANY_ROWS / GROUP,
                              KEY_BYTES = H::BLOCKS * 64, // of a row in shared memory
        VALUES = PAGE_KEYS * KEY_BYTES, PAGE = VALUES + D * PAGE_KEYS, QUERY = H::BLOCKS * PAGE_STEPS * 512,
                              shared_bytes = 2 * PAGE + MANY_WARPS * QUERY;
    static_assert(S::threads == MANY_WARPS * 32 && S::shared_bytes >= shared_bytes,
                  "as cuda_attention.c chooses");

    // Registers are scarce: what follows from the thread's number is not kept.
    uint8_t *const shared;
    void *const work;
    uint32_t warp, lane, g, q;
    QueryRows rows;
    int32_t first_key, last_key;   // that any row of the warp sees
    int32_t whole_from, whole_end; // keys that all of them see
    float o[H::TILES][4], most[2], sum[2];
    bool has_left;

    __device__ __forceinline__ AttentionMany(uint8_t *shared, void *work)
        : shared(shared), work(work), warp(threadIdx.x / 32), lane(threadIdx.x % 32), g(lane / 4),
          q(lane % 4) {}

    // [BLOCKS][PAGE_STEPS][32] of this warp; the lane's own.
    __device__ __forceinline__ uint4 *query() const {
        return (uint4 *)(shared + 2 * PAGE + warp * QUERY) + lane;
    }
    // [TILES + 1][32] of this warp, the last one maxima and sums; the lane's own.
    __device__ __forceinline__ float4 *left() const {
        return (float4 *)((uint8_t *)work + WORK_COUNTERS_BYTES) +
               (uint64_t)(blockIdx.x * MANY_WARPS + warp) * (H::TILES + 1) * 32 + lane;
    }

    // Starts the copy of a page. Rows of K whose length is a multiple of 128 swap the halves of odd keys: 8
    // lanes read two keys at once, which would meet in the same banks.
    __device__ __forceinline__ void fetch(const uint8_t *page, uint32_t buffer) const {
        constexpr uint32_t ROW = D / 16, CHUNKS = PAGE_KEYS * ROW;
        const uint32_t to = shared_address(shared + buffer * PAGE);
        for (uint32_t i = threadIdx.x; i < CHUNKS; i += S::threads) {
            const uint32_t key = i / ROW, col = i % ROW * 16, swap = H::BLOCKS % 2 == 0 ? key % 2 * 64 : 0;
            cp_async_16(to + key * KEY_BYTES + (col ^ swap), page + i * 16);
        }
        page += S::kv_heads * D * PAGE_KEYS;
        for (uint32_t i = threadIdx.x; i < CHUNKS; i += S::threads)
            cp_async_16(to + VALUES + i * 16, page + i * 16);
    }

    // The warp's queries into shared memory; `x` are its lane's two rows, NULL where there is none.
    __device__ __forceinline__ void load_query(const float *const (&x)[2], float factor) {
        uint32_t a[H::BLOCKS][PAGE_STEPS][4];
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
            rows.factor[i] = __fmul_rn(factor, query_row<D, false>(x[i], i, q, a));
#pragma unroll
        for (uint32_t b = 0; b < H::BLOCKS; b++)
#pragma unroll
            for (uint32_t j = 0; j < PAGE_STEPS; j++)
                query()[(b * PAGE_STEPS + j) * 32] =
                    make_uint4(a[b][j][0], a[b][j][1], a[b][j][2], a[b][j][3]);
        __syncwarp();
    }

    __device__ __forceinline__ void scores(float (&s)[SCORE_TILES][4], const uint8_t *page) const {
#pragma unroll
        for (uint32_t b = 0; b < H::BLOCKS; b++) {
            uint32_t a[PAGE_STEPS][4];
#pragma unroll
            for (uint32_t j = 0; j < PAGE_STEPS; j++) {
                const uint4 x = query()[(b * PAGE_STEPS + j) * 32];
                a[j][0] = x.x, a[j][1] = x.y, a[j][2] = x.z, a[j][3] = x.w;
            }
            const uint32_t col = b * 64 + q * 16, swap = H::BLOCKS % 2 == 0 ? g % 2 * 64 : 0;
#pragma unroll
            for (uint32_t t = 0; t < SCORE_TILES; t++) {
                uint4 key = make_uint4(0, 0, 0, 0);
                if (col < D) key = *(const uint4 *)(page + key_row(g, t) * KEY_BYTES + (col ^ swap));
                score_tile(s[t], a, key);
            }
        }
    }

    template <bool EDGE> __device__ __forceinline__ void add_page(const uint8_t *page, int32_t key0) {
        float s[SCORE_TILES][4] = {}, mine[2], total[2], alpha[2];
        scores(s, page);
        score_finish<S, EDGE>(s, rows, key0, mine);
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const float now = fmaxf(most[i], mine[i]);
            alpha[i] = ex2_approx(__fsub_rn(most[i], now));
            most[i] = now;
        }
        score_exp<EDGE>(s, most, total);
        uint32_t p[PAGE_STEPS][4];
#pragma unroll
        for (uint32_t j = 0; j < PAGE_STEPS; j++) {
            const uint4 a = probabilities(s, j);
            p[j][0] = a.x, p[j][1] = a.y, p[j][2] = a.z, p[j][3] = a.w;
        }
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) sum[i] = __fmaf_rn(sum[i], alpha[i], total[i]);
        const uint4 mask = value_mask(first_key - key0, last_key + 1 - key0);
#pragma unroll
        for (uint32_t i = 0; i < H::TILES; i++) {
            uint4 v = *(const uint4 *)(page + VALUES + i * 8 * PAGE_KEYS + lane * 16);
            if (EDGE) v = masked(v, mask);
            value_rescale(o[i], alpha);
            value_tile(o[i], p, v);
        }
    }

    __device__ __forceinline__ void begin_part() {
        most[0] = most[1] = MASKED, sum[0] = sum[1] = 0;
#pragma unroll
        for (uint32_t i = 0; i < H::TILES; i++) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0;
    }

    // What was left before and this part become one, in registers.
    __device__ __forceinline__ void merge_left() {
        const float4 *from = left();
        float4 before = from[H::TILES * 32];
        const Merge m[2] = {merge_parts(before.x, before.z, most[0], sum[0]),
                            merge_parts(before.y, before.w, most[1], sum[1])};
        most[0] = before.x, most[1] = before.y, sum[0] = before.z, sum[1] = before.w;
#pragma unroll
        for (uint32_t i = 0; i < H::TILES; i++) {
            const float4 a = from[i * 32];
            o[i][0] = merge_value(m[0], a.x, o[i][0]), o[i][1] = merge_value(m[0], a.y, o[i][1]);
            o[i][2] = merge_value(m[1], a.z, o[i][2]), o[i][3] = merge_value(m[1], a.w, o[i][3]);
        }
    }

    __device__ __forceinline__ void leave_part() {
        has_left = true;
        float4 *to = left();
#pragma unroll
        for (uint32_t i = 0; i < H::TILES; i++) to[i * 32] = make_float4(o[i][0], o[i][1], o[i][2], o[i][3]);
        to[H::TILES * 32] = make_float4(most[0], most[1], sum[0], sum[1]);
        begin_part();
    }

    // All pages [begin, end) of the block's tokens of one sequence; `active`: the warp has rows of it.
    __device__ __forceinline__ void walk(const uint8_t *pool, const int32_t *table, uint32_t begin,
                                         uint32_t end, bool active) {
        auto page_at = [&](uint32_t page) {
            return pool + (uint64_t)(uint32_t)table[page % S::pages_per_seq] * S::page_bytes;
        };
        bool fresh = false; // the part has pages of this warp
        has_left = false;
        begin_part();
        fetch(page_at(begin), 0);
        cp_async_commit();
        for (uint32_t page = begin; page < end; page++) {
            const uint32_t buffer = (page - begin) % 2;
            if (page + 1 < end) fetch(page_at(page + 1), 1 - buffer);
            cp_async_commit();
            cp_async_wait<1>();
            __syncthreads();
            const int32_t key0 = (int32_t)(page * PAGE_KEYS);
            if (active && key0 <= last_key && key0 + (int32_t)PAGE_KEYS > first_key) {
                fresh = true;
                if (key0 >= whole_from && key0 + (int32_t)PAGE_KEYS <= whole_end)
                    add_page<false>(shared + buffer * PAGE, key0);
                else
                    add_page<true>(shared + buffer * PAGE, key0);
            }
            const bool last = page + 1 == end;
            if (last || (fresh && page % H::PART == H::PART - 1)) {
                if (has_left) merge_left();
                if (!last) leave_part();
                fresh = false;
            }
            __syncthreads();
        }
    }
};

template <class S> __device__ __forceinline__ int32_t many_first_key(int32_t pos) {
    return S::window != 0 && pos >= (int32_t)S::window ? pos - (int32_t)S::window + 1 : 0;
}

// Tokens [begin, end) of one sequence among the block's, which start at token0.
template <class S>
__device__ __forceinline__ void many_sequence(AttentionMany<S> &m, const Args<10> &a, uint32_t token0,
                                              uint32_t begin, uint32_t end, uint32_t kv_head) {
    using H = Heads<S>;
    const int32_t *pos = (const int32_t *)a.p[4];
    const float *kv_scale = (const float *)a.p[2], *x[2];
    uint32_t token[2], head[2];
    bool is[2];
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t row = m.warp * QUERY_ROWS + m.g + 8 * i;
        token[i] = token0 + row / H::GROUP, head[i] = kv_head * H::GROUP + row % H::GROUP;
        is[i] = row < m.TOKENS * H::GROUP && token[i] >= begin && token[i] < end;
        x[i] = is[i] ? (const float *)a.p[0] + ((uint64_t)token[i] * S::heads + head[i]) * H::D : nullptr;
        // Rows of no token see what a neighbour sees, and are not written.
        m.rows.pos[i] = pos[min(max(token[i], begin), end - 1)];
        m.rows.first[i] = many_first_key<S>(m.rows.pos[i]);
    }
    m.first_key = S::window == 0 ? 0 : __reduce_min_sync(~0u, min(m.rows.first[0], m.rows.first[1]));
    m.last_key = __reduce_max_sync(~0u, max(m.rows.pos[0], m.rows.pos[1]));
    m.whole_from = S::window == 0 ? 0 : __reduce_max_sync(~0u, max(m.rows.first[0], m.rows.first[1]));
    m.whole_end = __reduce_min_sync(~0u, min(m.rows.pos[0], m.rows.pos[1])) + 1;
    m.load_query(x, score_factor<S>(kv_scale));
    const int32_t slot = ((const int32_t *)a.p[5])[begin];
    m.walk((const uint8_t *)a.p[1] + kv_head * H::D * PAGE_KEYS,
           (const int32_t *)a.p[3] + (uint64_t)slot * S::pages_per_seq,
           (uint32_t)many_first_key<S>(pos[begin]) / PAGE_KEYS, (uint32_t)pos[end - 1] / PAGE_KEYS + 1,
           __any_sync(~0u, is[0] || is[1]));
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        if (!is[i]) continue;
        uint8_t *row = (uint8_t *)a.p[6] + (uint64_t)token[i] * S::out_pitch;
        const float factor = out_factor(kv_scale, m.sum[i]);
#pragma unroll
        for (uint32_t tile = 0; tile < H::TILES; tile++)
            out_store(row, head[i] * H::D + tile * 8 + 2 * m.q, m.o[tile][2 * i], m.o[tile][2 * i + 1],
                      factor);
        if (head[i] == 0 && m.q == 0) out_finish<S>(row, kv_scale);
    }
}

template <class S> __device__ void attention_many(const Args<10> &a) {
    extern __shared__ __align__(128) uint8_t shared[];
    using M = AttentionMany<S>;
    const uint32_t n_tok = ((const uint32_t *)a.p[7])[COUNT_TOKENS];
    const int32_t *slot = (const int32_t *)a.p[5];
    M m(shared, a.p[8]);
    const uint32_t blocks = (n_tok + M::TOKENS - 1) / M::TOKENS;
    for (uint32_t item = blockIdx.x; item < blocks * S::kv_heads; item += gridDim.x) {
        // The last tokens of a chunk see the most keys: they come first.
        const uint32_t token0 = (blocks - 1 - item / S::kv_heads) * M::TOKENS,
                       token1 = min(token0 + M::TOKENS, n_tok);
        for (uint32_t begin = token0, end; begin < token1; begin = end) {
            for (end = begin + 1; end < token1 && slot[end] == slot[begin];) end++;
            many_sequence<S>(m, a, token0, begin, end, item % S::kv_heads);
        }
    }
}
#endif
