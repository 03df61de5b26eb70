// linear and gate_up: exact patterns bit for bit, random with outliers against doubles, edges of tiles and
// counts, and the same bits for a token in every form, at every place of every batch, whoever norms its row.
#include <math.h>

#include "compiler/pack/layout.h"
#include "runtime/base/fp.h"
#include "tests/device/forms.h"

enum { PRODUCT_FORMS_MAX = 12, TOKENS_MAX = 300 };

// A product of one shape in the forms that the target chooses for some buckets.
typedef struct {
    bool gate, e4m3; // gate_up: n is the width of what it gives; e4m3: rows of x
    uint32_t n, k, stride;
    const char *format, *more; // more fields
    uint32_t buckets[PRODUCT_FORMS_MAX];
    uint32_t forms[PRODUCT_FORMS_MAX], n_forms; // kernels
} Product;

#define LINEAR(n_, k_, stride_, format_, more_, ...)                                                         \
    {                                                                                                        \
        .n = n_, .k = k_, .stride = stride_, .format = format_, .more = more_, .buckets = { __VA_ARGS__ }    \
    }
#define GATE_UP(f_, k_, format_, act_, ...)                                                                  \
    {                                                                                                        \
        .gate = true, .n = f_, .k = k_, .format = format_, .more = "act=" act_, .buckets = { __VA_ARGS__ }   \
    }
