// Code of the CUDA driver: cubins of an image, their kernels, launches.
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/num.h"
#include "runtime/device/cuda.h"

enum { SHARED_WITHOUT_ASKING = 48 << 10 };

struct DeviceKernel {
    DeviceKernel *next;
    cudaKernel_t handle;
    uint64_t shared_bytes; // what the kernel was allowed so far
    uint32_t threads_max;
};

struct DeviceCode {
    DeviceCode *next;
    uint32_t n, at; // where the next search begins: kernels are asked for in the order of their cubins
    cudaLibrary_t *libraries; // [n]
    DeviceKernel *kernels;
};

// ---- loading ---------------------------------------------------------------------------------------------

static bool check_image(Cuda *c, const AdaCubins *head, uint64_t bytes, Err *e) {
    const AdaCubin *rows = (const AdaCubin *)(head + 1);
    if (bytes < sizeof *head || memcmp(head->magic, "ADACUBIN", 8) != 0 || !head->n ||
        head->n > (bytes - sizeof *head) / sizeof *rows) {
        err_set(e, E_ARTIFACT, "the GPU code image of %llu bytes is no list of cubins",
                (unsigned long long)bytes);
        return cuda_die(c, e);
    }
    for (uint32_t i = 0; i < head->n; i++)
        if (rows[i].offset % 16 || !rows[i].bytes || !range_inside(rows[i].offset, rows[i].bytes, bytes)) {
            err_set(e, E_ARTIFACT, "cubin %u: %llu bytes at %llu do not fit the code image of %llu", i,
                    (unsigned long long)rows[i].bytes, (unsigned long long)rows[i].offset,
                    (unsigned long long)bytes);
            return cuda_die(c, e);
        }
    return true;
}

static bool load_cubin(Cuda *c, const void *cubin, uint32_t i, cudaLibrary_t *out, Err *e) {
    cudaError_t error = cudaLibraryLoadData(out, cubin, NULL, NULL, 0, NULL, NULL, 0);
    if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorUnsupportedPtxVersion)
        return cuda_ok(c, error, e, "cannot load cubin %u", i);
    cudaGetLastError();
    err_set(e, E_DEVICE,
            "this card (%s) has compute capability %d.%d and does not run kernels that were compiled for "
            "another; compile the model for this card",
            c->card.name, c->card.major, c->card.minor);
    return cuda_die(c, e);
}

bool cuda_load_code(Device *d, const void *const *images, const uint64_t *bytes, const uint32_t *kinds,
                    uint32_t n, DeviceCode **out, Err *e) {
    Cuda *c = (Cuda *)d;
    uint32_t k = 0;
    if (!cuda_alive(c, e)) return false;
    while (k < n && kinds[k] != ADA_CODE_CUBIN) k++;
    if (k == n) {
        err_set(e, E_DEVICE, "none of the %u code images is for a GPU", n);
        return cuda_die(c, e);
    }
    const AdaCubins *head = images[k];
    if (!check_image(c, head, bytes[k], e)) return false;
    DeviceCode *code = xmalloc(sizeof *code);
    *code = (DeviceCode){.next = c->codes, .libraries = xrealloc(NULL, head->n, sizeof *code->libraries)};
    c->codes = code;
    const AdaCubin *rows = (const AdaCubin *)(head + 1);
    for (; code->n < head->n; code->n++)
        if (!load_cubin(c, (const uint8_t *)head + rows[code->n].offset, code->n, &code->libraries[code->n],
                        e))
            return false;
    *out = code;
    return true;
}

static void code_free(DeviceCode *code) {
    for (DeviceKernel *k = code->kernels, *next; k; k = next) next = k->next, free(k);
    for (uint32_t i = 0; i < code->n; i++) cudaLibraryUnload(code->libraries[i]);
    free(code->libraries);
    free(code);
}

void cuda_codes_free(Cuda *c) {
    for (DeviceCode *code = c->codes, *next; code; code = next) next = code->next, code_free(code);
    c->codes = NULL;
}

// ---- kernels ---------------------------------------------------------------------------------------------

static cudaError_t search(DeviceCode *code, const char *name, cudaKernel_t *out) {
    for (uint32_t i = 0; i < code->n; i++) {
        uint32_t at = (code->at + i) % code->n;
        cudaError_t error = cudaLibraryGetKernel(out, code->libraries[at], name);
        if (error == cudaErrorSymbolNotFound) continue;
        code->at = at + 1;
        return error;
    }
    return cudaErrorSymbolNotFound;
}

bool cuda_find_kernel(Device *d, DeviceCode *code, const char *name, DeviceKernel **out, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e)) return false;
    cudaKernel_t handle;
    struct cudaFuncAttributes facts;
    // Asking for the attributes brings the code to the device: nothing is loaded while a capture runs.
    if (!cuda_ok(c, search(code, name, &handle), e, "kernel %s", name) ||
        !cuda_ok(c, cudaFuncGetAttributes(&facts, (const void *)handle), e, "kernel %s", name))
        return false;
    cudaGetLastError(); // of the cubins that do not hold it
    DeviceKernel *k = xmalloc(sizeof *k);
    const uint64_t left =
        SHARED_WITHOUT_ASKING - MIN((uint64_t)facts.sharedSizeBytes, (uint64_t)SHARED_WITHOUT_ASKING);
    *k = (DeviceKernel){code->kernels, handle, left, (uint32_t)facts.maxThreadsPerBlock};
    *out = code->kernels = k;
    return true;
}

static bool allow_shared(Cuda *c, const DeviceLaunch *l, Err *e) {
    if (l->shared_bytes <= l->kernel->shared_bytes) return true;
    if (l->shared_bytes > c->card.sharedMemPerBlockOptin) {
        err_set(e, E_DEVICE, "kernel %s wants %llu bytes of shared memory a block; %s has %zu", l->name,
                (unsigned long long)l->shared_bytes, c->card.name, c->card.sharedMemPerBlockOptin);
        return cuda_die(c, e);
    }
    l->kernel->shared_bytes = l->shared_bytes;
    return cuda_ok(c,
                   cudaFuncSetAttribute((const void *)l->kernel->handle,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, (int)l->shared_bytes),
                   e, "kernel %s: %llu bytes of shared memory a block", l->name,
                   (unsigned long long)l->shared_bytes);
}

bool cuda_launch(Device *d, const DeviceLaunch *l, Err *e) {
    Cuda *c = (Cuda *)d;
    if (!cuda_alive(c, e) || !allow_shared(c, l, e)) return false;
    CHECK(l->n_args <= CUDA_ARGS_MAX);
    // One parameter, Args<n_args> of templates/lib/args.cuh: the pointers one after the other.
    void *params[1] = {(void *)l->args};
    const struct dim3 grid = {l->grid, 1, 1}, block = {l->threads, 1, 1};
    const void *kernel = l->kernel->handle;
    cudaError_t error =
        l->together ? cudaLaunchCooperativeKernel(kernel, grid, block, params, l->shared_bytes, c->stream)
                    : cudaLaunchKernel(kernel, grid, block, params, l->shared_bytes, c->stream);
    return cuda_ok(c, error, e,
                   "kernel %s on %u blocks of %u threads (it holds %u) with %llu bytes of shared memory",
                   l->name, l->grid, l->threads, l->kernel->threads_max, (unsigned long long)l->shared_bytes);
}
