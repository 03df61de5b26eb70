// The host as a device: kernels are functions of a shared object, blocks run on a pool of threads.
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/arena.h"
#include "runtime/base/log.h"
#include "runtime/base/num.h"
#include "runtime/base/pool.h"
#include "runtime/device/cpu.h"
#include "runtime/device/drivers.h"
#include "runtime/device/group.h"
#include "runtime/device/plain_read.h"
#include "templates/lib/abi.h"

enum { HOST_ARGS_MAX = 16 };

typedef struct Memory Memory;
struct Memory {
    Memory *next;
    void *ptr;
    size_t bytes;
};

struct DeviceKernel {
    DeviceKernel *next;
    HostKernel *fn;
};

struct DeviceCode {
    DeviceCode *next;
    void *handle;
    int fd; // stays open: dlopen knows images by path, and the path names the descriptor
    DeviceKernel *kernels;
};

typedef struct {
    AdaLaunchKind kind;
    HostKernel *fn;
    void *args[HOST_ARGS_MAX]; // collectives: args[0], args[1]
    uint32_t grid, rows, cols;
} Step;

struct DeviceGraph {
    DeviceGraph *next;
    Step *steps;
    size_t n_steps, cap_steps;
};

typedef struct {
    Device base;
    Group *group;
    Pool *pool;
    Err dead; // first error; code E_NONE while alive
    Memory *memory;
    DeviceCode *codes;
    DeviceGraph *graphs, *capturing;
    uint8_t *scratch; // [threads][scratch_bytes]
    size_t scratch_bytes;
    uint64_t scratch_all; // of the mapping
} Host;

static bool alive(Host *h, Err *e) {
    if (h->dead.code) *e = h->dead;
    return h->dead.code == E_NONE;
}

// Every failing call ends here: the device is dead, and so are the collectives of its group.
static bool die(Host *h, const Err *e) {
    h->dead = *e;
    group_abort(h->group, h->base.rank, e);
    return false;
}

// ---- memory ----------------------------------------------------------------------------------------------

static void *map_zeroed(uint64_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool host_alloc(Device *d, uint64_t bytes, void **out, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    void *p = map_zeroed(bytes);
    if (!p) {
        err_errno(e, E_MEMORY, "cannot allocate %llu bytes", (unsigned long long)bytes);
        return die(h, e);
    }
    Memory *m = xmalloc(sizeof *m);
    *m = (Memory){h->memory, p, bytes ? bytes : 1};
    h->memory = m;
    *out = p;
    return true;
}

static void host_free(Device *d, void *ptr) {
    for (Memory **m = &((Host *)d)->memory; *m; m = &(*m)->next) {
        if ((*m)->ptr != ptr) continue;
        Memory *gone = *m;
        *m = gone->next;
        munmap(gone->ptr, gone->bytes);
        free(gone);
        return;
    }
    CHECK(ptr == NULL);
}

static bool host_adopt(Device *d, const void *data, uint64_t bytes, void **out, Err *e) {
    (void)bytes;
    *out = (void *)data;
    return alive((Host *)d, e);
}

static bool host_upload(Device *d, void *dst, const void *src, uint64_t bytes, Err *e) {
    if (!alive((Host *)d, e)) return false;
    if (bytes) memcpy(dst, src, bytes);
    return true;
}

static bool read_number(const char *path, const char *format, uint64_t *out) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    char line[128];
    unsigned long long n;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) found = sscanf(line, format, &n) == 1;
    fclose(f);
    if (found) *out = n;
    return found;
}

// The machine's memory, or the control group's where that is less.
static bool host_memory(Device *d, uint64_t *free_bytes, uint64_t *total_bytes, Err *e) {
    if (!alive((Host *)d, e)) return false;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), kib, limit, used;
    *total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
    *free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page;
    if (read_number("/proc/meminfo", "MemAvailable: %llu kB", &kib)) *free_bytes = kib * 1024;
    if (read_number("/sys/fs/cgroup/memory.max", "%llu", &limit) &&
        read_number("/sys/fs/cgroup/memory.current", "%llu", &used)) {
        *total_bytes = MIN(*total_bytes, limit);
        *free_bytes = MIN(*free_bytes, limit > used ? limit - used : 0);
    }
    return true;
}

static bool host_read_rate(Device *d, const void *data, uint64_t bytes, double *rate, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    *rate = plain_read(h->pool, data, bytes, READ_ROUNDS);
    return true;
}

// ---- code ------------------------------------------------------------------------------------------------

static bool can_run(uint32_t kind) {
    return kind == ADA_CODE_X86_64 || (kind == ADA_CODE_X86_64_V3 && cpu_has_x86_64_v3());
}

static bool write_fd(int fd, const uint8_t *p, uint64_t n) {
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        p += done, n -= (uint64_t)done;
    }
    return true;
}

