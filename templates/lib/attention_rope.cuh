// RoPE inside of the decode form of attention, so that no launch of rope_write stands before it: what
// rope_write leaves in memory is made where it is needed, with its arithmetic and so its bits.
//
// Queries of an item are normed and turned once, a head a warp, and stand in shared memory as the halves that
// its scores multiply. Keys and values of the launch's own tokens are in nobody's memory yet: every block
// makes those that a round sees in shared memory, and its lanes put them in place of what they read from the
// pool there. The block that has the round with a token's own position writes its key and value to the pool.
// Whoever else sees that position in this launch is of the same sequence and has made them himself; pages
// that several sequences hold are never written.
#ifndef ADALLM_LIB_ATTENTION_ROPE_CUH
#define ADALLM_LIB_ATTENTION_ROPE_CUH
#include "templates/lib/attention_few.cuh"
#include "templates/lib/rope.cuh"

// S, R: the specs of attention and of rope_write. MOST: tokens that a launch has at most; keys and values of
// as many stand in `codes`, E4M3 [2][MOST][D].
template <class S, class R, uint32_t MOST_> struct FewRope {
    static constexpr bool ROPE = true;
    static constexpr uint32_t MOST = MOST_;
    using H = Heads<S>;
    using Round = FewRound<S>;
    static constexpr uint32_t D = H::D, GROUP = H::GROUP, WARPS = S::threads / 32;
    static constexpr uint32_t PITCH = H::BLOCKS * 64 + 8; // halves: lanes of a quarter warp read all banks
    static_assert(MOST <= FEW_TOKENS && R::heads == S::heads && R::kv_heads == S::kv_heads &&
                      R::head_dim == S::head_dim && R::page_bytes == S::page_bytes &&
                      R::page_tokens == S::page_tokens && R::pages_per_seq == S::pages_per_seq,
                  "both of one layer");

    struct Shared {
        __align__(16) uint16_t query[GROUP][PITCH];
        float factor[GROUP];   // of a query's scores
        uint64_t fresh[WARPS]; // tokens that have keys in the round's pages, as bits
    };
    const Args<12> &a; // of rope_write
    uint8_t *codes;

    struct Head : RopeHead<R> {
        float scale; // of the keys, or for a value of the values
    };

    // What must be done before a round: the queries if it is the first one of an item, and the keys and
    // values of tokens that it sees. A job is a head of a token; a warp takes every WARPS-th one, and has the
    // next one on its way, the first two before the round's pages: loads behind theirs are late.
    struct Work {
        uint64_t fresh;
        uint32_t queries, n, job;
        Head head = {}, then = {}; // what is not loaded ends the life of what was there before

        __device__ __forceinline__ Work(const FewRope &from, const FewTokens &tokens, const Round &r,
                                        bool begins)
            : fresh(seen(tokens, r, 0, r.n())), queries(begins ? GROUP : 0), n(queries + 2 * __popcll(fresh)),
              job(threadIdx.x / 32) {
            load(from, head, r, job), load(from, then, r, job + WARPS);
        }

        // All threads. True: there are keys that are not in the pool.
        __device__ __forceinline__ bool run(const FewRope &from, Shared &shared, const FewTokens &tokens,
                                            const Round &r) {
            if (n == 0) return false;
            __syncthreads(); // warps may still read what the last round was given
            const uint32_t warp = threadIdx.x / 32;
            const uint64_t mine = seen(tokens, r, warp, 1);
            if (threadIdx.x % 32 == 0) shared.fresh[warp] = mine;
#pragma unroll 1
            while (job < n) {
                put(from, shared, r);
                head = then, job += WARPS;
                load(from, then, r, job + WARPS);
            }
            __syncthreads();
            return fresh != 0;
        }

        // Tokens whose keys are in pages [page, page + n_pages) of the round, as the item sees them.
        static __device__ __forceinline__ uint64_t seen(const FewTokens &tokens, const Round &r,
                                                        uint32_t page, uint32_t n_pages) {
            const uint32_t first = (r.page + page) * PAGE_KEYS;
            return tokens.template among<MOST>(r.token(), max(first, r.first()),
                                               min(first + n_pages * PAGE_KEYS - 1, r.pos));
        }
        // First the queries, then key, value, key, value, ...
        __device__ __forceinline__ bool is_query(uint32_t of) const { return of < queries; }
        __device__ __forceinline__ bool is_value(uint32_t of) const {
            return !is_query(of) && (of - queries) % 2;
        }
        __device__ __forceinline__ uint32_t token_of(const Round &r, uint32_t of) const {
            if (is_query(of)) return r.token();
            uint64_t left = fresh;
#pragma unroll 1
            for (uint32_t skip = (of - queries) / 2; skip; skip--) left &= left - 1;
            return __ffsll((long long)left) - 1;
        }
        __device__ __forceinline__ void load(const FewRope &from, Head &to, const Round &r,
                                             uint32_t of) const {
            if (of >= n) return;
            const uint32_t head = is_query(of)   ? r.kv_head() * GROUP + of
                                  : is_value(of) ? S::heads + S::kv_heads + r.kv_head()
                                                 : S::heads + r.kv_head();
            to.load(from.a, token_of(r, of), head);
            to.scale = ((const float *)from.a.p[4])[is_value(of)];
        }

        __device__ __forceinline__ void put(const FewRope &from, Shared &shared, const Round &r) {
            const bool value = is_value(job);
            if (!value) head.turn();
            if (is_query(job))
                put_query(shared, job);
            else
                put_cached(from, r, value);
        }
        // As attention makes halves of `q`.
        __device__ __forceinline__ void put_query(Shared &shared, uint32_t row) const {
            float most = 0;
#pragma unroll
            for (uint32_t j = 0; j < Head::EACH; j++)
                if (head.holds(j)) most = fmaxf(most, fmaxf(fabsf(head.x[j][0]), fabsf(head.x[j][1])));
            const QueryScale scale(warp_max(most));
            const float factor = scale.factor();
#pragma unroll
            for (uint32_t j = 0; j < Head::EACH; j++)
                if (head.holds(j))
#pragma unroll
                    for (uint32_t h = 0; h < 2; h++)
                        shared.query[row][head.dim(j) + h * (D / 2)] =
                            cvt_rn_f16_f32(__fmul_rn(head.x[j][h], factor));
            if (threadIdx.x % 32 == 0)
                shared.factor[row] = __fmul_rn(score_factor<S>(&head.scale), scale.inverse());
        }
        // For this block, and for all that come after the launch if it is the round of the token itself.
        __device__ __forceinline__ void put_cached(const FewRope &from, const Round &r, bool value) const {
            const uint32_t token = token_of(r, job), line = head.pos % PAGE_KEYS;
            uint8_t *to = from.codes + ((value ? MOST : 0) + token) * D,
                    *page = (uint8_t *)r.keys(from.a.p[8], head.pos / PAGE_KEYS - r.page);
            page += value ? kv_value_offset<S>(0, 0, line) : kv_key_offset<S>(0, line);
            const uint32_t step = value ? PAGE_KEYS : 1;
            const bool own = token == r.token();
            head.each_code(head.scale, [&](uint32_t d, uint8_t code) {
                to[d] = code;
                if (own) page[d * step] = code;
            });
        }
    };

    // The rows of a lane as operands of mma, and the factors of their scores.
    __device__ __forceinline__ void
    take_query(const Shared &shared, uint32_t (&query)[H::BLOCKS][PAGE_STEPS][4], float (&factor)[2]) const {
        const uint32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t row = g + 8 * i;
            const bool is = (i == 0 || GROUP > 8) && row < GROUP;
            factor[i] = is ? shared.factor[row] : 0;
#pragma unroll
            for (uint32_t b = 0; b < H::BLOCKS; b++)
#pragma unroll
                for (uint32_t j = 0; j < PAGE_STEPS; j += 2) {
                    const uint32_t col = b * 64 + q * 16;
                    uint4 x = make_uint4(0, 0, 0, 0);
                    if (is && col < D) x = *(const uint4 *)&shared.query[row][col + 4 * j];
                    query[b][j][i] = x.x, query[b][j][i + 2] = x.y;
                    query[b][j + 1][i] = x.z, query[b][j + 1][i + 2] = x.w;
                }
        }
    }

    // Blocks b0 .. of the round's page `page`, as a lane holds them (key_row).
    template <uint32_t N>
    __device__ __forceinline__ void patch_keys(const Shared &shared, const FewTokens &tokens, uint32_t page,
                                               uint32_t b0, uint4 (&k)[N][SCORE_TILES]) const {
        const uint32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll 1
        for (uint64_t left = shared.fresh[page]; left; left &= left - 1) {
            const uint32_t token = __ffsll((long long)left) - 1, line = tokens.pos[token] % PAGE_KEYS,
                           tile = line % 16 / 2;
            if (key_row(g, tile) == line)
#pragma unroll
                for (uint32_t b = 0; b < N; b++) {
                    const uint32_t col = (b0 + b) * 64 + q * 16;
                    if (col < D) {
                        const uint4 key = *(const uint4 *)(codes + token * D + col);
#pragma unroll
                        for (uint32_t t = 0; t < SCORE_TILES; t++)
                            if (t == tile) k[b][t] = key;
                    }
                }
        }
    }

    // Tiles of 8 columns of V from tile0 on of the round's page `page`: a lane holds keys 16q .. of a column.
    template <uint32_t N>
    __device__ __forceinline__ void patch_values(const Shared &shared, const FewTokens &tokens, uint32_t page,
                                                 uint32_t tile0, uint4 (&v)[N]) const {
        const uint32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll 1
        for (uint64_t left = shared.fresh[page]; left; left &= left - 1) {
            const uint32_t token = __ffsll((long long)left) - 1, line = tokens.pos[token] % PAGE_KEYS,
                           shift = line % 4 * 8;
            if (line / 16 == q)
#pragma unroll
                for (uint32_t i = 0; i < N; i++)
                    if (tile0 + i < H::TILES) {
                        const uint32_t code = codes[(MOST + token) * D + (tile0 + i) * 8 + g];
                        put_byte(v[i].x, line % 16 / 4 == 0, shift, code);
                        put_byte(v[i].y, line % 16 / 4 == 1, shift, code);
                        put_byte(v[i].z, line % 16 / 4 == 2, shift, code);
                        put_byte(v[i].w, line % 16 / 4 == 3, shift, code);
                    }
        }
    }
    static __device__ __forceinline__ void put_byte(uint32_t &word, bool is, uint32_t shift, uint32_t code) {
        if (is) word = (word & ~(0xFFu << shift)) | code << shift;
    }
};
#endif
