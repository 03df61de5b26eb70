// Memory of the CUDA driver, and copies to and from it.
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/cores.h"
#include "runtime/base/num.h"
#include "runtime/device/cuda.h"

enum {
    FILL_THREADS_MAX = 8,     // more do not read memory faster
    FILL_BYTES = 1 << 20,     // what a thread copies at a time
    RING_FROM_BYTES = 8 << 20 // smaller uploads are not worth pinning memory for
};

static void keep(Cuda *c, void *ptr, bool host) {
    CudaMemory *m = xmalloc(sizeof *m);
    *m = (CudaMemory){c->memory, ptr, host};
    c->memory = m;
}

// The zeros are ordered on the stream like everything that follows.
bool cuda_alloc(Device *d, uint64_t bytes, void **out, Err *e) {
    Cuda *c = (Cuda *)d;
    void *p;
    if (!cuda_alive(c, e) || !cuda_ok(c, cudaMalloc(&p, MAX(bytes, 1)), e,
                                      "cannot allocate %.1f MiB on the device", (double)bytes / 1048576))
        return false;
    keep(c, p, false);
    *out = p;
    return cuda_ok(c, cudaMemsetAsync(p, 0, MAX(bytes, 1), c->stream), e, "cannot clear memory");
}

bool cuda_alloc_host(Device *d, uint64_t bytes, void **out, Err *e) {
    Cuda *c = (Cuda *)d;
    void *p, *seen;
    if (!cuda_alive(c, e) ||
        !cuda_ok(c, cudaHostAlloc(&p, MAX(bytes, 1), cudaHostAllocMapped), e,
                 "cannot allocate %llu bytes of pinned memory", (unsigned long long)bytes))
        return false;
    keep(c, p, true);
    memset(p, 0, MAX(bytes, 1));
    *out = p;
    if (!cuda_ok(c, cudaHostGetDevicePointer(&seen, p, 0), e, "cannot map pinned memory")) return false;
    if (seen == p) return true;
    err_set(e, E_DEVICE, "this card sees pinned memory at another address than the host");
    return cuda_die(c, e);
}

void cuda_free(Device *d, void *ptr) {
    for (CudaMemory **m = &((Cuda *)d)->memory; *m; m = &(*m)->next) {
        if ((*m)->ptr != ptr) continue;
        CudaMemory *gone = *m;
        *m = gone->next;
        if (gone->host)
            cudaFreeHost(gone->ptr);
        else
            cudaFree(gone->ptr);
        free(gone);
        return;
    }
    CHECK(ptr == NULL);
}

bool cuda_adopt(Device *d, const void *data, uint64_t bytes, void **out, Err *e) {
    (void)data, (void)bytes;
    *out = NULL;
    return cuda_alive((Cuda *)d, e);
}

// ---- large uploads ---------------------------------------------------------------------------------------

// Pinned buffers that CPU threads fill while the copy engine empties the others.
typedef struct {
    uint8_t *slots; // [CUDA_RING][CUDA_RING_BYTES], pinned
    cudaEvent_t empty[CUDA_RING];
    Pool *pool;
} Ring;

typedef struct {
    uint8_t *dst;
    const uint8_t *src;
    uint64_t bytes;
} Fill;

static void fill(void *ctx, uint32_t i) {
    const Fill *f = ctx;
    uint64_t at = (uint64_t)i * FILL_BYTES;
    memcpy(f->dst + at, f->src + at, MIN(f->bytes - at, (uint64_t)FILL_BYTES));
}

static void ring_free(Ring *r) {
    pool_free(r->pool);
    for (int i = 0; i < CUDA_RING; i++)
        if (r->empty[i]) cudaEventDestroy(r->empty[i]);
    if (r->slots) cudaFreeHost(r->slots);
}

static bool ring_init(Cuda *c, Ring *r, Err *e) {
    uint32_t threads = c->threads ? c->threads : cores_usable();
    *r = (Ring){.pool = pool_new(MIN(threads, FILL_THREADS_MAX))};
    if (!cuda_ok(c,
                 cudaHostAlloc((void **)&r->slots, (size_t)CUDA_RING * CUDA_RING_BYTES, cudaHostAllocDefault),
                 e, "cannot allocate %d MiB of pinned memory", CUDA_RING * (CUDA_RING_BYTES >> 20)))
        return false;
    for (int i = 0; i < CUDA_RING; i++)
        if (!cuda_ok(c, cudaEventCreateWithFlags(&r->empty[i], cudaEventDisableTiming), e,
                     "cannot make an event"))
            return false;
    return true;
}

static bool ring_upload(Cuda *c, Ring *r, uint8_t *dst, const uint8_t *src, uint64_t bytes, Err *e) {
    for (uint64_t at = 0, turn = 0; at < bytes; at += CUDA_RING_BYTES, turn++) {
        uint32_t i = turn % CUDA_RING;
        Fill f = {r->slots + (size_t)i * CUDA_RING_BYTES, src + at,
                  MIN(bytes - at, (uint64_t)CUDA_RING_BYTES)};
        if (!cuda_ok(c, cudaEventSynchronize(r->empty[i]), e, "an upload of %llu bytes",
                     (unsigned long long)bytes))
            return false;
        pool_run(r->pool, (uint32_t)div_up(f.bytes, FILL_BYTES), fill, &f);
        if (!cuda_ok(c, cudaMemcpyAsync(dst + at, f.dst, f.bytes, cudaMemcpyHostToDevice, c->stream), e,
                     "an upload of %llu bytes", (unsigned long long)bytes) ||
            !cuda_ok(c, cudaEventRecord(r->empty[i], c->stream), e, "cannot record an event"))
            return false;
    }
    return cuda_ok(c, cudaStreamSynchronize(c->stream), e, "an upload of %llu bytes",
                   (unsigned long long)bytes);
}

// The runtime stages pageable memory before it returns, so that the caller may change `src` at once.
bool cuda_upload(Device *d, void *dst, const void *src, uint64_t bytes, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e)) return false;
    if (bytes < RING_FROM_BYTES)
        return cuda_ok(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, c->stream), e,
                       "an upload of %llu bytes", (unsigned long long)bytes);
    Ring r;
    bool ok = ring_init(c, &r, e) && ring_upload(c, &r, dst, src, bytes, e);
    ring_free(&r);
    return ok;
}

bool cuda_download(Device *d, void *dst, const void *src, uint64_t bytes, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e)) return false;
    void *land = bytes <= CUDA_PAGE_BYTES ? c->page : dst; // pageable memory would be staged piece by piece
    if (!cuda_ok(c, cudaMemcpyAsync(land, src, bytes, cudaMemcpyDeviceToHost, c->stream), e,
                 "a download of %llu bytes", (unsigned long long)bytes) ||
        !cuda_ok(c, cudaStreamSynchronize(c->stream), e, "what was launched before a download failed"))
        return false;
    if (land != dst && bytes) memcpy(dst, land, bytes);
    return true;
}
