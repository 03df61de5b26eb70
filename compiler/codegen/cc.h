// The system's C compiler as a child process.
#ifndef ADALLM_CODEGEN_CC_H
#define ADALLM_CODEGEN_CC_H
#include "runtime/base/diag.h"

typedef struct {
    int pid;
    const char *dir, *log; // where it runs; file inside that takes what it says
} CcJob;

// Starts `$CC` (words split at spaces; else `cc`) with more arguments, in `dir`. E_CODEGEN when there is
// none.
bool cc_start(Arena *a, const char *dir, const char *log, const char *const *args, CcJob *out, Diags *d);
// Waits; E_CODEGEN with the compiler's first words when it failed. Removes the log.
bool cc_wait(Arena *a, const CcJob *job, Diags *d);
#endif
