// Host ranks that work together: threads of one process that meet at a barrier and read each other's memory.
#ifndef ADALLM_DEVICE_GROUP_H
#define ADALLM_DEVICE_GROUP_H
#include <stdint.h>

#include "runtime/base/err.h"

typedef struct Group Group;

Group *group_new(uint32_t n_ranks);
void group_leave(Group *g); // once by every rank; the last one frees the group

// Makes all ranks that wait, now or later, fail with this error. The first call counts.
void group_abort(Group *g, uint32_t rank, const Err *why);

// Every rank calls with its own buffer; all must agree on n. Sums are taken in rank order: the same bits on
// every rank.
bool group_all_reduce(Group *g, uint32_t rank, float *data, uint64_t n, Err *e);
// src [rows, cols] of every rank -> dst [rows, n_ranks * cols].
bool group_all_gather(Group *g, uint32_t rank, const float *src, float *dst, uint32_t rows, uint32_t cols,
                      Err *e);
#endif
