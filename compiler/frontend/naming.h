// Canonical tensor names: the one spelling that the compiler uses for the many that checkpoints use.
#ifndef ADALLM_COMPILER_NAMING_H
#define ADALLM_COMPILER_NAMING_H
#include "runtime/base/str.h"

// False: the tensor belongs to a vision or audio part. Otherwise *out is the canonical name, a view of `raw`
// or a string in the arena.
//     language_model.model.layers.0.mlp.up_proj.weight        -> model.layers.0.mlp.up_proj.weight
//     model.language_model.layers.0.self_attn.k_proj.k_scale  -> model.layers.0.self_attn.k_scale
//     language_model.lm_head.weight                           -> lm_head.weight
bool naming_canonical(Arena *a, Str raw, Str *out);

// Length of the prefix of `raw` that ends with the name of a vision or audio part ("model.vision_tower"); 0
// when the tensor belongs to the language model.
size_t naming_foreign_prefix(Str raw);

// The linear's siblings that read the same input, which share one amax (q,k,v; gate,up), `name` included:
// names of the group in the arena, *n of them; 1 when the linear stands alone.
const Str *naming_siblings(Arena *a, Str name, size_t *n);
#endif
