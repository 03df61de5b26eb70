// rope_write: q turned, keys and values in the cache. Against doubles or the bits that it must give, with
// rows past the count left alone; what a token gets must not depend on the batch or the grid.
#include <math.h>

#include "runtime/base/fp.h"
#include "templates/lib/abi.h"
#include "tests/device/forms.h"

enum { ROPE_TOKENS = 9, ROPE_CHUNK = 126, ROPE_PAGES = 3, ROPE_SLOTS = 4, PAGE_TOKENS = 64 };
typedef struct {
    uint32_t heads, kv_heads, head_dim, has_norm, next_bytes;
    float factor;
    Forms forms;
} Rope;
static Rope ropes[] = {
    {32, 8, 128, 1, NEXT_BYTES, 1, {{0}, {0}, 0}},
    {4, 1, 256, 1, 0, 1, {{0}, {0}, 0}},
    {14, 2, 64, 0, 0, 1, {{0}, {0}, 0}},
    {3, 1, 80, 1, 0, 1.25f, {{0}, {0}, 0}},
    {2, 2, 96, 0, 0, 1, {{0}, {0}, 0}},
    {5, 1, 16, 1, 0, 1, {{0}, {0}, 0}},
};

static TestKv rope_cache(const Rope *r) {
    return kv_new(3, r->kv_heads, r->head_dim, PAGE_TOKENS, ROPE_PAGES, ROPE_SLOTS, 2, 1);
}

static void setup_rope(void) {
    for (uint32_t i = 0; i < COUNT_OF(ropes); i++) {
        Rope *r = &ropes[i];
        r->forms =
            forms_of(line("rope_write heads=%u kv_heads=%u head_dim=%u has_norm=%u eps=1e-6 factor=%g "
                          "page_tokens=%d page_bytes=%u pages_per_seq=%d next_bytes=%u",
                          r->heads, r->kv_heads, r->head_dim, r->has_norm, (double)r->factor, PAGE_TOKENS,
                          2 * 2 * r->kv_heads * r->head_dim * PAGE_TOKENS, ROPE_PAGES, r->next_bytes),
                     1, 16, 1024, 0);
    }
}

typedef struct {
    const Rope *of;
    TestKv kv;
    float *x, *norm[2], *freq, scale[2]; // q and k norms; k and v scales
    int32_t pos[ROPE_CHUNK], slot[ROPE_CHUNK];
    void *d_x, *d_norm[2], *d_freq, *d_scale, *d_pos, *d_slot, *d_table, *d_pool, *d_q, *counts, *d_next;
} RopeRun;

// ROPE_TOKENS at odd places; then sequences of 40, some from a multiple of 16 on as token and position.
static RopeRun rope_data(const Rope *o, uint64_t seed) {
    static const int32_t pos[ROPE_TOKENS] = {0, 1, 63, 64, 193, 40959, 131071, 131007, 7};
    static const int32_t slot[ROPE_TOKENS] = {0, 0, 1, 1, 2, 2, 3, 0, 3};
    const uint32_t d = o->head_dim, row = (o->heads + 2 * o->kv_heads) * d;
    RopeRun r = {.of = o, .kv = rope_cache(o), .scale = {0.03f, 0.07f}};
    memcpy(r.pos, pos, sizeof pos), memcpy(r.slot, slot, sizeof slot);
    for (int32_t t = ROPE_TOKENS, i = 0; t < ROPE_CHUNK; t++, i++)
        r.slot[t] = i / 40, r.pos[t] = (const int32_t[]){9, 81, 110}[i / 40] + i % 40;
    r.x = random_rows(seed, (size_t)ROPE_CHUNK * row);
    r.norm[0] = random_rows(seed + 1, d), r.norm[1] = random_rows(seed + 2, d);
    r.freq = test_alloc(d / 2 * sizeof(float));
    for (uint32_t i = 0; i < d / 2; i++) r.freq[i] = (float)pow(1e6, -2.0 * i / d);
    r.d_x = device_copy(r.x, (size_t)ROPE_CHUNK * row * 4), r.d_freq = device_copy(r.freq, d / 2 * 4);
    for (uint32_t i = 0; i < 2; i++) r.d_norm[i] = o->has_norm ? device_copy(r.norm[i], d * 4) : NULL;
    r.d_scale = device_copy(r.scale, sizeof r.scale);
    r.d_pos = device_copy(r.pos, sizeof r.pos), r.d_slot = device_copy(r.slot, sizeof r.slot);
    r.d_table = device_copy(r.kv.block_table, ROPE_SLOTS * ROPE_PAGES * sizeof(int32_t));
    r.d_pool = device_fill(r.kv.pool_bytes);
    r.d_q = device_fill((size_t)ROPE_CHUNK * o->heads * d * 4);
    r.counts = device_counts(0, 0), r.d_next = device_fill(NEXT_BYTES);
    return r;
}

