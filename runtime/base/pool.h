// A pool of threads that runs one job at a time: the host device, the evaluator, hashing and packing use it.
#ifndef ADALLM_BASE_POOL_H
#define ADALLM_BASE_POOL_H
#include <stdint.h>

typedef struct Pool Pool;

// n_threads 0: one per usable core. The caller's thread counts as one of them.
Pool *pool_new(unsigned n_threads);
void pool_free(Pool *p); // p may be NULL
unsigned pool_threads(const Pool *p);

// Calls fn(ctx, i) for every i in [0, n), in any order, and returns when all are done. Not reentrant.
// Which thread runs which i never matters for the result: that is fn's duty.
void pool_run(Pool *p, uint32_t n, void (*fn)(void *ctx, uint32_t i), void *ctx);
#endif
