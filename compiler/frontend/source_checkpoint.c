// From a checkpoint's tensors to weights. How a linear is stored is decided by which tensors it has and of
// what dtype, never by what the configuration says.
#include <math.h>

#include "compiler/frontend/nvfp4.h"
#include "compiler/frontend/source_internal.h"
#include "runtime/base/fp.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"

typedef struct {
    WeightSource *source;
    const Checkpoint *checkpoint;
    const QuantizePolicy *quantize;
    Diags *diags;
} Builder;

// Tensors of schemes that would give wrong numbers if they were ignored.
static const struct {
    Str suffix;
    const char *what;
} unsupported[] = {
    {STR(".pre_quant_scale"), "AWQ (pre_quant_scale)"},
    {STR(".weight_zero_point"), "quantisation with zero points"},
    {STR(".weight_g_idx"), "activation-ordered groups (g_idx)"},
    {STR(".weight_shape"), "integer packing (weight_shape)"},
    {STR(".qweight"), "GPTQ or AWQ (qweight)"},
    {STR(".absmax"), "bitsandbytes (absmax)"},
    {STR(".weight_scale_inv"), "block-wise FP8 (weight_scale_inv)"},
    {STR(".svdquant_lora_a"), "SVDQuant"},
    {STR("_proj.k_bias"), "an affine KV cache (k_bias)"},
    {STR("_proj.v_bias"), "an affine KV cache (v_bias)"},
};

static bool refuse(Builder *b, const SafeTensor *t, const char *what) {
    return diag_error(b->diags, E_QUANT_UNSUPPORTED, t->at, "tensor " STR_FMT ": %s is not supported",
                      STR_ARG(t->name), what);
}

static Str with_suffix(Builder *b, Str stem, const char *suffix) {
    size_t n = strlen(suffix);
    char *p = arena_alloc(b->source->arena, stem.len + n + 1);
    memcpy(p, stem.ptr, stem.len);
    memcpy(p + stem.len, suffix, n);
    return (Str){p, stem.len + n};
}

static const SafeTensor *companion(Builder *b, Str stem, const char *suffix) {
    Str name = with_suffix(b, stem, suffix);
    const SafeTensor *t = checkpoint_find(b->checkpoint, name);
    if (t) source_mark_used(b->source, name);
    return t;
}

static bool dense_format(StDtype t, WeightFormat *out) {
    switch (t) {
    case ST_BF16: *out = WF_BF16; return true;
    case ST_F16: *out = WF_F16; return true;
    case ST_F32: *out = WF_F32; return true;
    default: return false;
    }
}

// A scalar of rank 0 or with one element.
static bool read_scalar(const SafeTensor *t, float *out) {
    WeightFormat f;
    uint16_t h;
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++) n = t->shape[i] == 1 ? n : 0;
    if (n != 1 || !dense_format(t->dtype, &f)) return false;
    if (f == WF_F32) {
        memcpy(out, t->data, 4);
        return true;
    }
    memcpy(&h, t->data, 2);
    *out = f == WF_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    return true;
}

// value = code * scale * global. ModelOpt stores that factor; compressed-tensors its reciprocal.
static bool read_global(Builder *b, Str stem, const char *suffix, bool reciprocal, const SafeTensor *weight,
                        float *out) {
    const SafeTensor *t = companion(b, stem, suffix);
    if (!t)
        return diag_error(b->diags, E_TENSOR_MISSING, weight->at,
                          "tensor " STR_FMT " is packed NVFP4, but its global scale " STR_FMT
                          "%s is not in the checkpoint",
                          STR_ARG(weight->name), STR_ARG(stem), suffix);
    if (!read_scalar(t, out))
        return diag_error(b->diags, E_TENSOR_SHAPE, t->at, "tensor " STR_FMT " must be one F32 value",
                          STR_ARG(t->name));
    float stored = *out;
    if (reciprocal) *out = 1.0f / stored;
    if (stored > 0 && isfinite(stored) && *out > 0 && isfinite(*out)) return true;
    return diag_error(b->diags, E_TENSOR_VALUE, t->at,
                      "tensor " STR_FMT " holds %g; a global scale must be finite and positive",
                      STR_ARG(t->name), (double)stored);
}

