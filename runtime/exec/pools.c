#include "runtime/exec/pools.h"

#include "runtime/base/num.h"

enum { PARTS = 64 }; // of a sequence: the step in which pools shrink

uint64_t pools_budget(uint64_t total_bytes, uint64_t free_bytes, double share) {
    uint64_t allowed = (uint64_t)((double)total_bytes * share), used = total_bytes - free_bytes;
    return allowed > used ? allowed - used : 0;
}

static uint64_t pages_of(const AdaKvGroup *g, uint64_t parts) {
    return div_up(g->pages_per_seq * parts, PARTS);
}

static uint64_t bytes_of(const AdaPlan *p, uint64_t parts) { // saturates
    uint64_t total = 0, group;
    for (uint32_t g = 0; g < p->n_kv_groups; g++)
        if (!u64_mul(p->kv[g].page_bytes, pages_of(&p->kv[g], parts), &group) ||
            !u64_add(total, group, &total))
            return UINT64_MAX;
    return total;
}

uint64_t pools_bytes(const AdaPlan *p, const uint32_t *pages) {
    uint64_t total = 0;
    for (uint32_t g = 0; g < p->n_kv_groups; g++) total += p->kv[g].page_bytes * pages[g];
    return total;
}

bool pools_size(const AdaPlan *p, uint32_t seqs, uint64_t budget, uint32_t *pages, Err *e) {
    budget = MIN(budget, UINT64_MAX - 1);
    if (bytes_of(p, PARTS) > budget)
        return err_set(
            e, E_MEMORY,
            "the KV cache of one sequence of %u tokens takes %.1f MiB, more than the %.1f MiB allowed",
            p->context, (double)bytes_of(p, PARTS) / 1048576, (double)budget / 1048576);
    uint64_t least = PARTS, most = (uint64_t)PARTS * seqs;
    while (least < most) { // `least` fits
        uint64_t middle = (least + most + 1) / 2;
        if (bytes_of(p, middle) <= budget)
            least = middle;
        else
            most = middle - 1;
    }
    for (uint32_t g = 0; g < p->n_kv_groups; g++) {
        uint64_t n = pages_of(&p->kv[g], least);
        if (n > INT32_MAX) return err_set(e, E_MEMORY, "KV group %u: %llu pages", g, (unsigned long long)n);
        pages[g] = (uint32_t)n;
    }
    return true;
}
