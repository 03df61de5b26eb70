// Weights as matrix products read them: stages of 16 rows and 64 columns in the order of mma.m16n8k16's A
// operand (compiler/pack/layout.c draws them). Lane l = 4 g + q owns columns 16q .. 16q + 15 of rows g and
// g + 8: one NVFP4 block each, and 32 contiguous bytes of a row of activations.
//
// E4M3 rows of activations (gemm: w4a8) are multiplied with the same stages. Codes are exact in E4M3, but
// codes times block scales are not: so every block of 16 columns is an mma.m16n8k16 of its own, whose sums
// are multiplied with the scales of their rows and added in fp32. The lanes of a quad trade words for that:
// the four lanes of a row then hold 4 columns each of every block.
#ifndef ADALLM_LIB_STAGE_CUH
#define ADALLM_LIB_STAGE_CUH
#include "templates/lib/args.cuh"
#include "templates/lib/ptx.cuh"

constexpr uint32_t TILE_ROWS = 16, STAGE_COLS = 64, TILE_TOKENS = 8;

__host__ __device__ constexpr uint32_t stages_of(uint32_t k) { return (k + STAGE_COLS - 1) / STAGE_COLS; }
__host__ __device__ constexpr uint32_t stage_bytes(Format f) {
    return f == FORMAT_NVFP4 ? 576 : f == FORMAT_E4M3 ? 1024 : 2048;
}
__host__ __device__ constexpr uint32_t row_tiles(uint32_t n) { return (n + TILE_ROWS - 1) / TILE_ROWS; }

// K is summed in SLICES chains of mma, which are added in order. The same in every form of every product, so
// that a token's bits do not depend on the form. All slices but the last that is not empty have
// slice_length() stages: the least that lets a warp take its slice in equal chunks of 4 to 8 stages, where a
// few more than an even share suffice for that.
constexpr uint32_t SLICES = 8;
__host__ __device__ constexpr uint32_t slice_chunk(uint32_t stages, uint32_t length, uint32_t most) {
    uint32_t chunk = most;
    while (chunk > 1 && (length % chunk || stages % length % chunk)) chunk--;
    return chunk;
}
__host__ __device__ constexpr uint32_t slice_length(uint32_t stages) {
    const uint32_t least = (stages + SLICES - 1) / SLICES;
    if (least >= 4)
        for (uint32_t length = least; length <= least + least / 4 + 1; length++)
            if (slice_chunk(stages, length, 8) >= 4) return length;
    return least;
}
template <uint32_t STAGES> __host__ __device__ constexpr uint32_t slice_begin(uint32_t slice) {
    constexpr uint32_t LENGTH = slice_length(STAGES);
    return slice * LENGTH < STAGES ? slice * LENGTH : STAGES;
}
template <uint32_t STAGES> __host__ __device__ constexpr uint32_t slice_stages(uint32_t slice) {
    constexpr uint32_t LENGTH = slice_length(STAGES);
    return LENGTH * SLICES == STAGES ? LENGTH : slice_begin<STAGES>(slice + 1) - slice_begin<STAGES>(slice);
}

// What undoes the factor of unpacked weights: codes come out as value * 2^-14, or as E4M3 value * 2^-6;
// 16-bit weights have it in row_scale.
__host__ __device__ constexpr float stage_factor(Format f, bool e4m3) {
    return f != FORMAT_NVFP4 ? 1.0f : e4m3 ? 64.0f : 16384.0f;
}

// Bytes of a row of activations that a stage multiplies, and those of them that a lane reads.
__host__ __device__ constexpr uint32_t x_stage_bytes(bool e4m3) { return e4m3 ? 64 : 128; }
__host__ __device__ constexpr uint32_t x_lane_bytes(bool e4m3) { return x_stage_bytes(e4m3) / 4; }

