#include "runtime/device/group.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"

struct Group {
    pthread_mutex_t lock;
    pthread_cond_t turn;
    uint32_t n_ranks, n_left; // n_left: ranks that have not left
    uint32_t waiting, round;
    bool aborted;
    Err why;
    const float **published; // [n_ranks]: the buffer of the collective under way
};

Group *group_new(uint32_t n_ranks) {
    Group *g = xmalloc(sizeof *g);
    *g = (Group){.n_ranks = n_ranks, .n_left = n_ranks};
    g->published = xrealloc(NULL, n_ranks, sizeof *g->published);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->turn, NULL);
    return g;
}

void group_leave(Group *g) {
    pthread_mutex_lock(&g->lock);
    bool last = --g->n_left == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last) return;
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->turn);
    free(g->published);
    free(g);
}

void group_abort(Group *g, uint32_t rank, const Err *why) {
    pthread_mutex_lock(&g->lock);
    if (!g->aborted) {
        g->aborted = true, g->why = *why;
        err_context(&g->why, "rank %u", rank);
    }
    pthread_cond_broadcast(&g->turn);
    pthread_mutex_unlock(&g->lock);
}

static bool meet(Group *g, Err *e) {
    pthread_mutex_lock(&g->lock);
    uint32_t round = g->round;
    if (!g->aborted && ++g->waiting == g->n_ranks) {
        g->waiting = 0, g->round++;
        pthread_cond_broadcast(&g->turn);
    }
    while (!g->aborted && g->round == round) pthread_cond_wait(&g->turn, &g->lock);
    bool ok = g->round != round; // everybody came, whatever happened since
    if (!ok) *e = g->why;
    pthread_mutex_unlock(&g->lock);
    return ok;
}

bool group_all_reduce(Group *g, uint32_t rank, float *data, uint64_t n, Err *e) {
    g->published[rank] = data;
    if (!meet(g, e)) return false;
    // Each rank sums one slice and gives it to all: slices do not meet, so no copy is needed.
    for (uint64_t i = n * rank / g->n_ranks; i < n * (rank + 1) / g->n_ranks; i++) {
        float sum = g->published[0][i];
        for (uint32_t r = 1; r < g->n_ranks; r++) sum += g->published[r][i];
        for (uint32_t r = 0; r < g->n_ranks; r++) ((float *)g->published[r])[i] = sum;
    }
    return meet(g, e);
}

bool group_all_gather(Group *g, uint32_t rank, const float *src, float *dst, uint32_t rows, uint32_t cols,
                      Err *e) {
    g->published[rank] = src;
    if (!meet(g, e)) return false;
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t r = 0; r < g->n_ranks; r++)
            memcpy(dst + ((uint64_t)row * g->n_ranks + r) * cols, g->published[r] + (uint64_t)row * cols,
                   cols * sizeof(float));
    return meet(g, e);
}
