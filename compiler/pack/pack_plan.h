// The plan section: the rows of a Plan as runtime/format.h lays them out.
#ifndef ADALLM_PACK_PACK_PLAN_H
#define ADALLM_PACK_PACK_PLAN_H
#include "compiler/ir/plan.h"

// Appends the section. bindings: [n_weights * n_ranks].
void pack_plan(const Plan *p, const AdaBinding *bindings, StrBuf *out);
#endif
