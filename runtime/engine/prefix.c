#include "runtime/engine/prefix.h"

Sha256 prefix_begin(Str salt) { return sha256(salt.ptr, salt.len); }

Sha256 prefix_next(const Sha256 *before, const int32_t *ids, uint32_t n) {
    return sha256_pair(before->bytes, sizeof before->bytes, ids, n * sizeof *ids);
}
