#include "runtime/device/null_queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/err.h"

typedef struct Item Item;
struct Item {
    Item *next;
    size_t pad; // what follows is aligned to 16
    char what[];
};

struct NullQueue {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, idle;
    Item *first, **end;
    bool busy, stop;
    NullWork *work;
    void *ctx;
};

static void *serve(void *arg) {
    NullQueue *q = arg;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->first && !q->stop) pthread_cond_wait(&q->more, &q->lock);
        Item *i = q->first;
        if (!i) break;
        q->first = i->next;
        if (!q->first) q->end = &q->first;
        q->busy = true;
        pthread_mutex_unlock(&q->lock);
        q->work(q->ctx, i->what);
        free(i);
        pthread_mutex_lock(&q->lock);
        q->busy = false;
        if (!q->first) pthread_cond_broadcast(&q->idle);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

NullQueue *null_queue_new(NullWork *work, void *ctx) {
    NullQueue *q = xmalloc(sizeof *q);
    *q = (NullQueue){.work = work, .ctx = ctx};
    q->end = &q->first;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->more, NULL);
    pthread_cond_init(&q->idle, NULL);
    CHECK(pthread_create(&q->thread, NULL, serve, q) == 0);
    return q;
}

void null_queue_push(NullQueue *q, const void *what, size_t bytes, const void *more, size_t more_bytes) {
    Item *i = xmalloc(sizeof *i + bytes + more_bytes);
    i->next = NULL;
    memcpy(i->what, what, bytes);
    if (more_bytes) memcpy(i->what + bytes, more, more_bytes);
    pthread_mutex_lock(&q->lock);
    *q->end = i, q->end = &i->next;
    pthread_cond_signal(&q->more);
    pthread_mutex_unlock(&q->lock);
}

bool null_queue_idle(NullQueue *q) {
    pthread_mutex_lock(&q->lock);
    const bool idle = !q->first && !q->busy;
    pthread_mutex_unlock(&q->lock);
    return idle;
}

void null_queue_wait(NullQueue *q) {
    pthread_mutex_lock(&q->lock);
    while (q->first || q->busy) pthread_cond_wait(&q->idle, &q->lock);
    pthread_mutex_unlock(&q->lock);
}

void null_queue_free(NullQueue *q) {
    if (!q) return;
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_signal(&q->more);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->more);
    pthread_cond_destroy(&q->idle);
    free(q);
}
