#include "runtime/exec/ranks.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "runtime/base/arena.h"

enum { SPINS_BEFORE_SLEEP = 4000 };

typedef struct {
    Ranks *group;
    uint32_t rank;
    pthread_t thread;
    bool ok;
    Err err;
} Worker;

struct Ranks {
    uint32_t n;
    Worker *workers; // [n]; number 0 is the caller
    RankJob *job;
    void *ctx;
    _Atomic unsigned generation; // bumped to start a job
    _Atomic uint32_t busy;       // workers that have not finished it
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static void wait_for_job(Ranks *r, unsigned seen) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&r->generation, memory_order_acquire) != seen) return;
        __builtin_ia32_pause();
    }
    pthread_mutex_lock(&r->lock);
    while (atomic_load(&r->generation) == seen) pthread_cond_wait(&r->wake, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static void *work(void *arg) {
    Worker *w = arg;
    for (unsigned seen = 0;; seen++) {
        wait_for_job(w->group, seen);
        if (atomic_load(&w->group->stop)) return NULL;
        w->ok = w->group->job(w->group->ctx, w->rank, &w->err);
        atomic_fetch_sub_explicit(&w->group->busy, 1, memory_order_release);
    }
}

Ranks *ranks_new(uint32_t n_ranks) {
    Ranks *r = xmalloc(sizeof *r);
    *r = (Ranks){.n = n_ranks, .workers = xrealloc(NULL, n_ranks, sizeof(Worker))};
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    for (uint32_t i = 0; i < n_ranks; i++) r->workers[i] = (Worker){.group = r, .rank = i};
    for (uint32_t i = 1; i < n_ranks; i++)
        CHECK(pthread_create(&r->workers[i].thread, NULL, work, &r->workers[i]) == 0);
    return r;
}

static void start_job(Ranks *r) {
    pthread_mutex_lock(&r->lock);
    atomic_fetch_add(&r->generation, 1);
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void ranks_free(Ranks *r) {
    if (!r) return;
    atomic_store(&r->stop, true);
    start_job(r);
    for (uint32_t i = 1; i < r->n; i++) pthread_join(r->workers[i].thread, NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->wake);
    free(r->workers);
    free(r);
}

bool ranks_run(Ranks *r, RankJob *job, void *ctx, Err *e) {
    if (r->n == 1) return job(ctx, 0, e);
    r->job = job, r->ctx = ctx;
    atomic_store(&r->busy, r->n - 1);
    start_job(r);
    r->workers[0].ok = job(ctx, 0, &r->workers[0].err);
    for (unsigned spins = 0; atomic_load_explicit(&r->busy, memory_order_acquire); spins++)
        if (spins < SPINS_BEFORE_SLEEP)
            __builtin_ia32_pause();
        else
            sched_yield();
    for (uint32_t i = 0; i < r->n; i++)
        if (!r->workers[i].ok) {
            *e = r->workers[i].err;
            return err_context(e, "rank %u", i);
        }
    return true;
}