// E2M1 codes of the word of a k-step, two a register, to fp16 = value * 2^-14, times the block scales. Exact:
// 6 bits of significand, multiples of 2^-24.
__device__ __forceinline__ void unpack_nvfp4(uint32_t w, uint32_t scale_g, uint32_t scale_g8,
                                             uint32_t (&a)[4]) {
    constexpr uint32_t CODE = 0x8E008E00, SIGN = 0x80008000, MAGNITUDE = 0x0E000E00;
    a[0] = mul_f16x2(w & CODE, scale_g);
    a[1] = mul_f16x2((w << 3) & CODE, scale_g8);
    a[2] = mul_f16x2(((w << 1) & SIGN) | ((w << 6) & MAGNITUDE), scale_g);
    a[3] = mul_f16x2(((w << 2) & SIGN) | ((w << 9) & MAGNITUDE), scale_g8);
}

// The scales of rows g and g + 8, each twice in a register.
struct ScalePair {
    uint32_t g, g8;
    __device__ __forceinline__ explicit ScalePair(uint32_t e4m3x2) {
        uint32_t both = cvt_rn_f16x2_e4m3x2((uint16_t)e4m3x2);
        g = __byte_perm(both, both, 0x1010), g8 = __byte_perm(both, both, 0x3232);
    }
};

// One stage in the registers of a warp. `at`: start of the stage.
template <Format F> struct Stage;

template <> struct Stage<FORMAT_NVFP4> {
    uint4 codes;
    uint32_t scales;
    template <bool ONCE = false> __device__ __forceinline__ void load(const uint8_t *at, uint32_t lane) {
        codes = ONCE ? ld_global_nc_v4_once(at + lane * 16) : ld_global_nc_v4(at + lane * 16);
        scales = ONCE ? ld_global_nc_u16_once(at + 512 + lane * 2) : ld_global_nc_u16(at + 512 + lane * 2);
    }
    // mma's A operands of k-steps 2 half and 2 half + 1.
    __device__ __forceinline__ void pair(uint32_t half, uint32_t (&a)[2][4]) const {
        const ScalePair s(scales);
        unpack_nvfp4(half ? codes.z : codes.x, s.g, s.g8, a[0]);
        unpack_nvfp4(half ? codes.w : codes.y, s.g, s.g8, a[1]);
    }
};

template <> struct Stage<FORMAT_E4M3> {
    uint4 v[2];
    template <bool ONCE = false> __device__ __forceinline__ void load(const uint8_t *at, uint32_t lane) {
#pragma unroll
        for (uint32_t j = 0; j < 2; j++)
            v[j] = ONCE ? ld_global_nc_v4_once(at + j * 512 + lane * 16)
                        : ld_global_nc_v4(at + j * 512 + lane * 16);
    }
    // Two values of a word to a register each, exact: E4M3 is a subset of fp16.
    __device__ __forceinline__ static void unpack(uint32_t w, uint32_t &low, uint32_t &high) {
        low = cvt_rn_f16x2_e4m3x2((uint16_t)w), high = cvt_rn_f16x2_e4m3x2((uint16_t)(w >> 16));
    }
    __device__ __forceinline__ void pair(uint32_t half, uint32_t (&a)[2][4]) const {
        const uint4 x = half ? v[1] : v[0];
        unpack(x.x, a[0][0], a[0][1]), unpack(x.y, a[0][2], a[0][3]);
        unpack(x.z, a[1][0], a[1][1]), unpack(x.w, a[1][2], a[1][3]);
    }
};

template <> struct Stage<FORMAT_F16> {
    uint4 v[4];
    template <bool ONCE = false> __device__ __forceinline__ void load(const uint8_t *at, uint32_t lane) {
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            v[j] = ONCE ? ld_global_nc_v4_once(at + j * 512 + lane * 16)
                        : ld_global_nc_v4(at + j * 512 + lane * 16);
    }
    __device__ __forceinline__ void pair(uint32_t half, uint32_t (&a)[2][4]) const {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const uint4 x = v[2 * half + i];
            a[i][0] = x.x, a[i][1] = x.y, a[i][2] = x.z, a[i][3] = x.w;
        }
    }
};

