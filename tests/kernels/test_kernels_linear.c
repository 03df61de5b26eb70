// linear, gate_up and the expert linears, in all formats: exact patterns, random with outliers against
// doubles, edges of tiles and passes, and the same bits for every grid and every company a token has.
#include <math.h>
#include <stdlib.h>

#include "compiler/pack/layout.h"
#include "runtime/base/fp.h"
#include "tests/kernels/harness.h"

static Kernels kernels;

static const struct { uint32_t n, k; } shapes[] = {{16, 16}, {40, 48}, {33, 272}, {130, 528}};
enum { N_SHAPES = COUNT_OF(shapes), N_FORMATS = 5, EXPERTS = 5, TOPK = 2 };
static uint32_t linear_id[N_SHAPES][N_FORMATS], gate_id[N_SHAPES][N_FORMATS], moe_gate_id[N_FORMATS],
    moe_down_id[N_FORMATS], exact_id, exact_e4m3_id, bias_id, wide_id;

static const struct {
    const char *name;
    AdaLayout layout;
} formats[N_FORMATS] = {{"nvfp4", ADA_LAYOUT_HOST_NVFP4},
                        {"bf16", ADA_LAYOUT_HOST_BF16},
                        {"f16", ADA_LAYOUT_HOST_F16},
                        {"f32", ADA_LAYOUT_HOST_F32},
                        {"e4m3", ADA_LAYOUT_HOST_E4M3}};

static void setup(void) {
    for (uint32_t f = 0; f < N_FORMATS; f++) {
        for (uint32_t s = 0; s < N_SHAPES; s++) {
            linear_id[s][f] =
                kernels_add(&kernels, "linear n=%u k=%u format=%s out_stride=%u has_bias=0 softcap=0 count=0",
                            shapes[s].n, shapes[s].k, formats[f].name, shapes[s].n);
            gate_id[s][f] = kernels_add(&kernels, "gate_up f=%u k=%u format=%s act=%s", shapes[s].n,
                                        shapes[s].k, formats[f].name, f ? "silu" : "gelu_tanh");
        }
        moe_gate_id[f] = kernels_add(&kernels, "moe_gate_up experts=%d topk=%d f=40 k=48 format=%s act=silu",
                                     EXPERTS, TOPK, formats[f].name);
        moe_down_id[f] = kernels_add(&kernels, "moe_down experts=%d topk=%d n=33 k=48 format=%s", EXPERTS,
                                     TOPK, formats[f].name);
    }
    exact_id =
        kernels_add(&kernels, "linear n=128 k=256 format=nvfp4 out_stride=128 has_bias=0 softcap=0 count=1");
    exact_e4m3_id =
        kernels_add(&kernels, "linear n=128 k=2 format=e4m3 out_stride=128 has_bias=0 softcap=0 count=0");
    bias_id =
        kernels_add(&kernels, "linear n=40 k=48 format=bf16 out_stride=50 has_bias=1 softcap=30 count=0");
    wide_id =
        kernels_add(&kernels, "linear n=48 k=1056 format=nvfp4 out_stride=48 has_bias=0 softcap=0 count=0");
}

static TestWeight weight(uint32_t format, uint64_t seed, uint32_t stack, uint32_t rows, uint32_t cols) {
    return format ? weight_plain(formats[format].layout, seed, stack, rows, cols)
                  : weight_nvfp4(seed, stack, rows, cols);
}

static void run_linear(uint32_t id, const float *x, const TestWeight *w, const float *bias, float *out,
                       uint32_t n_tok, uint32_t grid) {
    uint32_t counts[4] = {n_tok, n_tok};
    void *args[] = {(void *)x, w->packed, w->row_scale, (void *)bias, out, counts, NULL};
    kernels_run(&kernels, id, args, grid);
}

static void dots(const TestWeight *w, uint32_t first_row, uint32_t n_rows, const float *x, double *out) {
    for (uint32_t r = 0; r < n_rows; r++) {
        out[r] = 0;
        for (uint32_t c = 0; c < w->cols; c++)
            out[r] += w->value[(size_t)(first_row + r) * w->cols + c] * (double)x[c];
    }
}

