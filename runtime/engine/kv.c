#include "runtime/engine/kv.h"

#include <string.h>

#include "runtime/base/num.h"

enum { NONE = UINT32_MAX };

void kv_init(Kv *kv, Arena *arena, const AdaPlan *plan, const uint32_t *pages) {
    *kv = (Kv){.n_groups = plan->n_kv_groups, .n_slots = plan->seqs_max, .page_tokens = plan->page_tokens};
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        k->window = plan->kv[g].window, k->columns = plan->kv[g].pages_per_seq;
        k->n_pages = k->n_free = pages[g];
        k->pages = ARENA_ARRAY(arena, KvPage, pages[g]);
        k->free = ARENA_ARRAY(arena, uint32_t, pages[g]);
        for (uint32_t i = 0; i < pages[g]; i++) k->free[i] = pages[g] - 1 - i; // the lowest page goes first
        k->newest = k->oldest = NONE;
        for (k->n_buckets = 16; k->n_buckets < pages[g] && k->n_buckets < 1u << 31;) k->n_buckets *= 2;
        k->buckets = ARENA_ARRAY(arena, uint32_t, k->n_buckets);
        memset(k->buckets, 0xFF, k->n_buckets * sizeof *k->buckets);
        k->table = ARENA_ARRAY(arena, int32_t, (size_t)kv->n_slots * k->columns);
        k->first = ARENA_ARRAY(arena, uint32_t, kv->n_slots);
        k->end = ARENA_ARRAY(arena, uint32_t, kv->n_slots);
        k->dirty = ARENA_ARRAY(arena, uint32_t, kv->n_slots);
        k->dirty_end = ARENA_ARRAY(arena, uint32_t, kv->n_slots);
    }
}

// ---- known pages -----------------------------------------------------------------------------------------

static uint32_t *bucket_of(const KvGroup *k, const Sha256 *key) {
    uint32_t h;
    memcpy(&h, key->bytes, sizeof h);
    return &k->buckets[h & (k->n_buckets - 1)];
}

static uint32_t find(const KvGroup *k, const Sha256 *key) { // page; NONE
    uint32_t i = *bucket_of(k, key);
    while (i != NONE && memcmp(&k->pages[i].key, key, sizeof *key) != 0) i = k->pages[i].chain;
    return i;
}

static void unlink_cached(KvGroup *k, uint32_t i) {
    KvPage *p = &k->pages[i];
    *(p->newer == NONE ? &k->newest : &k->pages[p->newer].older) = p->older;
    *(p->older == NONE ? &k->oldest : &k->pages[p->older].newer) = p->newer;
    k->n_cached--;
}

static void link_cached(KvGroup *k, uint32_t i) {
    KvPage *p = &k->pages[i];
    p->newer = NONE, p->older = k->newest;
    *(k->newest == NONE ? &k->oldest : &k->pages[k->newest].newer) = i;
    k->newest = i;
    k->n_cached++;
}

static void forget_page(KvGroup *k, uint32_t i) {
    uint32_t *at = bucket_of(k, &k->pages[i].key);
    while (*at != i) at = &k->pages[*at].chain;
    *at = k->pages[i].chain;
    k->pages[i].known = false;
}

// ---- holding ---------------------------------------------------------------------------------------------

static uint32_t take_page(Kv *kv, KvGroup *k) { // the caller knows that there is one
    uint32_t i;
    if (k->n_free) {
        i = k->free[--k->n_free];
    } else {
        i = k->oldest;
        CHECK(i != NONE);
        unlink_cached(k, i);
        forget_page(k, i);
        kv->evicted++;
    }
    k->pages[i].refs = 1;
    return i;
}

static void hold_page(KvGroup *k, uint32_t i) {
    if (!k->pages[i].refs++) unlink_cached(k, i);
}

static void drop_page(Kv *kv, KvGroup *k, uint32_t i) {
    KvPage *p = &k->pages[i];
    CHECK(p->refs);
    if (--p->refs) return;
    kv->given_back++;
    if (p->known)
        link_cached(k, i);
    else
        k->free[k->n_free++] = i;
}