static bool open_image(const void *image, uint64_t bytes, DeviceCode *out, Err *e) {
    char path[64];
    out->fd = memfd_create("adallm-kernels", MFD_CLOEXEC);
    if (out->fd < 0) return err_errno(e, E_SYSTEM, "cannot create a memory file for the kernels");
    snprintf(path, sizeof path, "/proc/self/fd/%d", out->fd);
    if (!write_fd(out->fd, image, bytes)) {
        err_errno(e, E_SYSTEM, "cannot write the kernels to memory");
    } else {
        out->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (out->handle) return true;
        err_set(e, E_DEVICE, "cannot load the kernels: %s", dlerror());
    }
    close(out->fd);
    return false;
}

static bool host_load_code(Device *d, const void *const *images, const uint64_t *bytes, const uint32_t *kinds,
                           uint32_t n, DeviceCode **out, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++)
        if (can_run(kinds[i]) && (best == n || kinds[i] > kinds[best])) best = i;
    if (best == n) {
        err_set(e, E_DEVICE, "none of the %u code images runs on this processor; the host needs x86-64", n);
        return die(h, e);
    }
    DeviceCode *code = xmalloc(sizeof *code);
    *code = (DeviceCode){.next = h->codes};
    if (!open_image(images[best], bytes[best], code, e)) {
        free(code);
        return die(h, e);
    }
    *out = h->codes = code;
    return true;
}

static bool host_find_kernel(Device *d, DeviceCode *code, const char *name, DeviceKernel **out, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    void *symbol = dlsym(code->handle, name);
    if (!symbol) {
        err_set(e, E_DEVICE, "the code image has no kernel `%s`", name);
        return die(h, e);
    }
    DeviceKernel *k = xmalloc(sizeof *k);
    k->next = code->kernels;
    memcpy(&k->fn, &symbol, sizeof symbol); // ISO C has no conversion from object to function pointers
    *out = code->kernels = k;
    return true;
}

static void close_code(DeviceCode *code) {
    for (DeviceKernel *k = code->kernels, *next; k; k = next) next = k->next, free(k);
    dlclose(code->handle);
    close(code->fd);
    free(code);
}

// ---- launches --------------------------------------------------------------------------------------------

typedef struct {
    const Step *step;
    uint8_t *scratch;
    size_t scratch_bytes;
    _Atomic uint32_t next;
} Run;

// One lane of a launch: takes blocks until none is left, with scratch of its own.
static void run_lane(void *ctx, uint32_t lane) {
    Run *r = ctx;
    void *scratch = r->scratch + lane * r->scratch_bytes;
    for (uint32_t block;
         (block = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed)) < r->step->grid;)
        r->step->fn(r->step->args, block, r->step->grid, scratch);
}

static bool run_step(Host *h, Step *s, Err *e) {
    bool ok = true;
    if (s->kind == ADA_LAUNCH_KERNEL) {
        Run run = {.step = s, .scratch = h->scratch, .scratch_bytes = h->scratch_bytes};
        pool_run(h->pool, MIN(s->grid, pool_threads(h->pool)), run_lane, &run);
    } else if (s->kind == ADA_LAUNCH_ALL_REDUCE) {
        ok = group_all_reduce(h->group, h->base.rank, s->args[0], (uint64_t)s->rows * s->cols, e);
    } else {
        ok = group_all_gather(h->group, h->base.rank, s->args[0], s->args[1], s->rows, s->cols, e);
    }
    return ok || die(h, e);
}

// Runs now, or records while capturing.
static bool submit(Host *h, Step *s, Err *e) {
    DeviceGraph *g = h->capturing;
    if (!g) return run_step(h, s, e);
    if (g->n_steps == g->cap_steps) {
        g->cap_steps = g->cap_steps ? g->cap_steps * 2 : 64;
        g->steps = xrealloc(g->steps, g->cap_steps, sizeof *g->steps);
    }
    g->steps[g->n_steps++] = *s;
    return true;
}

static bool ensure_scratch(Host *h, uint64_t bytes, Err *e) {
    if (bytes <= h->scratch_bytes) return true;
    bytes = round_up(bytes, 4096);
    uint64_t all;
    void *p = u64_mul(bytes, pool_threads(h->pool), &all) ? map_zeroed(all) : NULL;
    if (!p)
        return err_set(e, E_MEMORY, "cannot allocate %llu bytes of scratch a thread",
                       (unsigned long long)bytes);
    if (h->scratch) munmap(h->scratch, h->scratch_all);
    h->scratch = p, h->scratch_bytes = bytes, h->scratch_all = all;
    return true;
}

static bool host_launch(Device *d, const DeviceLaunch *l, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    if (l->n_args > HOST_ARGS_MAX || l->grid == 0) {
        err_set(e, E_DEVICE, "launch of %s with %u arguments and %u blocks; at most %d and at least 1",
                l->name, l->n_args, l->grid, HOST_ARGS_MAX);
        return die(h, e);
    }
    if (!ensure_scratch(h, l->shared_bytes, e)) return die(h, e);
    Step s = {.kind = ADA_LAUNCH_KERNEL, .fn = l->kernel->fn, .grid = l->grid};
    if (l->n_args) memcpy(s.args, l->args, l->n_args * sizeof *s.args);
    return submit(h, &s, e);
}

