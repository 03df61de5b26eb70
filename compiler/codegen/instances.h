// The C text of a plan's host kernels: one short instance of a template for each.
#ifndef ADALLM_CODEGEN_INSTANCES_H
#define ADALLM_CODEGEN_INSTANCES_H
#include "compiler/ir/plan.h"

// One C file that defines every kernel of `p` under its name. Adds E_CODEGEN when a kernel names no template,
// or its spec is not the template's fields in order, or its name is no C identifier.
bool instances_print(const Plan *p, StrBuf *out, Diags *d);
#endif
