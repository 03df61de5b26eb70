// Checkpoints made in a temporary folder: names, shards, quantisation settings, values.
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/frontend/checkpoint.h"
#include "compiler/frontend/naming.h"
#include "compiler/frontend/source.h"
#include "tests/unit/unit.h"

typedef struct {
    Arena arena;
    Diags diags;
    char dir[64];
    StOut tensors[32];
    uint64_t shapes[32][2];
    size_t n;
} Folder;

static Folder *folder(void) {
    Folder *f = xmalloc(sizeof *f);
    memset(f, 0, sizeof *f);
    f->diags.arena = &f->arena;
    strcpy(f->dir, "/tmp/test_checkpoint.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    return f;
}

static void write_file(Folder *f, const char *name, const void *data, size_t len) {
    Err e;
    OutFile *o = out_open(path_join(&f->arena, f->dir, name), &e);
    assert_non_null(o);
    assert_true(out_write(o, data, len, &e) && out_commit(o, &e));
}

static void write_string(Folder *f, const char *name, const char *text) {
    write_file(f, name, text, strlen(text));
}

static void *tensor(Folder *f, const char *name, StDtype dtype, uint32_t rank, uint64_t n, uint64_t k) {
    StOut *t = &f->tensors[f->n++];
    *t = (StOut){.name = str_of(name), .dtype = dtype, .rank = rank, .shape = f->shapes[f->n - 1]};
    f->shapes[f->n - 1][0] = n, f->shapes[f->n - 1][1] = k;
    uint64_t bytes = st_dtype_bits(dtype) / 8 * (rank > 0 ? n : 1) * (rank > 1 ? k : 1);
    return t->user = arena_alloc(&f->arena, bytes);
}

// Writes the tensors declared so far as one file and forgets them.
static void write_tensors(Folder *f, const char *name) {
    StrBuf b = {0};
    safetensors_layout(f->tensors, f->n, &b);
    for (size_t i = 0; i < f->n; i++) buf_add(&b, f->tensors[i].user, f->tensors[i].bytes);
    write_file(f, name, b.ptr, b.len);
    buf_free(&b);
    f->n = 0;
}

static void done(Folder *f) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    arena_free(&f->arena);
    free(f);
}

static void packed_linear(Folder *f, const char *stem, const char *dialect) {
    bool ct = !strcmp(dialect, "ct");
    Arena *a = &f->arena;
    memset(tensor(f, arena_printf(a, "%s.weight%s", stem, ct ? "_packed" : ""), ST_U8, 2, 4, 16), 0x72, 64);
    memset(tensor(f, arena_printf(a, "%s.weight_scale", stem), ST_F8_E4M3, 2, 4, 2), 0x38, 8);
    float *g =
        tensor(f, arena_printf(a, "%s.weight_%s", stem, ct ? "global_scale" : "scale_2"), ST_F32, ct, 1, 1);
    *g = ct ? 4.0f : 0.25f;
}

static bool open_all(Folder *f) {
    Checkpoint *c = checkpoint_open(&f->arena, f->dir, &f->diags);
    WeightSource *s = c ? source_checkpoint(&f->arena, c, NULL, &f->diags) : NULL;
    assert_int_equal(s != NULL, f->diags.n_errors == 0);
    checkpoint_close(c);
    return s != NULL;
}

static void refused(Folder *f, ErrCode code, const char *word) {
    bool ok = open_all(f);
    const char *message = ok ? "no error" : diags_first_message(&f->diags);
    if (ok || diags_first_code(&f->diags) != code || !strstr(message, word))
        fail_msg("want E%04d with `%s`, got: %s", (int)code, word, message);
    done(f);
}

