// The C text of a plan's host kernels: one short instance of a template for each.
#ifndef ADALLM_CODEGEN_INSTANCES_H
#define ADALLM_CODEGEN_INSTANCES_H
#include "compiler/ir/plan.h"
#include "compiler/ir/template.h"

// One C file that defines every kernel of `p` under its name. Adds E_CODEGEN when a kernel names no template,
// or its spec is not the template's fields in order, or its name is no C identifier.
bool instances_print(const Plan *p, StrBuf *out, Diags *d);

// What instances in C and in CUDA share.
// Whether a kernel has the fields of its template, those of the schedule too if `schedule`.
bool instance_check(const PlanKernel *k, bool schedule, Template *out, Diags *d);
void instance_put_origins(StrBuf *out, const Plan *p, uint32_t kernel); // comment lines: what it is for
void instance_put_value(StrBuf *out, const SpecField *f);               // 7, 0.5f, FORMAT_NVFP4
void instance_put_camel(StrBuf *out, const char *name);                 // rope_write -> RopeWrite
#endif
