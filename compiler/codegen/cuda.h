// Code of the GPU targets: every kernel of a plan becomes one short CUDA instance of its template, nvcc makes
// a cubin of it, and the cubins become one image (AdaCubins of runtime/format.h).
#ifndef ADALLM_CODEGEN_CUDA_H
#define ADALLM_CODEGEN_CUDA_H
#include "compiler/codegen/image.h"
#include "runtime/base/diag.h"

// Compiles all kernels of `p` for sm_`sm` with $NVCC or `nvcc`, as many at a time as there are cores. Cubins
// that were made before from the same text, templates, compiler and flags come from a cache
// ($XDG_CACHE_HOME/adallm or ~/.cache/adallm). o->dir keeps instance files, cubins and what ptxas said. The
// same plan and compiler give the same bytes. Adds E_CODEGEN with the compiler's own words when it is missing
// or fails. A kernel that spills registers to memory becomes one of o->refusals, or an error.
bool codegen_cuda(Arena *a, const Plan *p, uint32_t sm, uint64_t shared_bytes, const EmitOptions *o,
                  CodeImages *out, Diags *d);
#endif
