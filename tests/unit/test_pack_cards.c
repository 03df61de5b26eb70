// Weights packed for cards: every element of every tile of whole models, with row scales and bounds, against
// the rows of the source.
#include <math.h>
#include <stdlib.h>

#include "compiler/frontend/model.h"
#include "compiler/pack/layout.h"
#include "compiler/pack/pack_weights.h"
#include "compiler/passes/pass.h"
#include "compiler/targets/target.h"
#include "runtime/base/fp.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

#define MODELS "tests/golden/models/"

typedef struct {
    Arena arena;
    Model model;
    Plan *plan;
    const AdaBinding *bindings;
    StrBuf bytes; // the weights section
} Packed;

static bool append(void *ctx, const void *data, size_t len, Err *e) {
    (void)e;
    buf_add(ctx, data, len);
    return true;
}

static void pack(Packed *x, const char *dir, const char *set) {
    static const uint32_t batches[] = {1};
    *x = (Packed){0};
    Diags d = {.arena = &x->arena};
    OptList sets = {&set, set != NULL};
    if (!model_open(&x->arena, dir, &sets, (ModelOptions){0}, &x->model, &d))
        fail_msg("%s: %s", dir, diags_first_message(&d));
    PassContext c = {.arena = &x->arena,
                     .target = target_find(STR("rtx4090"), SPAN_NONE, &d),
                     .n_ranks = 1,
                     .context = 256,
                     .buckets = batches,
                     .n_buckets = COUNT_OF(batches),
                     .prefill_tokens = 128};
    Graph *g = passes_run_graph(x->model.graph, &c, &d);
    x->plan = g ? passes_run_plan(g, &c, &d) : NULL;
    Pool *pool = pool_new(2);
    uint64_t total = 0, read = 0;
    if (x->plan) x->bindings = weights_place(&x->arena, x->plan, &total, &d);
    if (!x->bindings || !weights_write(x->plan, x->bindings, x->model.source, pool,
                                       (WeightSink){append, &x->bytes}, &read, &d))
        fail_msg("%s: %s", dir, diags_first_message(&d));
    assert_int_equal(x->bytes.len, total);
    pool_free(pool);
}

static void drop(Packed *x) {
    buf_free(&x->bytes);
    model_close(&x->model);
    arena_free(&x->arena);
}

static const uint8_t *bytes_of(const Packed *x, uint32_t weight) {
    return (const uint8_t *)x->bytes.ptr + x->bindings[weight].offset;
}

// The scales or the bound that belong to the values of the same graph weight.
static const float *companion(const Packed *x, const PlanWeight *values, PlanWeightKind kind) {
    for (uint32_t i = 0; i < x->plan->n_weights; i++)
        if (x->plan->weights[i].kind == kind && x->plan->weights[i].weight == values->weight)
            return (const float *)(const void *)bytes_of(x, i);
    return NULL;
}

// Row r of a stack: which tile, and which of its 16 rows.
static void place_row(const PlanWeight *w, uint64_t r, uint64_t *tile, uint64_t *in_tile) {
    uint64_t half = w->rows / 2;
    bool pairs = layout_info(w->layout)->pairs;
    *tile = pairs ? r % half / 8 : r / 16;
    *in_tile = pairs ? r % half % 8 + (r >= half ? 8 : 0) : r % 16;
}

// Element (row, col) of a stack as a kernel sees it: the value of its code or half, times the block's scale.
static double element(const uint8_t *stack, const PlanWeight *w, uint64_t row, uint64_t col) {
    uint64_t tile, r, stages = div_up(w->cols, 64), stage = col / 64;
    place_row(w, row, &tile, &r);
    unsigned lane = (unsigned)(r % 8 * 4 + col % 64 / 16), j = col % 16 / 4, reg = (r >= 8) + col % 4 / 2 * 2;
    unsigned half = col % 2;
    if (layout_info(w->layout)->format == WF_E4M3) {
        const uint8_t *product = stack + (tile * stages + stage) * 1024 + j / 2 * 512 + lane * 16 + j % 2 * 8;
        return (double)e4m3_to_f32(product[reg * 2 + half]);
    }
    if (layout_info(w->layout)->format != WF_NVFP4) {
        uint16_t h;
        memcpy(&h, stack + (tile * stages + stage) * 2048 + j * 512 + lane * 16 + reg * 4 + half * 2, 2);
        return (double)f16_to_f32(h);
    }
    static const unsigned sign[] = {15, 12, 14, 13}, magnitude[] = {9, 6, 3, 0};
    const uint8_t *at = stack + (tile * stages + stage) * 576;
    uint16_t bits;
    memcpy(&bits, at + lane * 16 + j * 4 + half * 2, 2);
    unsigned code = (bits >> sign[reg] & 1) << 3 | (bits >> magnitude[reg] & 7);
    return (double)e2m1_value[code] * (double)e4m3_to_f32(at[512 + lane * 2 + (r >= 8)]);
}