static bool check_packed(Builder *b, Str stem, const SafeTensor *w, const SafeTensor *scale) {
    if (!scale)
        return diag_error(b->diags, E_TENSOR_MISSING, w->at,
                          "tensor " STR_FMT " is packed (U8), but its block scales " STR_FMT
                          ".weight_scale are not in the checkpoint",
                          STR_ARG(w->name), STR_ARG(stem));
    if (scale->dtype == ST_U8 || scale->dtype == ST_F8_E8M0) return refuse(b, scale, "MXFP4 (E8M0 scales)");
    if (scale->dtype != ST_F8_E4M3)
        return diag_error(b->diags, E_TENSOR_SHAPE, scale->at,
                          "tensor " STR_FMT " has dtype %s; NVFP4 block scales have F8_E4M3",
                          STR_ARG(scale->name), st_dtype_name(scale->dtype));
    if (w->rank != 2)
        return diag_error(b->diags, E_TENSOR_SHAPE, w->at,
                          "tensor " STR_FMT " has rank %u; packed NVFP4 has 2", STR_ARG(w->name), w->rank);
    // shape[1] counts bytes of a mapped file unless the tensor is empty: the product below is safe either way
    uint64_t n = w->shape[0], half = w->shape[1];
    if (half % (NVFP4_BLOCK / 2) || half > UINT64_MAX / 2)
        return diag_error(b->diags, E_TENSOR_SHAPE, w->at,
                          "tensor " STR_FMT " packs rows of %llu bytes; NVFP4 needs whole blocks of 8 bytes",
                          STR_ARG(w->name), (unsigned long long)half);
    if (scale->rank != 2 || scale->shape[0] != n || scale->shape[1] != half / (NVFP4_BLOCK / 2))
        return diag_error(b->diags, E_TENSOR_SHAPE, scale->at,
                          "tensor " STR_FMT " does not fit its weight: [%llu, %llu] packed bytes need block "
                          "scales [%llu, %llu]",
                          STR_ARG(scale->name), (unsigned long long)n, (unsigned long long)half,
                          (unsigned long long)n, (unsigned long long)half / (NVFP4_BLOCK / 2));
    return true;
}

static bool add_nvfp4(Builder *b, Str stem, const SafeTensor *w, bool compressed_tensors) {
    const SafeTensor *scale = companion(b, stem, ".weight_scale");
    float global;
    companion(b, stem, ".input_scale"); // activations are not quantised: known and not needed
    companion(b, stem, ".input_global_scale");
    if (!check_packed(b, stem, w, scale)) return false;
    if (!read_global(b, stem, compressed_tensors ? ".weight_global_scale" : ".weight_scale_2",
                     compressed_tensors, w, &global))
        return false;
    Str name = with_suffix(b, stem, ".weight");
    if (source_find(b->source, name))
        return diag_error(b->diags, E_SHARDS, w->at,
                          "weight " STR_FMT
                          " is there twice: with ModelOpt's names and with compressed-tensors'",
                          STR_ARG(name));
    SourceEntry *e = source_add(b->source, name);
    e->kind = FROM_NVFP4, e->values = w, e->scales = scale;
    e->info.format = WF_NVFP4, e->info.rank = 2, e->info.global = global;
    e->info.shape[0] = w->shape[0], e->info.shape[1] = w->shape[1] * 2;
    return true;
}

static void add_dense(Builder *b, Str name, const SafeTensor *t, WeightFormat f) {
    SourceEntry *e = source_add(b->source, name);
    e->kind = FROM_DENSE, e->values = t, e->stored = f;
    e->info.format = f, e->info.rank = t->rank;
    for (uint32_t i = 0; i < t->rank; i++) e->info.shape[i] = t->shape[i];
    const QuantizePolicy *q = b->quantize;
    if (!q || t->rank != 2 || t->shape[1] % NVFP4_BLOCK || !t->bytes) return;
    if (!(q->wants ? q->wants(q->ctx, name) : source_is_decoder_linear(name))) return;
    e->kind = FROM_QUANTIZE, e->info.format = WF_NVFP4;
}

// Names that the families of this compiler use; other tensors are leftovers and need not make sense.
static bool is_decoder_name(Str name) {
    static const Str stems[] = {STR("model.layers."), STR("model.embed_tokens."), STR("model.norm."),
                                STR("lm_head.")};
    for (size_t i = 0; i < COUNT_OF(stems); i++)
        if (str_starts(name, stems[i])) return true;
    return false;
}

