// Attention on a card, both forms: values against doubles, and the same bits for a token in either form,
// alone, in a batch, and with any grid. Pages are full of NaN where no token has written.
#include <math.h>

#include "runtime/base/fp.h"
#include "tests/device/device.h"

enum { SLOTS = 4, RANGES_MAX = 6, LAYERS = 2, LAYER = 1, FEW = 64, MANY = 256 };

// Tokens `begin` .. of a slot, n of them.
typedef struct {
    uint32_t slot, begin, n;
} Run;

typedef struct {
    const char *name;
    uint32_t heads, kv_heads, head_dim, window, pages_per_seq;
    float softcap;
    Run spans[RANGES_MAX];
    uint32_t one, few, many; // kernels
} Case;

// Starts and ends of pages and parts, several parts, chunks that begin inside a page, several sequences.
#define EDGES                                                                                                \
    {                                                                                                        \
        {0, 0, 2}, {1, 62, 4}, {2, 510, 4}, {3, 1023, 3}, {0, 1500, 1}, { 1, 300, 5 }                        \
    }
#define CHUNKS                                                                                               \
    {                                                                                                        \
        {0, 505, 21}, {1, 0, 9}, {2, 1030, 1}, { 3, 60, 18 }                                                 \
    }
#define LONG                                                                                                 \
    {                                                                                                        \
        { 2, 100, 200 }                                                                                      \
    }
#define RING                                                                                                 \
    {                                                                                                        \
        {0, 0, 2}, {1, 1150, 20}, {2, 0, 9}, { 3, 595, 15 }                                                  \
    }

static Case cases[] = {
    {.name = "qwen", .heads = 16, .kv_heads = 4, .head_dim = 128, .pages_per_seq = 40, .spans = EDGES},
    {.name = "qwen", .heads = 16, .kv_heads = 4, .head_dim = 128, .pages_per_seq = 40, .spans = CHUNKS},
    {.name = "qwen", .heads = 16, .kv_heads = 4, .head_dim = 128, .pages_per_seq = 40, .spans = LONG},
    {.name = "64", .heads = 4, .kv_heads = 2, .head_dim = 64, .pages_per_seq = 40, .spans = EDGES},
    {.name = "64", .heads = 4, .kv_heads = 2, .head_dim = 64, .pages_per_seq = 40, .spans = LONG},
    {.name = "groups of 7", .heads = 14, .kv_heads = 2, .head_dim = 64, .pages_per_seq = 30, .spans = CHUNKS},
    {.name = "groups of 16",
     .heads = 16,
     .kv_heads = 1,
     .head_dim = 32,
     .pages_per_seq = 30,
     .spans = CHUNKS},
    {.name = "80", .heads = 3, .kv_heads = 3, .head_dim = 80, .pages_per_seq = 30, .spans = CHUNKS},
    {.name = "16", .heads = 2, .kv_heads = 1, .head_dim = 16, .pages_per_seq = 30, .spans = CHUNKS},
    {.name = "parts of 16 pages",
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 32,
     .pages_per_seq = 1100,
     .spans = EDGES},
    {.name = "ring",
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 64,
     .window = 600,
     .softcap = 20,
     .pages_per_seq = 12,
     .spans = RING},
    {.name = "gemma",
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .window = 200,
     .pages_per_seq = 6,
     .spans = {{0, 640, 30}, {1, 198, 4}, {2, 5, 1}}},
    {.name = "gemma, all keys",
     .heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .pages_per_seq = 30,
     .spans = EDGES},
    {.name = "capped",
     .heads = 8,
     .kv_heads = 8,
     .head_dim = 128,
     .softcap = 30,
     .pages_per_seq = 30,
     .spans = CHUNKS},
};

static uint32_t columns(const Case *c) { return c->heads * c->head_dim; }
static float scale_of(const Case *c) { return 1 / sqrtf((float)c->head_dim); }

static uint32_t add(const Case *c, uint32_t bucket) {
    return device_add(
        "attention heads=%u kv_heads=%u head_dim=%u scale=%.9g window=%u softcap=%g page_tokens=64 "
        "page_bytes=%u pages_per_seq=%u out_pitch=%u @ %u",
        c->heads, c->kv_heads, c->head_dim, (double)scale_of(c), c->window, (double)c->softcap,
        LAYERS * 2 * c->kv_heads * c->head_dim * 64, c->pages_per_seq, act_pitch(columns(c), false), bucket);
}

static void setup(void) {
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Case *c = &cases[i];
        c->one = add(c, 1), c->few = add(c, FEW), c->many = add(c, MANY);
    }
}

// A step of a case, and what it should give.
typedef struct {
    const Case *c;
    uint32_t n;
    int32_t pos[MANY], slot[MANY];
    float *q; // [n, heads * head_dim]
    TestKv kv;
    float kv_scale[2];
    double *want; // [n, heads * head_dim]
    void *pool, *table, *scale;
} Step;

static uint32_t first_key(const Case *c, uint32_t pos) {
    return c->window && pos >= c->window ? pos - c->window + 1 : 0;
}

