// adallm-rt: the runtime. One verb, one file in verbs/.
#include <signal.h>
#include <string.h>

#include "runtime/base/num.h"
#include "runtime/base/verbs.h"
#include "runtime/verbs/verbs.h"

static const Verb verbs[] = {
#define VERB(name, function, about) {name, function, about},
#include "runtime/verbs/verbs.def"
#undef VERB
};

// `adallm-rt X.ada ...` serves: the name of a file stands where a verb would.
static bool names_artifact(const char *word) {
    size_t n = strlen(word);
    return strchr(word, '/') || (n > 4 && !strcmp(word + n - 4, ".ada"));
}

static int serve_file(int argc, char **argv) {
    enum { WORDS_MAX = 1024 };
    char *words[WORDS_MAX] = {argv[0], (char[]){"serve"}};
    for (int i = 1; i < argc && i + 2 < WORDS_MAX; i++) words[i + 1] = argv[i];
    return verbs_main("adallm-rt", "", verbs, COUNT_OF(verbs), MIN(argc + 1, WORDS_MAX - 1), words);
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); // a file over its size limit is a failed write, as on a full disk
    if (argc > 1 && names_artifact(argv[1])) return serve_file(argc, argv);
    return verbs_main("adallm-rt", "adallm-rt runs a language model that adallmc compiled.", verbs,
                      COUNT_OF(verbs), argc, argv);
}
