// Masks by where the text stands, least recently used out first.
#ifndef ADALLM_GRAMMAR_CACHE_H
#define ADALLM_GRAMMAR_CACHE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CACHE_KEY_MAX = 512 };

// What a key stands for. An entry belongs to the cache and lives until the next cache_add.
typedef struct CacheEntry CacheEntry;
struct CacheEntry {
    CacheEntry *newer, *older, *next; // by use; in the same bucket
    uint64_t hash;
    size_t bytes;
    uint32_t key_len, n_words, n_exits, deepest;
    uint64_t n_steps; // that it took to make
    uint32_t *mask;   // [n_words]
    uint32_t *exits;  // [n_exits] nodes of the vocabulary's tree
    uint8_t key[];
};

typedef struct {
    CacheEntry **buckets, *newest, *oldest;
    size_t bytes, bytes_max;
} Cache;

void cache_init(Cache *c, size_t bytes_max);
void cache_free(Cache *c);
CacheEntry *cache_find(Cache *c, const void *key, size_t key_len);
// Copies key, mask and exits, and the numbers of `like`. Does nothing when the entry alone is larger than the
// cache.
void cache_add(Cache *c, const void *key, size_t key_len, const CacheEntry *like);
#endif
