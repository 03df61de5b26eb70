#include "runtime/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "runtime/base/arena.h"
#include "runtime/base/cores.h"
#include "runtime/base/err.h"

enum { SPINS_BEFORE_SLEEP = 20000 };

struct Pool {
    unsigned n_threads; // the caller included
    pthread_t *threads;
    void (*fn)(void *, uint32_t);
    void *ctx;
    uint32_t n;
    _Atomic uint32_t next;       // next index to hand out
    atomic_bool open;            // the job takes helpers; its fields stay as they are
    _Atomic unsigned inside;     // workers that may be using the job's fields
    _Atomic unsigned generation; // bumped to start a job
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static void work(Pool *p) {
    for (uint32_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) p->fn(p->ctx, i);
}

// Short jobs follow each other closely while tokens are made: spin a little before sleeping.
static void wait_for_job(Pool *p, unsigned seen) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen) return;
        __builtin_ia32_pause();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->generation) == seen) pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void *worker(void *arg) {
    Pool *p = arg;
    for (unsigned seen = 0;;) {
        wait_for_job(p, seen);
        seen = atomic_load(&p->generation);
        if (atomic_load(&p->stop)) return NULL;
        atomic_fetch_add(&p->inside,
                         1); // before the look at `open`, as pool_run closes before it looks at us
        if (atomic_load(&p->open)) work(p);
        atomic_fetch_sub_explicit(&p->inside, 1, memory_order_release);
    }
}

Pool *pool_new(unsigned n_threads) {
    Pool *p = xmalloc(sizeof *p);
    *p = (Pool){.n_threads = n_threads ? n_threads : cores_usable()};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = xmalloc(p->n_threads * sizeof *p->threads);
    for (unsigned i = 1; i < p->n_threads; i++) CHECK(pthread_create(&p->threads[i], NULL, worker, p) == 0);
    return p;
}

static void start_job(Pool *p) {
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->generation, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_free(Pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    start_job(p);
    for (unsigned i = 1; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->threads);
    free(p);
}

unsigned pool_threads(const Pool *p) { return p->n_threads; }

void pool_run(Pool *p, uint32_t n, void (*fn)(void *, uint32_t), void *ctx) {
    p->fn = fn, p->ctx = ctx, p->n = n;
    atomic_store(&p->next, 0);
    if (p->n_threads == 1 || n <= 1) {
        work(p);
        return;
    }
    atomic_store(&p->open, true);
    start_job(p);
    work(p);
    // Nothing is left to hand out: who has not come by now is not waited for. On a busy machine a worker with
    // a share may have lost its core: give ours away instead of waiting it out.
    atomic_store(&p->open, false);
    for (int i = 0; atomic_load(&p->inside); i++) {
        if (i < SPINS_BEFORE_SLEEP)
            __builtin_ia32_pause();
        else
            sched_yield();
    }
}
