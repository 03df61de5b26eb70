// chain: launches of a decode step that follow each other, as one. Each is the kernel that it would be by
// itself (same code, same bits); between two of them all blocks meet. Weights do not depend on what came
// before: while the blocks meet, those that the next product begins with are on their way.
#ifndef INSTANCE
#define INSTANCE // of the templates below: their samples are theirs
#define CHAIN_SAMPLES
#endif
#include <type_traits>

#include "templates/gate_up.cu"
#include "templates/lib/grid.cuh"
#include "templates/linear.cu"
#include "templates/norm_add.cu"
#include "templates/rope_write.cu"

// The links of a chain: what each template does in it, and the pointers that it takes.
struct NoProduct {
    static constexpr uint32_t DEPTH = 0, LEAST = 0;
    template <uint32_t> static __device__ __forceinline__ StreamStart start(void *const *) {
        return {nullptr, 0};
    }
};
template <class S, uint32_t TILES> struct LinkProduct {
    static constexpr bool IS_PRODUCT = true;
    static constexpr uint32_t ARGS = 10, WORK = 6;
    using Rows = Stream<S::format, S::k, S::cols, S::groups>;
    static constexpr uint32_t DEPTH = Rows::DEPTH, LEAST = Rows::STAGES / SLICES;
    static_assert(S::format == FORMAT_NVFP4 && !S::tiled, "decode forms of NVFP4 share a ring");
    template <uint32_t GRID> static __device__ __forceinline__ StreamStart start(void *const *args) {
        return Rows::start(args[1], StreamDeal<TILES, GRID, stream_most<S>()>()());
    }
};
template <class S> struct LinkLinear : LinkProduct<S, row_tiles(S::n)> {
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        linear_stream<S>(*(const Args<10> *)args, link);
    }
};
template <class S> struct LinkGateUp : LinkProduct<S, (S::f + 7) / 8> {
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        gate_up_stream<S>(*(const Args<10> *)args, link);
    }
};
template <class S> struct LinkNormAdd : NoProduct {
    static constexpr bool IS_PRODUCT = false;
    static constexpr uint32_t ARGS = 7;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        static_assert(Link::THREADS >= S::threads, "a thread for each share of a row");
        link.wait();
        if (threadIdx.x < S::threads) norm_add_rows<S>(*(const Args<7> *)args);
    }
};
template <class S> struct LinkRopeWrite : NoProduct {
    static constexpr bool IS_PRODUCT = false;
    static constexpr uint32_t ARGS = 12;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        link.wait();
        rope_write_heads<S, Link::THREADS, false>(*(const Args<12> *)args);
    }
};

// The first product of links whose pointers begin at `args`.
template <class... Links> struct NextProduct {
    using Product = NoProduct;
    static constexpr uint32_t ARG0 = 0;
};
template <class L, class... Rest> struct NextProduct<L, Rest...> {
    using Later = NextProduct<Rest...>;
    using Product = typename std::conditional<L::IS_PRODUCT, L, typename Later::Product>::type;
    static constexpr uint32_t ARG0 = L::IS_PRODUCT ? 0 : L::ARGS + Later::ARG0;
};

// A link as its template sees it (lib/link.cuh).
template <uint32_t THREADS_, uint32_t GRID_, bool WAITS_, uint32_t CARRIED_, class Next> struct ChainLink {
    using Product = typename Next::Product;
    static constexpr uint32_t THREADS = THREADS_, GRID = GRID_, CARRIED = CARRIED_, FOLLOWS = Product::DEPTH;
    static constexpr bool WAITS = WAITS_;
    StreamRing<FORMAT_NVFP4> &ring;
    const GridMeeting<GRID> &meeting;
    void *const *later; // pointers of the links behind this one
    __device__ __forceinline__ void wait() const {
        if constexpr (WAITS) meeting.wait();
    }
    __device__ __forceinline__ StreamStart follow() const {
        return Product::template start<GRID>(later + Next::ARG0);
    }
    template <uint32_t N> static constexpr __host__ __device__ bool follows_whole() {
        return FOLLOWS == 0 || (FOLLOWS >= N && Product::LEAST >= N);
    }
};

