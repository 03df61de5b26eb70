// The quantizer against ModelOpt's bytes and against a full sweep; the sources against each other.
#include <math.h>
#include <stdlib.h>

#include "compiler/frontend/checkpoint.h"
#include "compiler/frontend/nvfp4.h"
#include "compiler/frontend/source.h"
#include "runtime/base/fp.h"
#include "tests/unit/unit.h"

#define MODELS "tests/golden/models/"

static uint64_t seed = 1;
static float noise(void) { // heavy-tailed, in about (-2, 2)
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    float u = (float)((double)(seed >> 40) / (double)(1 << 23) - 1);
    return u * u * u * 2;
}

static void mse_is_the_full_sweep(void **state) {
    (void)state;
    for (int trial = 0; trial < 3000; trial++) {
        float x[16], g = trial % 3 == 0 ? 1e-3f : trial % 3 == 1 ? 7e-5f : 1e-6f;
        float size = trial % 5 == 0 ? 1e-4f : 1;
        for (int i = 0; i < 16; i++) x[i] = trial % 7 == 0 && i ? 0 : noise() * size;
        uint8_t codes[8], scale, best = 0;
        double least = INFINITY, square = 0;
        for (int i = 0; i < 16; i++) square += (double)x[i] * (double)x[i];
        nvfp4_quantize_mse(x, 1, g, codes, &scale);
        for (int s = 1; s <= 0x7E; s++) {
            double e = nvfp4_block_error(x, g, (uint8_t)s);
            if (e < least) least = e, best = (uint8_t)s;
        }
        assert_int_equal(scale, best);
        double got = nvfp4_squared_error(x, codes, &scale, 1, g);
        assert_true(fabs(got - least) <= 1e-5 * got + 1e-7 * square);
        nvfp4_quantize_max(x, 1, g, codes, &scale);
        assert_true(nvfp4_squared_error(x, codes, &scale, 1, g) >= got * (1 - 1e-5) - 1e-7 * square);
    }
}

static void codes_round_to_nearest_even(void **state) {
    (void)state;
    // The first value makes the block's scale 1; the others stand on the borders between codes.
    const float x[16] = {6,     0.25f,  0.75f,  1.25f,  1.75f,  2.5f,  3.5f,  5.0f,
                         -0.0f, -0.25f, -0.75f, -1.25f, -1.75f, -2.5f, -3.5f, -5.0f};
    const uint8_t want[16] = {7, 0, 2, 2, 4, 4, 6, 6, 0, 8, 10, 10, 12, 12, 14, 14};
    uint8_t codes[8], scale;
    nvfp4_quantize_max(x, 1, 1.0f, codes, &scale);
    assert_int_equal(scale, 0x38);
    for (int i = 0; i < 16; i++) assert_int_equal(codes[i / 2] >> (i % 2 * 4) & 15, want[i]);
}

static void degenerate_blocks(void **state) {
    (void)state;
    float x[16] = {0};
    uint8_t codes[8], scale;
    assert_true(nvfp4_global(0) > 0 && nvfp4_global(1e-45f) > 0);
    nvfp4_quantize_max(x, 1, nvfp4_global(0), codes, &scale);
    assert_int_equal(scale, 0x38);
    for (int i = 0; i < 8; i++) assert_int_equal(codes[i], 0);
    nvfp4_quantize_mse(x, 1, 1e-4f, codes, &scale);
    assert_true(scale >= 1 && scale <= 0x7E);
    for (int i = 0; i < 16; i++) x[i] = -1e-12f;
    nvfp4_quantize_max(x, 1, 1.0f, codes, &scale);
    assert_int_equal(scale, 1);
    assert_int_equal(codes[0], 0x88); // the sign is kept
    x[3] = 3e38f;
    nvfp4_quantize_max(x, 1, nvfp4_global(3e38f), codes, &scale);
    assert_int_equal(scale, 0x7E);
    nvfp4_quantize_mse(x, 1, nvfp4_global(3e38f), codes, &scale);
    assert_true(scale >= 1 && scale <= 0x7E);
}

