// The expert linears and what stands around them: random against doubles with skewed routing, the same bits
// for a token's experts in every form and company, NaN of other rows kept away.
#include <math.h>

#include "runtime/base/fp.h"
#include "tests/device/device.h"

enum { EXPERTS = 7, TOPK = 2, TOKENS = 150, BUCKETS = 4 };
static const uint32_t buckets[BUCKETS] = {1, 4, 64, 256};

typedef struct {
    uint32_t n, k; // gate_up: n is the width of what it gives
    const char *format;
    bool e4m3;                                  // rows of x
    uint32_t gate[BUCKETS], down[BUCKETS], sum; // kernels
} Experts;
static Experts shapes[] = {{.n = 40, .k = 80, .format = "nvfp4"},
                           {.n = 192, .k = 320, .format = "nvfp4"},
                           {.n = 33, .k = 48, .format = "f16"},
                           {.n = 192, .k = 320, .format = "nvfp4", .e4m3 = true}};
static uint32_t router[2][2]; // kernels: shape, bucket 1 or 64
static const struct { uint32_t n, k; } routers[2] = {{5, 48}, {128, 2048}};

static uint32_t x_pitch(const Experts *s) { return s->e4m3 ? e4m3_pitch(s->k) : act_pitch(s->k, false); }

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        Experts *s = &shapes[i];
        for (uint32_t b = 0; b < BUCKETS; b++) {
            s->gate[b] = device_add("moe_gate_up experts=%d topk=%d f=%u k=%u format=%s act=silu x_pitch=%u "
                                    "x_e4m3=%u out_pitch=%u @ %u",
                                    EXPERTS, TOPK, s->n, s->k, s->format, x_pitch(s), s->e4m3,
                                    act_pitch(s->n, false), buckets[b]);
            s->down[b] =
                device_add("moe_down experts=%d topk=%d n=%u k=%u format=%s x_pitch=%u x_e4m3=%u each=1 @ %u",
                           EXPERTS, TOPK, s->n, s->k, s->format, x_pitch(s), s->e4m3, buckets[b]);
        }
        s->sum = device_add("moe_combine topk=%d n=%u @ 256", TOPK, s->n);
    }
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t b = 0; b < 2; b++)
            router[i][b] = device_add(
                "linear_f32 n=%u k=%u out_stride=%u has_bias=%u count=0 x_pitch=%u wide=1 @ %u", routers[i].n,
                routers[i].k, routers[i].n, i, act_pitch(routers[i].k, true), b ? 64 : 1);
}

// Expert 3 serves every token, 4 none, the others a few.
static int32_t *routes(void) {
    int32_t *ids = test_alloc(TOKENS * TOPK * sizeof *ids);
    for (uint32_t t = 0; t < TOKENS; t++)
        ids[t * TOPK] = 3, ids[t * TOPK + 1] = (int32_t)(t % 5 == 3 ? 6 : t % 5 == 4 ? 5 : t % 5);
    return ids;
}

static double dot(const TestTiles *w, uint32_t row, const double *x) {
    double sum = 0;
    for (uint32_t c = 0; c < w->cols; c++) sum += w->value[(size_t)row * w->cols + c] * x[c];
    return sum;
}

static TestTiles tiles(const Experts *s, uint64_t seed, bool gate) {
    uint32_t rows = gate ? 2 * s->n : s->n;
    return strcmp(s->format, "nvfp4") ? tiles_f16(seed, EXPERTS, rows, s->k, gate)
                                      : tiles_nvfp4(seed, EXPERTS, rows, s->k, gate);
}

static TestActs random_acts(uint64_t seed, uint32_t n, uint32_t k, bool wide, bool e4m3) {
    float *x = test_alloc((size_t)n * k * sizeof *x);
    random_outliers(seed, x, (size_t)n * k);
    return e4m3 ? acts_e4m3_of(x, n, k) : acts_of(x, n, k, act_pitch(k, wide), wide);
}

// One of the two expert linears on the card. A pair is a token with one of its experts.
typedef struct {
    const Experts *s;
    bool gate;
    TestTiles w;
    TestActs x; // a row a token, or a row a pair
    int32_t *ids;
    void *packed, *row_scale, *bound, *rows, *routes, *counts, *out;
    size_t out_pitch; // bytes of a pair's row
} Bench;

