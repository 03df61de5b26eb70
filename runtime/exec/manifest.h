// Manifest: the facts about the model that the programs need, read from the artifact's JSON.
#ifndef ADALLM_EXEC_MANIFEST_H
#define ADALLM_EXEC_MANIFEST_H
#include "runtime/base/json.h"
#include "runtime/exec/artifact.h"

typedef struct {
    const Json *json; // all of it
    const char *model, *family;
    bool chat; // converse unless told otherwise
    const int32_t *eos_ids;
    uint32_t n_eos_ids;
    double temperature, top_p, min_p; // the model's own wishes; temperature 0: greedy
    uint32_t top_k;
} Manifest;

// Everything lives in the artifact's arena. E_ARTIFACT on anything missing or of a wrong type.
bool manifest_read(Artifact *a, Manifest *out, Err *e);
#endif
