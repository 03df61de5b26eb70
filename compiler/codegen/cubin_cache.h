// The cache of cubins: files named by the hash of everything that decides their bytes.
#ifndef ADALLM_CODEGEN_CUBIN_CACHE_H
#define ADALLM_CODEGEN_CUBIN_CACHE_H
#include "runtime/base/hash.h"

typedef struct {
    Str cubin, log; // log: what nvcc said
} CachedCubin;

// The cache's folder, made when it is not there; NULL when there can be none (no home): nothing is cached
// then.
const char *cubin_cache_open(Arena *a);
// False when the cache has no whole file of that key.
bool cubin_cache_get(Arena *a, const char *dir, Sha256 key, CachedCubin *out);
// A cache that cannot be written is no error: the next compilation takes longer.
void cubin_cache_put(Arena *a, const char *dir, Sha256 key, const CachedCubin *c);
// Removes the files used longest ago until the cache is within its bound.
void cubin_cache_trim(Arena *a, const char *dir);
#endif
