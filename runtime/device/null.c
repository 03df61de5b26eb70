#include "runtime/device/null.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/device/drivers.h"
#include "runtime/device/null_draw.h"
#include "runtime/device/null_queue.h"

enum { NULL_ARGS_MAX = 16, NULL_FREE_BYTES_LOG2 = 34 };

typedef struct NullMemory NullMemory;
struct NullMemory {
    NullMemory *next;
    void *ptr;
    uint64_t bytes;
};

struct DeviceKernel {
    DeviceKernel *next;
    bool draws, advances;
    char name[]; // NUL-terminated
};

struct DeviceCode {
    int unused;
};

typedef struct {
    const DeviceKernel *kernel; // NULL: a collective
    void *args[NULL_ARGS_MAX];
    uint64_t bytes[NULL_ARGS_MAX]; // of the memory behind each, for kernels that do something
    uint32_t n_args;
} NullStep;

struct DeviceGraph {
    DeviceGraph *next;
    NullStep *steps;
    size_t n_steps;
};

typedef struct {
    Device base;
    uint64_t calls, launches, fail_at;
    Err dead;
    NullMemory *memory;
    DeviceKernel *kernels;
    DeviceCode code;
    DeviceGraph *graphs, *capturing;
    void (*on_launch)(void *, const char *, void *const *, uint32_t);
    void *on_launch_ctx;
    NullQueue *queue; // NULL: everything is done at once
} Null;

// What the queue does later: an upload, whose bytes follow; a graph; a launch.
typedef struct {
    void *dst;
    uint64_t bytes;
    DeviceGraph *graph;
    NullStep step;
} NullJob;

static bool call(Device *d, const char *what, Err *e) {
    Null *n = (Null *)d;
    if (n->dead.code == E_NONE && ++n->calls == n->fail_at)
        err_set(&n->dead, E_DEVICE, "null device: call %llu (%s) fails as told", (unsigned long long)n->calls,
                what);
    if (n->dead.code) *e = n->dead;
    return n->dead.code == E_NONE;
}

static bool null_alloc(Device *d, uint64_t bytes, void **out, Err *e) {
    if (!call(d, "alloc", e)) return false;
    Null *n = (Null *)d;
    void *p = NULL;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&p, 256, bytes ? bytes : 1) != 0) {
        err_set(&n->dead, E_MEMORY, "cannot allocate %llu bytes", (unsigned long long)bytes);
        *e = n->dead;
        return false;
    }
    NullMemory *m = xmalloc(sizeof *m);
    *m = (NullMemory){n->memory, memset(p, 0, bytes), bytes};
    n->memory = m;
    *out = p;
    return true;
}

static void null_free(Device *d, void *ptr) {
    for (NullMemory **m = &((Null *)d)->memory; *m; m = &(*m)->next) {
        if ((*m)->ptr != ptr) continue;
        NullMemory *gone = *m;
        *m = gone->next;
        free(gone->ptr), free(gone);
        return;
    }
    CHECK(ptr == NULL);
}

static bool null_adopt(Device *d, const void *data, uint64_t bytes, void **out, Err *e) {
    (void)bytes;
    *out = (void *)data;
    return call(d, "adopt", e);
}

static bool null_upload(Device *d, void *dst, const void *src, uint64_t bytes, Err *e) {
    NullQueue *q = ((Null *)d)->queue;
    if (!call(d, "copy", e)) return false;
    if (q)
        null_queue_push(q, &(NullJob){.dst = dst, .bytes = bytes}, sizeof(NullJob), src, bytes);
    else if (bytes)
        memcpy(dst, src, bytes);
    return true;
}

static bool null_download(Device *d, void *dst, const void *src, uint64_t bytes, Err *e) {
    if (!call(d, "copy", e)) return false;
    if (((Null *)d)->queue) null_queue_wait(((Null *)d)->queue);
    if (bytes) memcpy(dst, src, bytes);
    return true;
}

static bool null_load_code(Device *d, const void *const *images, const uint64_t *bytes, const uint32_t *kinds,
                           uint32_t n, DeviceCode **out, Err *e) {
    (void)images, (void)bytes, (void)kinds, (void)n;
    *out = &((Null *)d)->code;
    return call(d, "load_code", e);
}

