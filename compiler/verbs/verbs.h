// The verbs of adallmc. Each takes argv from its own name on and returns the exit code (0, 1 bad input, 2
// usage).
#ifndef ADALLM_COMPILER_VERBS_H
#define ADALLM_COMPILER_VERBS_H
#define VERB(name, function, about) int function(int argc, char **argv);
#include "compiler/verbs/verbs.def"
#undef VERB
#endif
