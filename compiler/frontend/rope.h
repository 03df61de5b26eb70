// Rotary position embedding: its parameters in every spelling of Hugging Face configs, and its table.
#ifndef ADALLM_COMPILER_ROPE_H
#define ADALLM_COMPILER_ROPE_H
#include "runtime/base/json.h"

typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN } RopeKind;

typedef struct {
    RopeKind kind;
    double theta;
    double factor;                            // linear, llama3, yarn
    double low_freq_factor, high_freq_factor; // llama3
    double original_max;                      // positions before stretching; llama3, yarn
    double beta_fast, beta_slow;              // yarn
    bool truncate;                            // yarn: round the correction range outwards
    double attention_factor;                  // cos and sin are multiplied by it; 1 but for yarn
} RopeSpec;

// What is known before the objects are read: the top-level keys, or the family's defaults.
typedef struct {
    double theta, local_theta;
    bool local; // sliding layers rotate in their own way (Gemma); else like full ones
    double max_position;
} RopeDefaults;

// Reads `rope_parameters` (flat or by layer type) and `rope_scaling` of `config`. Wrong values are
// E_CONFIG_VALUE, unknown kinds E_CONFIG_UNSUPPORTED; false then.
bool rope_read(const Source *src, const Json *config, const RopeDefaults *defaults, RopeSpec *full,
               RopeSpec *sliding, Diags *d);

// Writes inv_freq[head_dim / 2], computed in double and rounded once. Formulas: transformers'
// modeling_rope_utils.
void rope_inv_freq(const RopeSpec *spec, uint32_t head_dim, float *inv_freq);
#endif
