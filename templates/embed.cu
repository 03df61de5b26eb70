// embed: out[t] = table[ids[t]] * row_scale[ids[t]] * scale; ids outside the table give zeros. A block a
// token. The table is plain rows, or the fp16 tiles of a linear that shares it (MMA_F16 of pack/layout.h).
#include "templates/lib/act.cuh"
#include "templates/lib/stage.cuh"

// Four neighbouring values, columns col .. col + 3: in tiles they are two registers of one lane's k-step.
template <class S>
__device__ __forceinline__ float4 embed_load(const void *table, uint32_t id, uint32_t col) {
    const uint64_t place = (uint64_t)id * S::hidden + col;
    if constexpr (S::format == FORMAT_ROWS_F32) return *(const float4 *)((const float *)table + place);
    if constexpr (S::format == FORMAT_ROWS_BF16) {
        const uint2 v = *(const uint2 *)((const uint16_t *)table + place);
        return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xFFFF0000),
                           __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xFFFF0000));
    }
    const uint32_t row = id % TILE_ROWS, in_stage = col % STAGE_COLS, step = in_stage % 16 / 4,
                   lane = row % 8 * 4 + in_stage / 16;
    const uint64_t stage = (uint64_t)(id / TILE_ROWS) * stages_of(S::hidden) + col / STAGE_COLS;
    const uint8_t *at =
        (const uint8_t *)table + stage * stage_bytes(FORMAT_F16) + step * 512 + lane * 16 + row / 8 * 4;
    const uint32_t low = *(const uint32_t *)at, high = *(const uint32_t *)(at + 8);
    return make_float4(cvt_f32_f16((uint16_t)low), cvt_f32_f16((uint16_t)(low >> 16)),
                       cvt_f32_f16((uint16_t)high), cvt_f32_f16((uint16_t)(high >> 16)));
}

template <class S> __device__ void embed(const Args<5> &a) {
    static_assert(S::format == FORMAT_ROWS_F32 || S::format == FORMAT_ROWS_BF16 || S::format == FORMAT_F16,
                  "a table of rows, or fp16 tiles");
    static_assert(S::hidden % 4 == 0, "rows are moved 4 values at a time");
    using Share = RowShare<S::hidden, S::threads>;
    const uint32_t n_tokens = ((const uint32_t *)a.p[4])[COUNT_TOKENS];
    for (uint32_t token = blockIdx.x; token < n_tokens; token += gridDim.x) {
        const uint32_t id = ((const uint32_t *)a.p[2])[token];
        const bool known = id < S::vocab;
        float factor = S::scale;
        if constexpr (S::format == FORMAT_F16) factor = known ? ((const float *)a.p[1])[id] * S::scale : 0;
        float v[Share::EACH][4];
#pragma unroll
        for (uint32_t j = 0; j < Share::EACH; j++) {
            float4 x = make_float4(0, 0, 0, 0);
            if (known && Share::holds(j)) x = embed_load<S>(a.p[0], id, Share::column(j));
            v[j][0] = x.x * factor, v[j][1] = x.y * factor, v[j][2] = x.z * factor, v[j][3] = x.w * factor;
        }
        Share::store((float *)a.p[3] + (uint64_t)token * S::hidden, v);
    }
}

#ifndef INSTANCE
struct EmbedTied { // Gemma3
    static constexpr uint32_t hidden = 1152, vocab = 262144, threads = 288, shared_bytes = 0;
    static constexpr float scale = 33.941125f;
    static constexpr Format format = FORMAT_F16;
};
struct EmbedRows : EmbedTied {
    static constexpr uint32_t hidden = 5376, threads = 672;
    static constexpr Format format = FORMAT_ROWS_BF16;
};
struct EmbedRowsF32 : EmbedTied {
    static constexpr uint32_t hidden = 640, threads = 160;
    static constexpr Format format = FORMAT_ROWS_F32;
};
#define SAMPLE(name, S)                                                                                      \
    extern "C" __global__ void __launch_bounds__(S::threads) name(const __grid_constant__ Args<5> args) {    \
        embed<S>(args);                                                                                      \
    }
SAMPLE(embed_tied, EmbedTied)
SAMPLE(embed_rows, EmbedRows)
SAMPLE(embed_rows_f32, EmbedRowsF32)
#endif
