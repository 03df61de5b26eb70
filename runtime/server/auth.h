// Keys of clients, from a file. Held as SHA-256; compared without a branch that depends on them.
#ifndef ADALLM_SERVER_AUTH_H
#define ADALLM_SERVER_AUTH_H
#include "runtime/base/err.h"
#include "runtime/base/hash.h"

typedef struct {
    Sha256 *digests; // [n]; n 0: everybody may come in
    size_t n;
} Keys;

// One key a line; empty lines and lines that begin with # are skipped. E_FILE, E_OPTION_VALUE: no key, a key
// with spaces, or a file that everybody may read.
bool keys_read(Arena *a, const char *path, Keys *out, Err *e);
// Whether `key` is one of them. Looks at all, whichever matches.
bool keys_match(const Keys *keys, Str key);
#endif
