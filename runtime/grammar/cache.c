#include "runtime/grammar/cache.h"

#include <stdlib.h>

#include "runtime/base/str.h"

enum { N_BUCKETS = 4096 };

void cache_init(Cache *c, size_t bytes_max) {
    *c = (Cache){.buckets = xmalloc(N_BUCKETS * sizeof(CacheEntry *)), .bytes_max = bytes_max};
    memset(c->buckets, 0, N_BUCKETS * sizeof *c->buckets);
}

void cache_free(Cache *c) {
    for (CacheEntry *e = c->newest, *older; e; e = older) {
        older = e->older;
        free(e);
    }
    free(c->buckets);
}

static void unlink_use(Cache *c, CacheEntry *e) {
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
}

static void link_newest(Cache *c, CacheEntry *e) {
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void drop_oldest(Cache *c) {
    CacheEntry *e = c->oldest, **at = &c->buckets[e->hash % N_BUCKETS];
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    unlink_use(c, e);
    c->bytes -= e->bytes;
    free(e);
}

CacheEntry *cache_find(Cache *c, const void *key, size_t key_len) {
    uint64_t hash = str_hash((Str){key, key_len});
    CacheEntry *e = c->buckets[hash % N_BUCKETS];
    while (e && !(e->hash == hash && e->key_len == key_len && !memcmp(e->key, key, key_len))) e = e->next;
    if (!e || e == c->newest) return e;
    unlink_use(c, e);
    link_newest(c, e);
    return e;
}

void cache_add(Cache *c, const void *key, size_t key_len, const CacheEntry *like) {
    size_t head = (sizeof(CacheEntry) + key_len + 7) / 8 * 8;
    size_t bytes = head + ((size_t)like->n_words + like->n_exits) * sizeof(uint32_t);
    if (bytes > c->bytes_max) return;
    while (c->bytes + bytes > c->bytes_max) drop_oldest(c);
    CacheEntry *e = xmalloc(bytes);
    *e = *like;
    e->hash = str_hash((Str){key, key_len});
    e->bytes = bytes;
    e->key_len = (uint32_t)key_len;
    e->mask = (uint32_t *)((char *)e + head);
    e->exits = e->mask + like->n_words;
    memcpy(e->key, key, key_len);
    memcpy(e->mask, like->mask, like->n_words * sizeof *e->mask);
    if (like->n_exits) memcpy(e->exits, like->exits, like->n_exits * sizeof *e->exits);
    e->next = c->buckets[e->hash % N_BUCKETS];
    c->buckets[e->hash % N_BUCKETS] = e;
    link_newest(c, e);
    c->bytes += bytes;
}
