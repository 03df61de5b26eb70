// Code images: what the kernels of a plan become.
#ifndef ADALLM_CODEGEN_IMAGE_H
#define ADALLM_CODEGEN_IMAGE_H
#include "compiler/ir/plan.h"

typedef struct {
    AdaCodeKind kind;
    const uint8_t *data; // arena-owned
    uint64_t bytes;
} CodeImage;

// What ptxas says about a kernel.
typedef struct {
    uint32_t registers;    // a thread
    uint32_t static_bytes; // shared memory beside the kernel's own shared_bytes
} KernelFacts;

typedef struct {
    CodeImage image[4]; // plainest first
    uint32_t n;
    const KernelFacts *facts;      // [kernels of the plan]; NULL on the host
    uint32_t n_compiled, n_cached; // kernels that were compiled now, and those that the cache had
} CodeImages;

typedef struct {
    const char *dir; // existing folder that keeps what was made; NULL: nothing is kept
    bool no_cache;   // compile even what the cache has
    // Takes kernels that can be compiled but are unfit; when there are any, no image is made. NULL: that is
    // an error.
    PlanRefusals *refusals;
} EmitOptions;
#endif
