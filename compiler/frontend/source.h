// WeightSource: a weight as the model sees it, wherever it comes from - NVFP4 tensors of a checkpoint, 16-bit
// tensors, 16-bit tensors quantised while they are read, or seeded random numbers. Names are canonical:
// "model.layers.3.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight",
// "lm_head.weight", "model.layers.0.mlp.experts.7.up_proj.weight" (naming.h). Nothing here holds a whole
// tensor in memory: rows are produced on demand from the mapped files.
//
// source_info is for one thread; the row readers may run on many threads at once.
#ifndef ADALLM_COMPILER_SOURCE_H
#define ADALLM_COMPILER_SOURCE_H
#include "runtime/base/diag.h"
#include "runtime/base/pool.h"

typedef struct Checkpoint Checkpoint;
typedef struct WeightSource WeightSource;

// Format in which it will live in memory. WF_E4M3: E4M3 bytes with an fp32 scale a row.
typedef enum { WF_F32, WF_BF16, WF_F16, WF_NVFP4, WF_E4M3 } WeightFormat;

typedef struct {
    Str name; // canonical
    WeightFormat format;
    uint32_t rank;     // 1: norms and biases, read as one row; 2: linears and embeddings
    uint64_t shape[2]; // elements, [n, k] for rank 2 (k in elements also where the file packs two in a byte)
    float global;      // NVFP4: value = code * block scale * global; 1 otherwise
    uint32_t id;       // the source's own handle
} WeightInfo;

static inline uint64_t weight_rows(const WeightInfo *w) { return w->rank == 1 ? 1 : w->shape[0]; }
static inline uint64_t weight_cols(const WeightInfo *w) { return w->rank == 1 ? w->shape[0] : w->shape[1]; }

// Bytes of one row as source_rows_raw writes it (for NVFP4: of its codes; the scales take cols / 16 more; for
// E4M3 the scale 4 more).
static inline uint64_t weight_row_bytes(const WeightInfo *w) {
    uint64_t k = weight_cols(w);
    return w->format == WF_NVFP4 ? k / 2 : w->format == WF_E4M3 ? k : w->format == WF_F32 ? k * 4 : k * 2;
}

// ---- sources -------------------------------------------------------------------------------------------

typedef enum { QUANT_MAX, QUANT_MSE } QuantMethod; // nvfp4.h

typedef struct {
    QuantMethod method;
    // Which 16-bit or 32-bit weights become NVFP4 (of those with k % 16 == 0 and rank 2). NULL: every linear
    // of the decoder; never embeddings, lm_head, routers (ModelOpt's default exclusions).
    bool (*wants)(void *ctx, Str name);
    void *ctx;
} QuantizePolicy;

bool source_is_decoder_linear(Str name); // the default of QuantizePolicy.wants

// A checkpoint as it is (quantize NULL), or with its unquantised linears quantised while they are read:
// fused siblings (q,k,v; gate,up) share their amax. Faults of tensors (missing or misshapen scales,
// unsupported quantisation) are reported to `d`, all of them, and NULL is returned.
WeightSource *source_checkpoint(Arena *a, const Checkpoint *c, const QuantizePolicy *quantize, Diags *d);

// Seeded random weights: the same seed, name and row give the same bits on every machine.
WeightSource *source_random(Arena *a, uint64_t seed);
typedef enum {
    RANDOM_LINEAR,    // std 1/sqrt(k)
    RANDOM_NORM_ONE,  // near 1
    RANDOM_NORM_ZERO, // near 0, for norms that add 1
    RANDOM_BIAS       // near 0
} RandomKind;
// Repeating a declaration is allowed. format WF_NVFP4 needs rank 2 and k % 16 == 0.
void source_random_declare(WeightSource *s, Str name, WeightFormat format, uint32_t rank,
                           const uint64_t *shape, RandomKind kind);

// A quantised copy (WF_NVFP4, WF_E4M3) of a weight of rank 2 that is not quantised, as a weight of its own
// called NAME.nvfp4 or NAME.e4m3; NVFP4 needs k % 16 == 0. Its rows are made of those of `of` when they are
// read. NVFP4 reads all of `of` once, for the amax. False: `of` has a value that is NaN or infinite.
bool source_quantized_copy(WeightSource *s, const WeightInfo *of, WeightFormat format, QuantMethod method,
                           WeightInfo *out, Err *e);

// ---- reading -------------------------------------------------------------------------------------------

// False: there is no such weight. The first question about a weight that is quantised on the fly reads it
// (and its siblings) once for the amax.
bool source_info(WeightSource *s, Str name, WeightInfo *out);

// NVFP4 rows: codes [n_rows, k/2] bytes (low nibble = even k), scales [n_rows, k/16] E4M3 bytes, never NaN,
// never negative. Like all readers below fails with E_TENSOR_VALUE, naming tensor, row and block or column,
// on NaN or infinity.
bool source_rows_nvfp4(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows,
                       uint8_t *codes, uint8_t *scales, Err *e);
// E4M3 rows: codes [n_rows, k] bytes, never NaN; scales [n_rows]: value = code * scale, where the row's
// largest magnitude is 448 * scale.
bool source_rows_e4m3(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows,
                      uint8_t *codes, float *scales, Err *e);
// Rows of an unquantised weight, [n_rows, k] values in w->format, exactly as stored.
bool source_rows_raw(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows, void *out,
                     Err *e);
// Rows of any weight, [n_rows, k] fp32. NVFP4: code * block * global in fp64, rounded once; E4M3: code *
// scale.
bool source_rows_f32(const WeightSource *s, const WeightInfo *w, uint64_t row, uint64_t n_rows, float *out,
                     Err *e);
// A scalar: "model.layers.N.self_attn.k_scale" and "...v_scale" (either spelling on disk). *present says
// whether the checkpoint has it (a KV scale that is absent means 1). False: present but not finite and
// positive.
bool source_scalar(WeightSource *s, Str name, float *out, bool *present, Err *e);

// Names of language-model tensors that nobody asked for with source_info or source_scalar, in name order;
// count in *n. For a warning, not an error.
const Str *source_unused(const WeightSource *s, Arena *a, size_t *n);

// ---- what quantising costs -----------------------------------------------------------------------------

typedef struct {
    uint64_t weights;        // elements quantised on the fly
    double rel_max, rel_mse; // ||W - Wq|| / ||W|| under both methods
    double square;           // ||W||^2, for combining
} QuantizeError;

// Reads the weights that are quantised on the fly and for which wants(ctx, name) holds (NULL: all), and
// measures both methods; weights is 0 when there are none.
bool source_quantize_error(WeightSource *s, Pool *pool, bool (*wants)(void *ctx, Str name), void *ctx,
                           QuantizeError *out, Err *e);
#endif
