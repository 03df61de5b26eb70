// The CUDA text of one kernel: a spec struct and an entry that calls its template.
#ifndef ADALLM_CODEGEN_CUDA_INSTANCES_H
#define ADALLM_CODEGEN_CUDA_INSTANCES_H
#include "compiler/ir/plan.h"

// Appends an instance file of kernel `kernel`; *code is where its code begins, behind the comments that say
// what the kernel is for. Adds E_CODEGEN as instances_print does.
bool cuda_instance_print(const Plan *p, uint32_t kernel, StrBuf *out, size_t *code, Diags *d);
#endif
