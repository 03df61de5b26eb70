// Prefix: names of what a page of the KV cache holds. The key of a page is the SHA-256 of the key before it
// and the ids of its own tokens; the first one follows the hash of a tenant's salt. Equal keys mean equal
// tokens from the first on, and the same tenant.
#ifndef ADALLM_ENGINE_PREFIX_H
#define ADALLM_ENGINE_PREFIX_H
#include "runtime/base/hash.h"

Sha256 prefix_begin(Str salt);
// Key of the n ids that follow what `before` names. Allocates nothing.
Sha256 prefix_next(const Sha256 *before, const int32_t *ids, uint32_t n);
#endif
