// Placement of buffers with lifetimes in one arena.
#ifndef ADALLM_PASSES_MEMPLAN_H
#define ADALLM_PASSES_MEMPLAN_H
#include "runtime/base/arena.h"

#include <stdint.h>

enum { MEMPLAN_ALIGN = 256 };

typedef struct {
    uint64_t bytes;
    uint32_t first, last; // inclusive
    uint64_t offset;      // written; a multiple of MEMPLAN_ALIGN
} MemItem;

// Gives every item an offset so that items that live at the same time do not overlap: largest first, each in
// the tightest gap that holds it. Returns the bytes of the arena. The sum of all bytes must fit 63 bits.
uint64_t memplan_place(Arena *a, MemItem *items, uint32_t n);
#endif
