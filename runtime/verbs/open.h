// What every verb that takes an artifact does first.
#ifndef ADALLM_VERBS_OPEN_H
#define ADALLM_VERBS_OPEN_H
#include "runtime/base/cli.h"
#include "runtime/exec/manifest.h"
#include "runtime/text/tokenizer.h"

typedef struct {
    Pool *pool; // freed with the rest
    Artifact artifact;
    Manifest manifest;
    bool open;
} Opened;

// threads 0: one per core. False: nothing is open.
bool opened_open(Opened *o, const char *path, ArtifactDepth depth, uint64_t threads, Err *e);
void opened_close(Opened *o);

// The tokenizer, in the artifact's arena. E_TOKENIZER when the artifact was compiled without one.
Tokenizer *opened_tokenizer(Opened *o, Err *e);

// A verb on one artifact: parses the command line, opens the artifact that is its first argument, calls run,
// prints what went wrong, and returns the exit code. `threads` may be NULL: one thread opens, one per core
// runs. run adds its errors to `d`.
typedef bool VerbRun(Opened *o, void *ctx, Arena *a, Diags *d);
int verb_on_artifact(const Command *cmd, int argc, char **argv, ArtifactDepth depth, const uint64_t *threads,
                     VerbRun *run, void *ctx);

// Prints the error and returns the exit code of the verb.
int verb_failed(const Err *e);
#endif
