// Device: one GPU, or the host acting as one. exec/ speaks only to this table; cuda, host and null implement
// it. A device belongs to one thread. Calls are ordered as on one stream: a later call sees what earlier ones
// wrote. After any failure the device is dead: every later call returns false with the first error.
#ifndef ADALLM_DEVICE_DEVICE_H
#define ADALLM_DEVICE_DEVICE_H
#include "runtime/base/err.h"
#include "runtime/format.h"

typedef struct Device Device;
typedef struct DeviceCode DeviceCode;     // a loaded code image
typedef struct DeviceKernel DeviceKernel; // a kernel of an image
typedef struct DeviceGraph DeviceGraph;   // captured launches

enum { READ_ROUNDS = 3 };

typedef struct {
    DeviceKernel *kernel;
    const char *name; // for messages
    uint32_t grid, threads;
    uint64_t shared_bytes;
    void *const *args; // device pointers, copied by the call
    uint32_t n_args;
    bool together; // all blocks are on the device at the same time, or the launch fails
} DeviceLaunch;

typedef struct {
    const char *name; // "host", "null", "cuda"
    // Memory. alloc gives `bytes` zeroed, aligned to 256.
    bool (*alloc)(Device *, uint64_t bytes, void **out, Err *);
    // Memory of the host that kernels write and the host reads while the device works, at one address for
    // both. Zeroed, aligned to 256; free takes it back.
    bool (*alloc_host)(Device *, uint64_t bytes, void **out, Err *);
    void (*free)(Device *, void *ptr);
    // Makes host memory that outlives the device readable by kernels without a copy where the device can:
    // *out may equal `data`; a device that cannot returns *out = NULL and true, and the caller allocates and
    // uploads.
    bool (*adopt)(Device *, const void *data, uint64_t bytes, void **out, Err *);
    bool (*upload)(Device *, void *dst, const void *src, uint64_t bytes, Err *);
    bool (*download)(Device *, void *dst, const void *src, uint64_t bytes,
                     Err *); // waits for what was launched before
    // Code. `images[i]` of kind `kinds[i]` (AdaCodeKind); the device takes the best one it can run, or fails
    // by name.
    bool (*load_code)(Device *, const void *const *images, const uint64_t *bytes, const uint32_t *kinds,
                      uint32_t n, DeviceCode **out, Err *);
    bool (*find_kernel)(Device *, DeviceCode *, const char *name, DeviceKernel **out, Err *);
    bool (*launch)(Device *, const DeviceLaunch *, Err *);
    // Collectives over the group this device belongs to; every rank calls them in the same order.
    bool (*all_reduce)(Device *, float *data, uint32_t rows, uint32_t cols, Err *);
    bool (*all_gather)(Device *, const float *src, float *dst, uint32_t rows, uint32_t cols, Err *);
    // Between capture_begin and capture_end launches and collectives are recorded, not run. replay runs them
    // all.
    bool (*capture_begin)(Device *, Err *);
    bool (*capture_end)(Device *, DeviceGraph **out, Err *);
    bool (*replay)(Device *, DeviceGraph *, Err *);
    void (*graph_free)(Device *, DeviceGraph *);
    // Replays once, then `times` times one after the other; *seconds is what these took.
    bool (*replay_timed)(Device *, DeviceGraph *, uint32_t times, double *seconds, Err *);
    bool (*sync)(Device *, Err *);
    // Whether all that was launched has ended. Waits for nothing.
    bool (*idle)(Device *, bool *idle, Err *);
    bool (*memory)(Device *, uint64_t *free_bytes, uint64_t *total_bytes, Err *);
    // Bytes a second at which the device reads `bytes` of its memory and does nothing else, the best of
    // READ_ROUNDS.
    bool (*read_rate)(Device *, const void *data, uint64_t bytes, double *rate, Err *);
    void (*close)(Device *); // frees all that is left
} DeviceOps;

// Every driver's struct begins with this.
struct Device {
    const DeviceOps *ops;
    uint32_t rank, n_ranks;
};

// Opens n_ranks devices of one driver that form a group. `threads`: CPU threads of each host device, 0: cores
// / n_ranks.
bool device_open(const char *driver, uint32_t n_ranks, uint32_t threads, Device **out, Err *e);
#endif