#define LINEAR_E4M3(n_, k_, more_, ...)                                                                      \
    {                                                                                                        \
        .e4m3 = true, .n = n_, .k = k_, .stride = n_, .format = "nvfp4", .more = "x_e4m3=1 " more_,          \
        .buckets = {                                                                                         \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define GATE_UP_E4M3(f_, k_, act_, ...)                                                                      \
    {                                                                                                        \
        .gate = true, .e4m3 = true, .n = f_, .k = k_, .format = "nvfp4", .more = "x_e4m3=1 act=" act_,       \
        .buckets = {                                                                                         \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define EVERY_BUCKET 1, 2, 4, 8, 16, 32, 64, 256, 1024
#define SOME_BUCKETS 1, 16, 256
static Product products[] = {
    LINEAR(336, 640, 336, "nvfp4", "", EVERY_BUCKET),
    LINEAR(80, 144, 80, "f16", "", EVERY_BUCKET),
    GATE_UP(88, 640, "nvfp4", "silu", EVERY_BUCKET),
    GATE_UP(40, 80, "f16", "gelu_tanh", 1, 16, 64),
    LINEAR(16, 16, 16, "nvfp4", "", SOME_BUCKETS),
    LINEAR(130, 48, 140, "nvfp4", "", SOME_BUCKETS),
    LINEAR(40, 80, 40, "nvfp4", "", SOME_BUCKETS),
    LINEAR(1, 272, 1, "nvfp4", "", 1, 64),
    LINEAR(48, 5376, 48, "nvfp4", "", SOME_BUCKETS),
    GATE_UP(16, 16, "nvfp4", "gelu_tanh", 1, 64),
    GATE_UP(21, 48, "nvfp4", "silu", 1, 64),
    LINEAR(336, 640, 336, "e4m3", "", EVERY_BUCKET),
    LINEAR(130, 48, 140, "e4m3", "", SOME_BUCKETS),
    LINEAR(48, 5376, 48, "e4m3", "", EVERY_BUCKET),
    LINEAR(1, 272, 1, "e4m3", "", 1, 64),
    LINEAR(2128, 1024, 2128, "e4m3", "", EVERY_BUCKET),
    LINEAR_E4M3(336, 640, "", EVERY_BUCKET),
    GATE_UP_E4M3(88, 640, "silu", EVERY_BUCKET),
    LINEAR_E4M3(16, 16, "", SOME_BUCKETS),
    LINEAR_E4M3(130, 48, "", SOME_BUCKETS),
    LINEAR_E4M3(48, 5376, "", SOME_BUCKETS),
    GATE_UP_E4M3(21, 48, "gelu_tanh", 1, 64),
};
static Product exact[] = {LINEAR(128, 256, 128, "nvfp4", "", SOME_BUCKETS),
                          LINEAR_E4M3(128, 256, "", SOME_BUCKETS)};
static Product whole[] = {LINEAR(112, 320, 112, "nvfp4", "", EVERY_BUCKET),
                          LINEAR_E4M3(112, 320, "", EVERY_BUCKET)};
static Product exact_e4m3 = LINEAR(256, 64, 256, "e4m3", "", SOME_BUCKETS);
static Product biased[] = {LINEAR(40, 48, 50, "f16", "has_bias=1 softcap=30 count=1", 1, 16, 64),
                           LINEAR(40, 48, 50, "e4m3", "has_bias=1 softcap=30 count=1", 1, 16, 64)};

static Product added = LINEAR(130, 272, 130, "nvfp4", "add=1", EVERY_BUCKET);
static Product plain = LINEAR(130, 272, 130, "nvfp4", "", 1024);

// Products that can make rows of x themselves, and the launches that they then stand for.
enum { FOLD_TOKENS = 2 };
static const Product normed[] = {
    LINEAR(336, 1024, 336, "nvfp4", ""),   LINEAR(2208, 2048, 2208, "f16", ""),
    LINEAR(2208, 4096, 2208, "nvfp4", ""), LINEAR(2208, 2048, 2208, "e4m3", ""),
    GATE_UP(88, 1024, "nvfp4", "silu"),    GATE_UP(1112, 2048, "nvfp4", "silu"),
    LINEAR_E4M3(2208, 1024, ""),           GATE_UP_E4M3(1112, 2048, "silu"),
};
static struct {
    uint32_t norm, product, fold; // kernels
} folds[COUNT_OF(normed)][FOLD_TOKENS];

static uint32_t x_pitch(const Product *p) { return p->e4m3 ? e4m3_pitch(p->k) : act_pitch(p->k, false); }

static TestActs acts(const Product *p, const float *x, uint32_t n) {
    return p->e4m3 ? acts_e4m3_of(x, n, p->k) : acts_of(x, n, p->k, x_pitch(p), false);
}

static uint32_t add_form(const Product *p, const char *schedule) {
    return p->gate ? device_add("gate_up f=%u k=%u format=%s x_pitch=%u out_pitch=%u %s %s", p->n, p->k,
                                p->format, x_pitch(p), act_pitch(p->n, false), p->more, schedule)
                   : device_add("linear n=%u k=%u format=%s out_stride=%u x_pitch=%u %s %s", p->n, p->k,
                                p->format, p->stride, x_pitch(p), p->more, schedule);
}

// Two row tiles a warp, as large products choose for many tokens.
static void add_pairs(Product *p, uint32_t bucket, uint32_t warps, uint32_t per_sm, uint32_t kept_bytes) {
    uint32_t tiles = div_up(p->n, p->gate ? 8 : 16), grid = div_up(tiles, 2 * warps) * div_up(bucket, 64);
    CHECK(p->n_forms < PRODUCT_FORMS_MAX);
    p->buckets[p->n_forms] = bucket;
    p->forms[p->n_forms++] =
        add_form(p, line("| tiled=1 cols=8 groups=%u round=2 parts=1 per_sm=%u threads=%u grid=%u shared=%u",
                         warps, per_sm, warps * 32, grid, 65536 + kept_bytes));
}

static void add_forms(Product *p) {
    for (; p->n_forms < PRODUCT_FORMS_MAX && p->buckets[p->n_forms]; p->n_forms++)
        p->forms[p->n_forms] = add_form(p, line("@ %u", p->buckets[p->n_forms]));
    const uint32_t most = p->buckets[p->n_forms - 1];
    if (most == 1024 && !p->e4m3 && !strcmp(p->format, "nvfp4"))
        add_pairs(p, most, 4, 2, 0), add_pairs(p, most, 12, 1, 2 * 8 * 12 * 512);
}

static void add_folds(size_t i) {
    const Product *p = &normed[i];
    const uint32_t pitch = x_pitch(p);
    for (uint32_t b = 1; b <= FOLD_TOKENS; b++) {
        uint32_t kernels[2];
        for (uint32_t norm = 0; norm < 2; norm++)
            kernels[norm] =
                p->gate ? device_add(
                              "gate_up f=%u k=%u format=%s x_pitch=%u out_pitch=%u %s norm=%u eps=1e-6 @ %u",
                              p->n, p->k, p->format, pitch, act_pitch(p->n, false), p->more, norm, b)
                        : device_add(
                              "linear n=%u k=%u format=%s out_stride=%u x_pitch=%u %s norm=%u eps=1e-6 @ %u",
                              p->n, p->k, p->format, p->stride, pitch, p->more, norm, b);
        CHECK(device_choice(kernels[1])->spared_us > 0);
        folds[i][b - 1].norm = device_add("norm_add hidden=%u eps=1e-6 has_out=1 out_pitch=%u e4m3=%u @ %u",
                                          p->k, pitch, p->e4m3, b);
        folds[i][b - 1].product = kernels[0], folds[i][b - 1].fold = kernels[1];
    }
}

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(products); i++) add_forms(&products[i]);
    for (size_t i = 0; i < COUNT_OF(exact); i++) add_forms(&exact[i]);
    for (size_t i = 0; i < COUNT_OF(whole); i++) add_forms(&whole[i]);
    add_forms(&added), add_forms(&plain), add_forms(&exact_e4m3);
    for (size_t i = 0; i < COUNT_OF(biased); i++) add_forms(&biased[i]);
    for (size_t i = 0; i < COUNT_OF(normed); i++) add_folds(i);
}

// ---- one product on the card ---------------------------------------------------------------------

typedef struct {
    const Product *p;
    TestTiles w;
    TestActs x;
    void *packed, *row_scale, *bound, *bias, *rows, *counts, *out;
    size_t out_pitch; // bytes of a row of `out`
} Bench;

static Bench bench_of(const Product *p, TestTiles w, TestActs x) {
    Bench b = {.p = p, .w = w, .x = x};
    b.packed = device_copy(w.packed, w.packed_bytes);
    b.row_scale = device_copy(w.row_scale, w.stack * w.rows * sizeof *w.row_scale);
    b.bound = device_copy(w.bound, sizeof w.bound);
    b.rows = device_copy(x.rows, x.bytes);
    b.counts = device_counts(0, 0);
    b.out_pitch = p->gate ? act_pitch(p->n, false) : p->stride * sizeof(float);
    b.out = device_fill(x.n * b.out_pitch);
    return b;
}

static TestTiles random_tiles(const Product *p, uint64_t seed) {
    uint32_t rows = p->gate ? 2 * p->n : p->n;
    if (!strcmp(p->format, "e4m3")) return tiles_e4m3(seed, 1, rows, p->k, p->gate);
    return strcmp(p->format, "nvfp4") ? tiles_f16(seed, 1, rows, p->k, p->gate)
                                      : tiles_nvfp4(seed, 1, rows, p->k, p->gate);
}

static TestActs random_acts(const Product *p, uint64_t seed, uint32_t n) {
    float *x = test_alloc((size_t)n * p->k * sizeof *x);
    random_outliers(seed, x, (size_t)n * p->k);
    return acts(p, x, n);
}

// Runs tokens [first, first + n) as the whole batch; returns all of `out`: rows past n must still be NaN.
static const uint8_t *run(const Bench *b, uint32_t form, uint32_t first, uint32_t n) {
    uint8_t *x = (uint8_t *)b->rows + (size_t)first * b->x.pitch;
    void *linear[] = {x, b->packed, b->row_scale, b->bias, b->out, b->counts, NULL, NULL, NULL, NULL};
    void *gate[] = {x, b->packed, b->row_scale, b->bound, b->out, b->counts, NULL, NULL, NULL, NULL};
    CHECK(first + n <= b->x.n && n <= b->p->buckets[form]);
    device_write(b->counts, (uint32_t[2]){n, n}, 2 * sizeof(uint32_t));
    device_wipe(b->out);
    device_run(b->p->forms[form], b->p->gate ? gate : linear, 10);
    const uint8_t *out = device_read(b->out);
    for (size_t i = n * b->out_pitch; i < b->x.n * b->out_pitch; i++)
        if (out[i] != 0xFF)
            check_fail("%s: %u tokens, but byte %zu of row %zu was written", device_spec(b->p->forms[form]),
                       n, i % b->out_pitch, i / b->out_pitch);
    return out;
}

static double act(const Product *p, double g) {
    return strstr(p->more, "silu")
               ? g / (1 + exp(-g))
               : 0.5 * g * (1 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g)));
}