static Bench bench_of(const Experts *s, bool gate, uint64_t seed) {
    Bench b = {.s = s, .gate = gate, .w = tiles(s, seed, gate), .ids = routes()};
    b.x = random_acts(seed + 1, gate ? TOKENS : TOKENS * TOPK, s->k, false, s->e4m3);
    b.packed = device_copy(b.w.packed, b.w.packed_bytes);
    b.row_scale = device_copy(b.w.row_scale, b.w.stack * b.w.rows * sizeof *b.w.row_scale);
    b.bound = device_copy(b.w.bound, sizeof b.w.bound);
    b.rows = device_copy(b.x.rows, b.x.bytes);
    b.routes = device_copy(b.ids, TOKENS * TOPK * sizeof *b.ids);
    b.counts = device_counts(0, 0);
    b.out_pitch = gate ? act_pitch(s->n, false) : s->n * sizeof(float);
    b.out = device_fill(TOKENS * TOPK * b.out_pitch);
    return b;
}

static const uint8_t *run(const Bench *b, uint32_t form, uint32_t first, uint32_t n) {
    uint8_t *x = (uint8_t *)b->rows + (size_t)first * (b->gate ? 1 : TOPK) * b->x.pitch;
    int32_t *ids = (int32_t *)b->routes + first * TOPK;
    void *gate[] = {x, b->packed, b->row_scale, b->bound, ids, b->out, b->counts};
    void *down[] = {x, b->packed, b->row_scale, ids, NULL, b->out, b->counts};
    uint32_t kernel = b->gate ? b->s->gate[form] : b->s->down[form];
    device_write(b->counts, (uint32_t[2]){n, n}, 2 * sizeof(uint32_t));
    device_wipe(b->out);
    device_run(kernel, b->gate ? gate : down, 7);
    const uint8_t *out = device_read(b->out);
    for (size_t i = n * TOPK * b->out_pitch; i < TOKENS * TOPK * b->out_pitch; i++)
        if (out[i] != 0xFF) check_fail("%s: %u tokens, but byte %zu was written", device_spec(kernel), n, i);
    return out;
}

static void expected(const Bench *b, uint32_t pair, double *want) {
    const double *x = b->x.value + (size_t)(b->gate ? pair / TOPK : pair) * b->s->k;
    uint32_t first = (uint32_t)b->ids[pair] * b->w.rows;
    for (uint32_t i = 0; i < b->s->n; i++) {
        want[i] = dot(&b->w, first + i, x);
        if (b->gate) want[i] *= dot(&b->w, first + b->s->n + i, x) / (1 + exp(-want[i]));
    }
}

static void check_pairs(const Bench *b, uint32_t form, const uint8_t *out, uint32_t n) {
    const char *what = device_spec(b->gate ? b->s->gate[form] : b->s->down[form]);
    double *want = test_alloc(b->s->n * sizeof *want);
    for (uint32_t p = 0; p < n * TOPK; p++) {
        const uint8_t *row = out + p * b->out_pitch;
        expected(b, p, want);
        if (b->gate)
            // Outliers make the bound loose from which the scale of a row follows: fewer bits are left.
            check_acts(what, row, want, 1, b->s->n, (uint32_t)b->out_pitch, 4e-3);
        else
            check_close(what, (const float *)(const void *)row, want, b->s->n, 2e-4);
    }
}

static void experts_against_doubles(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 2 * COUNT_OF(shapes); c++) {
        Bench b = bench_of(&shapes[c / 2], c % 2, 10 + c);
        for (uint32_t f = 0; f < BUCKETS; f++) {
            uint32_t most = MIN(buckets[f], (uint32_t)TOKENS), counts[] = {0, 1, most - most / 3, most};
            for (size_t i = 0; i < COUNT_OF(counts); i++)
                check_pairs(&b, f, run(&b, f, 0, counts[i]), counts[i]);
        }
        device_drop_all();
    }
}

static void same_bits_in_every_company(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 2 * COUNT_OF(shapes); c++) {
        Bench b = bench_of(&shapes[c / 2], c % 2, 30 + c);
        size_t token = TOPK * b.out_pitch;
        const uint8_t *all = run(&b, BUCKETS - 1, 0, TOKENS);
        for (uint32_t f = 0; f < BUCKETS; f++) {
            uint32_t most = MIN(buckets[f], (uint32_t)TOKENS), parts[] = {most, most - most / 3};
            for (size_t s = 0; s < COUNT_OF(parts); s++)
                for (uint32_t t = 0; t + parts[s] <= TOKENS; t += MAX(parts[s], TOKENS / 5)) {
                    const uint8_t *out = run(&b, f, t, parts[s]);
                    for (uint32_t p = 0; p < parts[s] * TOPK; p++)
                        check_bits(device_spec(b.gate ? b.s->gate[f] : b.s->down[f]), out + p * b.out_pitch,
                                   all + t * token + p * b.out_pitch, b.out_pitch - (b.gate ? 8 : 0));
                }
        }
        device_drop_all();
    }
}

