// Kv: which sequence holds which pages of the KV pools, and which pages are remembered for others. One pool
// and one block table for each KV group; pages are counted, so that sequences may hold one together.
//
// A slot holds pages [first, end) of its sequence in each group: page j has positions [j * P, (j + 1) * P)
// and stands in column j % columns of the slot's row of the block table. A full-attention group keeps all
// from 0 on; a window group gives back what no later position sees.
//
// A page whose P positions are all computed may be published under a key that names everything before its
// end (prefix.h). It is never written again. Others find it by its key and share it without a copy; when
// nobody holds it, it stays findable until the pool needs it, the least recently held one first.
//
//        take              publish             release               take, the oldest
//     free ---> held once ---------> held, known -------> cached, known ---------> held once
//
// Reuse needs no wait for the device: it runs launches in their order. Only bookkeeping: no device call.
#ifndef ADALLM_ENGINE_KV_H
#define ADALLM_ENGINE_KV_H
#include "runtime/base/arena.h"
#include "runtime/base/hash.h"
#include "runtime/exec/exec.h"

#include <stdbool.h>

typedef struct {
    Sha256 key;            // where known
    uint64_t since;        // step in which it was published
    uint32_t refs;         // slots that hold it
    uint32_t chain;        // next page with the same bucket
    uint32_t newer, older; // neighbours among the cached pages
    bool known;
} KvPage;

typedef struct {
    uint32_t window, columns; // of the plan: window, pages_per_seq
    uint32_t n_pages, n_free, n_cached;
    KvPage *pages;           // [n_pages]
    uint32_t *free;          // stack of n_free page numbers
    uint32_t newest, oldest; // of the cached pages
    uint32_t *buckets, n_buckets;
    int32_t *table;              // [n_slots, columns], as the device has it or gets it with the next step
    uint32_t *first, *end;       // [n_slots]
    uint32_t *dirty, *dirty_end; // [n_slots] columns of the row that the device does not have yet
} KvGroup;

typedef struct {
    KvGroup groups[ADA_KV_GROUPS_MAX];
    uint32_t n_groups, n_slots, page_tokens, n_dirty;
    uint64_t evicted;    // pages forgotten for want of others, so far
    uint64_t given_back; // pages that the last one who held them gave back, so far
} Kv;

// pages[g]: size of the pool of group g.
void kv_init(Kv *kv, Arena *arena, const AdaPlan *plan, const uint32_t *pages);

// Makes sure that `slot` can compute positions [from, to): gives back the pages that none of them sees and
// takes those that are missing. All groups or none: false when a pool has too few pages that nobody holds.
// to <= kv_reach(kv, from).
bool kv_reserve(Kv *kv, uint32_t slot, uint32_t from, uint32_t to);
// First position that cannot be computed together with `from`: the rings of window groups hold no more.
uint32_t kv_reach(const Kv *kv, uint32_t from);
bool kv_holds(const Kv *kv, uint32_t slot, uint32_t pos); // the page of position pos, in every group
void kv_trim(Kv *kv, uint32_t slot, uint32_t tokens);     // gives back pages behind positions [0, tokens)
void kv_release(Kv *kv, uint32_t slot);                   // gives all pages back

// How many pages, from the first on, a sequence with these keys need not compute: it can go on at position
// result * P. `slot`: the pages that this slot holds count as found; UINT32_MAX: none does. Pages published
// in step `now` or later do not count yet; *pending says that one of them comes next.
uint32_t kv_match(const Kv *kv, uint32_t slot, const Sha256 *keys, uint32_t n_keys, uint64_t now,
                  bool *pending);
// Whether nobody holds as many pages as a new sequence of `tokens` needs beside its first n_shared, and in
// group g spare[g] more.
bool kv_has_room(const Kv *kv, const Sha256 *keys, uint32_t n_shared, uint32_t tokens, const uint64_t *spare);
// Pages of group g that the slot would have to take before it could compute positions [0, tokens).
uint32_t kv_missing(const Kv *kv, uint32_t g, uint32_t slot, uint32_t tokens);
// The slot holds the first n_shared pages, found by their keys, beside what it holds already.
void kv_share(Kv *kv, uint32_t slot, const Sha256 *keys, uint32_t n_shared);
// Page j of the slot is complete, in every group that still has it. No effect where its key is known already.
void kv_publish(Kv *kv, uint32_t slot, uint32_t j, const Sha256 *key, uint64_t step);
void kv_forget(Kv *kv, uint32_t slot); // nobody finds the pages of this slot any more

// The rows of block tables that the device does not have: fills w, enough for n_slots * n_groups, and
// returns how many. They count as written.
uint32_t kv_writes(Kv *kv, ExecWrite *w);

// The slot alone may write position pos: its page is held once and not known.
bool kv_writable(const Kv *kv, uint32_t slot, uint32_t pos);
// Pages that nobody holds; those that are known among them.
uint32_t kv_unheld(const Kv *kv, uint32_t group);
// Every page is free, cached or held as often as it is counted; known pages are found; lists are whole.
bool kv_consistent(const Kv *kv);
#endif