constexpr __host__ __device__ uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// CARRIED: slots of the ring that the last product left for the next one.
template <uint32_t THREADS, uint32_t GRID, bool WAITS, uint32_t CARRIED, class L, class... Rest>
__device__ __forceinline__ void chain_links(void *const *args, StreamRing<FORMAT_NVFP4> &ring,
                                            GridMeeting<GRID> &meeting) {
    using Next = NextProduct<Rest...>;
    ChainLink<THREADS, GRID, WAITS, CARRIED, Next> link = {ring, meeting, args + L::ARGS};
    L::run(args, link);
    if constexpr (sizeof...(Rest) != 0) {
        constexpr uint32_t LEFT = L::IS_PRODUCT ? least(L::DEPTH, Next::Product::DEPTH) : CARRIED;
        meeting.arrive();
        chain_links<THREADS, GRID, true, LEFT, Rest...>(args + L::ARGS, ring, meeting);
    }
}

template <uint32_t THREADS, uint32_t GRID, class... Links>
__device__ __forceinline__ void chain(void *const *args) {
    using First = NextProduct<Links...>;
    StreamRing<FORMAT_NVFP4> ring;
    __shared__ uint32_t before;
    GridMeeting<GRID> meeting = {
        (uint32_t *)((uint8_t *)args[First::ARG0 + First::Product::WORK] + WORK_MEETING), &before};
    chain_links<THREADS, GRID, false, 0, Links...>(args, ring, meeting);
}

#ifdef CHAIN_SAMPLES
struct ChainO {
    static constexpr uint32_t n = 4096, k = 4096, out_stride = 4096, has_bias = 0, count = 0, x_pitch = 8208,
                              next_bytes = 2099968, tiled = 0, cols = 1, groups = 2, round = 2, parts = 1,
                              per_sm = 1, add = 1, norm = 0, fold = 0, threads = 512, shared_bytes = 8192;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr float softcap = 0, eps = 0;
};
struct ChainGateUp {
    static constexpr uint32_t f = 12288, k = 4096, x_pitch = 8208, out_pitch = 24592, next_bytes = 2099968,
                              tiled = 0, cols = 1, groups = 2, round = 12, parts = 1, per_sm = 1, norm = 1,
                              fold = 1, threads = 512, shared_bytes = 49152 + 8208;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr Act act = ACT_SILU;
    static constexpr float eps = 1e-6f;
};
struct ChainDown : ChainO {
    static constexpr uint32_t k = 12288, x_pitch = 24592;
};
struct ChainQkv : ChainO {
    static constexpr uint32_t n = 6144, out_stride = 6144, add = 0, norm = 1, fold = 1, round = 4,
                              shared_bytes = 16384 + 8208;
    static constexpr float eps = 1e-6f;
};
struct ChainRope {
    static constexpr uint32_t heads = 32, kv_heads = 8, head_dim = 128, has_norm = 1, page_tokens = 64,
                              page_bytes = 36 * 2 * 64 * 8 * 128, pages_per_seq = 64, next_bytes = 2400000,
                              threads = 128, shared_bytes = 0;
    static constexpr float eps = 1e-6f, factor = 1;
};
struct ChainNorm {
    static constexpr uint32_t hidden = 5376, has_branch = 1, has_post = 1, has_out = 1, count = 0,
                              out_pitch = 10768, wide = 0, next_bytes = 0, threads = 448, shared_bytes = 0;
    static constexpr float eps = 1e-6f;
};
struct ChainOdd : ChainO { // slices of 10 and 11 stages, two columns
    static constexpr uint32_t n = 5376, k = 5376, out_stride = 5376, x_pitch = 10768, add = 0, round = 4,
                              cols = 2, shared_bytes = 32768;
};
#define CHAIN(name, args, ...)                                                                               \
    extern "C" __global__ void __launch_bounds__(512, 1) name(const __grid_constant__ Args<args> a) {        \
        chain<512, 128, __VA_ARGS__>(a.p);                                                                   \
    }
CHAIN(chain_sample, 52, LinkLinear<ChainO>, LinkGateUp<ChainGateUp>, LinkLinear<ChainDown>,
      LinkLinear<ChainQkv>, LinkRopeWrite<ChainRope>)
CHAIN(chain_sample_norms, 47, LinkLinear<ChainO>, LinkNormAdd<ChainNorm>, LinkLinear<ChainOdd>,
      LinkLinear<ChainQkv>, LinkLinear<ChainOdd>)
#endif