static double dot(const Bench *b, uint32_t token, uint32_t row) {
    const double *w = b->w.value + (size_t)row * b->p->k, *x = b->x.value + (size_t)token * b->p->k;
    double sum = 0;
    for (uint32_t c = 0; c < b->p->k; c++) sum += w[c] * x[c];
    return sum;
}

static double *expected(const Bench *b) { // [tokens, n]
    const Product *p = b->p;
    double *want = test_alloc((size_t)b->x.n * p->n * sizeof *want);
    for (uint32_t t = 0; t < b->x.n; t++)
        for (uint32_t i = 0; i < p->n; i++)
            want[(size_t)t * p->n + i] = p->gate ? act(p, dot(b, t, i)) * dot(b, t, p->n + i) : dot(b, t, i);
    return want;
}

static void check_rows(const Bench *b, uint32_t form, const uint8_t *out, uint32_t n, const double *want) {
    const Product *p = b->p;
    const char *what = device_spec(p->forms[form]);
    if (p->gate) {
        check_acts(what, out, want, n, p->n, (uint32_t)b->out_pitch, 2e-3);
        return;
    }
    for (uint32_t t = 0; t < n; t++) {
        const float *row = (const float *)(const void *)(out + t * b->out_pitch);
        check_close(what, row, want + (size_t)t * p->n, p->n, 2e-4);
        for (uint32_t i = p->n; i < p->stride; i++)
            if (f32_bits(row[i]) != UINT32_MAX) check_fail("%s: column %u was written", what, i);
    }
}

