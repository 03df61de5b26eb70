// Words of the plan's text form (IR.md).
#ifndef ADALLM_IR_PLAN_TEXT_H
#define ADALLM_IR_PLAN_TEXT_H
#include <stddef.h>

#include "compiler/ir/plan.h"

// Names by value; NULL where a value has none. [n] with n the first invalid value.
extern const char *const plan_space_names[ADA_SPACE_SPACES];
extern const char *const plan_role_names[ADA_ROLE_ROLES];
extern const char *const plan_program_names[ADA_PROGRAM_KINDS];
extern const char *const plan_layout_names[ADA_LAYOUT_LAYOUTS];
extern const char *const plan_weight_kind_names[PLAN_WEIGHT_KINDS];

// The numbers of the plan line, in the order in which they are written.
typedef struct {
    const char *key;
    size_t offset; // of a uint32_t in Plan
} PlanNumber;
extern const PlanNumber plan_numbers[];
extern const size_t n_plan_numbers;

const char *plan_launch_name(const Plan *p, const PlanLaunch *l); // of its kernel, or "all_reduce"
#endif
