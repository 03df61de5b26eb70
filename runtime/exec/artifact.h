// Artifact: an .ada file, mapped and checked. Nothing of it is used before every offset, count, index and
// name that leads there was checked against the real size of the file, and against the hashes.
#ifndef ADALLM_EXEC_ARTIFACT_H
#define ADALLM_EXEC_ARTIFACT_H
#include "runtime/base/file.h"
#include "runtime/base/pool.h"
#include "runtime/format.h"

typedef struct {
    Arena arena;
    FileMap file; // data NULL when the caller owns the bytes
    const uint8_t *data;
    uint64_t size;
    const AdaSuperblock *super;
    const AdaSection *sections; // [super->n_sections]
    // The plan section, copied out of the file; counts stand in plan->TABLE.count.
    const AdaPlan *plan;
    const char *strings;
    const AdaBuffer *buffers;
    const AdaKernel *kernels;
    const AdaLaunch *launches;
    const AdaArg *args;
    const AdaProgram *programs;
    const AdaWeight *weights;
    const AdaBinding *bindings; // [n_weights * n_ranks]
    const AdaChain *chains;     // in order of their launches
    const uint8_t *weight_data; // the weights section, aligned to 4096 in memory
    uint64_t weight_bytes;
} Artifact;

// STRUCTURE checks superblock, section table, plan, self-test and the SHA-256 of every section but the
// weights; ALL also the weights, through the Merkle leaves.
typedef enum { ARTIFACT_STRUCTURE, ARTIFACT_ALL } ArtifactDepth;

// Maps and checks a file. `pool` hashes leaves in parallel; NULL: on this thread. E_FILE, E_ARTIFACT (says
// what is wrong at which offset of which section), E_ARTIFACT_HASH, E_ARTIFACT_VERSION. On failure nothing is
// left open.
bool artifact_open(Artifact *a, const char *path, ArtifactDepth depth, Pool *pool, Err *e);
// The same for bytes in memory (aligned to 8) that outlive the artifact.
bool artifact_parse(Artifact *a, const void *data, uint64_t size, ArtifactDepth depth, Pool *pool, Err *e);
void artifact_close(Artifact *a);

// The device driver that runs it: "host" or "cuda".
const char *artifact_driver(const Artifact *a);

// The n-th section of a kind (only ADA_CODE has several); false when there is none.
bool artifact_section(const Artifact *a, AdaSectionKind kind, uint32_t nth, Str *out);
const char *artifact_section_name(uint32_t kind); // "plan", "weights"; "?" for an unknown kind
const char *artifact_string(const Artifact *a, uint32_t offset);

// Inside the weights section, of rank r.
const AdaBinding *artifact_binding(const Artifact *a, uint32_t weight, uint32_t rank);
// The buffer that has this role (and KV group); UINT32_MAX when the plan has none.
uint32_t artifact_role(const Artifact *a, AdaRole role, uint32_t index);
const char *artifact_role_name(uint32_t role);

// The golden self-test; false when the artifact has none. Pointers into the file.
typedef struct {
    uint32_t n_ids, n_columns;
    float tolerance;
    const int32_t *ids, *columns;
    const float *logits; // [n_ids, n_columns]
} Selftest;
bool artifact_selftest(const Artifact *a, Selftest *out);
#endif