static bool null_find_kernel(Device *d, DeviceCode *code, const char *name, DeviceKernel **out, Err *e) {
    (void)code;
    if (!call(d, "find_kernel", e)) return false;
    size_t len = strlen(name) + 1;
    DeviceKernel *k = xmalloc(sizeof *k + len);
    memcpy(k->name, name, len);
    k->draws = !strncmp(name, "sample", 6), k->advances = !strncmp(name, "advance", 7);
    k->next = ((Null *)d)->kernels;
    *out = ((Null *)d)->kernels = k;
    return true;
}

// Bytes from ptr to the end of the memory that it points into; 0: none of this device's, or no place for
// numbers.
static uint64_t bytes_at(const Null *n, const void *ptr) {
    const uintptr_t at = (uintptr_t)ptr;
    for (const NullMemory *m = n->memory; m; m = m->next) {
        const uintptr_t begin = (uintptr_t)m->ptr;
        if (at >= begin && at - begin < m->bytes && at % 8 == 0) return m->bytes - (at - begin);
    }
    return 0;
}

static void run(Null *n, NullStep *s) {
    const DeviceKernel *k = s->kernel;
    n->launches++;
    if (n->on_launch && k)
        n->on_launch(n->on_launch_ctx, k->name, s->args, s->n_args);
    else if (k && k->draws)
        null_draw(s->args, s->bytes, s->n_args);
    else if (k && k->advances)
        null_advance(s->args, s->bytes, s->n_args);
}

static void submit(Null *n, NullStep *s) {
    DeviceGraph *g = n->capturing;
    if (!g && n->queue) null_queue_push(n->queue, &(NullJob){.step = *s}, sizeof(NullJob), NULL, 0);
    if (!g && !n->queue) run(n, s);
    if (!g) return;
    g->steps = xrealloc(g->steps, g->n_steps + 1, sizeof *g->steps);
    g->steps[g->n_steps++] = *s;
}

static bool null_launch(Device *d, const DeviceLaunch *l, Err *e) {
    if (!call(d, "launch", e)) return false;
    CHECK(l->n_args <= NULL_ARGS_MAX);
    NullStep s = {.kernel = l->kernel, .n_args = l->n_args};
    if (l->n_args) memcpy(s.args, l->args, l->n_args * sizeof *s.args);
    for (uint32_t i = 0; (s.kernel->draws || s.kernel->advances) && i < s.n_args; i++)
        s.bytes[i] = bytes_at((const Null *)d, s.args[i]);
    submit((Null *)d, &s);
    return true;
}

static bool null_all_reduce(Device *d, float *data, uint32_t rows, uint32_t cols, Err *e) {
    (void)data, (void)rows, (void)cols;
    if (!call(d, "all_reduce", e)) return false;
    submit((Null *)d, &(NullStep){0});
    return true;
}

static bool null_all_gather(Device *d, const float *src, float *dst, uint32_t rows, uint32_t cols, Err *e) {
    (void)src, (void)dst, (void)rows, (void)cols;
    if (!call(d, "all_gather", e)) return false;
    submit((Null *)d, &(NullStep){0});
    return true;
}

static bool null_capture_begin(Device *d, Err *e) {
    if (!call(d, "capture_begin", e)) return false;
    Null *n = (Null *)d;
    CHECK(!n->capturing);
    n->capturing = xmalloc(sizeof *n->capturing);
    *n->capturing = (DeviceGraph){0};
    return true;
}

static bool null_capture_end(Device *d, DeviceGraph **out, Err *e) {
    if (!call(d, "capture_end", e)) return false;
    Null *n = (Null *)d;
    CHECK(n->capturing);
    *out = n->capturing;
    (*out)->next = n->graphs;
    n->graphs = *out, n->capturing = NULL;
    return true;
}

static void run_graph(Null *n, DeviceGraph *g) {
    for (size_t i = 0; i < g->n_steps; i++) run(n, &g->steps[i]);
}

static void run_job(void *ctx, const void *what) {
    const NullJob *job = what;
    if (job->dst && job->bytes) memcpy(job->dst, job + 1, job->bytes);
    if (job->graph) run_graph(ctx, job->graph);
    NullStep step = job->step;
    if (!job->dst && !job->graph) run(ctx, &step);
}

