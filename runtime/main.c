// adallm-rt: the runtime. One verb, one file in verbs/.
#include <signal.h>

#include "runtime/base/num.h"
#include "runtime/base/verbs.h"
#include "runtime/verbs/verbs.h"

static const Verb verbs[] = {
#define VERB(name, function, about) {name, function, about},
#include "runtime/verbs/verbs.def"
#undef VERB
};

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); // a file over its size limit is a failed write, as on a full disk
    return verbs_main("adallm-rt", "adallm-rt runs a language model that adallmc compiled.", verbs,
                      COUNT_OF(verbs), argc, argv);
}
