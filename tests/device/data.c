#include "tests/device/data.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/base/fp.h"
#include "tests/device/device.h"

enum { META_BYTES = 16, ACT_ALIGN = 64 };

// ---- activation rows -----------------------------------------------------------------------------

uint32_t act_pitch(uint32_t k, bool wide) {
    uint32_t halves = (uint32_t)round_up(k, ACT_ALIGN);
    return 2 * halves + META_BYTES + (wide ? (uint32_t)round_up(4 * k, 16) : 0);
}

static void put_row(const float *x, uint32_t k, int top_bit, bool wide, uint8_t *row, double *value) {
    float largest = 0, meta[META_BYTES / 4] = {1};
    double l1 = 0;
    for (uint32_t i = 0; i < k; i++)
        if (isfinite(x[i]) && fabsf(x[i]) > largest) largest = fabsf(x[i]);
    if (largest > 0) meta[0] = ldexpf(1, ilogbf(largest) - top_bit);
    memset(row, 0, 2 * round_up(k, ACT_ALIGN));
    for (uint32_t i = 0; i < k; i++) {
        uint16_t half = f32_to_f16(x[i] / meta[0]);
        memcpy(row + 2 * (size_t)i, &half, 2);
        value[i] = (double)f16_to_f32(half) * (double)meta[0];
        l1 += fabs(value[i]);
    }
    meta[1] = nextafterf((float)l1, INFINITY);
    memcpy(row + act_pitch(k, false) - META_BYTES, meta, META_BYTES);
    if (wide) memcpy(row + act_pitch(k, false), x, 4 * (size_t)k);
}

TestActs acts_of(const float *x, uint32_t n, uint32_t k, uint32_t pitch, bool wide) {
    TestActs a = {.bytes = (size_t)n * pitch, .n = n, .k = k, .pitch = pitch};
    CHECK(pitch >= act_pitch(k, wide));
    a.rows = test_alloc(a.bytes);
    a.value = test_alloc((size_t)n * k * sizeof *a.value);
    memset(a.rows, 0xFF, a.bytes);
    for (uint32_t t = 0; t < n; t++)
        put_row(x + (size_t)t * k, k, t % 3 == 2 ? 12 : 13, wide, a.rows + (size_t)t * pitch,
                a.value + (size_t)t * k);
    return a;
}

uint32_t e4m3_pitch(uint32_t k) { return (uint32_t)round_up(k, ACT_ALIGN) + META_BYTES; }

// Stage, then lane q of a quad, then block; the four columns of a lane and block as 2, 0, 3, 1.
size_t e4m3_at(uint32_t column) {
    static const uint8_t order[4] = {1, 3, 0, 2};
    uint32_t block = column % 64 / 16, q = column % 16 / 4;
    return column / 64 * 64 + q * 16 + block * 4 + order[column % 4];
}

TestActs acts_e4m3_of(const float *x, uint32_t n, uint32_t k) {
    TestActs a = {.bytes = (size_t)n * e4m3_pitch(k), .n = n, .k = k, .pitch = e4m3_pitch(k)};
    a.rows = test_alloc(a.bytes);
    a.value = test_alloc((size_t)n * k * sizeof *a.value);
    for (uint32_t t = 0; t < n; t++, x += k) {
        float largest = 0, meta[META_BYTES / 4] = {1};
        double l1 = 0;
        uint8_t *row = a.rows + (size_t)t * a.pitch;
        for (uint32_t i = 0; i < k; i++) largest = fmaxf(largest, fabsf(x[i]));
        if (largest > 0) meta[0] = ldexpf(1, ilogbf(largest) - (t % 3 == 2 ? 6 : 7));
        for (uint32_t i = 0; i < k; i++) {
            uint8_t code = f32_to_e4m3(x[i] / meta[0]);
            row[e4m3_at(i)] = code;
            a.value[(size_t)t * k + i] = (double)e4m3_to_f32(code) * (double)meta[0];
            l1 += fabs(a.value[(size_t)t * k + i]);
        }
        meta[1] = nextafterf((float)l1, INFINITY);
        memcpy(row + a.pitch - META_BYTES, meta, META_BYTES);
    }
    return a;
}

static float row_scale_of(const uint8_t *row, uint32_t k) {
    float scale;
    memcpy(&scale, row + act_pitch(k, false) - META_BYTES, 4);
    return scale;
}

static float half_of(const uint8_t *row, uint32_t i) {
    uint16_t half;
    memcpy(&half, row + 2 * (size_t)i, 2);
    return f16_to_f32(half);
}

void acts_values(const void *rows, uint32_t n, uint32_t k, uint32_t pitch, double *out) {
    for (uint32_t t = 0; t < n; t++) {
        const uint8_t *row = (const uint8_t *)rows + (size_t)t * pitch;
        for (uint32_t i = 0; i < k; i++)
            out[(size_t)t * k + i] = (double)half_of(row, i) * (double)row_scale_of(row, k);
    }
}

