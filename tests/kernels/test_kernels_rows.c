// embed, norm_add, act_mul, moe_route, gather_rows, quantize_rows, advance: one row of activations at a time.
#include <math.h>
#include <stdlib.h>

#include "compiler/pack/layout.h"
#include "runtime/base/fp.h"
#include "tests/kernels/harness.h"

static Kernels kernels;
enum { HIDDEN = 44, VOCAB = 37, TOKENS = 7, EXPERTS = 13, TOPK = 4 };
static uint32_t embed_id[5], act_id[2], norm_id[8], route_id[2], gather_id, quantize_id, advance_id;

static void setup(void) {
    static const char *const formats[] = {"rows_f32", "f32", "rows_bf16", "bf16", "f16"};
    for (uint32_t i = 0; i < 5; i++)
        embed_id[i] = kernels_add(&kernels, "embed hidden=%d vocab=%d scale=25.25 format=%s", HIDDEN, VOCAB,
                                  formats[i]);
    for (uint32_t i = 0; i < 2; i++)
        act_id[i] = kernels_add(&kernels, "act_mul f=%d act=%s", HIDDEN, i ? "gelu_tanh" : "silu");
    for (uint32_t i = 1; i < 8; i++)
        norm_id[i] =
            kernels_add(&kernels, "norm_add hidden=%d eps=1e-6 has_branch=%u has_post=%u has_out=%u count=%u",
                        HIDDEN, i & 1, i >> 1 & 1, i >> 2, i & 1);
    for (uint32_t i = 0; i < 2; i++)
        route_id[i] = kernels_add(&kernels, "moe_route experts=%d k=%d norm=%u", EXPERTS, TOPK, i);
    gather_id = kernels_add(&kernels, "gather_rows hidden=%d", HIDDEN);
    quantize_id = kernels_add(&kernels, "quantize_rows k=%d rows_each=2", HIDDEN);
    advance_id = kernels_add(&kernels, "advance rows_max=4");
}

static void embed_rows(void **state) {
    (void)state;
    float rows[VOCAB * HIDDEN];
    uint16_t rows16[VOCAB * HIDDEN];
    static const AdaLayout layouts[] = {ADA_LAYOUT_ROWS_F32, ADA_LAYOUT_HOST_F32, ADA_LAYOUT_ROWS_BF16,
                                        ADA_LAYOUT_HOST_BF16, ADA_LAYOUT_HOST_F16};
    random_fill(1, rows, VOCAB * HIDDEN, 1);
    for (uint32_t f = 0; f < COUNT_OF(layouts); f++) {
        const LayoutInfo *info = layout_info(layouts[f]);
        bool wide = info->format == WF_F32;
        for (uint32_t i = 0; i < VOCAB * HIDDEN && info->format == WF_BF16; i++)
            rows16[i] = f32_to_bf16(rows[i]), rows[i] = bf16_to_f32(rows16[i]);
        for (uint32_t i = 0; i < VOCAB * HIDDEN && info->format == WF_F16; i++)
            rows16[i] = f32_to_f16(rows[i] * 1e-3f), rows[i] = f16_to_f32(rows16[i]); // subnormals, too
        uint64_t bytes, tile;
        assert_true(layout_bytes(layouts[f], VOCAB, HIDDEN, &bytes) &&
                    layout_bytes(layouts[f], info->rows_tile, HIDDEN, &tile));
        uint8_t *table = fenced_alloc(bytes);
        for (uint32_t r = 0; r < VOCAB; r += info->rows_tile)
            layout_pack_values(layouts[f], MIN(info->rows_tile, VOCAB - r), HIDDEN,
                               wide ? (void *)(rows + r * HIDDEN) : (void *)(rows16 + r * HIDDEN),
                               table + r / info->rows_tile * tile);
        const int32_t ids[TOKENS] = {0, 36, 16, 15, -1, VOCAB, 5};
        uint32_t counts[4] = {TOKENS};
        float *out = fenced_alloc(TOKENS * HIDDEN * sizeof *out);
        void *args[] = {table, NULL, (void *)ids, out, counts};
        kernels_run(&kernels, embed_id[f], args, 3);
        for (uint32_t t = 0; t < TOKENS; t++)
            for (uint32_t i = 0; i < HIDDEN; i++) {
                bool inside = ids[t] >= 0 && ids[t] < VOCAB;
                float want = inside ? rows[(uint32_t)ids[t] * HIDDEN + i] * 25.25f : 0;
                if (out[t * HIDDEN + i] != want) check_fail("format %u token %u column %u", f, t, i);
            }
        fenced_free(table), fenced_free(out);
    }
}

