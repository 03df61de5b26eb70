// Configs in every spelling that Hugging Face has used, and the tables of RoPE. Complaints are in
// tests/diag/config_*.diag.
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "compiler/frontend/family.h"
#include "runtime/base/num.h"
#include "tests/unit/unit.h"

static bool read_text(Arena *a, const char *text, Config *out) {
    char path[] = "/tmp/adallm-config-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    Diags d = {.arena = a};
    bool ok = config_read(a, path, NULL, out, &d);
    if (!ok) diags_print(&d, "test", stderr);
    unlink(path);
    return ok;
}

#define SHAPE                                                                                                \
    "\"vocab_size\": 512, \"hidden_size\": 64, \"intermediate_size\": 128, \"num_hidden_layers\": 2, "       \
    "\"num_attention_heads\": 4"

static void defaults_are_the_family_s(void **state) {
    (void)state;
    Arena a = {0};
    Config c;
    assert_true(read_text(&a, "{\"model_type\": \"qwen3\", " SHAPE "}", &c));
    assert_int_equal(config_int(&c, CFG_head_dim), 128);
    assert_int_equal(config_int(&c, CFG_kv_heads), 4);
    assert_false(config_bool(&c, CFG_tie_embeddings));
    assert_true(read_text(&a, "{\"model_type\": \"llama\", \"head_dim\": null, " SHAPE "}", &c));
    assert_int_equal(config_int(&c, CFG_head_dim), 16);
    assert_string_equal(c.values[CFG_activation].act, "silu");
    assert_true(read_text(&a, "{\"model_type\": \"gemma3\", \"text_config\": {\"hidden_size\": 2560}}", &c));
    assert_int_equal(config_int(&c, CFG_vocab), 262208);
    assert_int_equal(config_int(&c, CFG_hidden), 2560);
    assert_int_equal(config_int(&c, CFG_head_dim), 256);
    assert_true(config_bool(&c, CFG_tie_embeddings));
    assert_string_equal(c.values[CFG_activation].act, "gelu_tanh");
    assert_true(c.rope_full.theta == 1e6 && c.rope_sliding.theta == 1e4);
    arena_free(&a);
}

static void keys_old_and_new(void **state) {
    (void)state;
    Arena a = {0};
    Config c;
    const char *moe =
        "\"num_key_value_heads\": 2, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, " SHAPE "}";
    static const char *const keys[] = {"num_experts", "num_local_experts"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        assert_true(read_text(
            &a, arena_printf(&a, "{\"model_type\": \"qwen3_moe\", \"%s\": 4, %s", keys[i], moe), &c));
        assert_int_equal(config_int(&c, CFG_experts), 4);
        assert_int_equal(config_int(&c, CFG_head_dim), 16);
    }
    // A nested flag counts before an outer one, and an outer one before the default.
    assert_true(read_text(
        &a, "{\"model_type\": \"gemma3\", \"tie_word_embeddings\": false, \"text_config\": {}}", &c));
    assert_false(config_bool(&c, CFG_tie_embeddings));
    assert_true(
        read_text(&a,
                  "{\"model_type\": \"gemma3\", \"tie_word_embeddings\": false, \"eos_token_id\": [1, 106], "
                  "\"text_config\": {\"tie_word_embeddings\": true, \"eos_token_id\": 1}}",
                  &c));
    assert_true(config_bool(&c, CFG_tie_embeddings));
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[1], 106);
    arena_free(&a);
}

