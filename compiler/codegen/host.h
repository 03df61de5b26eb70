// Code of the host target: every kernel of a plan becomes one short C instance of its template, the instances
// become one C file, and the system's C compiler turns it into two shared objects, x86-64 and x86-64-v3.
#ifndef ADALLM_CODEGEN_HOST_H
#define ADALLM_CODEGEN_HOST_H
#include "compiler/codegen/image.h"

// Compiles all kernels of `p` with $CC or `cc`. emit_dir: existing folder that keeps the C file, the plan's
// text and the images; NULL: nothing is kept. The same plan and compiler give the same bytes. Adds E_CODEGEN
// with the compiler's own words when it is missing or fails, or when a kernel does not fit templates.def.
bool codegen_host(Arena *a, const Plan *p, const char *emit_dir, CodeImages *out, Diags *d);

// Facts about the host kernels that a planner needs; `spec` in the order of templates.def.
// Bytes of scratch the running thread needs (AdaKernel.shared_bytes).
uint64_t codegen_host_scratch(const char *template_, const SpecField *spec, uint32_t n_spec);
// Pieces into which a launch over `bucket` tokens or rows can be cut: a larger grid leaves blocks idle. Every
// grid from 1 up gives the same bits.
uint32_t codegen_host_units(const char *template_, const SpecField *spec, uint32_t n_spec, uint32_t bucket);
#endif