// The bytes of a row of `out` that have a meaning: all but the pad of an act row's meta.
static size_t row_bytes(const Bench *b) { return b->p->gate ? b->out_pitch - 8 : b->p->n * sizeof(float); }

// ---- tests ---------------------------------------------------------------------------------------

// The packing of these tests and the compiler's are two readings of one drawing.
static void packing_agrees_with_the_compiler(void **state) {
    (void)state;
    enum { N = 24, K = 80 };
    uint8_t codes[N * K / 2], scales[N * K / 16], tile[2 * 576];
    float ones[N];
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)random_u64(&seed);
    for (size_t i = 0; i < sizeof scales; i++) scales[i] = (uint8_t)(random_u64(&seed) & 0x7F);
    for (size_t i = 0; i < N; i++) ones[i] = 1;
    TestTiles w = tiles_of_codes(codes, scales, ones, 1, N, K, false);
    for (uint32_t row = 0; row < N; row += 16) {
        layout_pack_nvfp4(ADA_LAYOUT_MMA_NVFP4, MIN(16u, N - row), K, codes + row * K / 2,
                          scales + row * K / 16, tile);
        check_bits("a tile", tile, w.packed + row / 16 * sizeof tile, sizeof tile);
    }
}

static void e4m3_packing_agrees_with_the_compiler(void **state) {
    (void)state;
    enum { N = 24, K = 80 };
    uint8_t codes[N * K], tile[2 * 1024];
    float ones[N];
    uint64_t seed = 2;
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)random_u64(&seed);
    for (size_t i = 0; i < N; i++) ones[i] = 1;
    TestTiles w = tiles_of_e4m3(codes, ones, N, K);
    for (uint32_t row = 0; row < N; row += 16) {
        layout_pack_values(ADA_LAYOUT_MMA_E4M3, MIN(16u, N - row), K, codes + row * K, tile);
        check_bits("a tile", tile, w.packed + row / 16 * sizeof tile, sizeof tile);
    }
}