// E2M1 codes of a word to E4M3 = value * 2^-6, exact: rows g and g + 8, columns 2, 0, 3, 1 of 4.
__device__ __forceinline__ void unpack_e4m3(uint32_t w, uint32_t (&a)[2]) {
    constexpr uint32_t SIGN_1 = 0x80008000, MAGNITUDE_1 = 0x1C001C00, SIGN_0 = 0x00800080,
                       MAGNITUDE_0 = 0x001C001C;
    a[0] = (w & SIGN_1) | ((w << 1) & MAGNITUDE_1) | ((w >> 7) & SIGN_0) | ((w >> 1) & MAGNITUDE_0);
    a[1] = ((w << 3) & SIGN_1) | ((w << 4) & MAGNITUDE_1) | ((w >> 6) & SIGN_0) | ((w << 2) & MAGNITUDE_0);
}

// Word b of lane q becomes word q of lane b of the quad.
__device__ __forceinline__ void transpose_quad(uint32_t (&w)[4]) {
    const bool high = threadIdx.x & 2, odd = threadIdx.x & 1;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);
        w[i] = high ? got : w[i], w[i + 2] = high ? w[i + 2] : got;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);
        w[i] = odd ? got : w[i], w[i + 1] = odd ? w[i + 1] : got;
    }
}

// A operands for what a lane reads of a token's row at once, 16 bytes: PER_STAGE times a stage. multiply(i,
// ..) for i below MMAS adds their products to acc.
template <Format F, bool E4M3> struct Step {
    static_assert(!E4M3, "E4M3 rows are multiplied with NVFP4 weights");
    static constexpr uint32_t PER_STAGE = 2, MMAS = 2;
    uint32_t a[2][4];
    __device__ __forceinline__ void load(const Stage<F> &stage, uint32_t step) { stage.pair(step, a); }
    __device__ __forceinline__ void multiply(uint32_t i, float (&acc)[4], const uint4 &x) const {
        mma_m16n8k16_f32_f16(acc, a[i], i ? x.z : x.x, i ? x.w : x.y);
    }
};

template <> struct Step<FORMAT_NVFP4, true> {
    static constexpr uint32_t PER_STAGE = 1, MMAS = 4; // an mma a block
    uint32_t a[4][2];
    float scale[4][2]; // of a block, in rows g and g + 8
    __device__ __forceinline__ void load(const Stage<FORMAT_NVFP4> &stage, uint32_t) {
        uint32_t w[4] = {stage.codes.x, stage.codes.y, stage.codes.z, stage.codes.w};
        transpose_quad(w);
        const uint32_t near = __shfl_xor_sync(~0u, stage.scales, 1);
        const uint32_t two = threadIdx.x & 1 ? near | stage.scales << 16 : stage.scales | near << 16;
        const uint32_t far = __shfl_xor_sync(~0u, two, 2);
        const uint32_t low = threadIdx.x & 2 ? far : two, high = threadIdx.x & 2 ? two : far;
#pragma unroll
        for (uint32_t b = 0; b < 4; b++) {
            unpack_e4m3(w[b], a[b]);
            const uint32_t both = cvt_rn_f16x2_e4m3x2((uint16_t)((b < 2 ? low : high) >> b % 2 * 16));
            scale[b][0] = cvt_f32_f16((uint16_t)both), scale[b][1] = cvt_f32_f16((uint16_t)(both >> 16));
        }
    }
    __device__ __forceinline__ void multiply(uint32_t i, float (&acc)[4], const uint4 &x) const {
        float d[4];
        mma_m16n8k16_f32_e4m3(d, a[i], i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w);
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) acc[e] = fmaf(scale[i][e / 2], d[e], acc[e]);
    }
};
#endif