// Row r holds code r % 16 in every column, and scale 1 + r / 16 * 16 + block in block; one-hot activations
// read single products: 16 codes x 126 scales, exact.
static void every_code_and_scale(void **state) {
    (void)state;
    enum { N = 128, K = 256 };
    TestWeight w = weight_nvfp4(1, 1, N, K);
    float *x = fenced_alloc(N * K * sizeof *x), *out = fenced_alloc((size_t)K * N * sizeof *out);
    uint8_t codes[16 * K / 2], scales[16 * K / 16];
    for (uint32_t tile = 0; tile < N / 16; tile++) {
        for (uint32_t r = 0; r < 16; r++) {
            memset(codes + r * K / 2, (int)(r * 17), K / 2);
            for (uint32_t b = 0; b < 16; b++) scales[r * 16 + b] = (uint8_t)MIN(tile * 16 + b, 0x7Eu);
        }
        layout_pack_nvfp4(ADA_LAYOUT_HOST_NVFP4, 16, K, codes, scales, w.packed + (size_t)tile * K * 9);
    }
    for (uint32_t r = 0; r < N; r++) w.row_scale[r] = 1;
    static const uint32_t steps[] = {1, 3, 7}; // tokens at once: all three ways to compute
    for (size_t s = 0; s < COUNT_OF(steps); s++) {
        for (uint32_t k = 0; k + steps[s] <= K; k += steps[s]) {
            memset(x, 0, steps[s] * K * sizeof *x);
            for (uint32_t t = 0; t < steps[s]; t++) x[t * K + k + t] = 1;
            run_linear(exact_id, x, &w, NULL, out, steps[s], 4);
            for (uint32_t t = 0; t < steps[s]; t++)
                for (uint32_t r = 0; r < N; r++) {
                    float want =
                        e2m1_value[r % 16] * e4m3_to_f32((uint8_t)MIN(r / 16 * 16 + (k + t) / 16, 0x7Eu));
                    if (out[t * N + r] != want)
                        check_fail("%u tokens, code %u scale 0x%02x gives %g, expected %g", steps[s], r % 16,
                                   r / 16 * 16 + (k + t) / 16, (double)out[t * N + r], (double)want);
                }
        }
    }
    fenced_free(x), fenced_free(out), weight_free(&w);
}

// Row r holds code r in column 0 and -r in column 1.
static void every_e4m3_code(void **state) {
    (void)state;
    enum { N = 128, K = 2 };
    TestWeight w = weight_plain(ADA_LAYOUT_HOST_E4M3, 1, 1, N, K);
    float x[5 * K] = {1, 0, 0, 1, 0, 1, 1, 0, 0, 1}, out[5 * N];
    for (uint32_t tile = 0; tile < N / 16; tile++) {
        uint8_t codes[16 * K];
        for (uint32_t r = 0; r < 16; r++)
            codes[r * K] = (uint8_t)MIN(tile * 16 + r, 0x7Eu), codes[r * K + 1] = codes[r * K] | 0x80;
        layout_pack_values(ADA_LAYOUT_HOST_E4M3, 16, K, codes, w.packed + (size_t)tile * 16 * K);
    }
    for (uint32_t r = 0; r < N; r++) w.row_scale[r] = 1;
    for (uint32_t n_tok = 1; n_tok <= 5; n_tok++) {
        run_linear(exact_e4m3_id, x, &w, NULL, out, n_tok, 1);
        for (uint32_t i = 0; i < n_tok * N; i++) {
            float want = e4m3_to_f32((uint8_t)MIN(i % N, 0x7Eu)) * (x[i / N * K] > 0 ? 1 : -1);
            if (out[i] != want)
                check_fail("%u tokens, code 0x%02x gives %g, expected %g", n_tok, i % N, (double)out[i],
                           (double)want);
        }
    }
    weight_free(&w);
}

static void linear_random(void **state) {
    (void)state;
    enum { TOKENS = 17 };
    for (uint32_t f = 0; f < N_FORMATS; f++)
        for (uint32_t s = 0; s < N_SHAPES; s++) {
            const uint32_t n = shapes[s].n, k = shapes[s].k;
            TestWeight w = weight(f, 10 + s, 1, n, k);
            float *x = fenced_alloc((size_t)TOKENS * k * sizeof *x);
            double want[TOKENS * 130];
            random_outliers(20 + s, x, (size_t)TOKENS * k);
            for (uint32_t t = 0; t < TOKENS; t++) dots(&w, 0, n, x + t * k, want + t * n);
            for (uint32_t n_tok = 1; n_tok <= TOKENS; n_tok++) {
                float *out = fenced_alloc((size_t)n_tok * n * sizeof *out);
                run_linear(linear_id[s][f], x, &w, NULL, out, n_tok, 1 + n_tok % 5);
                check_close(kernels.specs[linear_id[s][f]], out, want, (size_t)n_tok * n, 1e-5);
                fenced_free(out);
            }
            fenced_free(x), weight_free(&w);
        }
}

