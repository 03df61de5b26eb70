// memplan: an offset for every scratch buffer. Programs run one after the other, so each one may use the
// whole arena.
#include "compiler/passes/memplan.h"

#include <stdlib.h>

#include "compiler/passes/pass.h"
#include "runtime/base/num.h"

static bool together(const MemItem *a, const MemItem *b) {
    return a->first <= b->last && b->first <= a->last;
}

// Largest first; then in order of birth, so that equal inputs give equal plans.
static int by_size(const void *pa, const void *pb) {
    const MemItem *a = *(MemItem *const *)pa, *b = *(MemItem *const *)pb;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    return (a > b) - (a < b);
}

// `placed` is in order of offsets. The tightest gap between those that live at the same time, else the end.
static uint64_t find_gap(MemItem *const *placed, uint32_t n, const MemItem *item) {
    uint64_t end = 0, best = UINT64_MAX, best_gap = UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        const MemItem *other = placed[i];
        if (!together(other, item)) continue;
        if (other->offset > end) {
            uint64_t gap = other->offset - end;
            if (gap >= item->bytes && gap < best_gap) best = end, best_gap = gap;
        }
        end = MAX(end, round_up(other->offset + other->bytes, MEMPLAN_ALIGN));
    }
    return best == UINT64_MAX ? end : best;
}

uint64_t memplan_place(Arena *a, MemItem *items, uint32_t n) {
    MemItem **order = ARENA_ARRAY(a, MemItem *, n), **placed = ARENA_ARRAY(a, MemItem *, n);
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) order[i] = &items[i];
    qsort(order, n, sizeof(MemItem *), by_size);
    for (uint32_t i = 0; i < n; i++) {
        MemItem *item = order[i];
        item->offset = find_gap(placed, i, item);
        uint32_t at = i;
        for (; at && placed[at - 1]->offset > item->offset; at--) placed[at] = placed[at - 1];
        placed[at] = item;
        total = MAX(total, round_up(item->offset + item->bytes, MEMPLAN_ALIGN));
    }
    return total;
}

bool pass_memplan(Plan *p, const PassContext *c, Diags *d) {
    MemItem *items = ARENA_ARRAY(c->arena, MemItem, p->n_buffers);
    uint32_t *buffer = ARENA_ARRAY(c->arena, uint32_t, p->n_buffers);
    p->scratch_bytes = 0;
    for (uint32_t program = 0; program < p->n_programs; program++) {
        uint32_t n = 0;
        uint64_t sum = 0;
        for (uint32_t i = 0; i < p->n_buffers; i++) {
            const PlanBuffer *b = &p->buffers[i];
            if (b->space != ADA_SPACE_SCRATCH || b->program != program) continue;
            if (!u64_add(sum, b->bytes, &sum) || sum > INT64_MAX)
                return diag_error(d, E_LIMIT, SPAN_NONE, "scratch buffers of program %u are too large",
                                  program);
            items[n] = (MemItem){b->bytes, b->first_launch, b->last_launch, 0};
            buffer[n++] = i;
        }
        uint64_t bytes = memplan_place(c->arena, items, n);
        for (uint32_t i = 0; i < n; i++) p->buffers[buffer[i]].offset = items[i].offset;
        p->scratch_bytes = MAX(p->scratch_bytes, bytes);
    }
    return true;
}
