// Inside the CUDA driver: what its files share. Only they include this and the CUDA headers.
#ifndef ADALLM_DEVICE_CUDA_H
#define ADALLM_DEVICE_CUDA_H
#include <cuda_runtime_api.h>

#include "runtime/base/pool.h"
#include "runtime/device/device.h"

enum {
    CUDA_ARGS_MAX = ADA_CHAIN_ARGS_MAX,
    CUDA_RING = 4,
    CUDA_RING_BYTES = 16 << 20,
    CUDA_PAGE_BYTES = 64 << 10,
    CUDA_STACK_BYTES = 256
};

typedef struct CudaMemory CudaMemory;
struct CudaMemory {
    CudaMemory *next;
    void *ptr;
    bool host;
};

typedef struct Cuda {
    Device base;
    uint32_t threads; // CPU threads that fill the ring; 0: a few
    Err dead;         // first error; code E_NONE while alive
    struct cudaDeviceProp card;
    cudaStream_t stream;
    void *page; // CUDA_PAGE_BYTES of pinned memory: small downloads land here
    CudaMemory *memory;
    DeviceCode *codes;
    DeviceGraph *graphs;
    bool capturing;
} Cuda;

// False with the first error when the device is dead.
bool cuda_alive(Cuda *c, Err *e);
// Every failing call ends here: remembers *e and returns false.
bool cuda_die(Cuda *c, const Err *e);
// True on cudaSuccess; otherwise the device dies with "WHAT: name: description".
bool cuda_ok(Cuda *c, cudaError_t error, Err *e, const char *what, ...) __attribute__((format(printf, 4, 5)));

// cuda_cards.c. Says by name why nothing runs here: no driver, one that is too old, no card.
bool cuda_find_card(Err *e);

// cuda_read.c
typedef struct {
    cudaEvent_t begin, end;
} CudaTimer;
bool cuda_timer(Cuda *c, CudaTimer *t, Err *e);
// Seconds from `begin`, which the caller recorded, to now on the stream. ok: whether what was timed was
// launched. Ends the timer in any case.
bool cuda_timer_end(Cuda *c, CudaTimer *t, bool ok, double *seconds, Err *e);
bool cuda_read_rate(Device *d, const void *data, uint64_t bytes, double *rate, Err *e);

// cuda_copy.c
bool cuda_alloc(Device *d, uint64_t bytes, void **out, Err *e);
bool cuda_alloc_host(Device *d, uint64_t bytes, void **out, Err *e);
void cuda_free(Device *d, void *ptr);
bool cuda_adopt(Device *d, const void *data, uint64_t bytes, void **out, Err *e);
bool cuda_upload(Device *d, void *dst, const void *src, uint64_t bytes, Err *e);
bool cuda_download(Device *d, void *dst, const void *src, uint64_t bytes, Err *e);

// cuda_code.c
bool cuda_load_code(Device *d, const void *const *images, const uint64_t *bytes, const uint32_t *kinds,
                    uint32_t n, DeviceCode **out, Err *e);
bool cuda_find_kernel(Device *d, DeviceCode *code, const char *name, DeviceKernel **out, Err *e);
bool cuda_launch(Device *d, const DeviceLaunch *l, Err *e);
void cuda_codes_free(Cuda *c);
#endif
