// Threads that prepare requests: a long prompt must not hold up the streams of others.
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/server/http.h"

struct Workers {
    const ApiModel *model;
    RuleBook *book;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    Call *first, *last, *done;
    pthread_t *threads;
    uint32_t n;
    int fd;
    bool stop;
};

static void *work(void *ctx) {
    Workers *w = ctx;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->first && !w->stop) pthread_cond_wait(&w->wake, &w->lock);
        if (!w->first) break;
        Call *c = w->first;
        w->first = c->next_work;
        if (!w->first) w->last = NULL;
        pthread_mutex_unlock(&w->lock);
        c->failed = !c->route->work(w->model, w->book, c);
        pthread_mutex_lock(&w->lock);
        c->next_work = w->done;
        w->done = c;
        if (eventfd_write(w->fd, 1) < 0) abort();
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

Workers *workers_new(uint32_t n, const ApiModel *m, RuleBook *book, Err *e) {
    Workers *w = xmalloc(sizeof *w);
    *w = (Workers){.model = m, .book = book, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->threads = xmalloc(n * sizeof *w->threads);
    while (w->fd >= 0 && w->n < n && !(errno = pthread_create(&w->threads[w->n], NULL, work, w))) w->n++;
    if (w->n == n) return w;
    err_errno(e, E_SYSTEM, "cannot start the threads that prepare requests");
    workers_free(w);
    return NULL;
}

void workers_free(Workers *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->n; i++) pthread_join(w->threads[i], NULL);
    if (w->fd >= 0) close(w->fd);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w->threads);
    free(w);
}

int workers_fd(const Workers *w) { return w->fd; }

void workers_push(Workers *w, Call *c) {
    pthread_mutex_lock(&w->lock);
    c->next_work = NULL;
    if (w->last)
        w->last->next_work = c;
    else
        w->first = c;
    w->last = c;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

Call *workers_next(Workers *w) {
    eventfd_t ignored;
    pthread_mutex_lock(&w->lock);
    Call *c = w->done;
    if (c)
        w->done = c->next_work;
    else
        (void)!eventfd_read(w->fd, &ignored);
    pthread_mutex_unlock(&w->lock);
    return c;
}