static bool host_all_reduce(Device *d, float *data, uint32_t rows, uint32_t cols, Err *e) {
    Host *h = (Host *)d;
    Step s = {.kind = ADA_LAUNCH_ALL_REDUCE, .args = {data}, .rows = rows, .cols = cols};
    return alive(h, e) && submit(h, &s, e);
}

static bool host_all_gather(Device *d, const float *src, float *dst, uint32_t rows, uint32_t cols, Err *e) {
    Host *h = (Host *)d;
    Step s = {.kind = ADA_LAUNCH_ALL_GATHER, .args = {(void *)src, dst}, .rows = rows, .cols = cols};
    return alive(h, e) && submit(h, &s, e);
}

static bool host_sync(Device *d, Err *e) { return alive((Host *)d, e); }

static bool host_idle(Device *d, bool *idle, Err *e) {
    *idle = true;
    return alive((Host *)d, e);
}

// ---- graphs ----------------------------------------------------------------------------------------------

static bool host_capture_begin(Device *d, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    if (h->capturing) {
        err_set(e, E_DEVICE, "a capture begins inside a capture");
        return die(h, e);
    }
    h->capturing = xmalloc(sizeof *h->capturing);
    *h->capturing = (DeviceGraph){0};
    return true;
}

static bool host_capture_end(Device *d, DeviceGraph **out, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    if (!h->capturing) {
        err_set(e, E_DEVICE, "a capture ends that never began");
        return die(h, e);
    }
    *out = h->capturing;
    (*out)->next = h->graphs;
    h->graphs = *out;
    h->capturing = NULL;
    return true;
}

static bool host_replay(Device *d, DeviceGraph *g, Err *e) {
    Host *h = (Host *)d;
    if (!alive(h, e)) return false;
    for (size_t i = 0; i < g->n_steps; i++)
        if (!run_step(h, &g->steps[i], e)) return false;
    return true;
}

static bool host_replay_timed(Device *d, DeviceGraph *g, uint32_t times, double *seconds, Err *e) {
    if (!host_replay(d, g, e)) return false;
    const double begin = clock_s();
    for (uint32_t i = 0; i < times; i++)
        if (!host_replay(d, g, e)) return false;
    *seconds = clock_s() - begin;
    return true;
}

static void drop_graph(DeviceGraph *g) {
    if (g) free(g->steps);
    free(g);
}

static void host_graph_free(Device *d, DeviceGraph *g) {
    for (DeviceGraph **at = &((Host *)d)->graphs; *at; at = &(*at)->next) {
        if (*at != g) continue;
        *at = g->next;
        drop_graph(g);
        return;
    }
    CHECK(g == NULL);
}

// ---- opening and closing ---------------------------------------------------------------------------------

static void host_close(Device *d) {
    Host *h = (Host *)d;
    Err closed;
    err_set(&closed, E_DEVICE, "the device was closed");
    group_abort(h->group, d->rank, &closed); // nobody waits for a rank that is gone
    group_leave(h->group);
    pool_free(h->pool);
    while (h->memory) host_free(d, h->memory->ptr);
    while (h->graphs) host_graph_free(d, h->graphs);
    drop_graph(h->capturing);
    for (DeviceCode *c = h->codes, *next; c; c = next) next = c->next, close_code(c);
    if (h->scratch) munmap(h->scratch, h->scratch_all);
    free(h);
}

static const DeviceOps host_ops = {
    .name = "host",
    .alloc = host_alloc,
    .alloc_host = host_alloc,
    .free = host_free,
    .adopt = host_adopt,
    .upload = host_upload,
    .download = host_upload,
    .load_code = host_load_code,
    .find_kernel = host_find_kernel,
    .launch = host_launch,
    .all_reduce = host_all_reduce,
    .all_gather = host_all_gather,
    .capture_begin = host_capture_begin,
    .capture_end = host_capture_end,
    .replay = host_replay,
    .graph_free = host_graph_free,
    .replay_timed = host_replay_timed,
    .sync = host_sync,
    .idle = host_idle,
    .memory = host_memory,
    .read_rate = host_read_rate,
    .close = host_close,
};

bool host_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e) {
    (void)e;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (threads == 0) threads = cores > (long)n_ranks ? (uint32_t)cores / n_ranks : 1;
    Group *g = group_new(n_ranks);
    for (uint32_t r = 0; r < n_ranks; r++) {
        Host *h = xmalloc(sizeof *h);
        *h = (Host){.base = {&host_ops, r, n_ranks}, .group = g, .pool = pool_new(threads)};
        out[r] = &h->base;
    }
    return true;
}
