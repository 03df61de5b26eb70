// adallmc: the ahead-of-time compiler. One verb, one file in verbs/.
#include <signal.h>

#include "compiler/verbs/verbs.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/num.h"
#include "runtime/base/verbs.h"

static const Verb verbs[] = {
#define VERB(name, function, about) {name, function, about},
#include "compiler/verbs/verbs.def"
#undef VERB
};

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); // a file over its size limit is a failed write, as on a full disk
    cleanup_on_signals();
    return verbs_main("adallmc",
                      "adallmc compiles a language model ahead of time into one file that adallm-rt runs.",
                      verbs, COUNT_OF(verbs), argc, argv);
}