// Row r holds code r + column, but the two NaN; one-hot activations read single codes, exact.
static void every_e4m3_code(void **state) {
    (void)state;
    enum { N = 256, K = 64 };
    static uint8_t codes[N * K];
    static float x[K * K], ones[N];
    for (uint32_t i = 0; i < N * K; i++) {
        codes[i] = (uint8_t)(i / K + i % K);
        if ((codes[i] & 0x7F) == 0x7F) codes[i] ^= 1;
    }
    for (uint32_t r = 0; r < N; r++) ones[r] = 1;
    for (uint32_t k = 0; k < K; k++) x[k * K + k] = 1;
    Bench b =
        bench_of(&exact_e4m3, tiles_of_e4m3(codes, ones, N, K), acts_of(x, K, K, act_pitch(K, false), false));
    for (uint32_t f = 0; f < exact_e4m3.n_forms; f++) {
        uint32_t step = MIN(exact_e4m3.buckets[f], (uint32_t)K);
        for (uint32_t k = 0; k + step <= K; k += step) {
            const float *out = (const float *)(const void *)run(&b, f, k, step);
            for (uint32_t i = 0; i < step * N; i++) {
                uint8_t code = codes[i % N * K + k + i / N];
                if (out[i] != e4m3_to_f32(code))
                    check_fail("%s: code 0x%02x gives %g, expected %g", device_spec(exact_e4m3.forms[f]),
                               code, (double)out[i], (double)e4m3_to_f32(code));
            }
        }
    }
}

// Row r holds code r % 16 in every column, and scale 1 + r / 16 * 16 + block in block; one-hot activations
// read single products: 16 codes x 126 scales, exact.
static void check_codes_and_scales(const Product *p) {
    enum { N = 128, K = 256 };
    static uint8_t codes[N * K / 2], scales[N * K / 16];
    static float x[K * K], ones[N];
    for (uint32_t r = 0; r < N; r++) {
        memset(codes + r * K / 2, (int)(r % 16 * 17), K / 2), ones[r] = 1;
        for (uint32_t b = 0; b < 16; b++) scales[r * 16 + b] = (uint8_t)MIN(r / 16 * 16 + b, 0x7Eu);
    }
    for (uint32_t k = 0; k < K; k++) x[k * K + k] = 1;
    Bench b = bench_of(p, tiles_of_codes(codes, scales, ones, 1, N, K, false), acts(p, x, K));
    for (uint32_t f = 0; f < p->n_forms; f++) {
        uint32_t step = MIN(p->buckets[f], (uint32_t)K), jump = step == 1 ? 5 : step;
        for (uint32_t k = 0; k + step <= K; k += jump) {
            const float *out = (const float *)(const void *)run(&b, f, k, step);
            for (uint32_t i = 0; i < step * N; i++) {
                uint32_t row = i % N, col = k + i / N, scale = MIN(row / 16 * 16 + col / 16, 0x7Eu);
                float want = e2m1_value[row % 16] * e4m3_to_f32((uint8_t)scale);
                if (out[i] != want)
                    check_fail("%s: code %u scale 0x%02x gives %g, expected %g", device_spec(p->forms[f]),
                               row % 16, scale, (double)out[i], (double)want);
            }
        }
    }
}

static void every_code_and_scale(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(exact); i++, device_drop_all()) check_codes_and_scales(&exact[i]);
}

// Whole numbers: every sum is exact in fp32 in whatever order.
static void check_whole_numbers(const Product *p) {
    enum { TOKENS = 70 };
    uint8_t *codes = test_alloc(p->n * p->k / 2), *scales = test_alloc(p->n * p->k / 16);
    float *ones = test_alloc(p->n * sizeof *ones), *x = test_alloc(TOKENS * p->k * sizeof *x);
    uint64_t seed = 3;
    for (uint32_t i = 0; i < p->n * p->k / 2; i++) codes[i] = (uint8_t)random_u64(&seed);
    for (uint32_t i = 0; i < p->n * p->k / 16; i++) scales[i] = (uint8_t)(0x38 + i % 2 * 8); // 1 and 2
    for (uint32_t i = 0; i < p->n; i++) ones[i] = 1;
    for (uint32_t i = 0; i < TOKENS * p->k; i++) x[i] = (float)(random_u64(&seed) % 9) - 4;
    Bench b = bench_of(p, tiles_of_codes(codes, scales, ones, 1, p->n, p->k, false), acts(p, x, TOKENS));
    const double *want = expected(&b);
    for (uint32_t f = 0; f < p->n_forms; f++) {
        uint32_t n = MIN(p->buckets[f], (uint32_t)TOKENS);
        const float *out = (const float *)(const void *)run(&b, f, 0, n);
        for (uint32_t i = 0; i < n * p->n; i++)
            if ((double)out[i] != want[i])
                check_fail("%s: token %u row %u is %g, expected %g", device_spec(p->forms[f]), i / p->n,
                           i % p->n, (double)out[i], want[i]);
    }
}