static bool add_tensor(Builder *b, Str name, const SafeTensor *t) {
    WeightFormat f;
    if (!is_decoder_name(name)) return true;
    for (size_t i = 0; i < COUNT_OF(unsupported); i++)
        if (str_ends(name, unsupported[i].suffix)) return refuse(b, t, unsupported[i].what);
    if (str_ends(name, STR(".weight_packed"))) {
        Str stem = str_sub(name, 0, name.len - strlen(".weight_packed"));
        source_mark_used(b->source, name);
        if (t->dtype == ST_U8) return add_nvfp4(b, stem, t, true);
        return refuse(b, t, "a packed weight that is not U8 (integer quantisation)");
    }
    if (t->rank >= 1 && t->rank <= 2 && dense_format(t->dtype, &f)) {
        add_dense(b, name, t, f);
        return true;
    }
    if (!str_ends(name, STR(".weight"))) return true; // buffers and scales; not a weight
    if (t->dtype == ST_U8) return add_nvfp4(b, str_sub(name, 0, name.len - strlen(".weight")), t, false);
    if (t->dtype == ST_F8_E4M3 || t->dtype == ST_F8_E5M2) return refuse(b, t, "an FP8 linear");
    if (t->dtype == ST_I8) return refuse(b, t, "an INT8 linear");
    return diag_error(b->diags, E_TENSOR_SHAPE, t->at,
                      "tensor " STR_FMT " has dtype %s and rank %u; a weight has BF16, F16 or F32 and rank 1 "
                      "or 2, or is packed NVFP4",
                      STR_ARG(name), st_dtype_name(t->dtype), t->rank);
}

WeightSource *source_checkpoint(Arena *a, const Checkpoint *c, const QuantizePolicy *quantize, Diags *d) {
    WeightSource *s = source_new(a);
    s->checkpoint = c;
    s->used = ARENA_ARRAY(a, uint8_t, c->n_tensors);
    if (quantize) s->method = quantize->method;
    Builder b = {s, c, quantize, d};
    size_t errors = d->n_errors;
    bool packed = checkpoint_is_quantized(c);
    if (c->quant.claims_nvfp4 != packed)
        log_line("load", "%s: the configuration says that weights are %s, the tensors say otherwise", c->dir,
                 packed ? "unquantised" : "NVFP4");
    for (size_t i = 0; i < c->n_tensors; i++) add_tensor(&b, c->tensors[i].name, c->tensors[i].tensor);
    return d->n_errors == errors ? s : NULL;
}

// ---- scalars and leftovers -----------------------------------------------------------------------------

static CheckpointTensor *find_tensor(const Checkpoint *c, Str name) {
    size_t lo = 0, hi = c->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (str_cmp(c->tensors[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->n_tensors && str_eq(c->tensors[lo].name, name) ? &c->tensors[lo] : NULL;
}

void source_mark_used(WeightSource *s, Str tensor) {
    if (!s->checkpoint) return;
    const CheckpointTensor *t = find_tensor(s->checkpoint, tensor);
    if (t) s->used[t - s->checkpoint->tensors] = 1;
}

bool source_scalar(WeightSource *s, Str name, float *out, bool *present, Err *e) {
    const SafeTensor *t = s->checkpoint ? checkpoint_find(s->checkpoint, name) : NULL;
    *present = t != NULL;
    if (!t) return true;
    source_mark_used(s, name);
    if (!read_scalar(t, out))
        return err_set(e, E_TENSOR_SHAPE,
                       "%s: tensor " STR_FMT " must be one value (F32, BF16 or F16); scales per head or "
                       "channel are not supported",
                       t->at.src->name, STR_ARG(t->name));
    if (!(*out > 0) || !isfinite(*out))
        return err_set(e, E_TENSOR_VALUE,
                       "%s: tensor " STR_FMT " holds %g; a scale must be finite and positive",
                       t->at.src->name, STR_ARG(t->name), (double)*out);
    return true;
}

const Str *source_unused(const WeightSource *s, Arena *a, size_t *n) {
    *n = 0;
    if (!s->checkpoint) return NULL;
    Str *names = ARENA_ARRAY(a, Str, s->checkpoint->n_tensors);
    for (size_t i = 0; i < s->checkpoint->n_tensors; i++) {
        Str name = s->checkpoint->tensors[i].name;
        if (!s->used[i] && !str_ends(name, STR(".rotary_emb.inv_freq"))) names[(*n)++] = name;
    }
    return names;
}