static bool null_replay(Device *d, DeviceGraph *g, Err *e) {
    Null *n = (Null *)d;
    if (!call(d, "replay", e)) return false;
    if (n->queue)
        null_queue_push(n->queue, &(NullJob){.graph = g}, sizeof(NullJob), NULL, 0);
    else
        run_graph(n, g);
    return true;
}

static bool null_replay_timed(Device *d, DeviceGraph *g, uint32_t times, double *seconds, Err *e) {
    *seconds = (double)times * (double)g->n_steps * 1e-6;
    for (uint32_t i = 0; i <= times; i++)
        if (!null_replay(d, g, e)) return false;
    return true;
}

static void drop_graph(DeviceGraph *g) {
    if (g) free(g->steps);
    free(g);
}

static void null_graph_free(Device *d, DeviceGraph *g) {
    if (((Null *)d)->queue) null_queue_wait(((Null *)d)->queue);
    for (DeviceGraph **at = &((Null *)d)->graphs; *at; at = &(*at)->next) {
        if (*at != g) continue;
        *at = g->next;
        drop_graph(g);
        return;
    }
    CHECK(g == NULL);
}

static bool null_sync(Device *d, Err *e) {
    if (((Null *)d)->queue) null_queue_wait(((Null *)d)->queue);
    return call(d, "sync", e);
}

static bool null_idle(Device *d, bool *idle, Err *e) {
    *idle = !((Null *)d)->queue || null_queue_idle(((Null *)d)->queue);
    return call(d, "idle", e);
}

static bool null_memory(Device *d, uint64_t *free_bytes, uint64_t *total_bytes, Err *e) {
    *free_bytes = *total_bytes = (uint64_t)1 << NULL_FREE_BYTES_LOG2;
    return call(d, "memory", e);
}

static bool null_read_rate(Device *d, const void *data, uint64_t bytes, double *rate, Err *e) {
    (void)data, (void)bytes;
    *rate = 1e9;
    return call(d, "read_rate", e);
}

static void null_close(Device *d) {
    Null *n = (Null *)d;
    null_queue_free(n->queue);
    n->queue = NULL;
    while (n->memory) null_free(d, n->memory->ptr);
    while (n->graphs) null_graph_free(d, n->graphs);
    drop_graph(n->capturing);
    for (DeviceKernel *k = n->kernels, *next; k; k = next) next = k->next, free(k);
    free(n);
}

static const DeviceOps null_ops = {
    .name = "null",
    .alloc = null_alloc,
    .alloc_host = null_alloc,
    .free = null_free,
    .adopt = null_adopt,
    .upload = null_upload,
    .download = null_download,
    .load_code = null_load_code,
    .find_kernel = null_find_kernel,
    .launch = null_launch,
    .all_reduce = null_all_reduce,
    .all_gather = null_all_gather,
    .capture_begin = null_capture_begin,
    .capture_end = null_capture_end,
    .replay = null_replay,
    .graph_free = null_graph_free,
    .replay_timed = null_replay_timed,
    .sync = null_sync,
    .idle = null_idle,
    .memory = null_memory,
    .read_rate = null_read_rate,
    .close = null_close,
};

bool null_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e) {
    (void)threads, (void)e;
    for (uint32_t r = 0; r < n_ranks; r++) {
        Null *n = xmalloc(sizeof *n);
        *n = (Null){.base = {&null_ops, r, n_ranks}};
        out[r] = &n->base;
    }
    return true;
}

uint64_t null_calls(const Device *d) { return ((const Null *)d)->calls; }
uint64_t null_launches(const Device *d) { return ((const Null *)d)->launches; }
void null_work_later(Device *d) {
    Null *n = (Null *)d;
    if (!n->queue) n->queue = null_queue_new(run_job, n);
}
void null_fail_at(Device *d, uint64_t at) { ((Null *)d)->fail_at = at; }
void null_on_launch(Device *d, void (*fn)(void *, const char *, void *const *, uint32_t), void *ctx) {
    if (((Null *)d)->queue) null_queue_wait(((Null *)d)->queue);
    ((Null *)d)->on_launch = fn, ((Null *)d)->on_launch_ctx = ctx;
}
