// chain: launches of a decode step that follow each other, as one. Each is the kernel that it would be by
// itself (same code, same bits); between two of them all blocks meet. Weights do not depend on what came
// before: while the blocks meet, those that the next product begins with are on their way.
#ifndef INSTANCE
#define INSTANCE // of the templates below: their samples are theirs
#define CHAIN_SAMPLES
#endif
#include "templates/gate_up.cu"
#include "templates/lib/grid.cuh"
#include "templates/linear.cu"
#include "templates/norm_add.cu"
#include "templates/quantize_rows.cu"
#include "templates/rope_write.cu"

// The links of a chain: what each template does in it, and how many pointers it takes. WORK: which of them is
// the work buffer.
template <class S> struct LinkLinear {
    static constexpr uint32_t ARGS = 10, WORK = 6;
    static constexpr bool HAS_WORK = true;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        linear_stream<S>(*(const Args<10> *)args, link);
    }
};
template <class S> struct LinkGateUp {
    static constexpr uint32_t ARGS = 10, WORK = 6;
    static constexpr bool HAS_WORK = true;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        gate_up_stream<S>(*(const Args<10> *)args, link);
    }
};
template <class S> struct LinkNormAdd {
    static constexpr uint32_t ARGS = 7, WORK = 0;
    static constexpr bool HAS_WORK = false;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        static_assert(Link::THREADS >= S::threads, "a thread for each share of a row");
        link.wait();
        if (threadIdx.x < S::threads) norm_add_rows<S, Link::FETCHES>(*(const Args<7> *)args);
    }
};
template <class S> struct LinkQuantizeRows {
    static constexpr uint32_t ARGS = 3, WORK = 0;
    static constexpr bool HAS_WORK = false;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        static_assert(Link::THREADS >= S::threads, "a thread for each share of a row");
        link.wait();
        if (threadIdx.x < S::threads) quantize_each_row<S>(*(const Args<3> *)args);
    }
};
// Where it has no place in attention (rope_attention.cu).
template <class S> struct LinkRopeWrite {
    static constexpr uint32_t ARGS = 12, WORK = 0;
    static constexpr bool HAS_WORK = false;
    template <class Link> static __device__ __forceinline__ void run(void *const *args, Link &link) {
        link.wait();
        rope_write_heads<S, Link::THREADS, false>(*(const Args<12> *)args);
    }
};

// What all links of a chain have.
template <uint32_t THREADS_, uint32_t GRID_, uint32_t EARLY_, bool OPAQUE_> struct Chain {
    static constexpr uint32_t THREADS = THREADS_, GRID = GRID_, EARLY = EARLY_;
    static constexpr bool OPAQUE = OPAQUE_;
};

// A link as its template sees it (lib/link.cuh).
template <class C, bool WAITS_> struct ChainLink {
    static constexpr uint32_t THREADS = C::THREADS, GRID = C::GRID, EARLY = WAITS_ ? C::EARLY : 8;
    static constexpr bool WAITS = WAITS_, FETCHES = false, OPAQUE = C::OPAQUE;
    GridMeeting<GRID> &meeting;
    __device__ __forceinline__ void wait() const {
        if constexpr (WAITS) meeting.wait();
    }
};

template <class C, bool WAITS, class L, class... Rest>
__device__ __forceinline__ void chain_links(void *const *args, GridMeeting<C::GRID> &meeting) {
    ChainLink<C, WAITS> link = {meeting};
    L::run(args, link);
    if constexpr (sizeof...(Rest) != 0) {
        meeting.arrive();
        chain_links<C, true, Rest...>(args + L::ARGS, meeting);
    }
}

// The first work buffer among the pointers of the links.
template <class L, class... Rest> __device__ __forceinline__ void *chain_work(void *const *args) {
    if constexpr (L::HAS_WORK)
        return args[L::WORK];
    else
        return chain_work<Rest...>(args + L::ARGS);
}

template <class C, class... Links> __device__ __forceinline__ void chain(void *const *args) {
    __shared__ GridMeeting<C::GRID> meeting;
    meeting.open((uint8_t *)chain_work<Links...>(args) + WORK_MEETING);
    chain_links<C, false, Links...>(args, meeting);
}

#ifdef CHAIN_SAMPLES
struct ChainO {
    static constexpr uint32_t n = 4096, k = 4096, out_stride = 4096, has_bias = 0, count = 0, x_pitch = 8208,
                              x_e4m3 = 0, next_bytes = 2099968, tiled = 0, cols = 1, groups = 2, round = 2,
                              parts = 1, per_sm = 1, add = 1, norm = 0, fold = 0, threads = 512,
                              shared_bytes = 8192;
    static constexpr Format format = FORMAT_NVFP4;
    static constexpr float softcap = 0, eps = 0;
};
struct ChainGateUp {
    static constexpr uint32_t f = 12288, k = 4096, x_pitch = 8208, x_e4m3 = 0, out_pitch = 24592,
                              next_bytes = 2099968, tiled = 0, cols = 1, groups = 2, round = 12, parts = 1,
                              per_sm = 1, norm = 1, fold = 1, threads = 512, shared_bytes = 49152 + 8208;
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
                              out_pitch = 10768, wide = 0, e4m3 = 0, next_bytes = 0, threads = 448,
                              shared_bytes = 0;
    static constexpr float eps = 1e-6f;
};
struct ChainOdd : ChainO { // slices of 10 and 11 stages, two columns
    static constexpr uint32_t n = 5376, k = 5376, out_stride = 5376, x_pitch = 10768, add = 0, round = 4,
                              cols = 2, shared_bytes = 32768;
};
template <class S, uint32_t SHARED = S::shared_bytes> struct ChainE4m3 : S {
    static constexpr uint32_t x_e4m3 = 1, x_pitch = e4m3_pitch(S::k), shared_bytes = SHARED;
};
using E4m3O = ChainE4m3<ChainO>;
using E4m3GateUp = ChainE4m3<ChainGateUp, 49152 + e4m3_pitch(4096)>;
using E4m3Down = ChainE4m3<ChainDown>;
using E4m3Qkv = ChainE4m3<ChainQkv, 16384 + e4m3_pitch(4096)>;
struct E4m3Rows {
    static constexpr uint32_t k = 12288, rows_each = 1, count = 0, x_pitch = 24592,
                              out_pitch = e4m3_pitch(12288), threads = 512, shared_bytes = 0;
};
#define CHAIN(name, args, ...)                                                                               \
    extern "C" __global__ void __launch_bounds__(512, 1) name(const __grid_constant__ Args<args> a) {        \
        chain<Chain<512, 128, 4, true>, __VA_ARGS__>(a.p);                                                   \
    }
CHAIN(chain_sample, 40, LinkLinear<ChainO>, LinkGateUp<ChainGateUp>, LinkLinear<ChainDown>,
      LinkLinear<ChainQkv>)
CHAIN(chain_sample_e4m3, 43, LinkLinear<E4m3O>, LinkGateUp<E4m3GateUp>, LinkQuantizeRows<E4m3Rows>,
      LinkLinear<E4m3Down>, LinkLinear<E4m3Qkv>)
CHAIN(chain_sample_rope, 52, LinkLinear<ChainO>, LinkGateUp<ChainGateUp>, LinkLinear<ChainDown>,
      LinkLinear<ChainQkv>, LinkRopeWrite<ChainRope>)
CHAIN(chain_sample_norms, 47, LinkLinear<ChainO>, LinkNormAdd<ChainNorm>, LinkLinear<ChainOdd>,
      LinkLinear<ChainQkv>, LinkLinear<ChainOdd>)
#endif
