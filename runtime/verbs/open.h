// What every verb that takes an artifact does first.
#ifndef ADALLM_VERBS_OPEN_H
#define ADALLM_VERBS_OPEN_H
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

// Prints the error and returns the exit code of the verb.
int verb_failed(const Err *e);
#endif