static void dequantize_is_exact(void **state) {
    (void)state;
    const float g = 0.0003217f;
    for (int s = 0; s < 0x7F; s++) {
        uint8_t codes[8], scale = (uint8_t)s;
        float out[16];
        for (int i = 0; i < 8; i++) codes[i] = (uint8_t)(2 * i | (2 * i + 1) << 4);
        nvfp4_dequantize(codes, &scale, 1, g, out);
        for (int i = 0; i < 16; i++)
            assert_true(out[i] == (float)((double)e2m1_value[i] * (double)e4m3_to_f32(scale) * (double)g));
    }
}

// ---- sources -------------------------------------------------------------------------------------------

typedef struct {
    Arena arena;
    Diags diags;
    Checkpoint *checkpoint;
    WeightSource *source;
} Opened;

static Opened *open_source(const char *dir, const QuantizePolicy *policy) {
    Opened *o = xmalloc(sizeof *o);
    memset(o, 0, sizeof *o);
    o->diags.arena = &o->arena;
    o->checkpoint = checkpoint_open(&o->arena, dir, &o->diags);
    if (o->checkpoint) o->source = source_checkpoint(&o->arena, o->checkpoint, policy, &o->diags);
    if (!o->source) fail_msg("%s: %s", dir, diags_first_message(&o->diags));
    return o;
}

static void close_source(Opened *o) {
    checkpoint_close(o->checkpoint);
    arena_free(&o->arena);
    free(o);
}

static void max_gives_modelopts_bytes(void **state) {
    (void)state;
    const QuantizePolicy policy = {.method = QUANT_MAX};
    Opened *want = open_source(MODELS "quantize", NULL), *got = open_source(MODELS "quantize/bf16", &policy);
    size_t n_linears = 0;
    for (size_t i = 0; i < want->checkpoint->n_tensors; i++) {
        WeightInfo w, g;
        Err e;
        if (!source_info(want->source, want->checkpoint->tensors[i].name, &w)) continue;
        if (w.format != WF_NVFP4) continue;
        assert_true(source_info(got->source, w.name, &g));
        assert_true(g.format == WF_NVFP4 && g.global == w.global && g.rank == 2);
        uint64_t rows = weight_rows(&w), k = weight_cols(&w);
        assert_true(rows == g.shape[0] && k == g.shape[1]);
        uint8_t *a = xmalloc(rows * k), *b = xmalloc(rows * k);
        assert_true(source_rows_nvfp4(want->source, &w, 0, rows, a, a + rows * k / 2, &e));
        assert_true(source_rows_nvfp4(got->source, &g, 0, rows / 2, b, b + rows * k / 2, &e));
        assert_true(source_rows_nvfp4(got->source, &g, rows / 2, rows - rows / 2, b + rows / 2 * k / 2,
                                      b + rows * k / 2 + rows / 2 * k / 16, &e));
        assert_memory_equal(a, b, rows * k / 2 + rows * k / 16);
        free(a), free(b);
        n_linears++;
    }
    assert_int_equal(n_linears, 14);
    QuantizeError q;
    Err e;
    Pool *pool = pool_new(2);
    assert_true(source_quantize_error(got->source, pool, NULL, NULL, &q, &e));
    pool_free(pool);
    assert_true(q.rel_max > 0.09 && q.rel_max < 0.1 && q.rel_mse > 0.07 && q.rel_mse < 0.87 * 0.1);
    close_source(want), close_source(got);
}