static void names_become_canonical(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
        {"language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
        {"model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
        {"model.language_model.embed_tokens.weight", "model.embed_tokens.weight"},
        {"language_model.lm_head.weight", "lm_head.weight"},
        {"lm_head.weight", "lm_head.weight"},
        {"model.layers.3.self_attn.k_proj.k_scale", "model.layers.3.self_attn.k_scale"},
        {"language_model.model.layers.3.self_attn.v_scale", "model.layers.3.self_attn.v_scale"},
        {"layers.1.input_layernorm.weight", "model.layers.1.input_layernorm.weight"},
        {"norm.weight", "model.norm.weight"},
        {"model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", NULL},
        {"vision_tower.vision_model.post_layernorm.weight", NULL},
        {"multi_modal_projector.mm_input_projection_weight", NULL},
        {"model.visual.blocks.0.attn.qkv.weight", NULL},
        {"model.visually.weight", "model.visually.weight"},
        {"", ""},
    };
    Arena a = {0};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        Str out;
        bool ok = naming_canonical(&a, str_of(pairs[i][0]), &out);
        assert_int_equal(ok, pairs[i][1] != NULL);
        if (ok) assert_true(str_is(out, pairs[i][1]));
    }
    size_t n;
    const Str *s = naming_siblings(&a, STR("model.layers.0.self_attn.k_proj.weight"), &n);
    assert_true(n == 3 && str_is(s[0], "model.layers.0.self_attn.q_proj.weight"));
    s = naming_siblings(&a, STR("model.layers.0.mlp.experts.5.up_proj.weight"), &n);
    assert_true(n == 2 && str_is(s[0], "model.layers.0.mlp.experts.5.gate_proj.weight"));
    naming_siblings(&a, STR("model.layers.0.mlp.down_proj.weight"), &n);
    assert_int_equal(n, 1);
    arena_free(&a);
}

static void dialects_agree(void **state) {
    (void)state;
    Folder *f = folder();
    packed_linear(f, "language_model.model.layers.0.mlp.up_proj", "ct");
    packed_linear(f, "language_model.model.layers.0.mlp.gate_proj", "modelopt");
    tensor(f, "vision_tower.x.weight", ST_I64, 1, 3, 1);
    tensor(f, "something.else.weight", ST_F8_E4M3, 1, 3, 1);
    tensor(f, "odd", ST_F32, 2, 0, 3);
    write_tensors(f, "model.safetensors");
    Checkpoint *c = checkpoint_open(&f->arena, f->dir, &f->diags);
    assert_non_null(c);
    assert_true(c->n_vision == 1 && c->vision_bytes == 24 && checkpoint_is_quantized(c));
    WeightSource *s = source_checkpoint(&f->arena, c, NULL, &f->diags);
    assert_non_null(s);
    static const char *const names[] = {"model.layers.0.mlp.up_proj.weight",
                                        "model.layers.0.mlp.gate_proj.weight"};
    for (int i = 0; i < 2; i++) {
        WeightInfo w;
        float x[32];
        Err e;
        assert_true(source_info(s, str_of(names[i]), &w));
        assert_true(w.global == 0.25f && w.shape[0] == 4 && w.shape[1] == 32);
        assert_true(source_rows_f32(s, &w, 3, 1, x, &e));
        assert_true(x[0] == 0.25f && x[1] == 1.5f); // codes 2 and 7
    }
    size_t n;
    const Str *unused = source_unused(s, &f->arena, &n);
    assert_int_equal(n, 2);
    assert_true(str_is(unused[0], "odd") && str_is(unused[1], "something.else.weight"));
    checkpoint_close(c);
    done(f);
}

static Folder *with_index(const char *index) {
    Folder *f = folder();
    *(uint16_t *)tensor(f, "model.norm.weight", ST_BF16, 1, 1, 1) = 0x3F80;
    write_tensors(f, "a.safetensors");
    tensor(f, "lm_head.weight", ST_BF16, 1, 1, 1);
    write_tensors(f, "b.safetensors");
    write_string(f, "model.safetensors.index.json", index);
    return f;
}

