// A CUDA GPU as a device, over the runtime API, linked statically: the program starts where no driver is.
#include "runtime/device/cuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/arena.h"
#include "runtime/device/drivers.h"

struct DeviceGraph {
    DeviceGraph *next;
    cudaGraphExec_t exec;
};

bool cuda_alive(Cuda *c, Err *e) {
    if (c->dead.code) *e = c->dead;
    return c->dead.code == E_NONE;
}

bool cuda_die(Cuda *c, const Err *e) {
    c->dead = *e;
    return false;
}

bool cuda_ok(Cuda *c, cudaError_t error, Err *e, const char *what, ...) {
    if (error == cudaSuccess) return true;
    char text[512];
    va_list ap;
    va_start(ap, what);
    vsnprintf(text, sizeof text, what, ap);
    va_end(ap);
    cudaGetLastError(); // forgets what is not sticky
    err_set(e, error == cudaErrorMemoryAllocation ? E_MEMORY : E_DEVICE, "%s: %s: %s", text,
            cudaGetErrorName(error), cudaGetErrorString(error));
    return cuda_die(c, e);
}

// ---- collectives -----------------------------------------------------------------------------------------

static bool refuse_collective(Cuda *c, const char *what, Err *e) {
    if (!cuda_alive(c, e)) return false;
    err_set(e, E_DEVICE, "%s: the CUDA driver runs one rank; compile with tp 1 for GPUs", what);
    return cuda_die(c, e);
}

static bool cuda_all_reduce(Device *d, float *data, uint32_t rows, uint32_t cols, Err *e) {
    (void)data, (void)rows, (void)cols;
    return refuse_collective((Cuda *)d, "all_reduce", e);
}

static bool cuda_all_gather(Device *d, const float *src, float *dst, uint32_t rows, uint32_t cols, Err *e) {
    (void)src, (void)dst, (void)rows, (void)cols;
    return refuse_collective((Cuda *)d, "all_gather", e);
}

// ---- graphs ----------------------------------------------------------------------------------------------

static bool cuda_capture_begin(Device *d, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e)) return false;
    if (!cuda_ok(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), e,
                 "a capture begins"))
        return false;
    c->capturing = true;
    return true;
}

static bool cuda_capture_end(Device *d, DeviceGraph **out, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e)) return false;
    c->capturing = false;
    cudaGraph_t graph;
    if (!cuda_ok(c, cudaStreamEndCapture(c->stream, &graph), e, "a capture ends")) return false;
    cudaGraphExec_t exec;
    cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    if (!cuda_ok(c, error, e, "cannot make a graph of a capture")) return false;
    DeviceGraph *g = xmalloc(sizeof *g);
    *g = (DeviceGraph){c->graphs, exec};
    *out = c->graphs = g;
    return cuda_ok(c, cudaGraphUpload(exec, c->stream), e, "cannot bring a graph to the device");
}

static bool cuda_replay(Device *d, DeviceGraph *g, Err *e) {
    Cuda *c = (Cuda *)d;
    return cuda_alive(c, e) && cuda_ok(c, cudaGraphLaunch(g->exec, c->stream), e, "a graph replay");
}

static bool cuda_replay_timed(Device *d, DeviceGraph *g, uint32_t times, double *seconds, Err *e) {
    Cuda *c = (Cuda *)d;
    CudaTimer t;
    if (!cuda_alive(c, e) || !cuda_timer(c, &t, e)) return false;
    // The first replay hides how long it takes to launch the others.
    bool ok = cuda_replay(d, g, e) && cuda_ok(c, cudaEventRecord(t.begin, c->stream), e, "cannot record");
    for (uint32_t i = 0; ok && i < times; i++) ok = cuda_replay(d, g, e);
    return cuda_timer_end(c, &t, ok, seconds, e);
}