// More tokens than a pass, more columns than a chunk; each token alone gives the same bits.
static void same_bits_in_company(void **state) {
    (void)state;
    enum { TOKENS = 259, N = 48, K = 1056 };
    TestWeight w = weight_nvfp4(3, 1, N, K);
    float *x = fenced_alloc((size_t)TOKENS * K * sizeof *x),
          *all = fenced_alloc((size_t)TOKENS * N * sizeof *all);
    random_outliers(4, x, (size_t)TOKENS * K);
    run_linear(wide_id, x, &w, NULL, all, TOKENS, 1);
    static const uint32_t parts[] = {1, 2, 3, 4, 5, 6, 7, 11, 120, 121, 258};
    for (size_t p = 0; p < COUNT_OF(parts); p++)
        for (uint32_t t = 0; t < TOKENS; t += parts[p]) {
            uint32_t n = MIN(parts[p], TOKENS - t);
            float *out = fenced_alloc((size_t)n * N * sizeof *out);
            run_linear(wide_id, x + (size_t)t * K, &w, NULL, out, n, 1 + (uint32_t)p % 3);
            check_bits("tokens in parts", out, all + (size_t)t * N, (size_t)n * N * sizeof *out);
            fenced_free(out);
        }
    fenced_free(x), fenced_free(all), weight_free(&w);
}

static void bias_stride_softcap(void **state) {
    (void)state;
    enum { N = 40, K = 48, STRIDE = 50, TOKENS = 5 };
    TestWeight w = weight_plain(ADA_LAYOUT_HOST_BF16, 5, 1, N, K);
    float *x = fenced_alloc(TOKENS * K * sizeof *x), *bias = fenced_alloc(N * sizeof *bias);
    float *out = fenced_alloc(((TOKENS - 1) * STRIDE + N) * sizeof *out);
    random_fill(6, x, TOKENS * K, 1), random_fill(7, bias, N, 20);
    x[2 * K] = NAN; // anomalies stay where they are
    run_linear(bias_id, x, &w, bias, out, TOKENS, 2);
    for (uint32_t t = 0; t < TOKENS; t++) {
        double want[N];
        dots(&w, 0, N, x + t * K, want);
        for (uint32_t r = 0; r < N; r++) want[r] = 30 * tanh((want[r] + (double)bias[r]) / 30);
        check_close("bias and softcap", out + t * STRIDE, want, N, 1e-5);
        for (uint32_t r = N; t + 1 < TOKENS && r < STRIDE; r++)
            assert_int_equal(f32_bits(out[t * STRIDE + r]), UINT32_MAX);
    }
    fenced_free(x), fenced_free(bias), fenced_free(out), weight_free(&w);
}

static double act(double g, uint32_t format) { // as in setup: gelu for nvfp4, else silu
    return format ? g / (1 + exp(-g))
                  : 0.5 * g * (1 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g)));
}

static void gate_up_random(void **state) {
    (void)state;
    enum { TOKENS = 9 };
    for (uint32_t f = 0; f < N_FORMATS; f++)
        for (uint32_t s = 0; s < N_SHAPES; s++) {
            const uint32_t n = shapes[s].n, k = shapes[s].k;
            TestWeight w = weight(f, 30 + s, 1, 2 * n, k);
            float *x = fenced_alloc((size_t)TOKENS * k * sizeof *x);
            double want[TOKENS * 130], up[130];
            random_fill(40 + s, x, (size_t)TOKENS * k, 0.1f);
            for (uint32_t t = 0; t < TOKENS; t++) {
                dots(&w, 0, n, x + t * k, want + t * n), dots(&w, n, n, x + t * k, up);
                for (uint32_t i = 0; i < n; i++) want[t * n + i] = act(want[t * n + i], f) * up[i];
            }
            for (uint32_t n_tok = 1; n_tok <= TOKENS; n_tok += 2) {
                float *out = fenced_alloc((size_t)n_tok * n * sizeof *out);
                uint32_t counts[4] = {n_tok};
                void *args[] = {x, w.packed, w.row_scale, NULL, out, counts, NULL};
                kernels_run(&kernels, gate_id[s][f], args, 1 + n_tok % 3);
                check_close(kernels.specs[gate_id[s][f]], out, want, (size_t)n_tok * n, 2e-5);
                fenced_free(out);
            }
            fenced_free(x), weight_free(&w);
        }
}

enum { MOE_TOKENS = 150, MOE_K = 48, MOE_F = 40, MOE_N = 33 }; // an expert gets more pairs than a pass holds

static void moe_ids(int32_t *ids) {
    for (uint32_t t = 0; t < MOE_TOKENS; t++)
        ids[t * TOPK] = 3, ids[t * TOPK + 1] = t % 4 == 3 ? 0 : (int32_t)(t % 4);
}