static void both_dialects_give_weights(void **state) {
    (void)state;
    static const char *const dirs[] = {"qwen3", "qwen3-ct", "qwen3-moe", "gemma3", "gemma3-ct", "quantize"};
    for (size_t d = 0; d < sizeof dirs / sizeof *dirs; d++) {
        char dir[256];
        snprintf(dir, sizeof dir, MODELS "%s", dirs[d]);
        Opened *o = open_source(dir, NULL);
        WeightInfo w;
        Err e;
        const char *down = strstr(dirs[d], "moe") ? "model.layers.1.mlp.experts.7.down_proj.weight"
                                                  : "model.layers.1.mlp.down_proj.weight";
        assert_true(source_info(o->source, str_of(down), &w));
        assert_int_equal(w.format, WF_NVFP4);
        uint64_t k = weight_cols(&w);
        float *x = xrealloc(NULL, k, 4 * sizeof *x);
        assert_true(source_rows_f32(o->source, &w, 3, 4, x, &e));
        double square = 0; // the fixtures' weights have standard deviation 1/sqrt(k) and heavy tails
        for (uint64_t i = 0; i < 4 * k; i++) square += (double)x[i] * (double)x[i] / 4;
        assert_true(square > 0.5 && square < 2.5);
        assert_true(source_info(o->source, STR("model.embed_tokens.weight"), &w) && w.format == WF_BF16);
        assert_true(source_info(o->source, STR("model.norm.weight"), &w) && w.rank == 1);
        float scale;
        bool present;
        assert_true(source_scalar(o->source, STR("model.layers.0.self_attn.k_scale"), &scale, &present, &e));
        assert_int_equal(present, d == 0 || d == 2 || d == 3);
        assert_true(!present || (scale > 0 && scale < 1));
        assert_int_equal(o->checkpoint->n_vision, d == 4 ? 1 : 0);
        free(x);
        close_source(o);
    }
}

static void random_is_reproducible(void **state) {
    (void)state;
    Arena a = {0};
    WeightSource *s = source_random(&a, 7), *again = source_random(&a, 7);
    const uint64_t shape[] = {64, 256}, norm[] = {256};
    Str name = STR("model.layers.0.mlp.up_proj.weight"), other = STR("model.norm.weight");
    WeightInfo w, v;
    Err e;
    source_random_declare(s, name, WF_NVFP4, 2, shape, RANDOM_LINEAR);
    source_random_declare(again, other, WF_BF16, 1, norm, RANDOM_NORM_ONE);
    source_random_declare(again, name, WF_NVFP4, 2, shape, RANDOM_LINEAR);
    assert_true(source_info(s, name, &w) && source_info(again, name, &v) && w.global == v.global);
    assert_false(source_info(s, other, &v));
    uint8_t codes[64 * 128], scales[64 * 16], codes2[128], scales2[16];
    assert_true(source_rows_nvfp4(s, &w, 0, 64, codes, scales, &e));
    assert_true(source_info(again, name, &v));
    assert_true(source_rows_nvfp4(again, &v, 63, 1, codes2, scales2, &e));
    assert_memory_equal(codes + 63 * 128, codes2, 128);
    assert_memory_equal(scales + 63 * 16, scales2, 16);
    float x[64 * 256], n[256];
    assert_true(source_rows_f32(s, &w, 0, 64, x, &e));
    double square = 0;
    for (int i = 0; i < 64 * 256; i++) square += (double)x[i] * (double)x[i];
    assert_true(fabs(square / 64 - 1) < 0.1); // variance 1/k
    assert_true(source_info(again, other, &v) && source_rows_f32(again, &v, 0, 1, n, &e));
    for (int i = 0; i < 256; i++) assert_true(n[i] > 0.4f && n[i] < 1.6f);
    uint16_t raw[256];
    assert_true(source_rows_raw(again, &v, 0, 1, raw, &e));
    for (int i = 0; i < 256; i++) assert_true(bf16_to_f32(raw[i]) == n[i]);
    arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mse_is_the_full_sweep),     cmocka_unit_test(codes_round_to_nearest_even),
        cmocka_unit_test(degenerate_blocks),         cmocka_unit_test(dequantize_is_exact),
        cmocka_unit_test(max_gives_modelopts_bytes), cmocka_unit_test(both_dialects_give_weights),
        cmocka_unit_test(random_is_reproducible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
