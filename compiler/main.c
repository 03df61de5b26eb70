// adallmc: the ahead-of-time compiler. One verb, one file in verbs/.
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "compiler/verbs/verbs.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/diag.h"
#include "runtime/base/num.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} verbs[] = {
#define VERB(name, function, about) {name, function, about},
#include "compiler/verbs/verbs.def"
#undef VERB
};

static void help(FILE *out) {
    fputs("adallmc compiles a language model ahead of time into one file that adallm-rt runs.\n\n"
          "usage: adallmc VERB [arguments]     (adallmc VERB --help says more)\n\n",
          out);
    for (size_t i = 0; i < COUNT_OF(verbs); i++) fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].about);
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); // a file over its size limit is a failed write, as on a full disk
    cleanup_on_signals();
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help(stdout);
        return 0;
    }
    const char *names[COUNT_OF(verbs)];
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        names[i] = verbs[i].name;
        if (!strcmp(argv[1], verbs[i].name)) return verbs[i].run(argc - 1, argv + 1);
    }
    const char *near = nearest_name(str_of(argv[1]), names, COUNT_OF(verbs));
    fprintf(stderr, "adallmc: error E%04d: unknown verb `%s`\n", E_USAGE, argv[1]);
    if (near) fprintf(stderr, "hint: did you mean `%s`?\n", near);
    return 2;
}