static void moe_gate_up_random(void **state) {
    (void)state;
    for (uint32_t f = 0; f < N_FORMATS; f++) {
        TestWeight w = weight(f, 50, EXPERTS, 2 * MOE_F, MOE_K);
        float *x = fenced_alloc(MOE_TOKENS * MOE_K * sizeof *x);
        float *out = fenced_alloc(MOE_TOKENS * TOPK * MOE_F * sizeof *out);
        int32_t ids[MOE_TOKENS * TOPK];
        double want[MOE_F], up[MOE_F];
        random_fill(51, x, MOE_TOKENS * MOE_K, 0.2f);
        moe_ids(ids);
        uint32_t counts[4] = {MOE_TOKENS};
        void *args[] = {x, w.packed, w.row_scale, NULL, ids, out, counts};
        kernels_run(&kernels, moe_gate_id[f], args, 2);
        for (uint32_t p = 0; p < MOE_TOKENS * TOPK; p++) {
            uint32_t first = (uint32_t)ids[p] * 2 * MOE_F;
            dots(&w, first, MOE_F, x + p / TOPK * MOE_K, want),
                dots(&w, first + MOE_F, MOE_F, x + p / TOPK * MOE_K, up);
            for (uint32_t i = 0; i < MOE_F; i++) want[i] = act(want[i], 1) * up[i];
            check_close(kernels.specs[moe_gate_id[f]], out + p * MOE_F, want, MOE_F, 1e-5);
        }
        float one[TOPK * MOE_F]; // the last token alone
        void *alone[] = {x + (MOE_TOKENS - 1) * MOE_K,  w.packed, w.row_scale, NULL,
                         ids + (MOE_TOKENS - 1) * TOPK, one,      counts};
        counts[0] = 1;
        kernels_run(&kernels, moe_gate_id[f], alone, 1);
        check_bits("one token's experts", one, out + (MOE_TOKENS - 1) * TOPK * MOE_F, sizeof one);
        fenced_free(x), fenced_free(out), weight_free(&w);
    }
}

static void moe_down_random(void **state) {
    (void)state;
    for (uint32_t f = 0; f < N_FORMATS; f++) {
        TestWeight w = weight(f, 60, EXPERTS, MOE_N, MOE_K);
        float *h = fenced_alloc(MOE_TOKENS * TOPK * MOE_K * sizeof *h),
              *out = fenced_alloc(MOE_TOKENS * MOE_N * sizeof *out);
        float weights[MOE_TOKENS * TOPK];
        int32_t ids[MOE_TOKENS * TOPK];
        random_fill(61, h, MOE_TOKENS * TOPK * MOE_K, 1), random_fill(62, weights, COUNT_OF(weights), 1);
        moe_ids(ids);
        uint32_t counts[4] = {MOE_TOKENS};
        void *args[] = {h, w.packed, w.row_scale, ids, weights, out, counts};
        kernels_run(&kernels, moe_down_id[f], args, 2);
        for (uint32_t t = 0; t < MOE_TOKENS; t++) {
            double want[MOE_N] = {0}, part[MOE_N];
            for (uint32_t j = 0; j < TOPK; j++) {
                uint32_t p = t * TOPK + j;
                dots(&w, (uint32_t)ids[p] * MOE_N, MOE_N, h + p * MOE_K, part);
                for (uint32_t i = 0; i < MOE_N; i++) want[i] += part[i] * (double)weights[p];
            }
            check_close(kernels.specs[moe_down_id[f]], out + t * MOE_N, want, MOE_N, 1e-5);
        }
        float one[MOE_N];
        const uint32_t last = MOE_TOKENS - 1;
        void *alone[] = {h + last * TOPK * MOE_K, w.packed, w.row_scale, ids + last * TOPK,
                         weights + last * TOPK,   one,      counts};
        counts[0] = 1;
        kernels_run(&kernels, moe_down_id[f], alone, 1);
        check_bits("one token's sum of experts", one, out + last * MOE_N, sizeof one);
        fenced_free(h), fenced_free(out), weight_free(&w);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_code_and_scale), cmocka_unit_test(linear_random),
    cmocka_unit_test(every_e4m3_code),      cmocka_unit_test(same_bits_in_company),
    cmocka_unit_test(bias_stride_softcap),  cmocka_unit_test(gate_up_random),
    cmocka_unit_test(moe_gate_up_random),   cmocka_unit_test(moe_down_random),
};
KERNELS_MAIN(kernels, setup, tests)
