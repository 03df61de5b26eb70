#include "runtime/base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/num.h"

// Blocks double from the first size to the last: small arenas stay small, there may be thousands.
enum { BLOCK_BYTES_FIRST = 4 * 1024, BLOCK_BYTES = 64 * 1024, ALIGN = 16 };

struct ArenaBlock {
    ArenaBlock *next;
    size_t used, cap;
    _Alignas(ALIGN) unsigned char data[];
};

static _Noreturn void out_of_memory(size_t bytes) {
    fprintf(stderr, "adallm: out of memory: %zu bytes wanted\n", bytes);
    abort();
}

void *xmalloc(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

void *xrealloc(void *p, size_t count, size_t size) {
    size_t bytes;
    if (!size_mul(count, size, &bytes)) out_of_memory(SIZE_MAX);
    p = realloc(p, bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

static ArenaBlock *block_new(size_t cap) {
    size_t bytes;
    if (!size_add(sizeof(ArenaBlock), cap, &bytes)) out_of_memory(cap);
    ArenaBlock *b = xmalloc(bytes);
    *b = (ArenaBlock){.cap = cap};
    return b;
}

void *arena_alloc(Arena *a, size_t bytes) {
    size_t need;
    if (!size_add(bytes, ALIGN - 1, &need)) out_of_memory(bytes);
    need &= ~(size_t)(ALIGN - 1);
    if (!a->head || a->head->cap - a->head->used < need) {
        size_t next = a->head ? MIN(a->head->cap * 2, (size_t)BLOCK_BYTES) : (size_t)BLOCK_BYTES_FIRST;
        ArenaBlock *b = block_new(MAX(need, next));
        if (a->head && need > BLOCK_BYTES) { // keep filling the open block after a large allocation
            b->next = a->head->next;
            a->head->next = b;
            b->used = need;
            a->used_bytes += need;
            return memset(b->data, 0, need);
        }
        b->next = a->head;
        a->head = b;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += need;
    a->used_bytes += need;
    return memset(p, 0, need);
}

void *arena_array(Arena *a, size_t count, size_t size) {
    size_t bytes;
    if (!size_mul(count, size, &bytes)) out_of_memory(SIZE_MAX);
    return arena_alloc(a, bytes);
}

char *arena_strndup(Arena *a, const char *s, size_t len) {
    char *p = arena_alloc(a, len + 1);
    if (len) memcpy(p, s, len);
    return p;
}

char *arena_strdup(Arena *a, const char *s) { return arena_strndup(a, s, strlen(s)); }

char *arena_vprintf(Arena *a, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, fmt, ap);
    char *p = arena_alloc(a, (size_t)len + 1);
    vsnprintf(p, (size_t)len + 1, fmt, again);
    va_end(again);
    return p;
}

char *arena_printf(Arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *p = arena_vprintf(a, fmt, ap);
    va_end(ap);
    return p;
}

void arena_free(Arena *a) {
    for (ArenaBlock *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (Arena){0};
}
