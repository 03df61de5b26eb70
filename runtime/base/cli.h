// Command lines from tables: parsing, `--help`, "did you mean" and completion come from the same rows.
#ifndef ADALLM_BASE_CLI_H
#define ADALLM_BASE_CLI_H
#include "runtime/base/diag.h"

typedef enum { OPT_FLAG, OPT_STRING, OPT_UINT, OPT_INT, OPT_REAL, OPT_LIST } OptKind;

typedef struct {
    const char *name; // "--max-tokens" or "-o"
    OptKind kind;
    const char *metavar; // "N"; NULL for flags
    double min, max;     // for numbers; inclusive; both 0: unlimited
    void *dst;           // bool*, const char**, uint64_t*, int64_t*, double*, OptList*
    bool *given;         // set when the option appears; may be NULL
    const char *help;
} Option;

typedef struct {
    const char **items;
    size_t n;
} OptList; // repeated option, in order; arena-owned

typedef struct {
    const char *usage; // "adallmc compile MODEL -o OUT.ada [options]"
    const char *about; // a paragraph that teaches, shown by --help
    const Option *options;
    size_t n_options;
    size_t min_args, max_args; // positional arguments
} Command;

typedef struct {
    const char **args; // positional
    size_t n_args;
    bool help; // --help or -h was given: it has been printed to stdout, the caller returns 0
} CliResult;

// argv[0] is the verb (skipped). Reports every mistake it finds as E_USAGE / E_OPTION_VALUE. `--` ends
// options.
bool cli_parse(const Command *cmd, int argc, char **argv, Arena *a, CliResult *out, Diags *d);
void cli_help(const Command *cmd, FILE *out);

// The options' twins in the environment: with the prefix "ADALLM_", ADALLM_MAX_MODEL_LEN is --max-model-len.
// Called before cli_parse, whose command line then wins. Flags are 1 or 0; lists have commas.
bool cli_environment(const Command *cmd, const char *prefix, Arena *a, Diags *d);
void cli_environment_help(const Command *cmd, const char *prefix, FILE *out);
#endif
