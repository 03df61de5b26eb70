#include "compiler/frontend/source.h"

#include <math.h>
#include <stdlib.h>

#include "compiler/frontend/nvfp4.h"
#include "compiler/frontend/source_internal.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"

// ---- table ---------------------------------------------------------------------------------------------

WeightSource *source_new(Arena *a) {
    WeightSource *s = ARENA_NEW(a, WeightSource);
    s->arena = a;
    return s;
}

static size_t slot_of(const WeightSource *s, Str name) {
    size_t at = str_hash(name) & s->mask;
    while (s->slots[at] && !str_eq(s->entries[s->slots[at] - 1].info.name, name)) at = (at + 1) & s->mask;
    return at;
}

static void grow(WeightSource *s) {
    size_t cap = s->cap ? s->cap * 2 : 256;
    SourceEntry *entries = ARENA_ARRAY(s->arena, SourceEntry, cap);
    if (s->n) memcpy(entries, s->entries, s->n * sizeof *entries);
    s->entries = entries, s->cap = cap;
    s->slots = ARENA_ARRAY(s->arena, uint32_t, cap * 2);
    s->mask = cap * 2 - 1;
    for (size_t i = 0; i < s->n; i++) s->slots[slot_of(s, entries[i].info.name)] = (uint32_t)i + 1;
}

SourceEntry *source_find(const WeightSource *s, Str name) {
    if (!s->n) return NULL;
    uint32_t i = s->slots[slot_of(s, name)];
    return i ? &s->entries[i - 1] : NULL;
}

SourceEntry *source_add(WeightSource *s, Str name) {
    SourceEntry *e = source_find(s, name);
    if (e) return e;
    if (s->n == s->cap) grow(s);
    e = &s->entries[s->n];
    *e = (SourceEntry){.info = {.name = str_dup(s->arena, name), .global = 1, .id = (uint32_t)s->n}};
    s->slots[slot_of(s, e->info.name)] = (uint32_t)++s->n;
    return e;
}

bool source_info(WeightSource *s, Str name, WeightInfo *out) {
    SourceEntry *e = source_find(s, name);
    if (!e) return false;
    if (e->values) source_mark_used(s, name);
    if (e->kind == FROM_QUANTIZE && !e->has_amax) source_quantize_prepare(s, e);
    *out = e->info;
    return true;
}

// ---- dense rows ----------------------------------------------------------------------------------------

static uint64_t value_bytes(WeightFormat f) { return f == WF_F32 ? 4 : 2; }

const uint8_t *source_dense_row(const SourceEntry *e, uint64_t row) {
    return e->values->data + row * weight_cols(&e->info) * value_bytes(e->stored);
}

static uint16_t load16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static uint32_t load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

// Magnitudes of all three formats compare as integers, NaN and infinity above all others: one maximum over
// the row tells whether it is finite.
static bool is_finite_row(const uint8_t *p, uint64_t k, WeightFormat f) {
    if (f == WF_F32) {
        uint32_t m = 0;
        for (uint64_t i = 0; i < k; i++) {
            uint32_t v = load32(p + 4 * i) & 0x7FFFFFFF;
            m = MAX(m, v);
        }
        return m < 0x7F800000;
    }
    uint16_t m = 0;
    for (uint64_t i = 0; i < k; i++) {
        uint16_t v = load16(p + 2 * i) & 0x7FFF;
        m = MAX(m, v);
    }
    return m < (f == WF_BF16 ? 0x7F80 : 0x7C00);
}

static float load_value(const uint8_t *p, uint64_t i, WeightFormat f) {
    if (f == WF_F32) return f32_from_bits(load32(p + 4 * i));
    return f == WF_BF16 ? bf16_to_f32(load16(p + 2 * i)) : f16_to_f32(load16(p + 2 * i));
}

static bool refuse_value(const SourceEntry *e, uint64_t row, const uint8_t *p, Err *err) {
    uint64_t i = 0, k = weight_cols(&e->info);
    while (i + 1 < k && isfinite(load_value(p, i, e->stored))) i++;
    return err_set(err, E_TENSOR_VALUE, "%s: tensor " STR_FMT ", row %llu, column %llu is %s",
                   e->values->at.src->name, STR_ARG(e->values->name), (unsigned long long)row,
                   (unsigned long long)i, isnan(load_value(p, i, e->stored)) ? "NaN" : "infinite");
}

bool source_dense_check(const SourceEntry *e, uint64_t row, uint64_t n_rows, Err *err) {
    for (uint64_t r = row; r < row + n_rows; r++) {
        const uint8_t *p = source_dense_row(e, r);
        if (!is_finite_row(p, weight_cols(&e->info), e->stored)) return refuse_value(e, r, p, err);
    }
    return true;
}

bool source_dense_f32(const SourceEntry *e, uint64_t row, uint64_t n_rows, float *out, Err *err) {
    if (!source_dense_check(e, row, n_rows, err)) return false;
    const uint8_t *p = source_dense_row(e, row);
    uint64_t n = n_rows * weight_cols(&e->info);
    if (e->stored == WF_BF16)
        for (uint64_t i = 0; i < n; i++) out[i] = bf16_to_f32(load16(p + 2 * i));
    else
        for (uint64_t i = 0; i < n; i++) out[i] = load_value(p, i, e->stored);
    return true;
}

// ---- stored NVFP4 rows ---------------------------------------------------------------------------------