static void rope_run(RopeRun *r, uint32_t form, uint32_t first, uint32_t n, uint32_t grid) {
    const Rope *o = r->of;
    const size_t row = (size_t)(o->heads + 2 * o->kv_heads) * o->head_dim;
    device_write(r->counts, &n, sizeof n), device_wipe(r->d_q), device_wipe(r->d_pool);
    void *args[] = {(float *)r->d_x + first * row,
                    r->d_norm[0],
                    r->d_norm[1],
                    r->d_freq,
                    r->d_scale,
                    (int32_t *)r->d_pos + first,
                    (int32_t *)r->d_slot + first,
                    r->d_table,
                    (uint8_t *)r->d_pool + r->kv.layer_offset,
                    (float *)r->d_q + (size_t)first * o->heads * o->head_dim,
                    r->counts,
                    r->d_next};
    device_run_grid(o->forms.kernel[form], args, COUNT_OF(args),
                    grid ? grid : device_choice(o->forms.kernel[form])->grid);
}

// A head of q (which 0) or k (1) as it must be.
static void rope_reference(const RopeRun *r, uint32_t t, uint32_t head, uint32_t which, double *out) {
    const uint32_t d = r->of->head_dim, half = d / 2;
    const float *x = r->x + ((size_t)t * (r->of->heads + 2 * r->of->kv_heads) + head) * d;
    double v[256] = {0};
    for (uint32_t i = 0; i < d; i++) v[i] = (double)x[i];
    if (r->of->has_norm) norm_reference(v, r->norm[which], d, v);
    for (uint32_t i = 0; i < half; i++) {
        double angle = (double)((float)r->pos[t] * r->freq[i]), f = (double)r->of->factor;
        out[i] = f * (v[i] * cos(angle) - v[i + half] * sin(angle));
        out[i + half] = f * (v[i + half] * cos(angle) + v[i] * sin(angle));
    }
}

// A code stands for what rounding gives of some value within `slack` of the right one.
static void check_code(const char *what, uint8_t code, double want, double slack) {
    const uint8_t low = f32_to_e4m3((float)(want - slack)), high = f32_to_e4m3((float)(want + slack));
    if (!(e4m3_to_f32(code) >= e4m3_to_f32(low) && e4m3_to_f32(code) <= e4m3_to_f32(high)))
        check_fail("%s: code 0x%02x for %g, expected 0x%02x", what, code, want, f32_to_e4m3((float)want));
}

// The token's place in the cache; clears it, so that what is left must be untouched.
static void rope_check_cache(const RopeRun *r, const char *what, uint32_t t, uint8_t *pool) {
    const Rope *o = r->of;
    const uint32_t d = o->head_dim, slot = (uint32_t)r->slot[t], pos = (uint32_t)r->pos[t];
    double key[256], most = 0;
    for (uint32_t h = 0; h < o->kv_heads; h++) {
        rope_reference(r, t, o->heads + h, 1, key);
        for (uint32_t i = 0; i < d; i++) most = MAX(most, fabs(key[i]));
        const float *v = r->x + ((size_t)t * (o->heads + 2 * o->kv_heads) + o->heads + o->kv_heads + h) * d;
        for (uint32_t i = 0; i < d; i++) {
            uint8_t *k_code = pool + kv_key_at(&r->kv, slot, pos, h, i),
                    *v_code = pool + kv_value_at(&r->kv, slot, pos, h, i);
            check_code(what, *k_code, key[i] / (double)r->scale[0], 2e-6 * most / (double)r->scale[0]);
            if (*v_code != f32_to_e4m3(v[i] / r->scale[1])) check_fail("%s: token %u value %u", what, t, i);
            *k_code = *v_code = 0xFF;
        }
    }
}

static void rope_check(const RopeRun *r, const char *what, uint32_t n) {
    const Rope *o = r->of;
    const float *q = device_read(r->d_q);
    uint8_t *pool = device_read(r->d_pool);
    double want[256];
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t h = 0; h < o->heads; h++) {
            rope_reference(r, t, h, 0, want);
            check_close(what, q + (t * o->heads + h) * o->head_dim, want, o->head_dim, 3e-6);
        }
        rope_check_cache(r, what, t, pool);
    }
    check_untouched(what, q, 4ull * n * o->heads * o->head_dim, 4ull * ROPE_CHUNK * o->heads * o->head_dim);
    check_untouched(what, pool, 0, r->kv.pool_bytes);
}