static void nan_stays_where_it_is(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 2 * COUNT_OF(shapes); c++)
        for (uint32_t f = 1; f < BUCKETS; f++) {
            Bench b = bench_of(&shapes[c / 2], c % 2, 50 + c);
            uint32_t n = buckets[f] / 2, per = b.gate ? 1 : TOPK;
            const uint8_t *clean = run(&b, f, 0, n);
            memset(b.x.rows, 0xFF, per * ((size_t)b.x.pitch - 16)); // values of the first token
            memset(b.x.rows + (size_t)n * per * b.x.pitch, 0xFF, b.x.bytes - (size_t)n * per * b.x.pitch);
            device_write(b.rows, b.x.rows, b.x.bytes);
            device_write((int32_t *)b.routes + n * TOPK, memset(test_alloc(64), 0xFF, 64),
                         MIN(64u, (TOKENS - n) * TOPK * 4)); // routes past the count name no expert
            const uint8_t *out = run(&b, f, 0, n);
            for (uint32_t p = 2 * TOPK; p < n * TOPK; p++)
                check_bits(device_spec(b.gate ? b.s->gate[f] : b.s->down[f]), out + p * b.out_pitch,
                           clean + p * b.out_pitch, b.out_pitch - (b.gate ? 8 : 0));
            device_drop_all();
        }
}

static void combine_sums(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        const uint32_t n = shapes[i].n, all = TOKENS * TOPK;
        float *parts = test_alloc((size_t)all * n * sizeof *parts), weights[TOKENS * TOPK];
        double *want = test_alloc((size_t)TOKENS * n * sizeof *want);
        random_outliers(60 + i, parts, (size_t)all * n), random_fill(61, weights, all, 1);
        for (uint32_t p = 0; p < all; p++)
            for (uint32_t j = 0; j < n; j++)
                want[p / TOPK * n + j] += (double)weights[p] * (double)parts[(size_t)p * n + j];
        void *out = device_fill((size_t)TOKENS * n * sizeof(float));
        void *args[] = {device_copy(parts, (size_t)all * n * sizeof *parts),
                        device_copy(weights, sizeof weights), out, device_counts(TOKENS - 3, 0)};
        device_run(shapes[i].sum, args, 4);
        const float *got = device_read(out);
        check_close(device_spec(shapes[i].sum), got, want, (size_t)(TOKENS - 3) * n, 1e-5);
        for (uint32_t j = (TOKENS - 3) * n; j < TOKENS * n; j++)
            assert_int_equal(f32_bits(got[j]), UINT32_MAX);
        device_drop_all();
    }
}

// The router reads the rows that were not rounded.
static void router_reads_wide_rows(void **state) {
    (void)state;
    enum { ROWS = 50 };
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t n = routers[i].n, k = routers[i].k, pitch = act_pitch(k, true);
        float *x = test_alloc((size_t)ROWS * k * sizeof *x), *w = test_alloc((size_t)n * k * sizeof *w),
              bias[128];
        double *want = test_alloc((size_t)ROWS * n * sizeof *want);
        random_outliers(80, x, (size_t)ROWS * k), random_fill(81, w, (size_t)n * k, 1),
            random_fill(82, bias, n, 9);
        TestActs acts = acts_of(x, ROWS, k, pitch, true);
        for (uint32_t t = 0; t < ROWS; t++)
            for (uint32_t r = 0; r < n; r++) {
                want[t * n + r] = i ? (double)bias[r] : 0;
                for (uint32_t c = 0; c < k; c++)
                    want[t * n + r] += (double)w[(size_t)r * k + c] * (double)x[(size_t)t * k + c];
            }
        uint8_t *rows = device_copy(acts.rows, acts.bytes);
        void *out = device_fill((size_t)ROWS * n * sizeof(float)), *counts = device_counts(ROWS, 0);
        void *args[] = {rows, device_copy(w, (size_t)n * k * sizeof *w),
                        i ? device_copy(bias, n * sizeof *bias) : NULL, out, counts};
        device_run(router[i][1], args, 5);
        const float *all = device_read(out);
        check_close(device_spec(router[i][1]), all, want, (size_t)ROWS * n, 1e-5);
        for (uint32_t t = 0; t < ROWS; t += 7) {
            args[0] = rows + (size_t)t * pitch, args[4] = device_counts(1, 0);
            device_wipe(out);
            device_run(router[i][0], args, 5);
            check_bits(device_spec(router[i][0]), device_read(out), all + (size_t)t * n, n * sizeof(float));
        }
        device_drop_all();
    }
}

static const struct CMUnitTest tests[] = {
    device_test(experts_against_doubles), device_test(same_bits_in_every_company),
    device_test(nan_stays_where_it_is),   device_test(combine_sums),
    device_test(router_reads_wide_rows),
};
DEVICE_MAIN(setup, tests)
