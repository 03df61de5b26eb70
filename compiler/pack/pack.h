// Pack: one plan, its code, its weights and what the runtime needs beside them become one .ada
// (runtime/format.h). Weights stream from their source through their layout into the file; nothing holds a
// whole tensor. Equal inputs give equal bytes, whatever the number of threads.
#ifndef ADALLM_PACK_PACK_H
#define ADALLM_PACK_PACK_H
#include "compiler/frontend/source.h"
#include "compiler/ir/plan.h"
#include "runtime/base/hash.h"

typedef struct {
    AdaCodeKind kind;
    const void *data;
    uint64_t bytes;
} PackCode;

typedef struct {
    const char *name; // "config.json", "model-00001-of-00002.safetensors"; no folders
    Sha256 hash;
} PackInputHash;

typedef struct {
    const char *name; // "bos", "eos", "pad", "unk"
    int32_t id;
} PackToken;

// How the model wants to be sampled (generation_config.json). Greedy: temperature 0.
typedef struct {
    double temperature, top_p, min_p; // off: 0, 1, 0
    uint32_t top_k;                   // 0: off
} PackSampling;

// The output head: its `head` of the recipe, and what that costs.
typedef struct {
    const char *format;     // "bf16" (as stored), "fp8", "nvfp4"
    bool tied;              // the embedding table stays beside it
    uint32_t positions;     // 0: not quantised, nothing was measured
    uint32_t same_first;    // of them, with the same most probable id
    double kl_mean, kl_max; // nats, of the distribution with the head as stored from that with this one
} PackHead;

// What the manifest says beside the facts that the plan holds.
typedef struct {
    uint32_t sm;        // of the target: 89, 90; 0: no GPU
    const char *model;  // "gemma3-270m"
    const char *family; // "gemma3"
    Str config, recipe; // JSON objects as text, shown by `info`; empty: {}
    const int32_t *eos_ids;
    uint32_t n_eos_ids;
    const PackToken *tokens; // special ids
    uint32_t n_tokens;
    PackSampling sampling;
    bool chat;                    // `run` chats unless told otherwise: an instruct model with a chat program
    const char *quantize;         // "max", "mse"; NULL: nothing was quantised while compiling
    QuantizeError quantize_error; // weights 0: not measured
    PackHead head;
    const PackInputHash *inputs; // every file read, in an order that does not depend on the machine
    uint32_t n_inputs;
} PackFacts;

// The golden self-test: one prompt and what the fp32 evaluator says about it (AdaSelftest). n_ids 0: none.
typedef struct {
    const int32_t *ids;     // [n_ids]
    const int32_t *columns; // [n_columns]: columns of the logits that are kept
    const float *logits;    // [n_ids, n_columns]
    uint32_t n_ids, n_columns;
    float tolerance; // relative Frobenius error allowed
} PackSelftest;

typedef struct {
    const Plan *plan;
    WeightSource *weights; // may be NULL when every weight of the plan is a constant
    const PackCode *code;
    uint32_t n_code;
    Str tokenizer, chat, explain; // sections; `chat` may be empty, `explain` is JSON
    PackFacts facts;
    PackSelftest selftest;
    Pool *pool;
} PackInput;

typedef struct {
    uint64_t file_bytes, weight_bytes; // as stored
    uint64_t read_bytes;               // of the weights as their source gave them
    double weight_seconds, seconds;
    Sha256 root; // Merkle root
} PackReport;

// Writes `out_path` (beside it, then renamed). False after adding errors: E_FILE (disk), E_TENSOR_* (from the
// source), E_PLAN_INVALID (a plan weight that does not fit its graph weight or layout). Uses at most a few
// hundred MiB whatever the model.
bool pack_artifact(const PackInput *in, const char *out_path, PackReport *report, Diags *d);

// The manifest alone: deterministic JSON.
void pack_manifest(const PackInput *in, StrBuf *out);
#endif
