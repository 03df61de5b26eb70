// The table of verbs that each program is: `program VERB arguments`.
#ifndef ADALLM_BASE_VERBS_H
#define ADALLM_BASE_VERBS_H
#include <stddef.h>

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv); // argv from the verb's own name on; returns the exit code
    const char *about;
} Verb;

// Runs the verb that argv[1] names, or shows help. 1: stdout did not take what was printed; 2: there is none
// of that name.
int verbs_main(const char *program, const char *about, const Verb *verbs, size_t n_verbs, int argc,
               char **argv);
#endif
