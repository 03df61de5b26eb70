// What the null device does of `sample` and `advance` (templates.def): enough that an engine runs on it.
// bytes[i] is the memory behind args[i]: it says how many rows, columns and slots there are, and where it is
// too small nothing is done.
#ifndef ADALLM_DEVICE_NULL_DRAW_H
#define ADALLM_DEVICE_NULL_DRAW_H
#include <stdint.h>

// next[r], status[r] and logprobs of every row. A token follows from seed and step, and is an id of the
// second quarter of the vocabulary, where neither bytes nor special tokens stand; with a mask the next id
// from there on that is allowed.
void null_draw(void *const *args, const uint64_t *bytes, uint32_t n_args);
void null_advance(void *const *args, const uint64_t *bytes, uint32_t n_args);
#endif
