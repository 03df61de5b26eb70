// rope_attention: the bits of rope_write and attention, one after the other, in the rows and in the cache. A
// launch has tokens of many sequences or several of one, across ends of pages and parts, in windows, with
// any grid and any count.
#include <math.h>

#include "runtime/base/num.h"
#include "tests/device/device.h"

enum { SLOTS = 16, RUNS_MAX = 16, LAYERS = 2, LAYER = 1, TOKENS_MAX = 64, MIXES_MAX = 8, SIZES = 3 };
static const uint32_t sizes[SIZES] = {1, 16, 64}; // buckets

// Tokens `begin` .. of a slot, n of them; older keys stand in the cache.
typedef struct {
    uint32_t slot, begin, n;
} Run;
typedef Run Mix[RUNS_MAX];

typedef struct {
    const char *name;
    uint32_t heads, kv_heads, head_dim, has_norm, window, pages_per_seq;
    float softcap, factor;
    uint32_t rope[SIZES], attention[SIZES], both[SIZES]; // kernels
} Case;

static Case cases[] = {
    {.name = "qwen", .heads = 16, .kv_heads = 4, .head_dim = 128, .has_norm = 1, .pages_per_seq = 20},
    {.name = "64", .heads = 4, .kv_heads = 2, .head_dim = 64, .pages_per_seq = 20},
    {.name = "groups of 7", .heads = 14, .kv_heads = 2, .head_dim = 64, .pages_per_seq = 20},
    {.name = "groups of 16", .heads = 16, .kv_heads = 1, .head_dim = 32, .has_norm = 1, .pages_per_seq = 20},
    {.name = "80",
     .heads = 3,
     .kv_heads = 3,
     .head_dim = 80,
     .has_norm = 1,
     .pages_per_seq = 20,
     .factor = 1.25f},
    {.name = "16", .heads = 2, .kv_heads = 1, .head_dim = 16, .pages_per_seq = 20},
    {.name = "ring",
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 64,
     .window = 600,
     .softcap = 20,
     .pages_per_seq = 12},
    {.name = "gemma",
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .has_norm = 1,
     .window = 200,
     .pages_per_seq = 6},
    {.name = "gemma, all keys",
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 256,
     .has_norm = 1,
     .pages_per_seq = 20},
    {.name = "gemma, groups of 16",
     .heads = 16,
     .kv_heads = 1,
     .head_dim = 256,
     .has_norm = 1,
     .pages_per_seq = 20},
};

static const Mix mixes[] = {
    {{0, 0, 1}},
    {{5, 64, 1}},
    {{3, 1150, 1}},
    {{0, 0, 1},
     {1, 1, 1},
     {2, 62, 1},
     {3, 63, 1},
     {4, 64, 1},
     {5, 65, 1},
     {6, 127, 1},
     {7, 128, 1},
     {8, 511, 1},
     {9, 512, 1},
     {10, 513, 1},
     {11, 700, 1},
     {12, 1023, 1},
     {13, 1024, 1},
     {14, 1150, 1},
     {15, 300, 1}},
    {{2, 61, 7}},
    {{2, 509, 7}, {3, 0, 2}, {7, 1100, 5}},
    {{9, 1090, 64}},
    {{1, 10, 30}, {4, 62, 20}, {0, 200, 1}, {3, 511, 2}, {12, 0, 9}},
};