static void check_weight(const Packed *x, uint32_t index) {
    const PlanWeight *w = &x->plan->weights[index];
    const Weight *g = &x->plan->graph->weights[w->weight];
    const float *scales = companion(x, w, PLAN_WEIGHT_ROW_SCALES),
                *bound = companion(x, w, PLAN_WEIGHT_BOUND);
    assert_true(!bound == !layout_info(w->layout)->pairs);
    assert_non_null(scales);
    uint64_t at = 0, stack_bytes = w->bytes / w->stack;
    float *row = xmalloc(w->cols * sizeof *row);
    for (uint32_t part = 0; part < g->n_parts; part++) {
        WeightInfo info;
        Err e;
        assert_true(source_info(x->model.source, g->parts[part].tensor, &info));
        for (uint64_t r = 0; r < weight_rows(&info); r++, at++) {
            assert_true(source_rows_f32(x->model.source, &info, r, 1, row, &e));
            const uint8_t *stack = bytes_of(x, index) + at / w->rows * stack_bytes;
            for (uint64_t c = 0; c < w->cols; c++) {
                double got = element(stack, w, at % w->rows, c) * (double)scales[at];
                if ((float)got != row[c] || (bound && fabs(got) > (double)*bound))
                    fail_msg("%s row %llu column %llu: %g, not %g", w->name, (unsigned long long)at,
                             (unsigned long long)c, got, (double)row[c]);
            }
        }
    }
    assert_int_equal(at, w->rows * w->stack);
    free(row);
}

// Packs a model and checks all weights that lie in fragments; returns a set of 1 << layout.
static unsigned check_model(const char *dir, const char *set) {
    Packed x;
    unsigned seen = 0;
    pack(&x, dir, set);
    for (uint32_t i = 0; i < x.plan->n_weights; i++) {
        const PlanWeight *w = &x.plan->weights[i];
        if (w->kind != PLAN_WEIGHT_VALUES || w->layout < ADA_LAYOUT_MMA_NVFP4) continue;
        seen |= 1u << w->layout;
        check_weight(&x, i);
    }
    drop(&x);
    return seen;
}

static void dense_models(void **state) {
    (void)state;
    unsigned nvfp4 = 1u << ADA_LAYOUT_MMA_NVFP4 | 1u << ADA_LAYOUT_MMA_NVFP4_PAIRS;
    assert_int_equal(check_model(MODELS "qwen3", NULL) & nvfp4, nvfp4);
    assert_int_equal(check_model(MODELS "gemma3", NULL) & nvfp4, nvfp4);
    check_model(MODELS "llama", NULL);
}

static void experts(void **state) {
    (void)state;
    assert_true(check_model(MODELS "qwen3-moe", NULL) & 1u << ADA_LAYOUT_MMA_NVFP4_PAIRS);
}

static void bf16_models(void **state) {
    (void)state;
    unsigned halves = 1u << ADA_LAYOUT_MMA_F16 | 1u << ADA_LAYOUT_MMA_F16_PAIRS;
    assert_int_equal(check_model(MODELS "quantize/bf16", "quantize=none"), halves);
}

// A tied head leaves the embedding table as rows of bf16.
static void quantized_heads(void **state) {
    (void)state;
    unsigned halves = 1u << ADA_LAYOUT_MMA_F16, e4m3 = 1u << ADA_LAYOUT_MMA_E4M3;
    const char *const models[] = {MODELS "qwen3", MODELS "gemma3"};
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        assert_int_equal(check_model(models[i], "head=fp8") & (halves | e4m3), e4m3);
        assert_int_equal(check_model(models[i], "head=nvfp4") & (halves | e4m3), 0);
        assert_int_equal(check_model(models[i], NULL) & (halves | e4m3), halves);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dense_models), cmocka_unit_test(experts),
                                       cmocka_unit_test(bf16_models), cmocka_unit_test(quantized_heads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
