// Spec lines of kernel tests (tests/device/device.h) as kernels of a plan.
#ifndef ADALLM_TESTS_DEVICE_SPEC_H
#define ADALLM_TESTS_DEVICE_SPEC_H
#include "compiler/targets/target.h"

typedef struct {
    const char *line;
    PlanKernel kernel; // `name` is the caller's
    KernelChoice choice;
} DeviceSpec;

// False, with the reason in `why` (arena-owned), when the line does not fit templates.def or the target
// refuses it.
bool spec_parse(Arena *a, const Target *t, const char *line, DeviceSpec *out, const char **why);
#endif