static int32_t *entry(const KvGroup *k, uint32_t slot, uint32_t j) {
    return &k->table[(size_t)slot * k->columns + j % k->columns];
}

static void set_entry(Kv *kv, KvGroup *k, uint32_t slot, uint32_t j, uint32_t page) {
    uint32_t column = j % k->columns;
    k->table[(size_t)slot * k->columns + column] = (int32_t)page;
    if (k->dirty[slot] == k->dirty_end[slot]) {
        k->dirty[slot] = column, k->dirty_end[slot] = column + 1;
        kv->n_dirty++;
        return;
    }
    k->dirty[slot] = MIN(k->dirty[slot], column);
    k->dirty_end[slot] = MAX(k->dirty_end[slot], column + 1);
}

// First page that a position from `from` on can see.
static uint32_t first_seen(const Kv *kv, const KvGroup *k, uint32_t from) {
    return k->window && from >= k->window ? (from - k->window + 1) / kv->page_tokens : 0;
}

static void drop_before(Kv *kv, KvGroup *k, uint32_t slot, uint32_t first) {
    for (; k->first[slot] < MIN(first, k->end[slot]); k->first[slot]++)
        drop_page(kv, k, (uint32_t)*entry(k, slot, k->first[slot]));
    if (k->first[slot] == k->end[slot]) k->first[slot] = k->end[slot] = MAX(first, k->end[slot]);
}

bool kv_reserve(Kv *kv, uint32_t slot, uint32_t from, uint32_t to) {
    const uint32_t end = (uint32_t)div_up(to, kv->page_tokens);
    bool enough = true;
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        if (k->window) drop_before(kv, k, slot, first_seen(kv, k, from));
        if (end > k->end[slot]) enough &= end - k->end[slot] <= k->n_free + k->n_cached;
    }
    for (uint32_t g = 0; g < kv->n_groups && enough; g++) {
        KvGroup *k = &kv->groups[g];
        CHECK(end <= k->first[slot] + k->columns || end <= k->end[slot]);
        for (; k->end[slot] < end; k->end[slot]++) set_entry(kv, k, slot, k->end[slot], take_page(kv, k));
    }
    return enough;
}

uint32_t kv_reach(const Kv *kv, uint32_t from) {
    uint64_t reach = UINT32_MAX;
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        const KvGroup *k = &kv->groups[g];
        reach = MIN(reach, ((uint64_t)first_seen(kv, k, from) + k->columns) * kv->page_tokens);
    }
    return (uint32_t)reach;
}

bool kv_holds(const Kv *kv, uint32_t slot, uint32_t pos) {
    for (uint32_t g = 0; g < kv->n_groups; g++)
        if (pos / kv->page_tokens >= kv->groups[g].end[slot]) return false;
    return true;
}

static void drop_behind(Kv *kv, KvGroup *k, uint32_t slot, uint32_t end) {
    while (k->end[slot] > MAX(end, k->first[slot])) {
        k->end[slot]--;
        drop_page(kv, k, (uint32_t)*entry(k, slot, k->end[slot]));
    }
}

void kv_trim(Kv *kv, uint32_t slot, uint32_t tokens) {
    for (uint32_t g = 0; g < kv->n_groups; g++)
        drop_behind(kv, &kv->groups[g], slot, (uint32_t)div_up(tokens, kv->page_tokens));
}

// The last pages first: of a prefix, what comes later is forgotten earlier.
void kv_release(Kv *kv, uint32_t slot) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        drop_behind(kv, k, slot, 0);
        k->first[slot] = k->end[slot] = 0;
    }
}

// ---- sharing ---------------------------------------------------------------------------------------------

static bool own(const KvGroup *k, uint32_t slot, uint32_t j) {
    return slot != NONE && j >= k->first[slot] && j < k->end[slot];
}

static bool usable(const KvGroup *k, uint32_t slot, const Sha256 *keys, uint32_t j, uint64_t now,
                   bool *young) {
    if (own(k, slot, j)) return true;
    uint32_t i = find(k, &keys[j]);
    if (i == NONE) return false;
    if (k->pages[i].since < now) return true;
    *young = true;
    return false;
}