static void norm_reference(const float *x, const float *w, double *out) {
    double sum = 0;
    for (uint32_t i = 0; i < HIDDEN; i++) sum += (double)x[i] * (double)x[i];
    for (uint32_t i = 0; i < HIDDEN; i++) out[i] = (double)x[i] / sqrt(sum / HIDDEN + 1e-6) * (double)w[i];
}

static void norm_add_forms(void **state) {
    (void)state;
    for (uint32_t form = 1; form < 8; form++) {
        const bool has_branch = form & 1, has_post = form >> 1 & 1, has_out = form >> 2;
        float *residual = fenced_alloc(TOKENS * HIDDEN * sizeof(float)),
              *branch = fenced_alloc(TOKENS * HIDDEN * sizeof(float));
        float *out = fenced_alloc(TOKENS * HIDDEN * sizeof(float)), before[TOKENS * HIDDEN], post_w[HIDDEN],
              w[HIDDEN];
        random_outliers(form, residual, TOKENS * HIDDEN), random_outliers(form + 10, branch, TOKENS * HIDDEN);
        random_fill(2, post_w, HIDDEN, 1), random_fill(3, w, HIDDEN, 1);
        branch[0] = INFINITY, residual[HIDDEN] = NAN; // anomalies stay in their rows
        memcpy(before, residual, sizeof before);
        uint32_t counts[4] = {TOKENS, TOKENS};
        void *args[] = {residual,           has_branch ? branch : NULL, has_post ? post_w : NULL,
                        has_out ? w : NULL, has_out ? out : NULL,       counts};
        kernels_run(&kernels, norm_id[form], args, 1 + form % 4);
        for (uint32_t t = 2; t < TOKENS; t++) {
            double want[HIDDEN];
            norm_reference(branch + t * HIDDEN, post_w, want);
            for (uint32_t i = 0; i < HIDDEN; i++) {
                if (!has_post) want[i] = (double)branch[t * HIDDEN + i];
                want[i] = (double)before[t * HIDDEN + i] + (has_branch ? want[i] : 0);
            }
            check_close("residual", residual + t * HIDDEN, want, HIDDEN, 1e-6);
            norm_reference(residual + t * HIDDEN, w, want);
            if (has_out) check_close("norm", out + t * HIDDEN, want, HIDDEN, 1e-6);
        }
        if (has_out && has_branch) assert_true(isnan(out[0]));
        if (has_out) assert_true(isnan(out[HIDDEN]));
        fenced_free(residual), fenced_free(branch), fenced_free(out);
    }
}

static void act_mul_values(void **state) {
    (void)state;
    float *x = fenced_alloc(TOKENS * 2 * HIDDEN * sizeof *x);
    random_outliers(7, x, TOKENS * 2 * HIDDEN);
    for (uint32_t gelu = 0; gelu < 2; gelu++) {
        float *out = fenced_alloc(TOKENS * HIDDEN * sizeof *out);
        uint32_t counts[4] = {TOKENS};
        void *args[] = {x, out, counts};
        kernels_run(&kernels, act_id[gelu], args, 3);
        for (uint32_t t = 0; t < TOKENS; t++) {
            double want[HIDDEN];
            for (uint32_t i = 0; i < HIDDEN; i++) {
                double g = (double)x[t * 2 * HIDDEN + i], up = (double)x[t * 2 * HIDDEN + HIDDEN + i];
                double tanh_of = 0.79788456080286535588 * (g + 0.044715 * g * g * g);
                want[i] = (gelu ? 0.5 * g * (1 + tanh(tanh_of)) : g / (1 + exp(-g))) * up;
            }
            check_close("act_mul", out + t * HIDDEN, want, HIDDEN, 1e-5);
        }
        fenced_free(out);
    }
    fenced_free(x);
}

static void route_picks(void **state) {
    (void)state;
    float *logits = fenced_alloc(TOKENS * EXPERTS * sizeof *logits);
    random_fill(4, logits, TOKENS * EXPERTS, 2);
    for (uint32_t e = 0; e < EXPERTS; e++) logits[e] = e % 2 ? 1 : 3; // ties: lowest index first
    for (uint32_t e = 0; e < EXPERTS; e++) logits[EXPERTS + e] = NAN;
    for (uint32_t norm = 0; norm < 2; norm++) {
        int32_t *ids = fenced_alloc(TOKENS * TOPK * sizeof *ids);
        float *weights = fenced_alloc(TOKENS * TOPK * sizeof *weights);
        uint32_t counts[4] = {TOKENS};
        void *args[] = {logits, ids, weights, counts};
        kernels_run(&kernels, route_id[norm], args, 2);
        for (uint32_t j = 0; j < TOPK; j++) {
            assert_int_equal(ids[j], 2 * j);
            assert_in_range(ids[TOPK + j], 0, EXPERTS - 1);
            assert_true(isnan(weights[TOPK + j]));
        }
        for (uint32_t t = 2; t < TOKENS; t++) {
            const float *l = logits + t * EXPERTS;
            double all = 0, chosen = 0, want[TOPK];
            for (uint32_t e = 0; e < EXPERTS; e++) all += exp((double)l[e]);
            for (uint32_t j = 0; j < TOPK; j++) {
                int32_t id = ids[t * TOPK + j];
                uint32_t larger = 0;
                for (uint32_t e = 0; e < EXPERTS; e++) larger += l[e] > l[id];
                assert_int_equal(larger, j);
                chosen += want[j] = exp((double)l[id]) / all;
            }
            for (uint32_t j = 0; j < TOPK && norm; j++) want[j] /= chosen;
            check_close("expert weights", weights + t * TOPK, want, TOPK, 1e-6);
        }
        fenced_free(ids), fenced_free(weights);
    }
    fenced_free(logits);
}