static uint32_t columns(const Case *c) { return c->heads * c->head_dim; }
static uint32_t heads_of(const Case *c) { return c->heads + 2 * c->kv_heads; }
static uint32_t page_bytes(const Case *c) { return LAYERS * 2 * c->kv_heads * c->head_dim * 64; }

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (uint32_t s = 0; s < SIZES; s++) {
            Case *c = &cases[i];
            if (c->factor == 0) c->factor = 1;
            c->rope[s] =
                device_add("rope_write heads=%u kv_heads=%u head_dim=%u has_norm=%u eps=1e-6 factor=%g "
                           "page_tokens=64 page_bytes=%u pages_per_seq=%u @ %u",
                           c->heads, c->kv_heads, c->head_dim, c->has_norm, (double)c->factor, page_bytes(c),
                           c->pages_per_seq, sizes[s]);
            c->attention[s] = device_add(
                "attention heads=%u kv_heads=%u head_dim=%u scale=%.9g window=%u softcap=%g "
                "page_tokens=64 page_bytes=%u pages_per_seq=%u out_pitch=%u @ %u",
                c->heads, c->kv_heads, c->head_dim, 1 / sqrt(c->head_dim), c->window, (double)c->softcap,
                page_bytes(c), c->pages_per_seq, act_pitch(columns(c), false), sizes[s]);
            c->both[s] = device_add_rope_attention(c->rope[s], c->attention[s], MAX(sizes[s], 16u));
        }
}

// A launch of a case, and what two launches leave: rows and the cache.
typedef struct {
    const Case *c;
    TestKv kv;
    uint32_t n, pos[TOKENS_MAX], slot[TOKENS_MAX];
    void *rope[12], *attention[10]; // arguments; pool, q, counts and out are a run's own
    const uint8_t *rows, *pool;
} Step;
enum { ROPE_POOL = 8, ROPE_Q, ROPE_COUNTS, Q = 0, POOL = 1, OUT = 6, COUNTS = 7 };

static void *random_copy(uint64_t seed, size_t n, float around, float sigma) {
    float *x = test_alloc(n * sizeof *x);
    random_fill(seed, x, n, sigma);
    for (size_t i = 0; i < n; i++) x[i] += around;
    return device_copy(x, n * sizeof *x);
}

static Step *step_of(const Case *c, const Run *runs, uint64_t seed) {
    Step *s = test_alloc(sizeof *s);
    const uint32_t d = c->head_dim;
    *s = (Step){.c = c, .kv = kv_new(seed, c->kv_heads, d, 64, c->pages_per_seq, SLOTS, LAYERS, LAYER)};
    for (const Run *r = runs; r < runs + RUNS_MAX && r->n; r++) {
        const uint32_t seen = c->window && r->begin >= c->window ? r->begin - c->window + 1 : 0;
        kv_fill(&s->kv, seed + r->slot, r->slot, seen, r->begin, 30);
        for (uint32_t i = 0; i < r->n; i++) s->slot[s->n] = r->slot, s->pos[s->n++] = r->begin + i;
    }
    for (uint32_t i = s->n; i < TOKENS_MAX; i++) s->pos[i] = 0x7FFFFFFF, s->slot[i] = 0x7FFFFFFF; // not there
    float *freq = test_alloc(d / 2 * sizeof *freq);
    for (uint32_t i = 0; i < d / 2; i++) freq[i] = (float)pow(1e4, -2.0 * i / d);
    void *scale = device_copy((float[]){0.03f, 0.07f}, 2 * sizeof(float)),
         *pos = device_copy(s->pos, sizeof s->pos), *slot = device_copy(s->slot, sizeof s->slot),
         *table = device_copy(s->kv.block_table, (size_t)SLOTS * c->pages_per_seq * sizeof(int32_t));
    void *rope[] = {random_copy(seed + 50, (size_t)s->n * heads_of(c) * d, 0, 3),
                    c->has_norm ? random_copy(seed + 51, d, 1, 0.3f) : NULL,
                    c->has_norm ? random_copy(seed + 52, d, 1, 0.3f) : NULL,
                    device_copy(freq, d / 2 * sizeof *freq),
                    scale,
                    pos,
                    slot,
                    table};
    memcpy(s->rope, rope, sizeof rope);
    s->attention[2] = scale, s->attention[3] = table, s->attention[4] = pos, s->attention[5] = slot;
    return s;
}

typedef struct {
    const uint8_t *rows, *pool, *q;
} Left;