static void rope_turns_and_writes(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(ropes); i++, device_drop_all()) {
        RopeRun r = rope_data(&ropes[i], 20 + i);
        for (uint32_t f = 0; f < ropes[i].forms.n; f++) {
            const uint32_t n = MIN(ropes[i].forms.bucket[f], ROPE_TOKENS - 1u);
            rope_run(&r, f, 0, n, 0);
            rope_check(&r, device_spec(ropes[i].forms.kernel[f]), n);
        }
    }
}

static void rope_bits_do_not_depend_on_the_batch(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(ropes); i++, device_drop_all()) {
        const size_t row = (size_t)ropes[i].heads * ropes[i].head_dim;
        RopeRun r = rope_data(&ropes[i], 40 + i);
        rope_run(&r, 2, 0, ROPE_TOKENS, 0);
        const float *q = device_read(r.d_q);
        const uint8_t *pool = device_read(r.d_pool);
        rope_run(&r, 1, 0, ROPE_TOKENS, 1); // all by one block
        check_bits("q, one block", device_read(r.d_q), q, ROPE_TOKENS * row * 4);
        check_bits("cache, one block", device_read(r.d_pool), pool, r.kv.pool_bytes);
        for (uint32_t t = 0; t < ROPE_TOKENS; t++) {
            rope_run(&r, 0, t, 1, 0);
            check_bits("q alone", (float *)device_read(r.d_q) + t * row, q + t * row, row * 4);
        }
    }
}

static void rope_writes_chunks(void **state) {
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(ropes); i++, device_drop_all()) {
        const size_t row = (size_t)ropes[i].heads * ropes[i].head_dim;
        RopeRun r = rope_data(&ropes[i], 80 + i);
        rope_run(&r, 2, 0, ROPE_CHUNK, 100), rope_check(&r, "chunk", ROPE_CHUNK);
        const float *q = device_read(r.d_q);
        for (uint32_t t = 0; t < ROPE_CHUNK; t += 7) {
            rope_run(&r, 0, t, 1, 0);
            check_bits("q alone", (float *)device_read(r.d_q) + t * row, q + t * row, row * 4);
        }
    }
}

// What E4M3 cannot hold saturates, and NaN stays NaN, in keys and values.
static void rope_saturates(void **state) {
    (void)state;
    const Rope *o = &ropes[2]; // no norm
    const uint32_t d = o->head_dim, keys = o->heads * d, values = (o->heads + o->kv_heads) * d;
    RopeRun r = rope_data(o, 60);
    const float odd[] = {NAN, INFINITY, -INFINITY, 448, 463.9f, -1e9f, -0.0f, 0x1p-10f, 0x1.8p-9f, -NAN};
    r.scale[0] = r.scale[1] = 1, device_write(r.d_scale, r.scale, sizeof r.scale);
    memset(r.x, 0, (keys + 2 * o->kv_heads * d) * sizeof(float)); // token 0 is at position 0: nothing turns
    for (uint32_t i = 0; i < COUNT_OF(odd); i++) r.x[values + i] = odd[i];
    r.x[keys] = 1e9f, r.x[keys + 1] = -1e9f, r.x[keys + 2] = NAN;
    device_write(r.d_x, r.x, (keys + 2 * o->kv_heads * d) * sizeof(float));
    rope_run(&r, 0, 0, 1, 0);
    const uint8_t *pool = device_read(r.d_pool);
    for (uint32_t i = 0; i < COUNT_OF(odd); i++) {
        uint8_t code = pool[kv_value_at(&r.kv, 0, 0, 0, i)], want = f32_to_e4m3(odd[i]);
        if ((code & 0x7F) == 0x7F ? !isnan(odd[i]) : code != want)
            check_fail("%g became 0x%02x, expected 0x%02x", (double)odd[i], code, want);
    }
    assert_int_equal(pool[kv_key_at(&r.kv, 0, 0, 0, 0)], 0x7E);
    assert_int_equal(pool[kv_key_at(&r.kv, 0, 0, 0, 1)], 0xFE);
    assert_int_equal(pool[kv_key_at(&r.kv, 0, 0, 0, 2)] & 0x7F, 0x7F);
}

static const struct CMUnitTest tests[] = {
    device_test(rope_turns_and_writes),
    device_test(rope_bits_do_not_depend_on_the_batch),
    device_test(rope_writes_chunks),
    device_test(rope_saturates),
};
DEVICE_MAIN(setup_rope, tests)
