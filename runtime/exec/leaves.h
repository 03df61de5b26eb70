// Leaves: the Merkle leaves of an artifact, hashed against what its hashes section says.
#ifndef ADALLM_EXEC_LEAVES_H
#define ADALLM_EXEC_LEAVES_H
#include "runtime/exec/artifact.h"

// Of an artifact whose structure was checked. pool NULL: on this thread. E_ARTIFACT_HASH names the first leaf
// that does not match.
bool leaves_check(const Artifact *a, Pool *pool, Err *e);

// The same beside whatever else the caller does, such as bringing the weights to a device. Until leaves_end
// the pool is theirs.
typedef struct Leaves Leaves;
Leaves *leaves_begin(const Artifact *a, Pool *pool);
// Waits and frees. *seconds: what hashing took. give_up: stops early; the answer means nothing.
bool leaves_end(Leaves *l, bool give_up, double *seconds, Err *e);
#endif
