// The CUDA driver's clock, and how fast the card reads its memory.
#include "runtime/base/num.h"
#include "runtime/device/cuda.h"

enum { READ_THREADS = 1024, READ_BLOCKS_PER_SM = 2 };

extern const unsigned char plain_read_code[]; // templates/plain_read.cu for every kind of card

bool cuda_timer(Cuda *c, CudaTimer *t, Err *e) {
    *t = (CudaTimer){0};
    return cuda_ok(c, cudaEventCreate(&t->begin), e, "cannot make an event") &&
           cuda_ok(c, cudaEventCreate(&t->end), e, "cannot make an event");
}

bool cuda_timer_end(Cuda *c, CudaTimer *t, bool ok, double *seconds, Err *e) {
    float ms = 0;
    ok = ok && cuda_ok(c, cudaEventRecord(t->end, c->stream), e, "cannot record an event") &&
         cuda_ok(c, cudaEventSynchronize(t->end), e, "what was timed failed") &&
         cuda_ok(c, cudaEventElapsedTime(&ms, t->begin, t->end), e, "cannot read the time");
    cudaEventDestroy(t->begin);
    cudaEventDestroy(t->end);
    *seconds = (double)ms * 1e-3;
    return ok;
}

static bool read_once(Cuda *c, cudaKernel_t kernel, const void *data, uint64_t quads, double *seconds,
                      Err *e) {
    CudaTimer t;
    void *params[] = {&data, &quads, &c->page};
    const struct dim3 grid = {READ_BLOCKS_PER_SM * (unsigned)c->card.multiProcessorCount, 1, 1};
    if (!cuda_timer(c, &t, e)) return false;
    bool ok = cuda_ok(c, cudaEventRecord(t.begin, c->stream), e, "cannot record an event") &&
              cuda_ok(c,
                      cudaLaunchKernel((const void *)kernel, grid, (struct dim3){READ_THREADS, 1, 1}, params,
                                       0, c->stream),
                      e, "the plain read");
    return cuda_timer_end(c, &t, ok, seconds, e);
}

bool cuda_read_rate(Device *d, const void *data, uint64_t bytes, double *rate, Err *e) {
    Cuda *c = (Cuda *)d;
    cudaLibrary_t library;
    cudaKernel_t kernel;
    if (!cuda_alive(c, e) ||
        !cuda_ok(c, cudaLibraryLoadData(&library, plain_read_code, NULL, NULL, 0, NULL, NULL, 0), e,
                 "cannot load the plain read"))
        return false;
    double seconds, best = 0;
    bool ok = cuda_ok(c, cudaLibraryGetKernel(&kernel, library, "plain_read"), e, "the plain read");
    for (int round = 0; ok && round <= READ_ROUNDS; round++) { // the first one loads the code
        ok = read_once(c, kernel, data, bytes / 16, &seconds, e);
        if (ok && round) best = MAX(best, (double)bytes / MAX(seconds, 1e-9));
    }
    cudaLibraryUnload(library);
    *rate = best;
    return ok;
}