static void whole_numbers_are_exact(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(whole); i++, device_drop_all()) check_whole_numbers(&whole[i]);
}

static void random_against_doubles(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(products); i++) {
        const Product *p = &products[i];
        Bench b = bench_of(p, random_tiles(p, 10 + i), random_acts(p, 30 + i, 40));
        const double *want = expected(&b);
        for (uint32_t f = 0; f < p->n_forms; f++) {
            uint32_t most = MIN(p->buckets[f], 40u), counts[] = {0, 1, 3, most - most / 3, most};
            for (size_t c = 0; c < COUNT_OF(counts); c++)
                if (counts[c] <= most) check_rows(&b, f, run(&b, f, 0, counts[c]), counts[c], want);
        }
        device_drop_all();
    }
}

// A token's bits depend on nothing but the token: all of them at once in the largest form, then in every
// form at every place.
static void same_bits_in_every_form_and_place(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(products); i++) {
        const Product *p = &products[i];
        uint32_t last = p->n_forms - 1, n = MIN(p->buckets[last], (uint32_t)TOKENS_MAX);
        Bench b = bench_of(p, random_tiles(p, 50 + i), random_acts(p, 70 + i, n));
        const uint8_t *all = run(&b, last, 0, n);
        for (uint32_t f = 0; f < p->n_forms; f++) {
            uint32_t most = MIN(p->buckets[f], n), parts[] = {most, most - most / 3, 1};
            for (size_t s = 0; s < COUNT_OF(parts); s++)
                for (uint32_t t = 0; t + parts[s] <= n; t += MAX(parts[s], n / 6)) {
                    const uint8_t *out = run(&b, f, t, parts[s]);
                    for (uint32_t j = 0; j < parts[s]; j++)
                        check_bits(device_spec(p->forms[f]), out + j * b.out_pitch,
                                   all + (t + j) * b.out_pitch, row_bytes(&b));
                }
        }
        device_drop_all();
    }
}

// What stands in the rows past the count, and in another token's row, reaches nobody.
static void nan_stays_where_it_is(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        const Product *p = &products[i];
        for (uint32_t f = 0; f < p->n_forms; f++) {
            uint32_t room = MIN(p->buckets[f], 40u), n = room - room / 3;
            Bench b = bench_of(p, random_tiles(p, 90), random_acts(p, 91, room));
            const uint8_t *clean = run(&b, f, 0, n);
            memset(b.x.rows + (size_t)n * b.x.pitch, 0xFF, (size_t)(room - n) * b.x.pitch);
            if (n > 2) memset(b.x.rows + (size_t)b.x.pitch, 0xFF, x_pitch(p) - 16); // the values of token 1
            device_write(b.rows, b.x.rows, b.x.bytes);
            const uint8_t *out = run(&b, f, 0, n);
            for (uint32_t t = 0; t < n; t++)
                if (t != 1 || n <= 2)
                    check_bits(device_spec(p->forms[f]), out + t * b.out_pitch, clean + t * b.out_pitch,
                               row_bytes(&b));
            if (n > 2 && !p->gate && !isnan(((const float *)(const void *)(out + b.out_pitch))[0]))
                check_fail("%s: the token that is NaN became a number", device_spec(p->forms[f]));
            device_drop_all();
        }
    }
}

static void check_bias(const Product *p) {
    Bench b = bench_of(p, random_tiles(p, 5), random_acts(p, 6, 40));
    float add[40];
    random_fill(7, add, COUNT_OF(add), 20);
    b.bias = device_copy(add, sizeof add);
    double *want = expected(&b);
    for (uint32_t i = 0; i < b.x.n * p->n; i++) want[i] = 30 * tanh((want[i] + (double)add[i % p->n]) / 30);
    for (uint32_t f = 0; f < p->n_forms; f++) {
        uint32_t n = MIN(p->buckets[f], b.x.n);
        check_rows(&b, f, run(&b, f, 0, n), n, want);
    }
}

static void bias_stride_softcap(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(biased); i++, device_drop_all()) check_bias(&biased[i]);
}

