// Kv: which sequence holds which pages of the KV pools. One pool, one free list and one block table for each
// KV group. A full-attention group gives a sequence a page for every page_tokens tokens; a window group gives
// it at most its ring of pages_per_seq pages, which it then reuses. Only bookkeeping: no device call.
#ifndef ADALLM_ENGINE_KV_H
#define ADALLM_ENGINE_KV_H
#include "runtime/base/arena.h"
#include "runtime/format.h"

#include <stdbool.h>

typedef struct {
    uint32_t window, pages_per_seq;
    uint32_t n_pages, n_free;
    uint32_t *free; // stack of n_free page numbers
    int32_t *table; // [n_slots, pages_per_seq], as the device has it; 0 where nothing is held
    uint32_t *held; // [n_slots] pages of each sequence
} KvGroup;

typedef struct {
    KvGroup groups[ADA_KV_GROUPS_MAX];
    uint32_t n_groups, n_slots, page_tokens;
} Kv;

// pages[g]: size of the pool of group g.
void kv_init(Kv *kv, Arena *arena, const AdaPlan *plan, const uint32_t *pages);

// Makes sure that `slot` holds pages for positions [0, tokens). All groups or none: false when a pool has too
// few free pages. *changed says whether a block table row of the slot changed.
bool kv_reserve(Kv *kv, uint32_t slot, uint32_t tokens, bool *changed);
void kv_release(Kv *kv, uint32_t slot); // gives all pages back

// Whether a sequence that has positions [0, cached) in its pages can go on from position `keep`: in a ring
// the keys before `keep` may be overwritten.
bool kv_can_rewind(const Kv *kv, uint32_t cached, uint32_t keep);

// Every page is free or held exactly once, every held page is in range.
bool kv_consistent(const Kv *kv);
#endif
