// Weights quantised while they are read: one pass over a group of siblings for the amax, then rows on demand.
#include <math.h>
#include <stdlib.h>

#include "compiler/frontend/naming.h"
#include "compiler/frontend/nvfp4.h"
#include "compiler/frontend/source_internal.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"

enum { ROWS_PER_TASK = 32 };

bool source_is_decoder_linear(Str name) {
    return str_starts(name, STR("model.layers.")) && str_ends(name, STR("_proj.weight"));
}

// Magnitudes compare as integers in every format. Infinities and NaN give a global that is of no use; the
// readers refuse such rows before it matters.
float source_dense_amax(const SourceEntry *e) {
    const uint8_t *p = source_dense_row(e, 0);
    uint64_t n = weight_rows(&e->info) * weight_cols(&e->info);
    uint32_t m32 = 0;
    uint16_t m16 = 0, v;
    if (e->stored == WF_F32) {
        for (uint64_t i = 0; i < n; i++) {
            uint32_t u;
            memcpy(&u, p + 4 * i, 4);
            u &= 0x7FFFFFFF;
            m32 = MAX(m32, u);
        }
        return f32_from_bits(m32);
    }
    for (uint64_t i = 0; i < n; i++) {
        memcpy(&v, p + 2 * i, 2);
        v &= 0x7FFF;
        m16 = MAX(m16, v);
    }
    return e->stored == WF_BF16 ? bf16_to_f32(m16) : f16_to_f32(m16);
}

void source_quantize_prepare(WeightSource *s, SourceEntry *e) {
    size_t n;
    const Str *names = naming_siblings(s->arena, e->info.name, &n);
    SourceEntry *group[4];
    size_t n_group = 0;
    float amax = 0;
    for (size_t i = 0; i < n; i++) {
        SourceEntry *sibling = source_find(s, names[i]);
        if (!sibling || sibling->kind != FROM_QUANTIZE) continue;
        float one = source_dense_amax(sibling);
        if (!isfinite(one)) one = 0;
        amax = MAX(amax, one);
        group[n_group++] = sibling;
    }
    for (size_t i = 0; i < n_group; i++)
        group[i]->info.global = nvfp4_global(amax), group[i]->has_amax = true;
}

bool source_quantize_rows(QuantMethod method, const SourceEntry *e, uint64_t row, uint64_t n_rows,
                          uint8_t *codes, uint8_t *scales, Err *err) {
    uint64_t k = weight_cols(&e->info), blocks = k / NVFP4_BLOCK;
    float *x = xrealloc(NULL, k ? k : 1, sizeof *x);
    bool ok = true;
    for (uint64_t r = 0; r < n_rows && ok; r++, codes += k / 2, scales += blocks) {
        ok = source_dense_f32(e, row + r, 1, x, err);
        if (!ok) break;
        if (method == QUANT_MAX)
            nvfp4_quantize_max(x, blocks, e->info.global, codes, scales);
        else
            nvfp4_quantize_mse(x, blocks, e->info.global, codes, scales);
    }
    free(x);
    return ok;
}

// ---- measuring -----------------------------------------------------------------------------------------

typedef struct {
    double norm, err_max, err_mse; // squared
    bool failed;
    Err err;
} TaskError;

typedef struct {
    const SourceEntry *entry;
    TaskError *tasks;
} Measure;

static void measure_rows(void *ctx, uint32_t task) {
    const Measure *m = ctx;
    TaskError *t = &m->tasks[task];
    uint64_t k = weight_cols(&m->entry->info), blocks = k / NVFP4_BLOCK;
    uint64_t begin = (uint64_t)task * ROWS_PER_TASK;
    uint64_t end = MIN(begin + ROWS_PER_TASK, weight_rows(&m->entry->info));
    float g = m->entry->info.global, *x = xrealloc(NULL, k + 1, sizeof *x);
    uint8_t *codes = xrealloc(NULL, blocks + 1, NVFP4_BLOCK), *scales = codes + blocks * (NVFP4_BLOCK / 2);
    *t = (TaskError){0};
    for (uint64_t r = begin; r < end && !t->failed; r++) {
        t->failed = !source_dense_f32(m->entry, r, 1, x, &t->err);
        if (t->failed) break;
        for (uint64_t i = 0; i < k; i++) t->norm += (double)x[i] * (double)x[i];
        nvfp4_quantize_max(x, blocks, g, codes, scales);
        t->err_max += nvfp4_squared_error(x, codes, scales, blocks, g);
        nvfp4_quantize_mse(x, blocks, g, codes, scales);
        t->err_mse += nvfp4_squared_error(x, codes, scales, blocks, g);
    }
    free(codes);
    free(x);
}

static bool measure_entry(const SourceEntry *e, Pool *pool, double sums[3], Err *err) {
    uint64_t n = div_up(weight_rows(&e->info), ROWS_PER_TASK);
    Measure m = {e, xrealloc(NULL, n + 1, sizeof(TaskError))};
    CHECK(n <= UINT32_MAX);
    pool_run(pool, (uint32_t)n, measure_rows, &m);
    bool ok = true;
    for (uint64_t i = 0; i < n && ok; i++) {
        const TaskError *t = &m.tasks[i];
        sums[0] += t->norm, sums[1] += t->err_max, sums[2] += t->err_mse;
        if (t->failed) *err = t->err, ok = false;
    }
    free(m.tasks);
    return ok;
}

bool source_quantize_error(WeightSource *s, Pool *pool, bool (*wants)(void *ctx, Str name), void *ctx,
                           QuantizeError *out, Err *err) {
    double sums[3] = {0};
    *out = (QuantizeError){0};
    for (size_t i = 0; i < s->n; i++) {
        SourceEntry *e = &s->entries[i];
        if (e->kind != FROM_QUANTIZE || (wants && !wants(ctx, e->info.name))) continue;
        if (!e->has_amax) source_quantize_prepare(s, e);
        if (!measure_entry(e, pool, sums, err)) return false;
        out->weights += weight_rows(&e->info) * weight_cols(&e->info);
    }
    out->square = sums[0];
    out->rel_max = sums[0] > 0 ? sqrt(sums[1] / sums[0]) : 0;
    out->rel_mse = sums[0] > 0 ? sqrt(sums[2] / sums[0]) : 0;
    return true;
}