static void rope_in_every_spelling(void **state) {
    (void)state;
    static const char *const spellings[] = {
        "\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}",
        "\"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4.0}",
        "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4, \"rope_theta\": 500000}",
        "\"rope_theta\": 500000.0, \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4}",
        ("\"rope_theta\": 1e4, \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4, "
         "\"rope_theta\": 5e5}"),
    };
    for (size_t i = 0; i < COUNT_OF(spellings); i++) {
        Arena a = {0};
        Config c;
        assert_true(
            read_text(&a, arena_printf(&a, "{\"model_type\": \"qwen3\", %s, " SHAPE "}", spellings[i]), &c));
        assert_true(c.rope_full.kind == ROPE_LINEAR && c.rope_full.factor == 4 && c.rope_full.theta == 5e5);
        assert_true(c.rope_sliding.kind == ROPE_LINEAR);
        arena_free(&a);
    }
}

static void rope_by_layer_type(void **state) {
    (void)state;
    static const char *const spellings[] = {
        ("\"rope_theta\": 2e6, \"rope_local_base_freq\": 3e4, \"rope_scaling\": {\"rope_type\": \"linear\", "
         "\"factor\": 8}"),
        ("\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8, "
         "\"rope_theta\": 2e6}, "
         "\"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 3e4}}"),
        ("\"rope_theta\": 2e6, \"rope_local_base_freq\": 3e4, \"rope_parameters\": {\"full_attention\": "
         "{\"rope_type\": \"linear\", \"factor\": 8}, \"sliding_attention\": {\"rope_type\": \"default\"}}"),
        ("\"rope_local_base_freq\": 3e4, \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 8, "
         "\"rope_theta\": 2e6}"),
    };
    for (size_t i = 0; i < COUNT_OF(spellings); i++) {
        Arena a = {0};
        Config c;
        assert_true(
            read_text(&a, arena_printf(&a, "{\"model_type\": \"gemma3_text\", %s}", spellings[i]), &c));
        assert_true(c.rope_full.kind == ROPE_LINEAR && c.rope_full.factor == 8 && c.rope_full.theta == 2e6);
        assert_true(c.rope_sliding.kind == ROPE_DEFAULT && c.rope_sliding.theta == 3e4);
        arena_free(&a);
    }
}

static void yarn_of_qwen3(void **state) {
    (void)state;
    Arena a = {0};
    Config c;
    assert_true(
        read_text(&a,
                  "{\"model_type\": \"qwen3\", \"max_position_embeddings\": 40960, \"rope_theta\": 1e6, "
                  "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
                  "\"original_max_position_embeddings\": 32768}, " SHAPE "}",
                  &c));
    assert_true(fabs(c.rope_full.attention_factor - 1.138629436) < 1e-9);
    assert_int_equal(config_context_max(&c), 131072);
    float inv[64];
    rope_inv_freq(&c.rope_full, 128, inv);
    for (uint32_t i = 0; i < 64; i++) { // the ramp runs from dimension 23 to 40
        double plain = pow(1e6, -2.0 * i / 128), ramp = i < 23 ? 0 : i > 40 ? 1 : (i - 23) / 17.0;
        assert_true(fabs(inv[i] / (plain / 4 * ramp + plain * (1 - ramp)) - 1) < 1e-7);
    }
    arena_free(&a);
}

static void llama3_keeps_blends_and_stretches(void **state) {
    (void)state;
    RopeSpec s = {
        .kind = ROPE_LLAMA3, .theta = 5e5, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4};
    s.original_max = 8192;
    float inv[64];
    rope_inv_freq(&s, 128, inv);
    for (uint32_t i = 0; i < 64; i++) {
        double plain = pow(5e5, -2.0 * i / 128), wavelength = 2 * M_PI / plain;
        if (wavelength < 2048) assert_true(inv[i] == (float)plain);
        if (wavelength > 8192) assert_true(inv[i] == (float)(plain / 8));
        assert_true(inv[i] <= (float)plain && inv[i] >= (float)(plain / 8));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_family_s),
        cmocka_unit_test(keys_old_and_new),
        cmocka_unit_test(rope_in_every_spelling),
        cmocka_unit_test(rope_by_layer_type),
        cmocka_unit_test(yarn_of_qwen3),
        cmocka_unit_test(llama3_keeps_blends_and_stretches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
