// The plain read of the host: how fast the threads of a pool read memory when they do nothing else.
#ifndef ADALLM_DEVICE_PLAIN_READ_H
#define ADALLM_DEVICE_PLAIN_READ_H
#include "runtime/base/pool.h"

// Bytes a second, the best of `rounds`. data: aligned to 32. Less than 1 MiB are too few to tell: 0.
double plain_read(Pool *pool, const void *data, uint64_t bytes, int rounds);
#endif
