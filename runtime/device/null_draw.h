// What the null device does of `sample` and `advance` (templates.def): enough that an engine runs on it.
#ifndef ADALLM_DEVICE_NULL_DRAW_H
#define ADALLM_DEVICE_NULL_DRAW_H
#include <stdint.h>

enum { NULL_DRAW_ARGS = 9, NULL_ADVANCE_ARGS = 6 };

// Bytes of buffers: they say how many rows, columns and slots there are.
typedef struct {
    uint64_t logits, status, lists, mask;
} NullSizes;

// next[r], status[r] and logprobs of every row. A token follows from seed and step, and is an id of the
// second quarter of the vocabulary, where neither bytes nor special tokens stand; with a mask the next id
// from there on that is allowed.
void null_draw(void *const *args, uint32_t n_args, NullSizes sizes);
void null_advance(void *const *args, uint64_t ring_bytes);
#endif