static void cuda_graph_free(Device *d, DeviceGraph *g) {
    for (DeviceGraph **at = &((Cuda *)d)->graphs; *at; at = &(*at)->next) {
        if (*at != g) continue;
        *at = g->next;
        cudaGraphExecDestroy(g->exec);
        free(g);
        return;
    }
    CHECK(g == NULL);
}

// ---- opening and closing ---------------------------------------------------------------------------------

// Launches fail where they are noticed, not where they run: only eager launches know their kernel.
static bool cuda_sync(Device *d, Err *e) {
    Cuda *c = (Cuda *)d;
    return cuda_alive(c, e) && cuda_ok(c, cudaStreamSynchronize(c->stream), e, "what was launched failed");
}

static bool cuda_idle(Device *d, bool *idle, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e)) return false;
    cudaError_t error = cudaStreamQuery(c->stream);
    *idle = error != cudaErrorNotReady;
    return !*idle || cuda_ok(c, error, e, "what was launched failed");
}

static bool cuda_memory(Device *d, uint64_t *free_bytes, uint64_t *total_bytes, Err *e) {
    Cuda *c = (Cuda *)d;
    size_t free_now, total;
    if (!cuda_alive(c, e) || !cuda_ok(c, cudaMemGetInfo(&free_now, &total), e, "cannot ask for the memory"))
        return false;
    *free_bytes = free_now, *total_bytes = total;
    return true;
}

static void cuda_close(Device *d) {
    Cuda *c = (Cuda *)d;
    if (c->capturing) {
        cudaGraph_t graph = NULL;
        if (cudaStreamEndCapture(c->stream, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
    }
    if (c->stream) cudaStreamSynchronize(c->stream);
    while (c->graphs) cuda_graph_free(d, c->graphs);
    cuda_codes_free(c);
    while (c->memory) cuda_free(d, c->memory->ptr);
    if (c->page) cudaFreeHost(c->page);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c);
}

static const DeviceOps cuda_ops = {
    .name = "cuda",
    .alloc = cuda_alloc,
    .alloc_host = cuda_alloc_host,
    .free = cuda_free,
    .adopt = cuda_adopt,
    .upload = cuda_upload,
    .download = cuda_download,
    .load_code = cuda_load_code,
    .find_kernel = cuda_find_kernel,
    .launch = cuda_launch,
    .all_reduce = cuda_all_reduce,
    .all_gather = cuda_all_gather,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .replay = cuda_replay,
    .graph_free = cuda_graph_free,
    .replay_timed = cuda_replay_timed,
    .sync = cuda_sync,
    .idle = cuda_idle,
    .memory = cuda_memory,
    .read_rate = cuda_read_rate,
    .close = cuda_close,
};

bool cuda_open(uint32_t n_ranks, uint32_t threads, Device **out, Err *e) {
    if (n_ranks != 1)
        return err_set(e, E_DEVICE, "the CUDA driver runs one rank, not %u; compile with tp 1 for GPUs",
                       n_ranks);
    if (!cuda_find_card(e)) return false;
    Cuda *c = xmalloc(sizeof *c);
    *c = (Cuda){.base = {&cuda_ops, 0, 1}, .threads = threads};
    if (cuda_ok(c, cudaSetDevice(0), e, "cannot use GPU 0") &&
        // Kernels have no stack (the compiler refuses spills): memory for one is better spent on the cache.
        cuda_ok(c, cudaDeviceSetLimit(cudaLimitStackSize, CUDA_STACK_BYTES), e, "cannot shrink the stacks") &&
        cuda_ok(c, cudaGetDeviceProperties(&c->card, 0), e, "cannot ask what GPU 0 is") &&
        cuda_ok(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), e, "cannot make a stream") &&
        cuda_ok(c, cudaHostAlloc(&c->page, CUDA_PAGE_BYTES, cudaHostAllocDefault), e,
                "cannot allocate %d bytes of pinned memory", CUDA_PAGE_BYTES)) {
        *out = &c->base;
        return true;
    }
    cuda_close(&c->base);
    return false;
}