static void check_act_row(const char *what, const uint8_t *row, const double *value, uint32_t t, uint32_t k) {
    float scale = row_scale_of(row, k), l1;
    double sum = 0;
    int exponent;
    memcpy(&l1, row + act_pitch(k, false) - META_BYTES + 4, 4);
    for (uint32_t i = 0; i < k; i++) sum += fabs(value[i]);
    if (!isfinite(sum)) return; // what check_close says of NaN is enough
    if (!(scale > 0) || frexpf(scale, &exponent) != 0.5f)
        check_fail("%s: the scale of row %u is %g, no power of two", what, t, (double)scale);
    if (!((double)l1 >= sum)) check_fail("%s: l1 of row %u is %g, below %g", what, t, (double)l1, sum);
    for (uint32_t i = k; i < round_up(k, ACT_ALIGN); i++)
        if (half_of(row, i) != 0) check_fail("%s: half %u of row %u, behind %u, is not 0", what, i, t, k);
}

void check_acts(const char *what, const void *rows, const double *want, uint32_t n, uint32_t k,
                uint32_t pitch, double tol) {
    size_t all = (size_t)n * k;
    double *value = test_alloc(all * sizeof *value + 8);
    float *got = test_alloc(all * sizeof *got + 4);
    acts_values(rows, n, k, pitch, value);
    for (size_t i = 0; i < all; i++) got[i] = (float)value[i];
    for (uint32_t t = 0; t < n; t++) {
        check_act_row(what, (const uint8_t *)rows + (size_t)t * pitch, value + (size_t)t * k, t, k);
        check_close(what, got + (size_t)t * k, want + (size_t)t * k, k, tol);
    }
}

// ---- paged KV ------------------------------------------------------------------------------------

TestKv kv_new(uint64_t seed, uint32_t kv_heads, uint32_t head_dim, uint32_t page_tokens,
              uint32_t pages_per_seq, uint32_t slots, uint32_t layers, uint32_t layer) {
    uint32_t layer_bytes = 2 * kv_heads * head_dim * page_tokens, n_pages = slots * pages_per_seq + 1;
    TestKv kv = {.kv_heads = kv_heads,
                 .head_dim = head_dim,
                 .page_tokens = page_tokens,
                 .pages_per_seq = pages_per_seq,
                 .slots = slots,
                 .page_bytes = layers * layer_bytes,
                 .layer_offset = layer * layer_bytes};
    kv.pool_bytes = (size_t)n_pages * kv.page_bytes;
    kv.pool = test_alloc(kv.pool_bytes);
    memset(kv.pool, 0xFF, kv.pool_bytes);
    int32_t *order = test_alloc(n_pages * sizeof *order);
    for (uint32_t i = 0; i < n_pages; i++) { // a shuffle from the inside out
        uint32_t j = (uint32_t)(random_u64(&seed) % (i + 1));
        order[i] = order[j], order[j] = (int32_t)i;
    }
    kv.block_table = order;
    return kv;
}

static size_t page_at(const TestKv *kv, uint32_t slot, uint32_t pos) {
    uint32_t page = pos / kv->page_tokens % kv->pages_per_seq;
    return (size_t)kv->block_table[slot * kv->pages_per_seq + page] * kv->page_bytes + kv->layer_offset;
}

size_t kv_key_at(const TestKv *kv, uint32_t slot, uint32_t pos, uint32_t head, uint32_t d) {
    uint32_t row = head * kv->page_tokens + pos % kv->page_tokens;
    return page_at(kv, slot, pos) + (size_t)row * kv->head_dim + d;
}

size_t kv_value_at(const TestKv *kv, uint32_t slot, uint32_t pos, uint32_t head, uint32_t d) {
    size_t keys = (size_t)kv->kv_heads * kv->page_tokens * kv->head_dim;
    uint32_t row = head * kv->head_dim + d;
    return page_at(kv, slot, pos) + keys + (size_t)row * kv->page_tokens + pos % kv->page_tokens;
}

void kv_fill(TestKv *kv, uint64_t seed, uint32_t slot, uint32_t begin, uint32_t end, float sigma) {
    for (uint32_t pos = begin; pos < end; pos++)
        for (uint32_t h = 0; h < kv->kv_heads; h++)
            for (uint32_t d = 0; d < kv->head_dim; d++) {
                kv->pool[kv_key_at(kv, slot, pos, h, d)] = f32_to_e4m3(random_normal(&seed) * sigma);
                kv->pool[kv_value_at(kv, slot, pos, h, d)] = f32_to_e4m3(random_normal(&seed) * sigma);
            }
}
