// Random weights. Every row has its own counter-based stream, so that any thread may make any row, and only
// integer arithmetic and exact scalings are used, so that every machine makes the same bits.
#include <math.h>

#include "compiler/frontend/nvfp4.h"
#include "compiler/frontend/source_internal.h"
#include "runtime/base/fp.h"

WeightSource *source_random(Arena *a, uint64_t seed) {
    WeightSource *s = source_new(a);
    s->seed = seed;
    return s;
}

static uint64_t mix(uint64_t z) { // splitmix64's finaliser
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

typedef struct {
    uint64_t state;
} Stream;

static Stream stream_of(const SourceEntry *e, uint64_t row) {
    return (Stream){mix(e->seed + mix(row + 0x9E3779B97F4A7C15u))};
}

static uint64_t next(Stream *s) { return mix(s->state += 0x9E3779B97F4A7C15u); }

// Sum of four 16-bit uniforms: bell-shaped, mean 0, standard deviation 1.
static float next_bell(Stream *s) {
    uint64_t u = next(s);
    int32_t sum = (int32_t)((u & 0xFFFF) + (u >> 16 & 0xFFFF) + (u >> 32 & 0xFFFF) + (u >> 48));
    return (float)(sum - 2 * 65535) * 0x1.bb67aep-17f; // 1 / (65536 * sqrt(4/12))
}

// Block scales are drawn from the 16 bytes from 0x34 on (0.75 to 2.75); together with uniform codes (mean
// square 8.5625) that gives a mean square of the unscaled weight.
enum { SCALE_FIRST = 0x34 };

static float nvfp4_random_global(uint64_t k) {
    double square = 0;
    for (uint8_t i = 0; i < 16; i++) {
        double v = (double)e4m3_to_f32((uint8_t)(SCALE_FIRST + i));
        square += v * v / 16;
    }
    return (float)(1 / sqrt(8.5625 * square * (double)k));
}

void source_random_declare(WeightSource *s, Str name, WeightFormat format, uint32_t rank,
                           const uint64_t *shape, RandomKind kind) {
    CHECK(rank == 1 || rank == 2);
    CHECK(format != WF_NVFP4 || (rank == 2 && shape[1] % NVFP4_BLOCK == 0));
    SourceEntry *e = source_add(s, name);
    e->kind = FROM_RANDOM, e->random = kind, e->stored = format;
    e->info.format = format, e->info.rank = rank;
    for (uint32_t i = 0; i < rank; i++) e->info.shape[i] = shape[i];
    e->info.global = format == WF_NVFP4 ? nvfp4_random_global(shape[1]) : 1;
    e->seed = mix(s->seed ^ mix(str_hash(name)));
}

void source_random_nvfp4(const SourceEntry *e, uint64_t row, uint64_t n_rows, uint8_t *codes,
                         uint8_t *scales) {
    uint64_t blocks = weight_cols(&e->info) / NVFP4_BLOCK;
    for (uint64_t r = 0; r < n_rows; r++) {
        Stream s = stream_of(e, row + r);
        for (uint64_t b = 0, u; b < blocks; b++, codes += 8) {
            u = next(&s);
            for (int i = 0; i < 8; i++) codes[i] = (uint8_t)(u >> 8 * i);
        }
        uint64_t u = 0;
        for (uint64_t b = 0; b < blocks; b++, u >>= 4) {
            if (b % 16 == 0) u = next(&s);
            *scales++ = (uint8_t)(SCALE_FIRST + (u & 15));
        }
    }
}

static float round_to(float v, WeightFormat f) {
    return f == WF_BF16 ? bf16_to_f32(f32_to_bf16(v)) : f == WF_F16 ? f16_to_f32(f32_to_f16(v)) : v;
}

void source_random_f32(const SourceEntry *e, uint64_t row, uint64_t n_rows, float *out) {
    uint64_t k = weight_cols(&e->info);
    float mean = e->random == RANDOM_NORM_ONE ? 1.0f : 0.0f;
    float std = e->random == RANDOM_LINEAR ? (float)(1 / sqrt((double)k)) : 0.125f;
    for (uint64_t r = 0; r < n_rows; r++) {
        Stream s = stream_of(e, row + r);
        for (uint64_t i = 0; i < k; i++) *out++ = round_to(mean + std * next_bell(&s), e->info.format);
    }
}
