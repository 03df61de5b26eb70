// Writes a quantised copy of a checkpoint, as ModelOpt's export lays it out (weight-only NVFP4).
#ifndef ADALLM_COMPILER_CHECKPOINT_WRITE_H
#define ADALLM_COMPILER_CHECKPOINT_WRITE_H
#include "compiler/frontend/checkpoint.h"
#include "compiler/frontend/source.h"

typedef struct {
    size_t n_linears;   // quantised
    size_t n_files;     // of weights
    uint64_t bytes_in;  // of tensors read
    uint64_t bytes_out; // of tensors written
} CheckpointWritten;

// Writes `source` (a source over `c` that quantises) to the folder `out_dir`: weights in files of at most
// `shard_bytes` (more only for a single larger tensor), config.json with quantization_config,
// hf_quant_config.json, and copies of the tokenizer's and other small files. The folder appears only when it
// is complete; it must not exist, or be empty. Faults go to `d`, false then.
bool checkpoint_write(Arena *a, const Checkpoint *c, WeightSource *source, const char *out_dir,
                      uint64_t shard_bytes, Pool *pool, CheckpointWritten *out, Diags *d);
#endif
