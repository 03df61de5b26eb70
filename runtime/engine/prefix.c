#include "runtime/engine/prefix.h"

Sha256 prefix_next(Sha256Stream *hasher, const Sha256 *before, const int32_t *ids, uint32_t n) {
    sha256_add(hasher, before->bytes, sizeof before->bytes);
    sha256_add(hasher, ids, n * sizeof *ids);
    return sha256_take(hasher);
}

Sha256 prefix_begin(Str salt) { return sha256(salt.ptr, salt.len); }