#define MAP(norm) "{\"weight_map\":{\"lm_head.weight\":\"b.safetensors\",\"model.norm.weight\":" norm "}}"

static void index_is_followed(void **state) {
    (void)state;
    Folder *f = with_index(MAP("\"a.safetensors\""));
    write_string(f, "consolidated.safetensors", "not even a file");
    assert_true(open_all(f));
    done(f);
    static const char *const paths[] = {"\"../x.safetensors\"",
                                        "\"/etc/passwd\"",
                                        "\"a/../../b.safetensors\"",
                                        "\"..\\\\x.safetensors\"",
                                        "\"./a.safetensors\"",
                                        "\".\"",
                                        "\"..\"",
                                        "\"\"",
                                        "\"a.safetensors\\u0000\"",
                                        "\"a.bin\"",
                                        "\"sub/a.safetensors\"",
                                        "\"\\na.safetensors\""};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char index[256];
        snprintf(index, sizeof index, MAP("%s"), paths[i]);
        refused(with_index(index), E_SHARDS, "refused as a shard");
    }
    refused(with_index(MAP("\"c.safetensors\"")), E_SHARDS, "is missing");
    refused(with_index(MAP("\"%2e%2e.safetensors\"")), E_SHARDS, "is missing");
    refused(with_index(MAP("7")), E_SHARDS, "must be a string");
    refused(with_index(MAP("\"b.safetensors\"")), E_SHARDS, "not in its shard");
    refused(with_index("{\"weight_map\":{}}"), E_SHARDS, "weight_map");
    refused(with_index("{\"weight_map\":[]}"), E_SHARDS, "weight_map");
    refused(with_index("{}"), E_SHARDS, "weight_map");
    refused(with_index("[]"), E_SHARDS, "weight_map");
    refused(with_index("{\"weight_map\":{\"a\":\"a.safetensors\",\"a\":\"b.safetensors\"}}"), E_JSON, "a");
    refused(with_index("{"), E_JSON, "JSON");
}

static void folder_must_have_weights(void **state) {
    (void)state;
    refused(folder(), E_SHARDS, "no weights");
    Folder *f = folder();
    write_string(f, "x.safetensors", "12345678901234567890");
    write_string(f, "y.safetensors", "");
    refused(f, E_SHARDS, "several");
    f = folder();
    assert_int_equal(mkdir(path_join(&f->arena, f->dir, "model.safetensors.index.json"), 0755), 0);
    refused(f, E_SHARDS, "no weights");
    f = folder();
    assert_int_equal(mkfifo(path_join(&f->arena, f->dir, "model.safetensors"), 0644), 0);
    refused(f, E_FILE, "not a regular file");
    f = folder();
    tensor(f, "model.norm.weight", ST_BF16, 1, 1, 1);
    tensor(f, "language_model.model.norm.weight", ST_BF16, 1, 1, 1);
    write_tensors(f, "model.safetensors");
    refused(f, E_SHARDS, "there twice");
}