// The first `count` tokens: by two launches of one size, or by one on `grid` blocks (0: as chosen).
static Left attend(Step *s, uint32_t size, uint32_t count, bool both, uint32_t grid) {
    const Case *c = s->c;
    uint8_t *pool = device_copy(s->kv.pool, s->kv.pool_bytes);
    void *q = device_fill((size_t)TOKENS_MAX * columns(c) * sizeof(float)), *counts = device_counts(count, 0),
         *rows = device_fill((size_t)(s->n + 1) * act_pitch(columns(c), false));
    s->rope[ROPE_POOL] = s->attention[POOL] = pool + s->kv.layer_offset;
    s->rope[ROPE_Q] = s->attention[Q] = q, s->rope[ROPE_COUNTS] = s->attention[COUNTS] = counts;
    s->attention[OUT] = rows;
    if (both) {
        void *args[COUNT_OF(s->rope) + COUNT_OF(s->attention)];
        memcpy(args, s->rope, sizeof s->rope);
        memcpy(args + COUNT_OF(s->rope), s->attention, sizeof s->attention);
        device_run_grid(c->both[size], args, COUNT_OF(args),
                        grid ? grid : device_choice(c->both[size])->grid);
    } else {
        device_run(c->rope[size], s->rope, COUNT_OF(s->rope));
        device_run(c->attention[size], s->attention, COUNT_OF(s->attention));
    }
    return (Left){device_read(rows), device_read(pool), device_read(q)};
}

static bool fits(const Case *c, const Run *runs, uint32_t size) {
    uint32_t n = 0, end = 0;
    for (const Run *r = runs; r < runs + RUNS_MAX && r->n; r++) n += r->n, end = MAX(end, r->begin + r->n);
    return n <= sizes[size] && (c->window || end <= c->pages_per_seq * 64);
}

static void compare(Step *s, uint32_t size, uint32_t count, uint32_t grid) {
    const Case *c = s->c;
    const size_t row_bytes = act_pitch(columns(c), false);
    const Left want = attend(s, size, count, false, 0), got = attend(s, size, count, true, grid);
    const char *what = device_spec(c->both[size]);
    check_bits(what, got.rows, want.rows, (s->n + 1) * row_bytes);
    check_bits(what, got.pool, want.pool, s->kv.pool_bytes);
    for (size_t i = 0; i < (size_t)TOKENS_MAX * columns(c) * sizeof(float); i++)
        if (got.q[i] != 0xFF) check_fail("%s: `q` was written", what);
    for (size_t i = 0; i < count * row_bytes; i += row_bytes) // attention did attend
        if (!memcmp(want.rows + i, want.rows + s->n * row_bytes, row_bytes))
            check_fail("%s: row %zu", what, i / row_bytes);
}

static void bits_are_those_of_two_launches(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t m = 0; m < COUNT_OF(mixes); m++)
            for (uint32_t size = 0; size < SIZES; size++, device_drop_all()) {
                if (!fits(&cases[i], mixes[m], size)) continue;
                Step *s = step_of(&cases[i], mixes[m], 100 * i + m);
                compare(s, size, s->n, 0);
            }
}

static void grid_and_count_do_not_matter(void **state) {
    (void)state;
    static const uint32_t grids[] = {1, 5, 300};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t g = 0; g < COUNT_OF(grids); g++)
            for (uint32_t size = 1; size < SIZES; size++, device_drop_all()) {
                Step *s = step_of(&cases[i], mixes[size == 1 ? 5 : 7], 1000 + 10 * i + g);
                const uint32_t fewer[COUNT_OF(grids)] = {s->n - 1, 1, 0};
                compare(s, size, s->n, grids[g]), compare(s, size, fewer[g], grids[g]);
            }
}

static const struct CMUnitTest tests[] = {
    device_test(bits_are_those_of_two_launches),
    device_test(grid_and_count_do_not_matter),
};
DEVICE_MAIN(setup, tests)
