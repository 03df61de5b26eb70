// The verbs of adallm-rt. Each takes argv from its own name on and returns the exit code (0, 1 bad input, 2
// usage).
#ifndef ADALLM_RUNTIME_VERBS_H
#define ADALLM_RUNTIME_VERBS_H
#define VERB(name, function, about) int function(int argc, char **argv);
#include "runtime/verbs/verbs.def"
#undef VERB
#endif