static void missing_and_misshapen_tensors(void **state) {
    (void)state;
    Folder *f = folder();
    tensor(f, "model.layers.0.mlp.up_proj.weight", ST_U8, 2, 4, 16);
    write_tensors(f, "model.safetensors");
    refused(f, E_TENSOR_MISSING, "up_proj.weight_scale");
    f = folder();
    tensor(f, "model.layers.0.mlp.up_proj.weight", ST_U8, 2, 4, 16);
    tensor(f, "model.layers.0.mlp.up_proj.weight_scale", ST_F8_E4M3, 2, 4, 2);
    write_tensors(f, "model.safetensors");
    refused(f, E_TENSOR_MISSING, "weight_scale_2");
    f = folder();
    packed_linear(f, "model.layers.0.mlp.up_proj", "ct");
    f->shapes[1][1] = 1;
    write_tensors(f, "model.safetensors");
    refused(f, E_TENSOR_SHAPE, "does not fit");
    f = folder();
    packed_linear(f, "model.layers.0.mlp.up_proj", "modelopt");
    f->tensors[1].dtype = ST_U8;
    write_tensors(f, "model.safetensors");
    refused(f, E_QUANT_UNSUPPORTED, "MXFP4");
    f = folder();
    packed_linear(f, "model.layers.0.mlp.up_proj", "modelopt");
    f->shapes[0][1] = 12, f->shapes[1][1] = 1;
    write_tensors(f, "model.safetensors");
    refused(f, E_TENSOR_SHAPE, "whole blocks");
    static const struct {
        const char *name;
        StDtype dtype;
        const char *word;
    } foreign[] = {
        {"model.layers.0.mlp.up_proj.weight", ST_F8_E4M3, "FP8"},
        {"model.layers.0.mlp.up_proj.weight", ST_I8, "INT8"},
        {"model.layers.0.mlp.up_proj.weight_packed", ST_I32, "integer"},
        {"model.layers.0.mlp.up_proj.qweight", ST_I32, "GPTQ"},
        {"model.layers.0.mlp.up_proj.pre_quant_scale", ST_BF16, "AWQ"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        f = folder();
        tensor(f, foreign[i].name, foreign[i].dtype, 2, 4, 16);
        write_tensors(f, "model.safetensors");
        refused(f, E_QUANT_UNSUPPORTED, foreign[i].word);
    }
}

static void impossible_globals(void **state) {
    (void)state;
    static const float bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (int ct = 0; ct < 2; ct++) {
            Folder *f = folder();
            packed_linear(f, "model.layers.0.mlp.up_proj", ct ? "ct" : "modelopt");
            *(float *)f->tensors[2].user = bad[i];
            write_tensors(f, "model.safetensors");
            refused(f, E_TENSOR_VALUE, "finite and positive");
        }
    }
}

static void impossible_values_are_found_while_reading(void **state) {
    (void)state;
    Folder *f = folder();
    packed_linear(f, "model.layers.0.mlp.up_proj", "modelopt");
    ((uint8_t *)f->tensors[1].user)[5] = 0x7F;
    ((uint8_t *)f->tensors[1].user)[6] = 0xB8;
    uint16_t *norm = tensor(f, "model.norm.weight", ST_BF16, 1, 40, 1);
    norm[33] = 0xFF80;
    uint16_t *half = tensor(f, "model.layers.0.mlp.down_proj.weight", ST_F16, 2, 2, 16);
    half[17] = 0x7E00;
    *(float *)tensor(f, "model.layers.0.self_attn.k_proj.k_scale", ST_F32, 0, 1, 1) = -2;
    tensor(f, "model.layers.0.self_attn.v_proj.v_scale", ST_F32, 1, 2, 1);
    write_tensors(f, "model.safetensors");
    Checkpoint *c = checkpoint_open(&f->arena, f->dir, &f->diags);
    const QuantizePolicy policy = {.method = QUANT_MSE};
    WeightSource *s = source_checkpoint(&f->arena, c, &policy, &f->diags);
    WeightInfo w;
    uint8_t codes[64], scales[8];
    float x[64];
    Err e;
    assert_true(source_info(s, STR("model.layers.0.mlp.up_proj.weight"), &w));
    assert_true(source_rows_nvfp4(s, &w, 0, 2, codes, scales, &e));
    assert_false(source_rows_nvfp4(s, &w, 0, 3, codes, scales, &e));
    assert_non_null(strstr(e.msg, "row 2, block 1: scale byte 0x7F is NaN"));
    assert_false(source_rows_f32(s, &w, 3, 1, x, &e));
    assert_non_null(strstr(e.msg, "row 3, block 0: scale byte 0xB8 is negative"));
    assert_true(source_info(s, STR("model.norm.weight"), &w));
    assert_false(source_rows_raw(s, &w, 0, 1, x, &e));
    assert_non_null(strstr(e.msg, "column 33 is infinite"));
    assert_true(source_info(s, STR("model.layers.0.mlp.down_proj.weight"), &w) && w.format == WF_NVFP4);
    assert_false(source_rows_nvfp4(s, &w, 0, 2, codes, scales, &e));
    assert_non_null(strstr(e.msg, "row 1, column 1 is NaN"));
    assert_int_equal(e.code, E_TENSOR_VALUE);
    bool present;
    assert_false(source_scalar(s, STR("model.layers.0.self_attn.k_scale"), x, &present, &e));
    assert_non_null(strstr(e.msg, "-2"));
    assert_false(source_scalar(s, STR("model.layers.0.self_attn.v_scale"), x, &present, &e));
    assert_int_equal(e.code, E_TENSOR_SHAPE);
    checkpoint_close(c);
    done(f);
}