// 0x7F and 0xFF are NaN, 0x80 and above negative: all lie above 0x7E.
static bool check_scales(const SourceEntry *e, uint64_t row, uint64_t n_rows, Err *err) {
    uint64_t blocks = weight_cols(&e->info) / NVFP4_BLOCK, n = n_rows * blocks, bad = 0;
    const uint8_t *p = e->scales->data + row * blocks;
    uint8_t m = 0;
    for (uint64_t i = 0; i < n; i++) m = MAX(m, p[i]);
    if (m <= 0x7E) return true;
    while (p[bad] <= 0x7E) bad++;
    return err_set(err, E_TENSOR_VALUE,
                   "%s: tensor " STR_FMT ", row %llu, block %llu: scale byte 0x%02X is %s; block scales must "
                   "be finite and not negative",
                   e->scales->at.src->name, STR_ARG(e->scales->name),
                   (unsigned long long)(row + bad / blocks), (unsigned long long)(bad % blocks), p[bad],
                   (p[bad] & 0x7F) == 0x7F ? "NaN" : "negative");
}

static bool stored_nvfp4(const SourceEntry *e, uint64_t row, uint64_t n_rows, uint8_t *codes, uint8_t *scales,
                         Err *err) {
    uint64_t k = weight_cols(&e->info);
    if (!check_scales(e, row, n_rows, err)) return false;
    if (k) {
        memcpy(codes, e->values->data + row * (k / 2), n_rows * (k / 2));
        memcpy(scales, e->scales->data + row * (k / NVFP4_BLOCK), n_rows * (k / NVFP4_BLOCK));
    }
    return true;
}

// ---- readers -------------------------------------------------------------------------------------------

static void check_range(const WeightInfo *w, uint64_t row, uint64_t n_rows) {
    CHECK(range_inside(row, n_rows, weight_rows(w)));
}

bool source_rows_nvfp4(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows,
                       uint8_t *codes, uint8_t *scales, Err *e) {
    const SourceEntry *entry = source_entry(s, w);
    CHECK(w->format == WF_NVFP4);
    check_range(w, row, n_rows);
    if (entry->kind == FROM_NVFP4) return stored_nvfp4(entry, row, n_rows, codes, scales, e);
    if (entry->kind == FROM_QUANTIZE)
        return source_quantize_rows(s->method, entry, row, n_rows, codes, scales, e);
    if (entry->kind == FROM_COPY) return source_copy_nvfp4(s, entry, row, n_rows, codes, scales, e);
    source_random_nvfp4(entry, row, n_rows, codes, scales);
    return true;
}

static void random_raw(const SourceEntry *e, uint64_t row, uint64_t n_rows, void *out) {
    uint64_t k = weight_cols(&e->info);
    if (e->info.format == WF_F32) {
        source_random_f32(e, row, n_rows, out);
        return;
    }
    float *values = xrealloc(NULL, k ? k : 1, sizeof *values);
    uint16_t *h = out;
    for (uint64_t r = 0; r < n_rows; r++, h += k) {
        source_random_f32(e, row + r, 1, values);
        for (uint64_t i = 0; i < k; i++)
            h[i] = e->info.format == WF_BF16 ? f32_to_bf16(values[i]) : f32_to_f16(values[i]);
    }
    free(values);
}

bool source_rows_raw(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows, void *out,
                     Err *e) {
    const SourceEntry *entry = source_entry(s, w);
    CHECK(w->format != WF_NVFP4 && w->format != WF_E4M3);
    check_range(w, row, n_rows);
    if (entry->kind == FROM_RANDOM) {
        random_raw(entry, row, n_rows, out);
        return true;
    }
    if (!source_dense_check(entry, row, n_rows, e)) return false;
    uint64_t bytes = n_rows * weight_row_bytes(w);
    if (bytes) memcpy(out, source_dense_row(entry, row), bytes);
    return true;
}

static bool e4m3_rows_f32(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows,
                          float *out, Err *e) {
    uint64_t k = weight_cols(w);
    uint8_t *codes = xmalloc(k + 1);
    bool ok = true;
    for (uint64_t r = 0; r < n_rows && ok; r++, out += k) {
        float scale;
        ok = source_rows_e4m3(s, w, row + r, 1, codes, &scale, e);
        for (uint64_t i = 0; ok && i < k; i++) out[i] = e4m3_to_f32(codes[i]) * scale;
    }
    free(codes);
    return ok;
}

bool source_rows_f32(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows, float *out,
                     Err *e) {
    const SourceEntry *entry = source_entry(s, w);
    check_range(w, row, n_rows);
    if (w->format == WF_E4M3) return e4m3_rows_f32(s, w, row, n_rows, out, e);
    if (w->format != WF_NVFP4) {
        if (entry->kind != FROM_RANDOM) return source_dense_f32(entry, row, n_rows, out, e);
        source_random_f32(entry, row, n_rows, out);
        return true;
    }
    uint64_t k = weight_cols(w), blocks = k / NVFP4_BLOCK;
    uint8_t *codes = xrealloc(NULL, blocks + 1, NVFP4_BLOCK / 2 + 1),
            *scales = codes + blocks * NVFP4_BLOCK / 2;
    bool ok = true;
    for (uint64_t r = 0; r < n_rows && ok; r++) {
        ok = source_rows_nvfp4(s, w, row + r, 1, codes, scales, e);
        if (ok) nvfp4_dequantize(codes, scales, blocks, w->global, out + r * k);
    }
    free(codes);
    return ok;
}
