// Pools: how many pages each KV group of a plan gets. Arithmetic alone.
#ifndef ADALLM_EXEC_POOLS_H
#define ADALLM_EXEC_POOLS_H
#include "runtime/base/err.h"
#include "runtime/format.h"

// Bytes that the KV cache may take on a device: `share` (0 to 1) of its total memory, less what is in use
// already, by this program and others.
uint64_t pools_budget(uint64_t total_bytes, uint64_t free_bytes, double share);

// pages[n_kv_groups]: what `seqs` sequences of the whole context hold, or where that is more than `budget`
// bytes (of one rank), as much of it as fits, all groups in the same proportion. E_MEMORY when not even one
// sequence of the whole context fits.
bool pools_size(const AdaPlan *p, uint32_t seqs, uint64_t budget, uint32_t *pages, Err *e);

// Bytes of these pools on one rank.
uint64_t pools_bytes(const AdaPlan *p, const uint32_t *pages);
#endif
