// Ranks: one thread for each device of a group, so that every device sees one thread only. Rank 0 runs on
// the caller's thread; with one rank there are no threads.
#ifndef ADALLM_EXEC_RANKS_H
#define ADALLM_EXEC_RANKS_H
#include "runtime/base/err.h"

#include <stdint.h>

typedef struct Ranks Ranks;
typedef bool RankJob(void *ctx, uint32_t rank, Err *e);

Ranks *ranks_new(uint32_t n_ranks);
void ranks_free(Ranks *r); // r may be NULL

// Runs job(ctx, rank) on every rank at the same time and waits for all. False with the error of the lowest
// rank that failed.
bool ranks_run(Ranks *r, RankJob *job, void *ctx, Err *e);
#endif