static void reference(const Step *s, uint32_t t, uint32_t head, double *out) {
    const Case *c = s->c;
    const uint32_t d = c->head_dim, kv_head = head / (c->heads / c->kv_heads), slot = (uint32_t)s->slot[t];
    const uint32_t last = (uint32_t)s->pos[t], first = first_key(c, last);
    const float *q = s->q + (size_t)t * columns(c) + head * d;
    double *p = test_alloc((last - first + 1) * sizeof *p), most = -INFINITY, sum = 0;
    for (uint32_t key = first; key <= last; key++) {
        double x = 0;
        for (uint32_t i = 0; i < d; i++)
            x += (double)q[i] * (double)e4m3_to_f32(s->kv.pool[kv_key_at(&s->kv, slot, key, kv_head, i)]);
        x *= (double)scale_of(c) * (double)s->kv_scale[0];
        if (c->softcap != 0) x = (double)c->softcap * tanh(x / (double)c->softcap);
        p[key - first] = x, most = fmax(most, x);
    }
    for (uint32_t key = first; key <= last; key++) sum += p[key - first] = exp(p[key - first] - most);
    for (uint32_t i = 0; i < d; i++) {
        out[i] = 0;
        for (uint32_t key = first; key <= last; key++)
            out[i] +=
                p[key - first] * (double)e4m3_to_f32(s->kv.pool[kv_value_at(&s->kv, slot, key, kv_head, i)]);
        out[i] *= (double)s->kv_scale[1] / sum;
    }
}

static Step *step_of(const Case *c, uint64_t seed) {
    Step *s = test_alloc(sizeof *s);
    *s = (Step){.c = c, .kv_scale = {0.7f, 0.3f}};
    s->kv = kv_new(seed, c->kv_heads, c->head_dim, 64, c->pages_per_seq, SLOTS, LAYERS, LAYER);
    uint32_t from[SLOTS], end[SLOTS] = {0}; // keys that tokens of a slot see
    memset(from, 0xFF, sizeof from);
    for (const Run *span = c->spans; span < c->spans + RANGES_MAX && span->n; span++) {
        from[span->slot] = MIN(from[span->slot], first_key(c, span->begin));
        end[span->slot] = MAX(end[span->slot], span->begin + span->n);
        for (uint32_t i = 0; i < span->n; i++, s->n++)
            s->slot[s->n] = (int32_t)span->slot, s->pos[s->n] = (int32_t)(span->begin + i);
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (end[slot]) kv_fill(&s->kv, seed + slot, slot, from[slot], end[slot], 2);
    s->q = test_alloc((size_t)s->n * columns(c) * sizeof *s->q);
    random_fill(seed + 50, s->q, (size_t)s->n * columns(c), 2);
    s->want = test_alloc((size_t)s->n * columns(c) * sizeof *s->want);
    for (uint32_t t = 0; t < s->n; t++)
        for (uint32_t h = 0; h < c->heads; h++)
            reference(s, t, h, s->want + (size_t)t * columns(c) + h * c->head_dim);
    s->pool = (uint8_t *)device_copy(s->kv.pool, s->kv.pool_bytes) + s->kv.layer_offset;
    s->table = device_copy(s->kv.block_table, (size_t)SLOTS * c->pages_per_seq * sizeof(int32_t));
    s->scale = device_copy(s->kv_scale, sizeof s->kv_scale);
    return s;
}

// Rows of tokens begin .. of the step, n of them, followed by one that must stay as it was. grid 0: as
// chosen.
static const uint8_t *attend(const Step *s, uint32_t kernel, uint32_t begin, uint32_t n, uint32_t grid) {
    const uint32_t pitch = act_pitch(columns(s->c), false);
    void *out = device_fill((size_t)(n + 1) * pitch);
    void *args[] = {
        device_copy(s->q + (size_t)begin * columns(s->c), (size_t)n * columns(s->c) * sizeof(float)),
        s->pool,
        s->scale,
        s->table,
        device_copy(s->pos + begin, n * sizeof(int32_t)),
        device_copy(s->slot + begin, n * sizeof(int32_t)),
        out,
        device_counts(n, 0),
        NULL,
        NULL};
    if (grid)
        device_run_grid(kernel, args, COUNT_OF(args), grid);
    else
        device_run(kernel, args, COUNT_OF(args));
    const uint8_t *got = device_read(out);
    for (uint32_t i = 0; i < pitch; i++)
        if (got[(size_t)n * pitch + i] != 0xFF) check_fail("a row past the count was written");
    return got;
}

static void values_are_right(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++, device_drop_all()) {
        const Case *c = &cases[i];
        const Step *s = step_of(c, 10 * i);
        check_acts(c->name, attend(s, c->many, 0, s->n, 0), s->want, s->n, columns(c),
                   act_pitch(columns(c), false), 4e-3);
        if (s->n <= FEW)
            check_acts(c->name, attend(s, c->few, 0, s->n, 0), s->want, s->n, columns(c),
                       act_pitch(columns(c), false), 4e-3);
    }
}

static void bits_do_not_depend_on_the_form(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++, device_drop_all()) {
        const Case *c = &cases[i];
        const Step *s = step_of(c, 10 * i + 1);
        const size_t pitch = act_pitch(columns(c), false);
        const uint8_t *all = attend(s, c->many, 0, s->n, 0);
        check_bits(c->name, attend(s, c->many, 0, s->n, 3), all, s->n * pitch);
        for (uint32_t begin = 0; begin < s->n; begin += FEW) {
            const uint32_t n = MIN(s->n - begin, (uint32_t)FEW);
            check_bits(c->name, attend(s, c->few, begin, n, 0), all + begin * pitch, n * pitch);
            check_bits(c->name, attend(s, c->few, begin, n, 5), all + begin * pitch, n * pitch);
        }
        for (uint32_t t = 0; t<s->n; t += s->n> FEW ? 17 : 3) {
            check_bits(c->name, attend(s, c->one, t, 1, 0), all + t * pitch, pitch);
            check_bits(c->name, attend(s, c->many, t, 1, 0), all + t * pitch, pitch);
        }
    }
}

static const struct CMUnitTest tests[] = {
    device_test(values_are_right),
    device_test(bits_do_not_depend_on_the_form),
};
DEVICE_MAIN(setup, tests)
