#include "runtime/engine/kv.h"

#include <string.h>

#include "runtime/base/num.h"

void kv_init(Kv *kv, Arena *arena, const AdaPlan *plan, const uint32_t *pages) {
    *kv = (Kv){.n_groups = plan->n_kv_groups, .n_slots = plan->seqs_max, .page_tokens = plan->page_tokens};
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        k->window = plan->kv[g].window, k->pages_per_seq = plan->kv[g].pages_per_seq;
        k->n_pages = k->n_free = pages[g];
        k->free = ARENA_ARRAY(arena, uint32_t, pages[g]);
        for (uint32_t i = 0; i < pages[g]; i++) k->free[i] = pages[g] - 1 - i; // the lowest page goes first
        k->table = ARENA_ARRAY(arena, int32_t, (size_t)kv->n_slots * k->pages_per_seq);
        k->held = ARENA_ARRAY(arena, uint32_t, kv->n_slots);
    }
}

static uint32_t pages_wanted(const Kv *kv, const KvGroup *k, uint32_t tokens) {
    return MIN((uint32_t)div_up(tokens, kv->page_tokens), k->pages_per_seq);
}

bool kv_reserve(Kv *kv, uint32_t slot, uint32_t tokens, bool *changed) {
    *changed = false;
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        const KvGroup *k = &kv->groups[g];
        uint32_t want = pages_wanted(kv, k, tokens);
        if (want > k->held[slot] && want - k->held[slot] > k->n_free) return false;
    }
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        int32_t *row = k->table + (size_t)slot * k->pages_per_seq;
        for (uint32_t want = pages_wanted(kv, k, tokens); k->held[slot] < want; *changed = true)
            row[k->held[slot]++] = (int32_t)k->free[--k->n_free];
    }
    return true;
}

void kv_release(Kv *kv, uint32_t slot) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        int32_t *row = k->table + (size_t)slot * k->pages_per_seq;
        while (k->held[slot]) {
            int32_t *page = &row[--k->held[slot]];
            k->free[k->n_free++] = (uint32_t)*page;
            *page = 0;
        }
    }
}

bool kv_can_rewind(const Kv *kv, uint32_t cached, uint32_t keep) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        const KvGroup *k = &kv->groups[g];
        uint64_t ring = (uint64_t)k->pages_per_seq * kv->page_tokens;
        uint64_t oldest_needed =
            keep + 1 > k->window ? keep + 1 - k->window : 0; // key that position `keep` sees
        if (k->window && oldest_needed + ring < cached) return false;
    }
    return keep <= cached;
}

static bool group_consistent(const Kv *kv, const KvGroup *k) {
    uint32_t seen = k->n_free;
    for (uint32_t s = 0; s < kv->n_slots; s++) seen += k->held[s];
    if (seen != k->n_pages) return false;
    for (uint32_t page = 0; page < k->n_pages; page++) { // quadratic: for tests
        uint32_t times = 0;
        for (uint32_t i = 0; i < k->n_free; i++) times += k->free[i] == page;
        for (uint32_t s = 0; s < kv->n_slots; s++)
            for (uint32_t i = 0; i < k->held[s]; i++)
                times += k->table[(size_t)s * k->pages_per_seq + i] == (int32_t)page;
        if (times != 1) return false;
    }
    return true;
}

bool kv_consistent(const Kv *kv) {
    for (uint32_t g = 0; g < kv->n_groups; g++)
        if (!group_consistent(kv, &kv->groups[g])) return false;
    return true;
}
