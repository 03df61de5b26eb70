// Checkpoint: the tensors of a Hugging Face folder under canonical names, whatever files and prefixes hold
// them. Files stay mapped until checkpoint_close.
#ifndef ADALLM_COMPILER_CHECKPOINT_H
#define ADALLM_COMPILER_CHECKPOINT_H
#include "compiler/frontend/quant_config.h"
#include "compiler/frontend/safetensors.h"

typedef struct {
    Str name; // canonical (naming.h), unique
    const SafeTensor *tensor;
} CheckpointTensor;

typedef struct Checkpoint {
    const char *dir;
    SafeTensors *files; // [n_files]
    size_t n_files;
    CheckpointTensor *tensors; // [n_tensors] of the language model, in name order
    size_t n_tensors;
    const SafeTensor **vision; // [n_vision] tensors of vision and audio parts, skipped
    size_t n_vision;
    uint64_t vision_bytes; // their size
    uint64_t bytes;        // of the language model's tensors
    QuantConfig quant;     // what the configuration files claim
} Checkpoint;

// Opens `model.safetensors.index.json` with its shards, or else `model.safetensors`, or else the only
// `*.safetensors` of the folder. Every fault is reported to `d`; NULL then.
Checkpoint *checkpoint_open(Arena *a, const char *dir, Diags *d);
void checkpoint_close(Checkpoint *c); // unmaps the files; c may be NULL

const SafeTensor *checkpoint_find(const Checkpoint *c, Str canonical_name); // NULL when absent
bool checkpoint_is_quantized(const Checkpoint *c);                          // some linear is stored in NVFP4
#endif
