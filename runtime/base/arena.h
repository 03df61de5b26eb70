// Arena: memory owned by a lifetime. Everything allocated from an arena is freed at once with it.
// Running out of memory ends the process with a message: arenas hold what was already checked against real
// sizes.
#ifndef ADALLM_BASE_ARENA_H
#define ADALLM_BASE_ARENA_H
#include <stdarg.h>
#include <stddef.h>

typedef struct ArenaBlock ArenaBlock;
typedef struct {
    ArenaBlock *head;
    size_t used_bytes; // sum of all allocations, for reports
} Arena;

void *arena_alloc(Arena *a, size_t bytes);              // zeroed, aligned to 16; never NULL
void *arena_array(Arena *a, size_t count, size_t size); // zeroed; aborts if count * size overflows
char *arena_strndup(Arena *a, const char *s, size_t len);
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(Arena *a, const char *fmt, va_list ap);
void arena_free(Arena *a); // frees all; the arena is empty and usable again

#define ARENA_NEW(a, T)      ((T *)arena_alloc((a), sizeof(T)))
#define ARENA_ARRAY(a, T, n) ((T *)arena_array((a), (n), sizeof(T)))

// Heap memory with the same contract on exhaustion, for growable buffers. xrealloc checks count * size.
void *xmalloc(size_t bytes);
void *xrealloc(void *p, size_t count, size_t size);
#endif
