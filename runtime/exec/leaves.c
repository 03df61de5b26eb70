#include "runtime/exec/leaves.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"

struct Leaves {
    const Artifact *a;
    Pool *pool;
    const uint8_t *data, *hashes;
    uint64_t covered; // bytes of data
    _Atomic uint32_t first_bad;
    _Atomic bool give_up;
    pthread_t thread;
    double seconds;
};

static Leaves leaves_of(const Artifact *a, Pool *pool) {
    Str hashes;
    CHECK(artifact_section(a, ADA_HASHES, 0, &hashes));
    const uint8_t *data = a->data + ADA_SUPERBLOCK_BYTES, *end = (const uint8_t *)hashes.ptr;
    return (Leaves){.a = a,
                    .pool = pool,
                    .data = data,
                    .hashes = end,
                    .covered = (uint64_t)(end - data),
                    .first_bad = UINT32_MAX};
}

static void check_leaf(void *ctx, uint32_t i) {
    Leaves *l = ctx;
    uint64_t at = (uint64_t)i * ADA_LEAF_BYTES;
    if (atomic_load_explicit(&l->give_up, memory_order_relaxed)) return;
    Sha256 h = sha256(l->data + at, MIN(l->covered - at, (uint64_t)ADA_LEAF_BYTES));
    if (memcmp(h.bytes, l->hashes + (uint64_t)i * 32, 32) == 0) return;
    uint32_t seen = atomic_load(&l->first_bad);
    while (i < seen && !atomic_compare_exchange_weak(&l->first_bad, &seen, i)) continue;
}

static void check_all(Leaves *l) {
    const double begin = clock_s();
    const uint32_t n = (uint32_t)div_up(l->covered, ADA_LEAF_BYTES);
    if (l->pool)
        pool_run(l->pool, n, check_leaf, l);
    else
        for (uint32_t i = 0; i < n; i++) check_leaf(l, i);
    l->seconds = clock_s() - begin;
}

static const char *section_at(const Artifact *a, uint64_t offset) {
    const char *name = "section table";
    for (uint32_t i = 0; i < a->super->n_sections; i++)
        if (a->sections[i].offset <= offset) name = artifact_section_name(a->sections[i].kind);
    return name;
}

static bool judge(const Leaves *l, Err *e) {
    const uint32_t bad = atomic_load(&l->first_bad);
    if (bad == UINT32_MAX) return true;
    const uint64_t begin = ADA_SUPERBLOCK_BYTES + (uint64_t)bad * ADA_LEAF_BYTES;
    const uint64_t end = MIN(begin + ADA_LEAF_BYTES, ADA_SUPERBLOCK_BYTES + l->covered);
    return err_set(e, E_ARTIFACT_HASH,
                   "leaf %u (offset %llu to %llu, begins in the %s) does not match its SHA-256", bad,
                   (unsigned long long)begin, (unsigned long long)end, section_at(l->a, begin));
}

bool leaves_check(const Artifact *a, Pool *pool, Err *e) {
    Leaves l = leaves_of(a, pool);
    check_all(&l);
    return judge(&l, e);
}

// ---- beside something else -------------------------------------------------------------------------------

static void *run(void *l) {
    check_all(l);
    return NULL;
}

Leaves *leaves_begin(const Artifact *a, Pool *pool) {
    Leaves *l = xmalloc(sizeof *l);
    *l = leaves_of(a, pool);
    CHECK(pthread_create(&l->thread, NULL, run, l) == 0);
    return l;
}

bool leaves_end(Leaves *l, bool give_up, double *seconds, Err *e) {
    atomic_store(&l->give_up, give_up);
    pthread_join(l->thread, NULL);
    *seconds = l->seconds;
    bool ok = judge(l, e);
    free(l);
    return ok;
}
