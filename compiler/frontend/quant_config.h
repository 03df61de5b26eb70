// What the configuration files of a checkpoint say about its quantisation: `quantization_config` in
// config.json and hf_quant_config.json, in ModelOpt's and in compressed-tensors' dialect. It refuses by name
// what is not supported and is a cross-check otherwise: how a linear is stored is decided by its tensors.
#ifndef ADALLM_COMPILER_QUANT_CONFIG_H
#define ADALLM_COMPILER_QUANT_CONFIG_H
#include "runtime/base/json.h"

typedef enum { QUANT_NONE, QUANT_MODELOPT, QUANT_COMPRESSED_TENSORS } QuantDialect;

typedef struct {
    QuantDialect dialect;
    bool kv_fp8;       // an FP8 KV cache is declared (its scales may be absent: 1)
    bool claims_nvfp4; // weights are said to be NVFP4
} QuantConfig;

// Reads both files where they exist; faults go to `d`, false then.
bool quant_config_read(Arena *a, const char *dir, QuantConfig *out, Diags *d);
#endif