// Bit for bit what the definition says; a row with a NaN is NaN, a row of tiny values zeros.
static void quantize_rounds(void **state) {
    (void)state;
    enum { ROWS = 2 * TOKENS };
    float x[ROWS * HIDDEN], *out = fenced_alloc(ROWS * HIDDEN * sizeof *out);
    uint32_t counts[4] = {TOKENS - 1};
    random_outliers(11, x, ROWS * HIDDEN);
    memset(x, 0, HIDDEN * sizeof *x);
    for (uint32_t i = 0; i < HIDDEN; i++) x[HIDDEN + i] = 1e-36f;
    x[2 * HIDDEN + 3] = NAN, x[3 * HIDDEN + 3] = -INFINITY;
    void *args[] = {x, out, counts};
    kernels_run(&kernels, quantize_id, args, 3);
    for (uint32_t r = 0; r < ROWS - 2; r++) {
        float most = 0;
        for (uint32_t i = 0; i < HIDDEN; i++) most = fmaxf(most, fabsf(x[r * HIDDEN + i]));
        const float inverse = r < 2 ? 0 : 448 / most, scale = r < 2 ? 0 : most / 448;
        for (uint32_t i = 0; i < HIDDEN; i++) {
            const float got = out[r * HIDDEN + i],
                        want = e4m3_to_f32(f32_to_e4m3(x[r * HIDDEN + i] * inverse)) * scale;
            if (r == 2 || r == 3 ? isfinite(got) : got != want)
                check_fail("row %u column %u is %g, expected %g", r, i, (double)got, (double)want);
        }
    }
    for (uint32_t i = (ROWS - 2) * HIDDEN; i < ROWS * HIDDEN; i++) assert_true(isnan(out[i]));
    fenced_free(out);
}

static void gather_and_advance(void **state) {
    (void)state;
    float x[TOKENS * HIDDEN], *out = fenced_alloc(3 * HIDDEN * sizeof *out);
    int32_t rows[3] = {6, 0, 3}, next[3] = {11, 12, 13}, ids[TOKENS] = {0}, pos[TOKENS] = {7, 8, 9, 10};
    uint32_t counts[4] = {TOKENS, 3, 6}, status[3] = {ROW_OK, ROW_NOT_FINITE, ROW_OK};
    uint8_t *ring = fenced_alloc(RING_SLOTS * RING_SLOT_BYTES(4));
    random_fill(5, x, TOKENS * HIDDEN, 1);
    void *gather[] = {x, rows, out, counts}, *advance[] = {next, ids, pos, counts, status, ring};
    kernels_run(&kernels, gather_id, gather, 2);
    for (uint32_t r = 0; r < 3; r++)
        assert_memory_equal(out + r * HIDDEN, x + rows[r] * HIDDEN, HIDDEN * sizeof *x);
    kernels_run(&kernels, advance_id, advance, 1);
    const int32_t ids_want[TOKENS] = {11, 12, 13}, pos_want[TOKENS] = {8, 9, 10, 10};
    assert_memory_equal(ids, ids_want, sizeof ids);
    assert_memory_equal(pos, pos_want, sizeof pos);
    const RingSlot *told = (const RingSlot *)(const void *)(ring + 6 % RING_SLOTS * RING_SLOT_BYTES(4));
    assert_int_equal(told->done, 7);
    assert_int_equal(counts[COUNT_STEP], 7);
    assert_memory_equal(told + 1, next, sizeof next);
    assert_memory_equal((const uint32_t *)(told + 1) + 4, status, sizeof status);
    fenced_free(ring);
    fenced_free(out);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(embed_rows),  cmocka_unit_test(norm_add_forms),     cmocka_unit_test(act_mul_values),
    cmocka_unit_test(route_picks), cmocka_unit_test(gather_and_advance), cmocka_unit_test(quantize_rounds),
};
KERNELS_MAIN(kernels, setup, tests)
