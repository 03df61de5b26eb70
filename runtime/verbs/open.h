// What every verb that takes an artifact does first.
#ifndef ADALLM_VERBS_OPEN_H
#define ADALLM_VERBS_OPEN_H
#include "runtime/base/cli.h"
#include "runtime/exec/exec.h"
#include "runtime/exec/leaves.h"
#include "runtime/exec/manifest.h"
#include "runtime/text/tokenizer.h"

typedef struct {
    const char *path; // the caller's
    Pool *pool;       // of the leaves while they are hashed; freed with the rest
    Artifact artifact;
    Manifest manifest;
    Leaves *leaves; // NULL: nothing is being hashed
    bool open;
    // Seconds: until the structure was known to be right; of hashing all leaves, beside other work; of that,
    // what somebody had to wait for.
    double open_s, hash_s, wait_s;
} Opened;

// threads 0: one per core. False: nothing is open. ARTIFACT_ALL begins to hash the leaves and returns:
// opened_verified or opened_exec waits for them. `path` must outlive it.
bool opened_open(Opened *o, const char *path, ArtifactDepth depth, uint64_t threads, Err *e);
// Whether every byte is what its hash says. Nothing of the weights counts before.
bool opened_verified(Opened *o, Err *e);
// exec_open, while the leaves are hashed. What it returns is verified.
Exec *opened_exec(Opened *o, const ExecOptions *options, Err *e);
void opened_close(Opened *o);

// The tokenizer, in the artifact's arena. E_TOKENIZER when the artifact was compiled without one.
Tokenizer *opened_tokenizer(Opened *o, Err *e);

// A verb on one artifact: parses the command line, opens the artifact that is its first argument, calls run,
// prints what went wrong, and returns the exit code. With ARTIFACT_ALL run
// waits for the leaves, through opened_exec. `threads` may be NULL: one thread opens, one per core
// runs. run adds its errors to `d`.
typedef bool VerbRun(Opened *o, void *ctx, Arena *a, Diags *d);
int verb_on_artifact(const Command *cmd, int argc, char **argv, ArtifactDepth depth, const uint64_t *threads,
                     VerbRun *run, void *ctx);

// How a verb runs the artifact: the options that all who run it share. Starts as {0}.
typedef struct {
    uint64_t threads, kv_bytes;
    double memory_share;
    const char *kv_dtype;
    bool eager, has_memory_share;
} RunOptions;

// Rows for a table of options.
#define RUN_OPTION_ROWS(o)                                                                                   \
    {"--threads", OPT_UINT, "N", 1, 1024, &(o)->threads, NULL, "CPU threads (default: one a core)"},         \
        {"--gpu-memory-utilization",                                                                         \
         OPT_REAL,                                                                                           \
         "F",                                                                                                \
         0.01,                                                                                               \
         1,                                                                                                  \
         &(o)->memory_share,                                                                                 \
         &(o)->has_memory_share,                                                                             \
         "part of the GPU's memory that may be in use, the KV cache included (default 0.9)"},                \
        {"--kv-cache-memory",                                                                                \
         OPT_UINT,                                                                                           \
         "BYTES",                                                                                            \
         0,                                                                                                  \
         0,                                                                                                  \
         &(o)->kv_bytes,                                                                                     \
         NULL,                                                                                               \
         "size of the KV cache at most, instead of what is left of the memory"},                             \
        {"--kv-cache-dtype",                                                                                 \
         OPT_STRING,                                                                                         \
         "T",                                                                                                \
         0,                                                                                                  \
         0,                                                                                                  \
         &(o)->kv_dtype,                                                                                     \
         NULL,                                                                                               \
         "type of the KV cache: fp8, the only one that the kernels read"},                                   \
    {                                                                                                        \
        "--enforce-eager", OPT_FLAG, NULL, 0, 0, &(o)->eager, NULL,                                          \
            "launch kernel by kernel and wait for each, without graphs: a failure names its kernel"          \
    }

// seqs: as in ExecOptions.
ExecOptions run_exec_options(const Opened *o, const RunOptions *r, uint32_t seqs);

// Prints the error and returns the exit code of the verb.
int verb_failed(const Err *e);
#endif