// ---- configuration -------------------------------------------------------------------------------------

#define CT(weights, more)                                                                                    \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-quantized\"," \
    "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":" weights "}}" more "}}"
#define W4        "{\"num_bits\":4,\"type\":\"float\",\"group_size\":16,\"symmetric\":true}"
#define MO(more)  "{\"quantization_config\":{\"quant_method\":\"modelopt\"," more "}}"
#define HF(inner) "{\"quantization\":{" inner "}}"

static void configurations(void **state) {
    (void)state;
    static const struct {
        const char *file, *text;
        ErrCode code;
        const char *word; // NULL: accepted
    } cases[] = {
        {"config.json", "{}", 0, NULL},
        {"config.json", "{\"quantization_config\":null}", 0, NULL},
        {"config.json", CT(W4, ""), 0, NULL},
        {"config.json", CT(W4, ",\"transform_config\":{},\"sparsity_config\":{},\"ignore\":[\"re:.*gate$\"]"),
         0, NULL},
        {"config.json",
         CT(W4, ",\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\"}"), 0, NULL},
        {"config.json", MO("\"quant_algo\":\"nvfp4\",\"kv_cache_scheme\":null"), 0, NULL},
        {"config.json", MO("\"quant_algo\":\"W4A8_NVFP4_FP8\""), 0, NULL},
        {"config.json",
         MO("\"quant_algo\":\"MIXED_PRECISION\",\"quantized_layers\":{\"a\":{\"quant_algo\":\"NVFP4\","
            "\"group_size\":16},"
            "\"model.vision_tower.x\":{\"quant_algo\":\"FP8\"}}"),
         0, NULL},
        {"hf_quant_config.json",
         HF("\"quant_algo\":\"W4A16_NVFP4\",\"kv_cache_quant_algo\":\"FP8\",\"group_size\":16"), 0, NULL},
        {"hf_quant_config.json", HF("\"quant_algo\":null,\"exclude_modules\":null"), 0, NULL},
        {"config.json", CT("{\"num_bits\":4,\"type\":\"int\",\"group_size\":128}", ""), E_QUANT_UNSUPPORTED,
         "4 bits of type `int`"},
        {"config.json", CT("{\"num_bits\":8,\"type\":\"float\"}", ""), E_QUANT_UNSUPPORTED,
         "8 bits of type `float`"},
        {"config.json", CT("{\"num_bits\":4,\"type\":\"float\",\"group_size\":32}", ""), E_QUANT_UNSUPPORTED,
         "MXFP4"},
        {"config.json", CT("{\"num_bits\":4,\"type\":\"float\",\"group_size\":16,\"symmetric\":false}", ""),
         E_QUANT_UNSUPPORTED, "asymmetric"},
        {"config.json",
         CT("{\"num_bits\":4,\"type\":\"float\",\"group_size\":16,\"actorder\":\"group\"}", ""),
         E_QUANT_UNSUPPORTED, "actorder"},
        {"config.json", CT(W4, ",\"transform_config\":{\"config_groups\":{\"R1\":{}}}"), E_QUANT_UNSUPPORTED,
         "transform_config"},
        {"config.json", CT(W4, ",\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"int\"}"), E_QUANT_UNSUPPORTED,
         "KV cache"},
        {"config.json",
         CT(W4, ",\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"attn_head\"}"),
         E_QUANT_UNSUPPORTED, "attn_head"},
        {"config.json", CT(W4, ",\"ignore\":\"lm_head\""), E_CONFIG_VALUE, "list of module names"},
        {"config.json", CT("[]", ""), E_CONFIG_VALUE, "`weights` must be an object"},
        {"config.json", CT("{\"num_bits\":\"4\"}", ""), E_CONFIG_VALUE, "`num_bits` must be an integer"},
        {"config.json", "{\"quantization_config\":[]}", E_CONFIG_VALUE, "must be an object"},
        {"config.json", "{\"quantization_config\":{}}", E_CONFIG_MISSING, "quant_method"},
        {"config.json", "{\"quantization_config\":{\"quant_method\":\"awq\"}}", E_QUANT_UNSUPPORTED,
         "quant_method `awq`"},
        {"config.json", MO("\"quant_algo\":\"NVFP4_AWQ\""), E_QUANT_UNSUPPORTED, "pre_quant_scale"},
        {"config.json", MO("\"quant_algo\":\"FP8\""), E_QUANT_UNSUPPORTED, "`FP8`"},
        {"config.json", MO("\"quant_algo\":\"NVFP4\",\"config_groups\":[]"), E_CONFIG_VALUE, "config_groups"},
        {"config.json",
         MO("\"quant_algo\":\"NVFP4\",\"config_groups\":{\"g\":{\"weights\":{\"num_bits\":8}}}"),
         E_QUANT_UNSUPPORTED, "8 bits"},
        {"config.json",
         MO("\"quant_algo\":\"NVFP4\",\"config_groups\":{\"g\":{\"weights\":{\"group_size\":32}}}"),
         E_QUANT_UNSUPPORTED, "group_size 32"},
        {"config.json", MO("\"quant_algo\":\"NVFP4\",\"group_size\":32"), E_QUANT_UNSUPPORTED,
         "group_size 32"},
        {"config.json",
         MO("\"quant_algo\":\"MIXED_PRECISION\",\"quantized_layers\":{\"model.layers.0.self_attn.q_proj\":{"
            "\"quant_algo\":\"FP8\"}}"),
         E_QUANT_UNSUPPORTED, "model.layers.0.self_attn.q_proj"},
        {"hf_quant_config.json", HF("\"quant_algo\":\"INT4_AWQ\""), E_QUANT_UNSUPPORTED, "INT4_AWQ"},
        {"hf_quant_config.json", HF("\"quant_algo\":\"NVFP4\",\"kv_cache_quant_algo\":\"NVFP4\""),
         E_QUANT_UNSUPPORTED, "kv_cache_quant_algo"},
        {"hf_quant_config.json", HF("\"quant_algo\":7"), E_CONFIG_VALUE, "string"},
        {"hf_quant_config.json", "{\"quantization\":", E_JSON, "JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Folder *f = folder();
        tensor(f, "model.norm.weight", ST_BF16, 1, 1, 1);
        write_tensors(f, "model.safetensors");
        write_string(f, cases[i].file, cases[i].text);
        if (cases[i].word) {
            refused(f, cases[i].code, cases[i].word);
            continue;
        }
        if (!open_all(f)) fail_msg("%s: %s", cases[i].text, diags_first_message(&f->diags));
        done(f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_canonical),
        cmocka_unit_test(dialects_agree),
        cmocka_unit_test(index_is_followed),
        cmocka_unit_test(folder_must_have_weights),
        cmocka_unit_test(missing_and_misshapen_tensors),
        cmocka_unit_test(impossible_globals),
        cmocka_unit_test(impossible_values_are_found_while_reading),
        cmocka_unit_test(configurations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