// Pages that full-attention groups have from the first on.
static uint32_t match_full(const Kv *kv, uint32_t slot, const Sha256 *keys, uint32_t n_keys, uint64_t now,
                           bool *pending) {
    uint32_t n = n_keys;
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        const KvGroup *k = &kv->groups[g];
        bool young = false;
        if (k->window) continue;
        uint32_t j = slot == NONE ? 0 : MIN(k->end[slot], n);
        while (j < n && usable(k, slot, keys, j, now, &young)) j++;
        if (j < n) *pending = young;
        n = j;
    }
    return n;
}

// The most pages, up to n, after which this window group could go on: it must have what the next position
// sees.
static uint32_t match_window(const Kv *kv, const KvGroup *k, uint32_t slot, const Sha256 *keys, uint32_t n,
                             uint64_t now, bool *pending) {
    for (uint32_t j = n; n && j > first_seen(kv, k, n * kv->page_tokens);) {
        bool young = false;
        if (usable(k, slot, keys, --j, now, &young)) continue;
        *pending |= young;
        n = j;
    }
    return n;
}

uint32_t kv_match(const Kv *kv, uint32_t slot, const Sha256 *keys, uint32_t n_keys, uint64_t now,
                  bool *pending) {
    *pending = false;
    uint32_t n = match_full(kv, slot, keys, n_keys, now, pending), before;
    do { // what one window group lacks may make another lack more
        before = n;
        for (uint32_t g = 0; g < kv->n_groups; g++)
            if (kv->groups[g].window) n = match_window(kv, &kv->groups[g], slot, keys, n, now, pending);
    } while (n != before);
    return n;
}

// Pages that are enough to go on, chunk by chunk: a window group needs no more than what a position sees, its
// own page and one to grow.
static uint32_t pages_to_go_on(const Kv *kv, const KvGroup *k) {
    return k->window ? MIN(k->columns, (uint32_t)div_up(k->window, kv->page_tokens) + 2) : k->columns;
}

bool kv_has_room(const Kv *kv, const Sha256 *keys, uint32_t n_shared, uint32_t tokens,
                 const uint64_t *spare) {
    const uint32_t end = (uint32_t)div_up(tokens, kv->page_tokens);
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        const KvGroup *k = &kv->groups[g];
        const uint32_t first = first_seen(kv, k, n_shared * kv->page_tokens);
        uint32_t need = MIN(end - MIN(end, first), pages_to_go_on(kv, k)), held = 0;
        for (uint32_t j = first; j < n_shared; j++) held += k->pages[find(k, &keys[j])].refs != 0;
        need -= MIN(need, held);
        if (need + spare[g] > k->n_free + k->n_cached) return false;
    }
    return true;
}

uint32_t kv_missing(const Kv *kv, uint32_t g, uint32_t slot, uint32_t tokens) {
    const KvGroup *k = &kv->groups[g];
    const uint32_t end = (uint32_t)div_up(tokens, kv->page_tokens), most = pages_to_go_on(kv, k);
    const uint32_t held = MIN(k->end[slot] - k->first[slot], most);
    return end > k->end[slot] ? MIN(end - k->end[slot], most - held) : 0;
}

void kv_share(Kv *kv, uint32_t slot, const Sha256 *keys, uint32_t n_shared) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        drop_before(kv, k, slot, first_seen(kv, k, n_shared * kv->page_tokens));
        for (; k->end[slot] < n_shared; k->end[slot]++) {
            uint32_t i = find(k, &keys[k->end[slot]]);
            CHECK(i != NONE);
            hold_page(k, i);
            set_entry(kv, k, slot, k->end[slot], i);
        }
    }
}

