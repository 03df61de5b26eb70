// Checks a plan section and points an Artifact into it.
#ifndef ADALLM_EXEC_PLAN_CHECK_H
#define ADALLM_EXEC_PLAN_CHECK_H
#include "runtime/exec/artifact.h"

// `section` is aligned to 8 and outlives the artifact; a->weight_bytes and a->super are set. After success
// every index, offset, string and range in the tables may be followed. E_ARTIFACT.
bool plan_check(Artifact *a, const uint8_t *section, uint64_t bytes, Err *e);
#endif
