// Quantised copies of weights: the copy's rows are made of those of the weight it is of, whenever they are
// read.
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "compiler/frontend/nvfp4.h"
#include "compiler/frontend/source_internal.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"

#define E4M3_MAX 448.0f

static float row_amax(const float *x, uint64_t k) {
    float m = 0;
    for (uint64_t i = 0; i < k; i++) m = MAX(m, fabsf(x[i]));
    return m;
}

static bool copy_amax(const WeightSource *s, const SourceEntry *of, float *out, Err *err) {
    uint64_t k = weight_cols(&of->info);
    *out = 0;
    if (of->kind == FROM_DENSE) {
        *out = source_dense_amax(of);
        return isfinite(*out) || source_dense_check(of, 0, weight_rows(&of->info), err);
    }
    float *x = xrealloc(NULL, k ? k : 1, sizeof *x);
    bool ok = true;
    for (uint64_t r = 0; ok && r < weight_rows(&of->info); r++) {
        ok = source_rows_f32(s, &of->info, r, 1, x, err);
        if (ok) *out = MAX(*out, row_amax(x, k));
    }
    free(x);
    return ok;
}

bool source_quantized_copy(WeightSource *s, const WeightInfo *of, WeightFormat format, QuantMethod method,
                           WeightInfo *out, Err *err) {
    CHECK(of->rank == 2 && of->format != WF_NVFP4 && of->format != WF_E4M3);
    CHECK(format == WF_E4M3 || (format == WF_NVFP4 && of->shape[1] % NVFP4_BLOCK == 0));
    const char *suffix = format == WF_NVFP4 ? "nvfp4" : "e4m3";
    Str name = str_of(arena_printf(s->arena, STR_FMT ".%s", STR_ARG(of->name), suffix));
    float amax = 0;
    if (format == WF_NVFP4 && !copy_amax(s, source_entry(s, of), &amax, err)) return false;
    SourceEntry *e = source_add(s, name);
    e->kind = FROM_COPY, e->of = of->id, e->method = method;
    e->info.format = format, e->info.rank = 2;
    e->info.shape[0] = of->shape[0], e->info.shape[1] = of->shape[1];
    e->info.global = format == WF_NVFP4 ? nvfp4_global(amax) : 1;
    *out = e->info;
    return true;
}

bool source_copy_nvfp4(const WeightSource *s, const SourceEntry *e, uint64_t row, uint64_t n_rows,
                       uint8_t *codes, uint8_t *scales, Err *err) {
    uint64_t k = weight_cols(&e->info), blocks = k / NVFP4_BLOCK;
    float *x = xrealloc(NULL, k ? k : 1, sizeof *x);
    bool ok = true;
    for (uint64_t r = 0; r < n_rows && ok; r++, codes += k / 2, scales += blocks) {
        ok = source_rows_f32(s, &s->entries[e->of].info, row + r, 1, x, err);
        if (!ok) break;
        if (e->method == QUANT_MAX)
            nvfp4_quantize_max(x, blocks, e->info.global, codes, scales);
        else
            nvfp4_quantize_mse(x, blocks, e->info.global, codes, scales);
    }
    free(x);
    return ok;
}

// A row so small that its scale would be subnormal becomes zeros.
bool source_rows_e4m3(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows,
                      uint8_t *codes, float *scales, Err *err) {
    const SourceEntry *e = source_entry(s, w);
    uint64_t k = weight_cols(w);
    CHECK(w->format == WF_E4M3 && e->kind == FROM_COPY && range_inside(row, n_rows, weight_rows(w)));
    float *x = xrealloc(NULL, k ? k : 1, sizeof *x);
    bool ok = true;
    for (uint64_t r = 0; r < n_rows && ok; r++, codes += k) {
        ok = source_rows_f32(s, &s->entries[e->of].info, row + r, 1, x, err);
        if (!ok) break;
        float scale = row_amax(x, k) / E4M3_MAX;
        scales[r] = scale >= FLT_MIN ? scale : 1;
        for (uint64_t i = 0; i < k; i++) codes[i] = f32_to_e4m3(x[i] / scales[r]);
    }
    free(x);
    return ok;
}