void kv_publish(Kv *kv, uint32_t slot, uint32_t j, const Sha256 *key, uint64_t step) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        if (!own(k, slot, j) || find(k, key) != NONE) continue;
        uint32_t i = (uint32_t)*entry(k, slot, j), *bucket = bucket_of(k, key);
        KvPage *p = &k->pages[i];
        if (p->known) continue;
        p->key = *key, p->since = step, p->known = true;
        p->chain = *bucket, *bucket = i;
    }
}

void kv_forget(Kv *kv, uint32_t slot) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        KvGroup *k = &kv->groups[g];
        for (uint32_t j = k->first[slot]; j < k->end[slot]; j++) {
            uint32_t i = (uint32_t)*entry(k, slot, j);
            if (k->pages[i].known) forget_page(k, i);
        }
    }
}

// ---- the device's tables ---------------------------------------------------------------------------------

uint32_t kv_writes(Kv *kv, ExecWrite *w) {
    uint32_t n = 0;
    for (uint32_t g = 0; g < kv->n_groups && kv->n_dirty; g++) {
        KvGroup *k = &kv->groups[g];
        for (uint32_t s = 0; s < kv->n_slots && kv->n_dirty; s++) {
            if (k->dirty[s] == k->dirty_end[s]) continue;
            const size_t at = (size_t)s * k->columns + k->dirty[s];
            w[n++] = (ExecWrite){ADA_ROLE_BLOCK_TABLE, g, at * sizeof *k->table,
                                 (k->dirty_end[s] - k->dirty[s]) * sizeof *k->table, &k->table[at]};
            k->dirty[s] = k->dirty_end[s] = 0;
            kv->n_dirty--;
        }
    }
    return n;
}

// ---- looking ---------------------------------------------------------------------------------------------

bool kv_writable(const Kv *kv, uint32_t slot, uint32_t pos) {
    for (uint32_t g = 0; g < kv->n_groups; g++) {
        const KvGroup *k = &kv->groups[g];
        if (!own(k, slot, pos / kv->page_tokens)) return false;
        const KvPage *p = &k->pages[*entry(k, slot, pos / kv->page_tokens)];
        if (p->refs != 1 || p->known) return false;
    }
    return true;
}

uint32_t kv_unheld(const Kv *kv, uint32_t group) {
    return kv->groups[group].n_free + kv->groups[group].n_cached;
}

static bool lists_consistent(const KvGroup *k, uint32_t *seen) { // seen[n_pages], zeroed
    uint32_t cached = 0, newer = NONE;
    for (uint32_t i = 0; i < k->n_free; i++) {
        const KvPage *p = &k->pages[k->free[i]];
        if (p->refs || p->known || seen[k->free[i]]++) return false;
    }
    for (uint32_t i = k->newest; i != NONE; newer = i, i = k->pages[i].older, cached++)
        if (k->pages[i].refs || !k->pages[i].known || k->pages[i].newer != newer || seen[i]++) return false;
    return k->oldest == newer && cached == k->n_cached;
}

static bool group_consistent(const Kv *kv, const KvGroup *k, Arena *a) {
    uint32_t *seen = ARENA_ARRAY(a, uint32_t, k->n_pages), *held = ARENA_ARRAY(a, uint32_t, k->n_pages);
    if (!lists_consistent(k, seen)) return false;
    for (uint32_t s = 0; s < kv->n_slots; s++) {
        if (k->first[s] > k->end[s] || k->end[s] - k->first[s] > k->columns) return false;
        for (uint32_t j = k->first[s]; j < k->end[s]; j++) {
            int32_t i = *entry(k, s, j);
            if (i < 0 || (uint32_t)i >= k->n_pages) return false;
            held[i]++;
        }
    }
    for (uint32_t i = 0; i < k->n_pages; i++) {
        const KvPage *p = &k->pages[i];
        if (p->refs != held[i] || seen[i] != (p->refs == 0)) return false;
        if (p->known && find(k, &p->key) != i) return false;
    }
    return true;
}

bool kv_consistent(const Kv *kv) {
    Arena a = {0};
    bool ok = true;
    for (uint32_t g = 0; g < kv->n_groups; g++) ok &= group_consistent(kv, &kv->groups[g], &a);
    arena_free(&a);
    return ok;
}
