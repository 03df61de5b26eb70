// Compilers of this machine as child processes.
#ifndef ADALLM_CODEGEN_CC_H
#define ADALLM_CODEGEN_CC_H
#include "runtime/base/diag.h"

// A compiler: the words of an environment variable, split at spaces, else the first name that there is.
typedef struct {
    const char *what;      // "C compiler"
    const char *variable;  // "CC"
    const char *name;      // "cc", on PATH
    const char *otherwise; // where else it usually is; NULL: nowhere
    const char *hint;      // where to get one
} CcTool;
extern const CcTool cc_tool_c, cc_tool_nvcc;

typedef struct {
    const CcTool *tool;
    int pid;
    const char *dir, *log; // where it runs; file inside that takes what it says
} CcJob;

// Starts the compiler with more arguments, in `dir`. E_CODEGEN when there is none.
bool cc_start(Arena *a, const CcTool *tool, const char *dir, const char *log, const char *const *args,
              CcJob *out, Diags *d);
// Waits; E_CODEGEN with the compiler's first words and `what` it worked on when it failed. Removes the log;
// `said`, when not NULL, gets all that it had.
bool cc_wait(Arena *a, const CcJob *job, const char *what, Str *said, Diags *d);
#endif