// With `add` each form leaves in `out` what stood there plus what it would have written.
static void sums_are_added_once(void **state) {
    (void)state;
    enum { TOKENS = 70 };
    const Product *p = &added;
    Bench b = bench_of(p, random_tiles(p, 110), random_acts(p, 111, TOKENS)), without = b;
    without.p = &plain;
    const float *y = (const float *)(const void *)run(&without, 0, 0, TOKENS);
    float *before = test_alloc(TOKENS * p->n * sizeof *before);
    random_fill(112, before, TOKENS * p->n, 3);
    for (uint32_t f = 0; f < p->n_forms; f++) {
        uint32_t n = MIN(p->buckets[f], (uint32_t)TOKENS);
        void *args[] = {b.rows, b.packed, b.row_scale, NULL, b.out, b.counts, NULL, NULL, NULL, NULL};
        device_write(b.counts, (uint32_t[2]){n, n}, 2 * sizeof(uint32_t));
        device_write(b.out, before, TOKENS * p->n * sizeof *before);
        device_run(p->forms[f], args, COUNT_OF(args));
        const float *out = device_read(b.out);
        for (uint32_t i = 0; i < TOKENS * p->n; i++) {
            float want = i < n * p->n ? before[i] + y[i] : before[i];
            if (f32_bits(out[i]) != f32_bits(want))
                check_fail("%s: token %u row %u is %g, expected %g", device_spec(p->forms[f]), i / p->n,
                           i % p->n, (double)out[i], (double)want);
        }
    }
}

// Rows that a product makes in its shared memory are those of norm_add.
static void folded_norms_change_no_bit(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(normed); i++, device_drop_all()) {
        const Product *p = &normed[i];
        Bench b = bench_of(p, random_tiles(p, 120 + i), random_acts(p, 130, FOLD_TOKENS));
        float *x = test_alloc(FOLD_TOKENS * p->k * sizeof *x), *w = test_alloc(p->k * sizeof *w);
        random_outliers(140 + i, x, FOLD_TOKENS * p->k);
        random_fill(150 + i, w, p->k, 1);
        void *residual = device_copy(x, FOLD_TOKENS * p->k * sizeof *x);
        void *norm_w = device_copy(w, p->k * sizeof *w), *third = p->gate ? b.bound : NULL;
        for (uint32_t bucket = 1; bucket <= FOLD_TOKENS; bucket++)
            for (uint32_t n = 0; n <= bucket; n++) {
                const char *what = device_spec(folds[i][bucket - 1].fold);
                void *norm[] = {residual, NULL, NULL, norm_w, b.rows, b.counts, NULL};
                void *two[] = {b.rows, b.packed, b.row_scale, third, b.out, b.counts, NULL, NULL, NULL, NULL};
                void *one[] = {NULL,     b.packed, b.row_scale, third,  b.out,
                               b.counts, NULL,     residual,    norm_w, NULL};
                device_write(b.counts, (uint32_t[2]){n, n}, 2 * sizeof(uint32_t));
                device_wipe(b.out);
                device_run(folds[i][bucket - 1].norm, norm, COUNT_OF(norm));
                device_run(folds[i][bucket - 1].product, two, COUNT_OF(two));
                const uint8_t *want = device_read(b.out);
                device_wipe(b.out);
                device_run(folds[i][bucket - 1].fold, one, COUNT_OF(one));
                check_bits(what, device_read(b.out), want, FOLD_TOKENS * b.out_pitch);
                check_bits("the residual", device_read(residual), x, FOLD_TOKENS * p->k * sizeof *x);
            }
    }
}

static const struct CMUnitTest tests[] = {
    device_test(packing_agrees_with_the_compiler),
    device_test(every_code_and_scale),
    device_test(e4m3_packing_agrees_with_the_compiler),
    device_test(every_e4m3_code),
    device_test(whole_numbers_are_exact),
    device_test(random_against_doubles),
    device_test(same_bits_in_every_form_and_place),
    device_test(nan_stays_where_it_is),
    device_test(bias_stride_softcap),
    device_test(sums_are_added_once),
    device_test(folded_norms_change_no_bit),
};
DEVICE_MAIN(setup, tests)
